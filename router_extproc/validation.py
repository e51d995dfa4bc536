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

M = TypeVar("M", bound=BaseModel)
Path = tuple[str | int, ...]


def validate(model: type[M], data: Any, at: Path = ()) -> M:
    """Builds `model` from parsed YAML. Raises ConfigMistakes with every mistake; `at` is where `data` stands."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ConfigMistakes([_mistake(model, detail, at) for detail in error.errors()]) from None


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ ", did you mean `x`?" where one of the `known` names is close, else the known names when they are few."""
    names = sorted(set(known))
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f", did you mean `{close[0]}`?"
    if 0 < len(names) <= 20:
        return f" (known: {', '.join(names)})"
    return ""


def shown(value: Any, limit: int = 60) -> str:
    """A value as it can stand in a message: short, on one line."""
    text = str(value).replace("\n", " ")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _mistake(model: type[BaseModel], detail: ErrorDetails, at: Path) -> Mistake:
    where = detail["loc"]
    if where and where[-1] == "[key]":
        where = where[:-1]
    return Mistake(at + where, _words(model, detail))


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
        return f"`{shown(value)}` is not allowed here: it must match {context['pattern']}"
    if kind == "value_error":
        return str(context["error"])
    if kind in ("model_type", "dict_type"):
        return f"expected a mapping (`key: value`), got {_kind(value)}"
    if kind == "too_short":
        return "must not be empty"
    if kind == "list_type":
        return f"expected a list, got {_kind(value)}"
    if isinstance(value, str | int | float | bool) or value is None:
        shown_value = "nothing" if value is None else f"`{shown(value)}`"
        return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {shown_value}"
    return detail["msg"][0].lower() + detail["msg"][1:]


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
