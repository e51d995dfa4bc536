"""What a shared store costs a request: admission against a budget, and a look-up of what the classifier said.

Starts redis-server (or valkey-server) on a free loopback port. Times are medians and 99th percentiles of one process
that asks one after the other, then 32 at once without a pause; `loop` is CPU time of the event loop per request.
"""

from __future__ import annotations

import argparse
import asyncio
import shutil
import socket
import statistics
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bench import bookkeeping
from router_extproc.app import SHIPPED_MODEL
from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.config.loader import parse
from router_extproc.config.store import Store as StoreSection
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, Usage
from router_extproc.inference import encoder
from router_extproc.inference.answers import packed, unpacked
from router_extproc.inference.base import Prompt
from router_extproc.inference.memory import keys_of
from router_extproc.router import Routed
from router_extproc.shared_answers import SharedAnswers
from router_extproc.stores.base import Store
from router_extproc.stores.redis import RedisStore

CONFIG = (
    bookkeeping.CONFIG
    + b"""
budgets:
  - {name: all, usd: 100000}
  - {name: tenants, per: tenant, usd: 100000}
"""
)
TEXT = "Explain step by step how a lighthouse works, and who pays for it. " * 12


def shown(name: str, seconds: list[float], cpu: float) -> None:
    ordered = sorted(seconds)
    p99 = ordered[int(len(ordered) * 0.99)]
    print(
        f"{name:44} p50 {statistics.median(ordered) * 1e3:7.3f} ms  p99 {p99 * 1e3:7.3f} ms  loop {cpu * 1e6:6.0f} us"
    )


async def timed(name: str, ask: Callable[[int], Awaitable[object]], count: int, at_once: int) -> None:
    seconds: list[float] = []

    async def some(start: int) -> None:
        for number in range(start, count, at_once):
            began = time.perf_counter()
            await ask(number)
            seconds.append(time.perf_counter() - began)

    before = time.thread_time()
    await asyncio.gather(*(some(start) for start in range(at_once)))
    shown(f"{name}, {at_once} at once", seconds, (time.thread_time() - before) / count)


async def budgets(store: Store | None, name: str, count: int) -> None:
    config = parse(CONFIG, Path("router.yaml")).config
    found = Budgets(Accounts(store=store, wait_seconds=1))
    found.accounts.share()
    request = LlmRequest("chat_completions", "auto", (1, 7), "hello", tokens=100)
    decision = Decision("talk", Band.RECOMMENDED, 0.93, ("small",), "intent=chat 0.93 > 0.90")
    routed = Routed(request, SignalSet({}), decision, Plan(("small", "premium")))
    ended = Outcome("", "chat_completions", 200, "small", 1, 0.8, 0.2, Usage(900, 80))

    async def ask(number: int) -> None:
        admitted = await found.admit(str(number), routed, f"tenant {number % 50}", config)
        found.settle(replace(ended, decision_id=str(number), held=admitted.held), config)

    for at_once in (1, 32):
        await timed(f"admit and settle, {name}", ask, count, at_once)
    await found.accounts.leave()


async def answers(store: Store, count: int) -> None:
    model = encoder.load(SHIPPED_MODEL, device="cpu")
    [answer] = model.run([Prompt(TEXT)])
    content = packed(answer, model.labels)
    began = time.thread_time()
    for _ in range(200):
        packed(answer, model.labels)
    middle = time.thread_time()
    for _ in range(200):
        unpacked(content, model.version, model.labels)
    ended = time.thread_time()
    write, read = (middle - began) * 5e3, (ended - middle) * 5e3
    print(f"an answer: {len(content)} bytes; packed in {write:.0f} us, read in {read:.0f} us of CPU")
    began = time.thread_time()
    for _ in range(1000):
        keys_of(model.version, Prompt(TEXT), folds=True)
    print(f"the keys of a window of {len(TEXT)} characters: {(time.thread_time() - began) * 1e3:.0f} us")
    shared = SharedAnswers(store, 60)
    keys = keys_of(model.version, Prompt(TEXT), folds=True)
    shared.keep(keys[0], answer, model.labels)
    shared.start()
    while (await shared.recall([keys], model.version, model.labels))[0] is None:  # noqa: ASYNC110 - it is not told
        await asyncio.sleep(0.01)
    for at_once in (1, 32):
        await timed("look-up", lambda _: shared.recall([keys], model.version, model.labels), count, at_once)
    await shared.aclose()


async def measure(port: int, count: int) -> None:
    store = RedisStore(StoreSection(url=f"redis://127.0.0.1:{port}", timeout_ms=5000))
    await budgets(None, "alone", count)
    await budgets(store, "shared", count)
    await answers(store, count)
    await store.aclose()


@contextmanager
def server() -> Iterator[int]:
    """Its port."""
    path = shutil.which("redis-server") or shutil.which("valkey-server")
    if path is None:
        raise SystemExit("redis-server is not installed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    with TemporaryDirectory() as directory:
        flags = ("--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--save", "", "--appendonly", "yes")
        process = subprocess.Popen((path, *flags), stdout=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
            yield port
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    import uvloop

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    count = parser.parse_args().count
    with server() as port:
        uvloop.run(measure(port, count))


if __name__ == "__main__":
    main()
