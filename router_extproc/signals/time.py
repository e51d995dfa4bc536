"""What time it is where it matters."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router_extproc.domain import SignalValue
from router_extproc.signals.base import Heads, SignalInputs

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MIDNIGHT = 24 * 60


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"unknown timezone `{name}`: use an IANA name such as Europe/Paris or UTC") from None
    return name


ClockTime = Annotated[str, Field(pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^24:00$")]


class Window(BaseModel):
    """A time of day on some days of the week. It may reach over midnight: then `days` are those on which it begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: list[Day] = Field(list(DAYS), min_length=1, description="mon, tue, wed, thu, fri, sat, sun.")
    start: ClockTime = Field("00:00", alias="from", description="First minute, HH:MM on the wall clock.")
    end: ClockTime = Field("24:00", alias="to", description="First minute after it, HH:MM.")


class TimeParams(BaseModel):
    """The windows and where their clock hangs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timezone: Annotated[str, AfterValidator(_timezone)] = Field("UTC", description="IANA name, Europe/Paris.")
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
        self._windows = [
            (SignalValue(name), {DAYS.index(day) for day in window.days}, _minutes(window.start), _minutes(window.end))
            for name, window in params.windows.items()
        ]
        self.labels = tuple(dict.fromkeys((*params.windows, params.otherwise)))

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The window's name."""
        now = inputs.now.astimezone(self._zone)
        minute = now.hour * 60 + now.minute
        today = now.weekday()
        yesterday = (now - timedelta(days=1)).weekday()
        for value, days, start, end in self._windows:
            if start < end:
                inside = today in days and start <= minute < end
            else:  # over midnight: this evening's part, or what is left of the one that began yesterday
                inside = (today in days and minute >= start) or (yesterday in days and minute < end)
            if inside:
                return value
        return self._otherwise


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return min(int(hours) * 60 + int(minutes), MIDNIGHT)
