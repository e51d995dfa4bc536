"""What the sections of router.yaml are made of: their base, names, and models by name or by label."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

from router_extproc.patterns import CEL_NAME, NAME

Name = Annotated[str, Field(pattern=NAME)]
SignalName = Annotated[str, Field(pattern=CEL_NAME)]


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def one_or_many(value: Any) -> Any:
    """`models: small` is short for `models: [small]`."""
    return [value] if isinstance(value, str) else value


Names = Annotated[
    list[str],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        mode="validation",
    ),
]


def _candidate(value: Any) -> Any:
    labelled = isinstance(value, dict) and value and all(isinstance(label, str) for label in value.values())
    if isinstance(value, str) or labelled:
        return value
    raise ValueError("expected a model's name, or labels such as `{tier: light}`")


def _some_candidates(value: Any) -> Any:
    """`models: {tier: light}` is short for a list of one."""
    return [value] if isinstance(value, str | dict) else value


_LABELLED: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
_CANDIDATE: dict[str, Any] = {"anyOf": [{"type": "string"}, _LABELLED]}

Candidates = Annotated[
    list[Annotated[Any, BeforeValidator(_candidate)]],
    BeforeValidator(_some_candidates),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [*_CANDIDATE["anyOf"], {"type": "array", "items": _CANDIDATE, "minItems": 1}]}),
]
"""Models by name (str) or by labels (dict): `{tier: light}` stands for all models with that label, as catalogued."""


def without_user(instead: str) -> BeforeValidator:
    """Refuses a url with a user or password in it."""

    def checked(value: Any) -> Any:
        if isinstance(value, str) and "@" in value:
            # The value itself must not reach a message.
            raise ValueError(f"holds no user or password here: {instead}")
        return value

    return BeforeValidator(checked)
