"""Where Python's time goes in one exchange, without gRPC, Envoy and torch: `python -m bench.decision`.

A prebuilt stream (headers and the body in one chunk, as Envoy sends a small one) goes through `Processor.run` with a
classifier that answers at once. The parts are then timed by themselves; what they leave of the whole is the
processor's own bookkeeping, asyncio and the recorder. Microseconds of CPU time, the median over blocks of runs, so
that a busy machine hardly shows.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import statistics
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import uvloop
import yaml

from bench.envoy_variants import router_config
from bench.prompts import SIZES, templates
from router_extproc import wire
from router_extproc.apis.table import for_path
from router_extproc.config.loader import load
from router_extproc.facts import Facts
from router_extproc.inference import artifact
from router_extproc.pb import ext_proc_pb2 as pb
from router_extproc.processor import Processor
from router_extproc.router import classifier_prompt
from router_extproc.runtime import Runtime, Runtimes, compile_runtime
from router_extproc.signals.base import SHIPPED
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import FakeClassifier

ROOT = Path(__file__).resolve().parents[1]
BLOCK = 50
"""Runs per timed block; the result is the median over the blocks."""


def stream(body: bytes) -> list[bytes]:
    """The messages of one exchange as they come from the wire: headers, the body."""
    headers = {
        ":authority": "127.0.0.1:10000",
        ":path": "/v1/chat/completions",
        ":method": "POST",
        ":scheme": "http",
        "content-type": "application/json",
        "authorization": "Bearer bench",
        "content-length": str(len(body)),
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-request-id": "5c8f0c5e-52a8-4d1a-9d2c-3a6a1f3f3a10",
    }
    first = pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(
            headers=pb.HeaderMap(headers=[pb.HeaderValue(key=k, raw_value=v.encode()) for k, v in headers.items()])
        ),
        protocol_config=pb.ProtocolConfiguration(
            request_body_mode=pb.STREAMED, send_body_without_waiting_for_header_response=True
        ),
    )
    second = pb.ProcessingRequest(request_body=pb.HttpBody(body=body, end_of_stream=True))
    return [first.SerializeToString(), second.SerializeToString()]


def compiled(signals: str, model_dir: Path, directory: Path) -> Runtime:
    """The runtime of the policy that `bench.overhead` measures, with a classifier that knows the shipped labels."""
    path = directory / f"decision-{signals}.yaml"
    path.write_text(yaml.safe_dump(router_config("http://127.0.0.1:9", signals), sort_keys=False))
    labels = artifact.read(model_dir).labels
    fake = FakeClassifier({}, labels)
    return compile_runtime(load(path), {SHIPPED: labels}, {SHIPPED: fake})


async def measured(runtime: Runtime, body: bytes, blocks: int) -> dict[str, float]:
    """Microseconds per exchange: the whole, and each part by itself."""
    metrics = Metrics()
    recorder = Recorder(metrics)
    # Measuring has a thread of its own, and a benchmark of its own: bench.bookkeeping.
    recorder.later = lambda _: None
    processor = Processor(Runtimes(runtime), recorder)
    wired = stream(body)
    messages = [wire.decode(pb.ProcessingRequest.FromString(one)) for one in wired]

    async def source(kept: list[wire.Message]) -> AsyncIterator[wire.Message]:
        for message in kept:
            yield message

    async def whole() -> list[bytes]:
        decoded = [wire.decode(pb.ProcessingRequest.FromString(one)) for one in wired]
        return [reply.SerializeToString() async for reply in processor.run(source(decoded))]

    async def run() -> list[wire.Reply]:
        return [reply async for reply in processor.run(source(messages))]

    api = for_path("/v1/chat/completions")
    assert api is not None

    def read() -> Any:
        reader = api.reader()
        reader.feed(body)
        return reader.finish()

    request = read()
    headers = messages[0].headers if isinstance(messages[0], wire.RequestHeaders) else {}
    results = await runtime.router.classify(classifier_prompt(request), time.monotonic() + 60)
    signals = runtime.router.signals(request, headers, results)
    replies = await run()

    async def route() -> None:
        await runtime.router.route(request, headers, time.monotonic() + 60)

    parts: dict[str, Callable[[], Any]] = {
        "decode": lambda: [wire.decode(pb.ProcessingRequest.FromString(one)) for one in wired],
        "read body": read,
        "signals": lambda: runtime.router.signals(request, headers, results),
        "policy": lambda: runtime.policy.decide(Facts(request, signals, "auto")),
        "encode": lambda: [reply.SerializeToString() for reply in replies],
        "metadata": lambda: wire.route_in_headers({"x-mom-cluster": "a", "x-mom-model": "a"}, _METADATA),
    }
    found = {name: await _timed(part, blocks) for name, part in (("whole", whole), ("run", run), ("route", route))}
    found |= {name: _timed_plain(part, blocks) for name, part in parts.items()}
    metrics.close()
    return found


_METADATA: dict[str, object] = {
    "decision_id": "0" * 32,
    "api": "chat_completions",
    "route": "coder",
    "band": "recommended",
    "confidence": "0.98",
    "reason": "intent=code_generation 0.98 > 0.90",
    "model": "coder",
    "priority_groups": [{"name": "coder"}, {"name": "premium"}, {"name": "general"}],
    "body": {"offset": 10, "name": "coder-1"},
}


async def _timed(part: Callable[[], Any], blocks: int) -> float:
    times = []
    for _ in range(blocks):
        began = time.thread_time()
        for _ in range(BLOCK):
            await part()
        times.append((time.thread_time() - began) / BLOCK)
    return statistics.median(times) * 1e6


def _timed_plain(part: Callable[[], Any], blocks: int) -> float:
    times = []
    for _ in range(blocks):
        began = time.thread_time()
        for _ in range(BLOCK):
            part()
        times.append((time.thread_time() - began) / BLOCK)
    return statistics.median(times) * 1e6


def main() -> None:
    """Prints a table; writes JSON to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=40, help=f"blocks of {BLOCK} runs per figure")
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models" / "router-minilm", help="for its labels")
    parser.add_argument("--out", type=Path, help="where to write the figures as JSON")
    given = parser.parse_args()
    logging.disable()
    directory = Path(".run") / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    for signals in ("keywords", "all"):
        runtime = compiled(signals, given.model_dir, directory)
        gc.collect()
        gc.freeze()
        for size in SIZES:
            body = templates(size)[0].body(1)
            found = uvloop.run(measured(runtime, body, given.blocks))
            rows.append({"signals": signals, "prompt": size, "bytes": len(body), "us": found})
    print(f"{'signals':10}{'prompt':8}{'bytes':>7}" + "".join(f"{name:>11}" for name in rows[0]["us"]))
    for row in rows:
        figures = "".join(f"{value:>11.1f}" for value in row["us"].values())
        print(f"{row['signals']:10}{row['prompt']:8}{row['bytes']:>7}{figures}")
    print("us per exchange. whole: decode + run + encode; run has in it: read body, route (signals, policy), metadata")
    if given.out is not None:
        given.out.write_text(json.dumps({"benchmark": "decision", "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
