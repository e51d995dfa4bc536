"""A condition's text as tokens: what it reads, one value at a time, what it compares, and which labels it asks for in
any case."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import cel

_RAW = r"""[bB]?[rR][bB]?(?:\"{3}.*?\"{3}|'{3}.*?'{3}|"[^"\n]*"|'[^'\n]*')"""
_TEXT = r"""[bB]?(?:\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')"""
_TOKEN = re.compile(
    rf"""{_RAW}|{_TEXT}|//[^\n]*|[A-Za-z_]\w*"""
    r"""|0[xX][0-9a-fA-F]+[uU]?|(?:\d+(?:\.\d+)?|\.\d+)(?:[eE][+-]?\d+)?[uU]?|==|!=|<=|>=|&&|\|\||\S""",
    re.S,
)
_DEPTH = {"(": 1, "[": 1, "{": 1, ")": -1, "]": -1, "}": -1}

_RELATIONS = frozenset({"==", "!=", "<", "<=", ">", ">=", "in"})
_LOOSER = frozenset({"&&", "||", "?", ":", ","})
"""What binds less than a relation, and so ends its sides."""

_MACROS = ("all", "exists", "exists_one", "map", "filter")

Required = dict[str, frozenset[str]]
"""Signal name -> the labels of which it must have one for the condition to hold."""


def tokens_of(source: str) -> list[str]:
    """The tokens of a condition that the compiler has accepted, without comments."""
    return [token for token in _TOKEN.findall(source) if not token.startswith("//")]


@dataclass(frozen=True, slots=True)
class Read:
    """One value that a condition reads, and the `variable` that stands for it: a `field` of the signal (or request)
    `name`, of its scores the one of `label`, or without a `field` all there is."""

    variable: str
    name: str
    field: str = ""
    label: str = ""


def flattened(source: str, names: Collection[str]) -> tuple[str, tuple[Read, ...]]:
    """The same condition with a plain variable in the place of each field of `names`, and what these stand for.

    CEL's values are made per request: for a signal with all its fields that takes 7 us, for one number or text half a
    microsecond (measured).
    """
    found = [match for match in _TOKEN.finditer(source) if not match[0].startswith("//")]
    tokens = [match[0] for match in found]
    reads: dict[str, Read] = {}
    written: list[str] = []
    i = at = 0
    while i < len(tokens):
        read, length = _read(tokens, i, names)
        if read is not None:
            reads[read.variable] = read
            written += (source[at : found[i].start()], read.variable)
            at = found[i + length - 1].end()
        i += length
    return "".join((*written, source[at:])), tuple(reads.values())


def _read(tokens: Sequence[str], i: int, names: Collection[str]) -> tuple[Read | None, int]:
    """What the tokens from `i` on read of `names`, and how many tokens say so."""
    name = tokens[i]
    if name not in names or (i and tokens[i - 1] == ".") or tokens[i + 1 : i + 2] == ["("]:
        return None, 1
    match tokens[i + 1 : i + 6]:
        case [".", "scores", "[", text, "]"] if is_text(text):
            return _variable(name, "scores", text_of(text)), 6
        case [".", field, *_] if tokens[i + 3 : i + 4] != ["("]:
            return _variable(name, field), 3
    return _variable(name), 1


def _variable(name: str, field: str = "", label: str = "") -> Read:
    """The field comes first, which is one of a few: so no two of them come out the same."""
    return Read("_".join((field, label.encode().hex(), name)), name, field, label)


def bound(tokens: Sequence[str]) -> set[str]:
    """The names that macros (`list.exists(name, ...)`) give a meaning of their own inside them."""
    return {tokens[i + 2] for i in range(len(tokens) - 2) if tokens[i] in _MACROS and tokens[i + 1] == "("}


@dataclass(frozen=True, slots=True)
class Comparison:
    """`left operator right`, the sides as tokens without brackets around them; the operator is `in`, `==`, `<`..."""

    left: tuple[str, ...]
    operator: str
    right: tuple[str, ...]


def comparisons(tokens: Sequence[str]) -> Iterator[Comparison]:
    """Every comparison in a condition, also those inside brackets and calls."""
    for i, operator in enumerate(tokens):
        if operator in _RELATIONS:
            begin = _edge(tokens, i, -1, _LOOSER)
            # Of a chain (`a == b == c`) the left side is all that came before.
            end = _edge(tokens, i, 1, _LOOSER | _RELATIONS)
            yield Comparison(_bare(tokens[begin + 1 : i]), operator, _bare(tokens[i + 1 : end]))


def items(tokens: Sequence[str]) -> list[tuple[str, ...]] | None:
    """The items of a list written out, None when `tokens` are none."""
    if len(tokens) < 2 or tokens[0] != "[" or _closes(tokens) != len(tokens) - 1:
        return None
    return [_bare(item) for item in _split(tokens[1:-1], ",") if item]


def _edge(tokens: Sequence[str], i: int, step: int, ends: Collection[str]) -> int:
    """The first place from `i` on, in this direction, that is no longer within the same side."""
    depth = 0
    i += step
    while 0 <= i < len(tokens):
        deeper = step * _DEPTH.get(tokens[i], 0)
        if not depth and (deeper < 0 or tokens[i] in ends):
            break
        depth += deeper
        i += step
    return i


def _bare(tokens: Sequence[str]) -> tuple[str, ...]:
    while len(tokens) > 2 and tokens[0] == "(" and _closes(tokens) == len(tokens) - 1:
        tokens = tokens[1:-1]
    return tuple(tokens)


def is_text(token: str) -> bool:
    """Whether a token is a string literal."""
    return token[-1] in "\"'" and len(token) > 1


def text_of(token: str) -> str:
    """What a string literal stands for."""
    return str(cel.evaluate(token))


def required_labels(tokens: Sequence[str]) -> Required:
    """What must be so for the condition to hold: of each signal named here, one of these labels, or no label at all.

    Sound, not complete: a signal is left out where its labels do not decide alone. That `false && x` and `x && false`
    are false whatever becomes of `x`, an error included, is CEL's own rule (its language definition, "Logical
    Operators"), and `false || false` is false.
    """
    if "?" in tokens:
        return {}
    for operator, joined in (("||", _any_of), ("&&", _all_of)):
        parts = _split(tokens, operator)
        if len(parts) > 1:
            return joined([required_labels(part) for part in parts])
    if len(tokens) > 2 and tokens[0] == "(" and _closes(tokens) == len(tokens) - 1:
        return required_labels(tokens[1:-1])
    return _test(tokens)


def _all_of(parts: list[Required]) -> Required:
    found: Required = {}
    for part in parts:
        for name, labels in part.items():
            found[name] = found[name] & labels if name in found else labels
    return found


def _any_of(parts: list[Required]) -> Required:
    names = set(parts[0]).intersection(*parts)
    return {name: frozenset[str]().union(*(part[name] for part in parts)) for name in names}


def _split(tokens: Sequence[str], operator: str) -> list[Sequence[str]]:
    parts, begin, depth = [], 0, 0
    for i, token in enumerate(tokens):
        depth += _DEPTH.get(token, 0)
        if token == operator and not depth:
            parts.append(tokens[begin:i])
            begin = i + 1
    return [*parts, tokens[begin:]]


def _closes(tokens: Sequence[str]) -> int:
    """Where the bracket closes that the first token opens."""
    depth = 0
    for i, token in enumerate(tokens):
        depth += _DEPTH.get(token, 0)
        if not depth:
            return i
    return -1


def _test(tokens: Sequence[str]) -> Required:
    """`signal.label == "a"`, `"a" == signal.label` or `signal.label in ["a", "b"]`, and nothing else."""
    match tokens:
        case [name, ".", "label", "==", text] | [text, "==", name, ".", "label"] if is_text(text):
            return {name: frozenset([text_of(text)])}
        case [name, ".", "label", "in", "[", *listed, "]"] if all(map(is_text, listed[::2])):
            commas = listed[1::2]
            if listed and len(listed) % 2 and all(comma == "," for comma in commas):
                return {name: frozenset(map(text_of, listed[::2]))}
    return {}
