"""How late the event loop is: the one number that says whether something blocks it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

SAMPLE_SECONDS = 0.1


async def watch_lag(lagged: Callable[[float], None], every: float = SAMPLE_SECONDS) -> None:
    """Reports, until cancelled, by how many seconds each wake-up came too late."""
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + every
        await asyncio.sleep(every)
        lagged(max(0.0, loop.time() - due))
