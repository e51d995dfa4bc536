"""From the last byte of a body to the decision: `python -m bench.overlap [--out FILE]`, four minutes.

The sidecar's own gRPC server with the shipped classifier, and a client that speaks as Envoy does: it sends a body at
the pace of a slow or a fast upload and, for comparison, all at once when its last byte would have come, so that nothing
can be read ahead. Every text is new, and each gets five seconds, so that all of it is read.

Columns: milliseconds from sending the last byte to getting the decision (median and worst of the rounds), windows that
had to be read after the last byte (`after`), and the part of the rounds in which the shipped deadline of 250 ms would
have been missed (`late`). Of a text over 64 KB its first 62 KB and its end are read.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import uvloop
import yaml

from bench.decision import stream
from bench.envoy_variants import router_config
from bench.inference import SHIPPED, hardware, table, text_of
from router_extproc.app import GIL_SWITCH_SECONDS
from router_extproc.config.loader import load
from router_extproc.inference import encoder
from router_extproc.inference.base import Prompt
from router_extproc.inference.engine import Engine
from router_extproc.pb import ext_proc_pb2 as pb
from router_extproc.pb import ext_proc_pb2_grpc
from router_extproc.processor import Processor
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.server import Server
from router_extproc.signals.base import SHIPPED as NAME
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder

KILOBYTES = (1, 10, 100, 1024, 10_240)
PACES = {"slow": 0.1, "fast": 100.0}
"""Megabytes per second."""
LONGEST_SECONDS = 20.0
"""For all rounds of one upload, but for those of which a single one takes longer."""
DEADLINE_MS, SHIPPED_DEADLINE_MS = 5000, 250
CHUNKS = {"slow": 4 * 1024, "fast": 16 * 1024}
"""Bytes per message: what Envoy finds in the socket when it looks, at most 16 KB."""


@dataclass(frozen=True, slots=True)
class Sidecar:
    """What the bench talks to, and the engine behind it."""

    engine: Engine
    stub: ext_proc_pb2_grpc.ExternalProcessorAsyncStub


@asynccontextmanager
async def sidecar(model_dir: Path, directory: Path) -> AsyncIterator[Sidecar]:
    """A server on a free port with the shipped classifier and rules that read all its heads."""
    engine = Engine(encoder.load(model_dir))
    await engine.start()
    path = directory / "overlap.yaml"
    document = router_config("http://127.0.0.1:9", "all") | {"limits": {"deadline_ms": DEADLINE_MS}}
    for model in document["models"].values():
        model["context_window"] = 10**8  # ten megabytes shall be routed, not refused
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    runtimes = Runtimes(compile_runtime(load(path), {NAME: engine.labels}, {NAME: engine}))
    metrics = Metrics()
    recorder = Recorder(metrics)
    server = Server("127.0.0.1:0", Processor(runtimes, recorder), recorder, lambda: runtimes.current.models_by_cluster)
    await server.start()
    await server.ready()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            yield Sidecar(engine, ext_proc_pb2_grpc.ExternalProcessorStub(channel))
    finally:
        await server.drain(0, 1)
        await engine.aclose()
        metrics.close()


def body_of(kilobytes: int, rng: random.Random) -> bytes:
    """A chat request of that size with one user turn. Its words are drawn, so that no two windows are alike."""
    text = text_of(min(kilobytes * 230, 70_000), rng)
    text = (text * (kilobytes * 1024 // len(text) + 1))[: max(1, kilobytes * 1024 - 70)]
    return json.dumps({"model": "auto", "messages": [{"role": "user", "content": text}]}).encode()


async def one(server: Sidecar, body: bytes, chunk_size: int, bytes_per_s: float, ahead: bool) -> dict[str, float]:
    """Sends one body; with `ahead` as it comes from the client, else all of it when its last byte is there."""
    headers = pb.ProcessingRequest.FromString(stream(body)[0])
    chunks = [body[at : at + chunk_size] for at in range(0, len(body), chunk_size)]
    call = server.stub.Process()  # type: ignore[call-arg] # without an iterator it is written to by hand
    began = time.perf_counter()
    await call.write(headers)
    sent = 0
    for chunk in chunks[:-1]:
        sent += len(chunk)
        if ahead:
            await asyncio.sleep(began + sent / bytes_per_s - time.perf_counter())
            await call.write(pb.ProcessingRequest(request_body=pb.HttpBody(body=chunk)))
    await asyncio.sleep(began + len(body) / bytes_per_s - time.perf_counter())
    before = server.engine.stats()
    last_byte = time.perf_counter()
    for chunk in chunks[:-1] if not ahead else ():
        await call.write(pb.ProcessingRequest(request_body=pb.HttpBody(body=chunk)))
    await call.write(pb.ProcessingRequest(request_body=pb.HttpBody(body=chunks[-1], end_of_stream=True)))
    await call.done_writing()
    answered = float("nan")
    async for reply in call:
        if reply.HasField("dynamic_metadata"):
            answered = (time.perf_counter() - last_byte) * 1e3
    after = server.engine.stats()
    return {"ms": answered, "after": after.windows - before.windows, "late": float(answered > SHIPPED_DEADLINE_MS)}


async def run(model_dir: Path, directory: Path, rounds: int) -> list[dict[str, Any]]:
    """One row per size and pace."""
    rng = random.Random(5)
    rows = []
    async with sidecar(model_dir, directory) as server:
        await server.engine.classify(Prompt("warm up"), time.monotonic() + 60)
        for name, pace in PACES.items():
            for kilobytes in KILOBYTES:
                row: dict[str, Any] = {"upload": name, "mb_per_s": pace, "kilobytes": kilobytes}
                count = max(1, min(rounds, int(LONGEST_SECONDS / (kilobytes / 1024 / pace))))
                for how, ahead in (("ahead", True), ("at_once", False)):
                    # Nobody is waited for twice: without reading ahead the pace does not matter.
                    rate = (pace if ahead else PACES["fast"]) * 1e6
                    found = [
                        await one(server, body_of(kilobytes, rng), CHUNKS[name], rate, ahead) for _ in range(count)
                    ]
                    times = [each["ms"] for each in found]
                    row |= {f"{how}_ms": statistics.median(times), f"{how}_worst_ms": max(times)}
                    row |= {f"{how}_{key}": statistics.mean(each[key] for each in found) for key in ("after", "late")}
                rows.append(row)
                print(".", end="", file=sys.stderr, flush=True)
    return rows


def main() -> None:
    """Prints a table; writes JSON to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    directory = Path(".run") / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    rows = uvloop.run(run(args.model, directory, args.rounds))
    found = {"benchmark": "overlap", "hardware": hardware(), "rows": rows}
    print(json.dumps(found["hardware"]))
    table("From the last byte to the decision, read ahead and all at once", rows)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
