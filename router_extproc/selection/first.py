"""The order of the file."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import Considered, LlmRequest, SignalSet
from router_extproc.selection.base import SelectionInputs


class FirstParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class First:
    """The candidates as the route lists them: the first that can take the request."""

    Params = FirstParams

    def __init__(self, params: FirstParams, inputs: SelectionInputs) -> None:
        pass

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """The candidates as they are."""
        return [Considered(name) for name in candidates]
