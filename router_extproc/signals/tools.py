"""Whether the client offers tools."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import SignalValue
from router_extproc.signals.base import FALSE, TRUE, TRUTH, Heads, SignalInputs


class ToolsParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ToolsSignal:
    """Whether the client offers tools (functions) to call: `true` or `false`."""

    Params = ToolsParams
    classifier = None
    labels = TRUTH

    def __init__(self, params: ToolsParams, heads: Heads) -> None:
        pass

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The truth."""
        return TRUE if inputs.request.has_tools else FALSE
