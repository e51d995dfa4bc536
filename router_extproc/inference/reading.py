"""One text on its way through the engine: its windows, what has come back of them, and who waits for it."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from router_extproc.inference.base import Classified, Prompt
from router_extproc.inference.queue import Job
from router_extproc.inference.windows import Window, estimate_tokens

CONTEXT_TOKENS = 96
"""Upper bound of the tokens that a prompt's context adds to each of its windows."""


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What a job carries: a window of a reading, the version that served when it was queued, when that was
    (`time.monotonic()`), and the `keys` under which what that version says of it may be remembered.

    `followers` are readings that need the same window and came while it was being read. Changed on the event loop.
    """

    reading: Reading
    window: Window
    prompt: Prompt
    version: str
    queued_at: float
    keys: tuple[bytes, ...]
    followers: list[tuple[Reading, Window]] = field(default_factory=list)

    def waiting(self) -> list[tuple[Reading, Window]]:
        """Who gets the answer, and for which of their windows."""
        return [(self.reading, self.window), *self.followers]


@dataclass(slots=True, eq=False)
class Reading:
    """A text of `length` characters of which `windows` are to be read. Changed on the event loop only."""

    future: asyncio.Future[Classified]
    length: int
    windows: int
    jobs: list[Job[Part]] = field(default_factory=list)
    done: list[tuple[Window, Classified]] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    """Where the windows that are done begin."""

    def job(
        self, window: Window, prompt: Prompt, keys: tuple[bytes, ...], version: str, deadline: float, now: float
    ) -> Job[Part]:
        """The job that reads one of its windows: `prompt` is the window with its context. `keys`: under which the
        answer of that `version` may be remembered."""
        tokens = estimate_tokens(window.text)
        if prompt.context:
            tokens += min(CONTEXT_TOKENS, estimate_tokens(prompt.context))
        size = len(prompt.text) + len(prompt.context)
        return Job(Part(self, window, prompt, version, now, keys), tokens, size, deadline)

    def add(self, window: Window, result: Classified) -> None:
        """One of its windows has been read."""
        self.done.append((window, result))
        self.read.add(window.start)

    def of_one_version(self) -> None:
        """Forgets windows that another model read than most: it took over in between, and may have other labels."""
        counts = Counter(result.version for _, result in self.done)
        if len(counts) > 1:
            ((version, _),) = counts.most_common(1)
            self.done = [(window, result) for window, result in self.done if result.version == version]

    def in_order(self) -> list[tuple[int, Classified]]:
        """What has come back, by the windows' offsets in the text."""
        return sorted(((window.start, result) for window, result in self.done), key=lambda part: part[0])

    def coverage(self) -> float:
        """Part of the text that has been read, in [0, 1]; what windows share counts once."""
        read = reached = 0
        for start, end in sorted((window.start, window.start + len(window.text)) for window, _ in self.done):
            read += max(0, end - max(start, reached))
            reached = max(reached, end)
        return read / self.length if self.length else 1.0
