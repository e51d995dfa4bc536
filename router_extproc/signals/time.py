"""What time it is where it matters."""

from __future__ import annotations

from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from router_extproc.config.clock import Timezone, Window
from router_extproc.domain import SignalValue
from router_extproc.signals.base import Heads, SignalInputs


class TimeParams(BaseModel):
    """The windows and where their clock hangs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: Timezone = Field("UTC", description="IANA name such as Europe/Paris.")
    windows: dict[str, Window] = Field(
        min_length=1, max_length=64, description="Windows by name; the label is the first that it is now."
    )
    otherwise: str = Field("none", description="The label outside of all windows.")


class TimeSignal:
    """Which of the named windows of the week it is now, by the wall clock of a timezone (daylight saving included)."""

    Params = TimeParams
    classifier = None

    def __init__(self, params: TimeParams, heads: Heads) -> None:
        self._zone = ZoneInfo(params.timezone)
        self._otherwise = SignalValue(params.otherwise)
        self._windows = [(SignalValue(name), window) for name, window in params.windows.items()]
        self.labels = tuple(dict.fromkeys((*params.windows, params.otherwise)))

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The window's name."""
        local = inputs.now.astimezone(self._zone)
        return next((value for value, window in self._windows if window.holds(local)), self._otherwise)
