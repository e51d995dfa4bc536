"""A lean HTTP/1.1 load generator: `python -m bench.load --url http://127.0.0.1:10000/v1/chat/completions`.

Closed loop: every connection sends its next request when the answer is complete. It runs in a process of its own, so
that its work never delays what it measures, and prints one JSON object. Requests are bounded in time each and in all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any, cast
from urllib.parse import urlsplit

import uvloop

from bench.http_answer import AnswerReader, BadAnswer, verdict
from bench.prompts import MIXED, SIZES, Template, templates

REQUEST_SECONDS = 10.0
"""A request that takes longer counts as an error, and its connection is closed."""
RECONNECT_SECONDS = 0.05


@dataclass(slots=True)
class Record:
    """What was measured: the answers that were complete between `began` and `ends`."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {size: [] for size in SIZES})
    errors: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    began: float = 0.0
    ends: float = 0.0

    def answered(self, size: str, sent: float, now: float, reader: AnswerReader) -> None:
        """An answer is complete."""
        self.answers += 1
        if not self.began <= now <= self.ends:
            return
        if reader.status != 200:
            self.errors[f"status {reader.status}"] += 1
            return
        self.seconds[size].append(now - sent)
        self.verdicts[verdict(reader)] += 1

    def failed(self, why: str, now: float) -> None:
        """A request got no answer."""
        if self.began <= now <= self.ends:
            self.errors[why] += 1

    def summary(self) -> dict[str, Any]:
        """JSON: milliseconds over all requests and per size, requests per second, errors, verdicts.

        `answers` and `cpu_seconds` (our own) are those of the warm-up too.
        """
        everything = [seconds for size in self.seconds.values() for seconds in size]
        return {
            "requests": len(everything),
            "per_second": len(everything) / (self.ends - self.began),
            "answers": self.answers,
            "cpu_seconds": time.process_time(),
            "errors": dict(self.errors),
            "verdicts": dict(self.verdicts),
            "ms": quantiles(everything),
            "sizes": {size: quantiles(seconds) for size, seconds in self.seconds.items() if seconds},
        }


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Milliseconds at p50, p90, p99 (nearest rank), the mean and the maximum; empty without values."""
    if not seconds:
        return {}
    ordered = sorted(seconds)

    def rank(share: float) -> float:
        return 1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    return {
        "p50": rank(0.5),
        "p90": rank(0.9),
        "p99": rank(0.99),
        "mean": 1000 * sum(ordered) / len(ordered),
        "max": 1000 * ordered[-1],
    }


class _Connection(asyncio.Protocol):
    """Sends, waits for the whole answer, sends again."""

    def __init__(self, record: Record, next_request: Callable[[], tuple[str, bytes]], closed: asyncio.Event) -> None:
        self._record = record
        self._next = next_request
        self._closed = closed
        self._transport: asyncio.Transport | None = None
        self._reader: AnswerReader | None = None
        self._size = ""
        self._sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._send()

    def data_received(self, data: bytes) -> None:
        if self._reader is None:
            self._drop("unasked bytes")
            return
        try:
            complete = self._reader.feed(data)
        except BadAnswer as error:
            self._drop(str(error))
            return
        if not complete:
            return
        now, reader = time.perf_counter(), self._reader
        self._record.answered(self._size, self._sent, now, reader)
        self._reader = None
        if reader.closes or now >= self._record.ends:
            self.close()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._reader is not None:
            self._record.failed("connection closed", time.perf_counter())
        self._closed.set()

    def check(self, now: float) -> None:
        """Gives up a request that takes too long."""
        if self._reader is not None and now - self._sent > REQUEST_SECONDS:
            self._drop("timeout")

    def close(self) -> None:
        """Ends the connection; a request in flight is nobody's fault."""
        self._reader = None
        if self._transport is not None:
            self._transport.abort()

    def _send(self) -> None:
        assert self._transport is not None
        self._size, request = self._next()
        self._reader = AnswerReader()
        self._sent = time.perf_counter()
        self._transport.write(request)

    def _drop(self, why: str) -> None:
        self._record.failed(why, time.perf_counter())
        self.close()


async def measure(url: str, connections: int, seconds: float, warm_up: float, prompts: str) -> dict[str, Any]:
    """Loads `url` for `warm_up` + `seconds` and returns the summary. It takes at most a second longer."""
    target = urlsplit(url)
    host, port = target.hostname or "127.0.0.1", target.port or 80
    requests = _requests(templates(prompts), f"{host}:{port}", target.path or "/")
    record = Record()
    record.began = time.perf_counter() + warm_up
    record.ends = record.began + seconds
    loop = asyncio.get_running_loop()
    alive: set[_Connection] = set()

    async def keep_one() -> None:
        while time.perf_counter() < record.ends:
            closed = asyncio.Event()
            connection = _Connection(record, requests, closed)
            try:
                await loop.create_connection(lambda: connection, host, port)  # noqa: B023 # awaited in the same turn
            except OSError as error:
                record.failed(f"connect: {error.strerror}", time.perf_counter())
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            alive.add(connection)
            await closed.wait()
            alive.discard(connection)

    tasks = [asyncio.create_task(keep_one()) for _ in range(connections)]
    while (left := record.ends - time.perf_counter()) > 0:
        await asyncio.sleep(min(left, 0.5))
        for connection in list(alive):
            connection.check(time.perf_counter())
    for connection in list(alive):
        connection.close()
    _, stuck = await asyncio.wait(tasks, timeout=1)
    for task in stuck:
        task.cancel()
    return record.summary()


def _requests(bodies: Sequence[Template], authority: str, path: str) -> Callable[[], tuple[str, bytes]]:
    """The next request, over all connections in turn."""
    heads = [
        (
            f"POST {path} HTTP/1.1\r\nhost: {authority}\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer bench\r\ncontent-length: {len(body.body(0))}\r\n\r\n"
        ).encode()
        for body in bodies
    ]
    # Another start in every run: a number is not sent twice to the same sidecar, but for a rare accident.
    numbers = count(time.time_ns() // 1000)

    def following() -> tuple[str, bytes]:
        number = next(numbers)
        at = number % len(bodies)
        return bodies[at].size, heads[at] + bodies[at].body(number)

    return following


def main() -> None:
    """Parses the command line, measures, prints one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--connections", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--warm-up", type=float, default=0.3)
    parser.add_argument("--prompts", choices=(*SIZES, MIXED), default=MIXED)
    given = parser.parse_args()
    if not 1 <= given.connections <= 1024 or not 0 < given.seconds <= 600 or not 0 <= given.warm_up <= 60:
        parser.error("1 to 1024 connections, up to 600 s and 60 s of warm-up")
    summary = uvloop.run(measure(given.url, given.connections, given.seconds, given.warm_up, given.prompts))
    json.dump(summary, sys.stdout)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
