"""Clients that keep asking while something happens, and remember every answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import httpx

from tests.e2e.stack import wait_until


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer. `status` is 0 when there was none; then `error` says why."""

    status: int
    route: str | None = None
    model: str | None = None
    error: str = ""


@dataclass
class Load:
    """What the clients got so far."""

    answers: list[Answered] = field(default_factory=list)

    @property
    def failed(self) -> list[Answered]:
        """Everything that was not a 200."""
        return [answer for answer in self.answers if answer.status != 200]

    def wait(self, condition: Callable[[Answered], bool], count: int, what: str) -> None:
        """Until `count` answers that come from now on fulfil the condition."""
        start = len(self.answers)
        wait_until(lambda: sum(map(condition, self.answers[start:])) >= count, what)


@contextmanager
def load(url: str, prompt: str, clients: int = 4, padding: int = 0) -> Iterator[Load]:
    """`clients` clients ask for `auto`, each at most 50 times a second, with `padding` bytes beside the prompt."""
    found, stop = Load(), threading.Event()

    def ask() -> None:
        messages = [{"role": "user", "content": prompt}]
        document = {"model": "auto", "metadata": {"x": "y" * padding}, "messages": messages}
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                try:
                    answer = client.post(f"{url}/v1/chat/completions", json=document)
                    headers = answer.headers
                    found.answers.append(
                        Answered(
                            answer.status_code, headers.get("x-mom-route"), headers.get("x-mom-model"), answer.text
                        )
                    )
                except httpx.HTTPError as error:
                    found.answers.append(Answered(0, error=repr(error)))
                time.sleep(0.02)

    threads = [threading.Thread(target=ask, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join(40)
