"""Comparisons that cannot be meant as written: CEL says that text and a number are unequal, and nothing more."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cel

from router_extproc.config.model import Api, Modality
from router_extproc.rule_tokens import Comparison, comparisons, is_text, items, text_of
from router_extproc.validation import did_you_mean, shown

MAX_TOKENS = 100
"""Of one side of a comparison. Longer ones go unchecked: each side is compiled by itself."""

_UNKNOWN = object()
_KINDS = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}


@dataclass(frozen=True, slots=True)
class _Side:
    """One side of a comparison, and its value on a made-up request: `_UNKNOWN` where it has none.

    Where it is nothing but a field, `name` says of what (a signal, or `request`), `field` which.
    """

    tokens: tuple[str, ...]
    value: Any
    name: str = ""
    field: str = ""

    @property
    def known(self) -> bool:
        return self.value is not _UNKNOWN

    @property
    def kind(self) -> str:
        return _KINDS.get(type(self.value), f"`{type(self.value).__name__}`") if self.value is not None else "`null`"

    @property
    def literal(self) -> bool:
        *sign, last = self.tokens
        return sign in ([], ["-"]) and (is_text(last) or last[0] in ".0123456789" or last in ("true", "false", "null"))

    @property
    def text(self) -> str:
        joined = re.sub(r" ?([.()\[\]]) ?", r"\1", " ".join(self.tokens))
        return shown(joined.replace(" ,", ","))


def mismatches(
    tokens: Sequence[str], labels: Mapping[str, tuple[str, ...] | None], example: Mapping[str, Any]
) -> Iterator[str]:
    """What is wrong with the comparisons of a condition: types that differ, labels and values that never come.

    `example` has a made-up value for `request` and for each signal; `labels` are those that a signal can have, None
    when open-ended.
    """
    checks = _Checks(labels, example)
    for comparison in comparisons(tokens):
        yield from checks.of(comparison)


def unknown_label(name: str, known: Collection[str] | None, label: str) -> Iterator[str]:
    """A label that the signal `name`, which has the `known` ones, never has."""
    if known is not None and label not in known:
        yield f"`{name}` never has the label `{shown(label)}`{did_you_mean(label, known)}"


class _Checks:
    def __init__(self, labels: Mapping[str, tuple[str, ...] | None], example: Mapping[str, Any]) -> None:
        self._labels = labels
        self._names = frozenset(example)
        self._context = cel.Context()
        for name, value in example.items():
            self._context.add_variable(name, value)
        self._sides: dict[tuple[str, ...], _Side] = {}

    def of(self, comparison: Comparison) -> Iterator[str]:
        left = self._side(comparison.left)
        listed = items(comparison.right) if comparison.operator == "in" else None
        if listed is not None:
            for item in listed:
                yield from self._pair(left, "==", self._side(item))
        elif comparison.operator == "in":
            yield from self._within(left, self._side(comparison.right))
        else:
            yield from self._pair(left, comparison.operator, self._side(comparison.right))

    def _side(self, tokens: tuple[str, ...]) -> _Side:
        found = self._sides.get(tokens)
        if found is None:
            found = self._sides[tokens] = self._read(tokens, self._value(tokens))
        return found

    def _value(self, tokens: tuple[str, ...]) -> Any:
        if not 0 < len(tokens) <= MAX_TOKENS:
            return _UNKNOWN
        try:
            return cel.compile(" ".join(tokens)).execute(self._context)
        except Exception:  # noqa: BLE001  # a variable of a macro, a missing score: nothing is known then
            return _UNKNOWN

    def _read(self, tokens: tuple[str, ...], value: Any) -> _Side:
        match tokens:
            case [name, ".", field] | [name, ".", "scores" as field, "[", _, "]"] if name in self._names:
                return _Side(tokens, value, name, field)
            case [name, "[", text, "]"] if name in self._names and is_text(text):
                return _Side(tokens, value, name, text_of(text))
        return _Side(tokens, value)

    def _pair(self, left: _Side, operator: str, right: _Side) -> Iterator[str]:
        """Two sides that can only be compared when they are of one type."""
        if not left.known or not right.known or self._is_signal(left) or self._is_signal(right):
            return
        if left.kind == right.kind:
            for side, other in ((left, right), (right, left)):
                if other.literal:
                    yield from self._never(side, operator, other)
        elif right.literal:
            yield f"`{left.text}` is {left.kind}{self._instead(left, right)}"
        elif left.literal:
            yield f"`{right.text}` is {right.kind}{self._instead(right, left)}"
        else:
            yield f"`{left.text}` is {left.kind}, `{right.text}` is {right.kind}: they do not compare"

    def _within(self, item: _Side, whole: _Side) -> Iterator[str]:
        """`item in whole`, where `whole` is no list that is written out."""
        if not item.known or not whole.known or self._is_signal(whole):
            return
        if isinstance(whole.value, str):
            yield f"`{whole.text}` is text: write `{whole.text}.contains({item.text})`"
        elif not isinstance(whole.value, list | dict):
            yield f"`{whole.text}` is {whole.kind}: `in` needs a list"
        elif whole.value and item.kind not in (held := {_Side((), value).kind for value in whole.value}):
            yield f"`{whole.text}` has {' and '.join(sorted(held))} in it, `{item.text}` is {item.kind}"
        elif item.literal and (whole.name, whole.field) == ("request", "modalities"):
            yield from _unless_one_of(whole.text, item.value, list(Modality))
        elif item.literal and whole.field == "scores":
            yield from unknown_label(whole.name, self._labels.get(whole.name), item.value)

    def _never(self, side: _Side, operator: str, literal: _Side) -> Iterator[str]:
        """Values of the right type that the field never has."""
        equal = operator in ("==", "!=")
        if side.field == "label" and equal:
            yield from unknown_label(side.name, self._labels.get(side.name), literal.value)
        elif side.field in ("confidence", "scores") and side.kind == "a number" and not 0 <= literal.value <= 1:
            percent = f": write `{literal.value / 100:g}`" if 2 <= literal.value <= 100 else ""
            yield f"`{side.text}` is from 0 to 1{percent}"
        elif (side.name, side.field) == ("request", "api") and equal:
            yield from _unless_one_of(side.text, literal.value, list(Api))

    def _instead(self, side: _Side, literal: _Side) -> str:
        """What to write in the place of a literal of another type."""
        bare = str(literal.value).lower() if isinstance(literal.value, bool | str) else literal.text
        match side.kind:
            case "text" if literal.value is not None:
                known = self._labels.get(side.name) if side.field == "label" else None
                return f": write `{json.dumps(bare)}`" if known is None or bare in known else did_you_mean(bare, known)
            case "true or false":
                return f": write `{bare}`" if bare in ("true", "false") else ": write `true` or `false`"
            case "a number" if isinstance(literal.value, str) and re.fullmatch(r"-?\d+(\.\d+)?", bare):
                return f": write `{bare}`"
            case "a list":
                return f": write `{literal.text} in {side.text}`"
            case "a mapping" if side.field == "scores":
                return f': write `{side.text}["{next(iter(self._labels.get(side.name) or ()), "label")}"]`'
        return ""

    def _is_signal(self, side: _Side) -> bool:
        return len(side.tokens) == 1 and side.tokens[0] in self._labels


def _unless_one_of(text: str, value: str, known: Sequence[str]) -> Iterator[str]:
    if value not in known:
        yield f"`{text}` is never `{shown(value)}`{did_you_mean(value, known)}"
