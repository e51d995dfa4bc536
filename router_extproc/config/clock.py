"""Windows of the week on a wall clock: for `time` signals and for schedules."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from router_extproc.patterns import CLOCK_TIME

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(f"unknown timezone `{name}`: use an IANA name such as Europe/Paris or UTC") from None
    return name


Timezone = Annotated[str, AfterValidator(_timezone)]
ClockTime = Annotated[str, Field(pattern=CLOCK_TIME)]


class Window(BaseModel):
    """A time of day on some days of the week. It may reach over midnight: then `days` are those on which it begins."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    days: list[Day] = Field(list(DAYS), min_length=1, description="mon, tue, wed, thu, fri, sat, sun.")
    start: ClockTime = Field("00:00", alias="from", description="First minute, HH:MM on the wall clock.")
    end: ClockTime = Field("24:00", alias="to", description="First minute after it, HH:MM.")

    def holds(self, local: datetime) -> bool:
        """Whether it is this window at the local time `local`, by the wall clock: an hour that comes twice counts
        twice, one that is left out never."""
        minute = local.hour * 60 + local.minute
        today, yesterday = DAYS[local.weekday()], DAYS[(local - timedelta(days=1)).weekday()]
        start, end = _minutes(self.start), _minutes(self.end)
        if start < end:
            return today in self.days and start <= minute < end
        # Over midnight: this evening's part, or what is left of the one that began yesterday.
        return (today in self.days and minute >= start) or (yesterday in self.days and minute < end)


def _minutes(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 60 + int(minutes)
