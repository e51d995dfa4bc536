"""Answers for windows that were read lately, so that what is known is not computed again. Used on the event loop."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from router_extproc.inference.base import Classified, Prompt


class WindowMemory:
    """The answers for the `size` windows last used, by model version, text and context. `size` 0 remembers nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[tuple[str, str, str], Classified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def recall(self, version: str, window: Prompt) -> Classified | None:
        """What the model of this version said of the window; None when that is not known (any more)."""
        key = (version, window.text, window.context)
        found = self._answers.get(key)
        if found is not None:
            self._answers.move_to_end(key)
        return found

    def keep(self, window: Prompt, answer: Classified) -> None:
        """Remembers an answer; the one not used for longest makes room. Its times are dropped: it will cost nothing."""
        key = (answer.version, window.text, window.context)
        self._answers[key] = replace(answer, queue_ms=0.0, run_ms=0.0, batch_size=0)
        self._answers.move_to_end(key)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)
