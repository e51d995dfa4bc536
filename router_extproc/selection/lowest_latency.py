"""The model that answered fastest lately."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import BaseModel, ConfigDict

from router_extproc.domain import Considered, LlmRequest, SignalSet
from router_extproc.selection.base import SelectionInputs

TRIALS = 3.0
"""Recent picks after which a model that has not answered yet is no longer tried first."""


class LowestLatencyParams(BaseModel):
    """Takes no parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class LowestLatency:
    """The candidate with the lowest recent time to the first byte, failures counting as slowness. One that has not
    answered in the last minutes gets a few requests first, to find out."""

    Params = LowestLatencyParams

    def __init__(self, params: LowestLatencyParams, inputs: SelectionInputs) -> None:
        self._observed = inputs.observed

    def rank(
        self, candidates: Sequence[str], request: LlmRequest, signals: SignalSet, now: datetime
    ) -> list[Considered]:
        """Those on trial, then fastest first, then those that do not answer."""
        trials: list[Considered] = []
        known: list[Considered] = []
        silent: list[Considered] = []
        for name in candidates:
            seconds = self._observed.latency(name)
            if seconds is not None:
                known.append(Considered(name, "latency", seconds, latency=seconds))
                continue
            load = self._observed.load(name)
            (trials if load < TRIALS else silent).append(Considered(name, "trial", load, load=load))
        known.sort(key=_seconds)
        return trials + known + silent


def _seconds(row: Considered) -> float:
    return row.latency or 0.0
