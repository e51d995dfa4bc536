"""Checks a piece of router.yaml against its pydantic model and says in plain words what is wrong with it."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.patterns import ENVIRONMENT_VARIABLE, IN_WORDS

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]


def validate(model: type[M], data: Any, at: Path = ()) -> M:
    """Builds `model` from parsed YAML. Raises ConfigMistakes with every mistake; `at` is where `data` stands."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigMistakes([_mistake(model, detail, at) for detail in error.errors()]) from None


_EMPTY = '""'
_FEWEST_LETTERS = 3
_MOST_OFFERED = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean `x`?" where some of the `known` names are close, begin with the word or hold it, else the known
    names when they are few."""
    names = sorted(set(known))
    offered = [f"`{name}`" for name in _close(word, names)]
    if offered:
        return f", did you mean {' or '.join(offered)}?"
    if 0 < len(names) <= 20:
        return f" (known: {', '.join(name or _EMPTY for name in names)})"
    return ""


def _close(word: str, names: list[str]) -> list[str]:
    folded: dict[str, str] = {}
    for name in names:
        folded.setdefault(name.lower(), name)
    for wanted, among in ((word, {name: name for name in names}), (word.lower(), folded)):
        close = get_close_matches(wanted, among, n=1, cutoff=0.6)
        if close:
            return [among[close[0]]]
    if len(word) < _FEWEST_LETTERS:
        return []
    for holds in (str.startswith, str.__contains__):
        found = [name for name in names if holds(name.lower(), word.lower())]
        if found:
            return found if len(found) <= _MOST_OFFERED else []
    return []


def shown(value: Any, limit: int = 60) -> str:
    """A value as it can stand in a message: short, on one line."""
    text = str(value).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def holds_keys(path: Path) -> bool:
    """Whether somebody may have typed a provider's key at `path` of router.yaml: what stands there is never shown."""
    return path[:1] == ("models",) and path[2:3] == ("auth",)


_NO_PASSWORD = f"{IN_WORDS[ENVIRONMENT_VARIABLE]}; no password stands in this file"
_NO_KEY = "write `auth: {env: NAME}`, the name of an environment variable of Envoy; no key stands in this file"


def _mistake(model: type[BaseModel], detail: ErrorDetails, at: Path) -> Mistake:
    where = at + detail["loc"]
    if where[-1:] == ("[key]",):
        where = where[:-1]
    if holds_keys(where):
        return _about_keys(model, detail, where)
    if where[-1:] == ("password_env",):
        return Mistake(where, _NO_PASSWORD)
    return Mistake(where, _words(model, detail))


def _about_keys(model: type[BaseModel], detail: ErrorDetails, where: Path) -> Mistake:
    if detail["type"] == "value_error":
        return Mistake(where, str(detail["ctx"]["error"]))
    if detail["type"] == "extra_forbidden":
        meant = did_you_mean(str(where[-1]), _fields_at(model, detail["loc"][:-1]))
        return Mistake(where[:-1], f"unknown field{meant}" + ("" if meant.endswith("?") else f"; {_NO_KEY}"))
    if where[-1] in ("auth", "env"):
        return Mistake(where, _NO_KEY)
    if detail["type"] == "string_pattern_mismatch":
        return Mistake(where, _pattern_words(detail))
    return Mistake(where, _plain(detail))


def _words(model: type[BaseModel], detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    last = detail["loc"][-1] if detail["loc"] else ""
    if kind == "extra_forbidden":
        return f"unknown field `{last}`" + did_you_mean(str(last), _fields_at(model, detail["loc"][:-1]))
    if kind == "missing":
        return f"`{last}` is missing"
    if kind in ("enum", "literal_error"):
        return f"`{shown(value)}` is not one of {context['expected'].replace(' or ', ', ')}"
    if kind == "string_type" and isinstance(value, bool):
        return f"expected text, but YAML reads this bare word as {str(value).lower()}: put it in quotes"
    if kind == "string_type" and isinstance(value, int | float):
        return f"expected text, but YAML reads `{value}` as a number: put it in quotes"
    if kind == "string_pattern_mismatch":
        return f"`{shown(value)}` is not allowed here: {_pattern_words(detail)}"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("model_type", "dict_type"):
        return f"expected a mapping (`key: value`), got {_kind(value)}"
    if kind == "too_short":
        least = context["min_length"]
        return "must not be empty" if least == 1 else f"needs at least {least}, has {context['actual_length']}"
    if kind in ("list_type", "frozen_set_type"):
        return f"expected a list, got {_kind(value)}"
    if kind in ("int_parsing", "float_parsing", "decimal_parsing"):
        return f"expected a plain number, without a unit, got `{shown(value)}`"
    if isinstance(value, str | int | float | bool) or value is None:
        return f"{_plain(detail)}, got {'nothing' if value is None else f'`{shown(value)}`'}"
    return _plain(detail)


def _plain(detail: ErrorDetails) -> str:
    return detail["msg"][0].lower() + detail["msg"][1:]


def _pattern_words(detail: ErrorDetails) -> str:
    pattern = detail["ctx"]["pattern"]
    return IN_WORDS.get(pattern, f"it must match {pattern}")


def _kind(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else f"`{shown(value)}`"


def _fields_at(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """The field names of the model that validates what stands at `path` below `model`."""
    current: Any = model
    for part in path:
        inner = _model_in(current)
        if inner is None:
            return []
        field = inner.model_fields.get(str(part)) if current is inner else None
        current = field.annotation if field is not None else inner
    inner = _model_in(current)
    return list(inner.model_fields) if inner is not None else []


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The pydantic model inside an annotation such as `dict[str, Model] | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and not issubclass(annotation, Enum):
        return annotation
    for argument in typing.get_args(annotation):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
