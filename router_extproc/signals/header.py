"""A request header: tenant, user group, client."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.domain import SignalValue
from router_extproc.patterns import ANY_HEADER
from router_extproc.signals.base import Heads, SignalInputs

MAX_CHARS = 256

Text = Annotated[str, Field(max_length=MAX_CHARS)]


class HeaderParams(BaseModel):
    """Which header, and what its values mean."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=ANY_HEADER, description="The header, in any case.")
    values: list[Text] | None = Field(
        None, min_length=1, description="Values that count; any other gives `otherwise`. Default: any value counts."
    )
    map: dict[Text, Text] | None = Field(
        None, min_length=1, description="Label per value, for instance `acme: premium`; any other gives `otherwise`."
    )
    otherwise: Text = Field("", description="The label when the header is missing or says something else.")


class HeaderSignal:
    """The value of a request header, cut to 256 characters. Clients can send what they like: let only a header that
    your gateway sets decide about rights."""

    Params = HeaderParams
    classifier = None

    def __init__(self, params: HeaderParams, heads: Heads) -> None:
        self._name = params.name.lower()
        self._otherwise = params.otherwise
        self._map: dict[str, str] | None = None
        if params.values is not None or params.map is not None:
            self._map = {value: value for value in params.values or ()} | (params.map or {})
        self.labels = None if self._map is None else tuple(dict.fromkeys((*self._map.values(), params.otherwise)))

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The header's label."""
        # Bytes that are no UTF-8 arrive as surrogates, which no rule could be evaluated on.
        sent = inputs.headers.get(self._name, "").strip()[:MAX_CHARS]
        value = sent.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
        if self._map is not None:
            return SignalValue(self._map.get(value, self._otherwise))
        return SignalValue(value or self._otherwise)
