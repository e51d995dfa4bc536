"""When the windows of budgets begin and end: hours, days and months of UTC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from router_extproc.config.accounting import BudgetWindow


def began(window: BudgetWindow, now: datetime) -> str:
    """When the window that is now began: UTC, ISO."""
    return _bounds(window, now)[0].isoformat()


def seconds_left(window: BudgetWindow, now: datetime) -> int:
    """Whole seconds until the window ends, at least one."""
    return max(1, int((_bounds(window, now)[1] - now).total_seconds()) + 1)


def _bounds(window: BudgetWindow, now: datetime) -> tuple[datetime, datetime]:
    """First moment of the window, and of the one after it. UTC."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    if window is BudgetWindow.HOUR:
        return hour, hour + timedelta(hours=1)
    day = hour.replace(hour=0)
    if window is BudgetWindow.DAY:
        return day, day + timedelta(days=1)
    month = day.replace(day=1)
    return month, (month + timedelta(days=32)).replace(day=1)
