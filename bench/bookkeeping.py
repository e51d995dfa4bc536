"""What keeping count costs a request: on the event loop, on the threads beside it, in memory and on disk.

`--requests 200000` is the soak: memory must stay flat between its halves. `--traced` makes all spans of every request
too, up to the exporter.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from opentelemetry.sdk.trace import SpanProcessor

from router_extproc.bookkeeping import BookOptions, keeping
from router_extproc.config.loader import parse
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, SignalValue, Usage
from router_extproc.inference.stats import Counters
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.telemetry.context import Sampler
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Decided, Recorder
from router_extproc.telemetry.tracing import Tracing

CONFIG = b"""
models:
  small: {url: "http://127.0.0.1:1", price: {input: 0.1, output: 0.3}}
  premium: {url: "http://127.0.0.1:2", price: {input: 3, output: 15}}
default: premium
ledger: {tenant_header: x-tenant}
"""
BATCH = 100


async def measure(requests: int, *, traced: bool) -> None:
    runtimes = Runtimes(compile_runtime(parse(CONFIG, Path("router.yaml")), {}, {}))
    metrics, counters = Metrics(), Counters()
    recorder = Recorder(metrics)
    scores = {f"label_{number}": 0.05 for number in range(20)}
    signal = SignalValue("label_1", 0.93, 0.0, scores)
    signals = SignalSet(dict.fromkeys(("intent", "domain", "complexity"), signal))
    request = LlmRequest("chat_completions", "auto", (1, 7), "hello", tokens=100)
    decision = Decision("talk", Band.RECOMMENDED, 0.93, ("small",), "intent=chat 0.93 > 0.90")
    stages = (("body", 0.001), ("classify", 0.002), ("signals", 0.0001), ("policy", 0.0001))
    made = Decided("", request, signals, decision, Plan(("small", "premium")), 0.002, 1, stages, "acme", time.time())
    ended = Outcome("", "chat_completions", 200, "small", 1, 0.8, 0.2, Usage(900, 80), route="talk", stream=True)
    with TemporaryDirectory() as directory:
        options = BookOptions(Path(directory))
        stats = counters.snapshot(queued=0, queued_bytes=0)
        async with keeping(options, recorder, metrics, runtimes, lambda: stats, dict) as books:
            if traced:
                recorder.sampler, recorder.trace = Sampler(1), Tracing(SpanProcessor()).exchange
            on_loop, memory = 0.0, []
            began = time.process_time()
            for start in range(0, requests, BATCH):
                ids = [(f"{number:032}", f"tenant {number % 2000}") for number in range(start, start + BATCH)]
                batch = [
                    (replace(made, decision_id=i, tenant=t), replace(ended, decision_id=i, tenant=t)) for i, t in ids
                ]
                before = time.thread_time()
                for decided, outcome in batch:
                    trace = recorder.sampler.context({}, decided.decision_id)
                    recorder.decided(decided if trace is None else replace(decided, trace=trace))
                    recorder.outcome(outcome)
                on_loop += time.thread_time() - before
                # No faster than the threads: a queue that only fills measures nothing.
                await asyncio.to_thread(books.log.flush)
                await asyncio.to_thread(metrics.settle)
                if start % (requests // 4) < BATCH:
                    memory.append(resident() / 1e6)
            everything = time.process_time() - began
            scrapes, page = [], b""
            for _ in range(5):
                before = time.process_time()
                page = await asyncio.to_thread(metrics.exposition, openmetrics=True)
                scrapes.append(time.process_time() - before)
            dropped = books.ledger.dropped + books.log.dropped
        disk = size(Path(directory)) / 1e6
    print(f"on the event loop   {on_loop / requests * 1e6:6.1f} us a request")
    print(f"with all threads    {everything / requests * 1e6:6.1f} us a request, CPU time")
    print(f"a page of {len(page) // 1024} KiB   {min(scrapes) * 1e3:6.1f} ms")
    print(f"memory              {', '.join(f'{value:.1f}' for value in memory)} MB over the run")
    print(f"disk                {disk:6.1f} MB; dropped {dropped}")


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def main() -> None:
    logging.getLogger("router_extproc.exchange").setLevel(logging.WARNING)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--traced", action="store_true")
    arguments = parser.parse_args()
    asyncio.run(measure(arguments.requests, traced=arguments.traced))


if __name__ == "__main__":
    main()
