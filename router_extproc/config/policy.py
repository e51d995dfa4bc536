"""`signals`, `routes`, `bands` and `guards` of router.yaml: the rules, and what they go by."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router_extproc.config.section import Candidates, Name, Section, SignalName


class SignalSpec(BaseModel):
    """A signal: its plugin type and that plugin's own parameters beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="Which plugin computes it.")

    @property
    def params(self) -> dict[str, Any]:
        """The plugin's parameters as written in the file."""
        return dict(self.model_extra or {})


class SelectionSpec(BaseModel):
    """How one of several candidates is chosen: the name of a selection, or `type` and its parameters beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str

    @property
    def params(self) -> dict[str, Any]:
        """The selection's parameters as written in the file."""
        return dict(self.model_extra or {})

    @property
    def key(self) -> str:
        """Says the same for the same type and parameters: `best_within(price=0.01)`."""
        inside = ", ".join(f"{name}={value}" for name, value in sorted(self.params.items()))
        return f"{self.type}({inside})" if inside else self.type


def _named_selection(value: Any) -> Any:
    """`selection: cheapest` is short for `selection: {type: cheapest}`."""
    return {"type": value} if isinstance(value, str) else value


class Bands(Section):
    """Confidence thresholds, in [0, 1]. Above `recommended`: the route's models; above `fallback`: its fallback."""

    recommended: float = Field(0.9, ge=0, le=1)
    fallback: float = Field(0.7, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fallback > self.recommended:
            raise ValueError("fallback must not be above recommended")
        return self


class Route(Section):
    """One policy rule. The first whose `when` is true wins; its confidence then picks the band."""

    name: Name
    when: str = Field(min_length=1, max_length=4096, description="CEL expression over the signals and `request`.")
    models: Candidates = Field(description="Candidates in the recommended band, best first, by name or by label.")
    fallback: Candidates | None = Field(
        None, description="Candidates in the safe-fallback band, and further fallbacks of the plan."
    )
    require: dict[str, str] = Field(
        default_factory=dict,
        description="Labels that every model of the plan must have, fallbacks and default models too.",
    )
    bands: Bands | None = Field(None, description="Thresholds of this route. Default: the file's `bands`.")
    confidence: SignalName | None = Field(
        None,
        description="The signal whose confidence picks the band. Default: the least certain of the classifier signals "
        "that `when` reads; a rule that holds without any is certain.",
    )
    second_opinion: SignalName | None = Field(
        None,
        description="A signal that is asked when the confidence is not above `bands.recommended`. If it has the same "
        "label as the deciding signal, its confidence counts where it is higher; if it is sure of another label, the "
        "route is not taken.",
    )
    selection: Annotated[SelectionSpec, BeforeValidator(_named_selection)] = Field(
        SelectionSpec(type="first"), description="How one of several candidates is chosen."
    )
    sticky: bool = Field(
        False,
        description="A conversation (`sessions`) stays on the model that it is on while that is a candidate and the "
        "band is no worse than when it came there: prompt caches stay warm. Guards, preferences and filters go first.",
    )


class GuardAction(StrEnum):
    """What a guard does when its rule holds."""

    BLOCK = "block"
    REROUTE = "reroute"
    MASK = "mask"
    TAG = "tag"


class OnError(StrEnum):
    """What a guard does when a signal that it needs is absent."""

    ALLOW = "allow"
    BLOCK = "block"


class Guard(Section):
    """A rule that stands before all routes and holds for named models too."""

    name: Name
    when: str = Field(min_length=1, max_length=4096, description="CEL expression, as in a route.")
    action: GuardAction = Field(
        description="`block`: refuse the request. `reroute`: only `models` may take it. `mask`: put asterisks over "
        "what the rule's signals point at (the `pii` head, keywords with `mark`) before the request leaves. `tag`: "
        "only say so."
    )
    on_error: OnError = Field(
        OnError.ALLOW,
        description="When a signal is absent, or could read a part of the text only and found nothing in it. "
        "`allow`: as if the rule did not hold. `block`: a `reroute` or `tag` acts, a `block` or `mask` refuses the "
        "request; a `mask` also where it may not know all that it has to cover.",
    )
    models: Candidates | None = Field(None, description="For `reroute`: the models that may take it.")
    status: Literal[400, 403] = Field(403, description="For `block`: the HTTP status.")
    message: str = Field(
        "This request is not allowed here.",
        min_length=1,
        max_length=500,
        description="For `block`: what the client reads.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.action is GuardAction.REROUTE) != (self.models is not None):
            raise ValueError("`models` belongs to the action reroute, and that needs it")
        return self
