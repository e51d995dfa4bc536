"""The classifier beside peers from PyPI on the same weights: `python -m bench.classifier_peers`, half a minute.

Peers are measured where they are installed (`pip install infinity-emb semantic-router`, in an environment of their own:
they pin other versions than ours) and left out, with a line, where they are not. infinity-emb embeds with dynamic
batching on threads; semantic-router embeds and compares with example utterances, one text after the other. Ours runs
every head. All get the same texts, in turn, in one process; a text is never sent twice.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import logging
import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from bench.inference import SHIPPED, hardware, quantile, table, text_of
from router_extproc.inference import encoder
from router_extproc.inference.base import Prompt
from router_extproc.inference.engine import Engine
from router_extproc.inference.own_thread import in_own_thread

Classify = Callable[[str], Awaitable[object]]
UTTERANCES = {
    "code": ["write a function", "fix this bug", "why does this not compile"],
    "chat": ["hello there", "how are you", "tell me a joke"],
    "math": ["solve for x", "prove this theorem", "what is the integral"],
}


async def ours(directory: Path, stack: AsyncExitStack) -> Classify:
    """The engine, all heads on."""
    engine = Engine(await in_own_thread(lambda: encoder.load(directory)), max_queued=4096)
    await engine.start()
    stack.push_async_callback(engine.aclose)

    async def classify(text: str) -> object:
        return await engine.classify(Prompt(text), time.monotonic() + 60)

    return classify


async def infinity(directory: Path, stack: AsyncExitStack) -> Classify:
    """infinity-emb's engine, embedding only."""
    package: Any = importlib.import_module("infinity_emb")
    args = package.EngineArgs(
        model_name_or_path=str(directory), engine="torch", device="cpu", bettertransformer=False, model_warmup=False
    )
    engine: Any = package.AsyncEmbeddingEngine.from_args(args)
    await engine.astart()
    stack.push_async_callback(engine.astop)

    async def classify(text: str) -> object:
        found: object = await engine.embed(sentences=[text])
        return found

    return classify


async def semantic_router(directory: Path, stack: AsyncExitStack) -> Classify:
    """aurelio's semantic-router (1.1): an index in memory of example utterances."""
    encoders: Any = importlib.import_module("semantic_router.encoders")
    package: Any = importlib.import_module("semantic_router")
    router = package.IndexedRouter(
        encoder=encoders.HuggingFaceEncoder(name=str(directory)),
        routes=[package.Route(name=name, utterances=texts) for name, texts in UTTERANCES.items()],
    )

    async def classify(text: str) -> object:
        found: object = await router.acall(text)
        return found

    return classify


PEERS: dict[str, Callable[[Path, AsyncExitStack], Awaitable[Classify]]] = {
    "ours": ours,
    "infinity-emb": infinity,
    "semantic-router": semantic_router,
}


async def measure(classify: Classify, tokens: int, level: int, seconds: float, rng: random.Random) -> dict[str, float]:
    """Latency and throughput of `level` clients that each send one text after the other."""
    times: list[float] = []
    end = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            text = text_of(tokens, rng)
            began = time.perf_counter()
            await classify(text)
            times.append((time.perf_counter() - began) * 1e3)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(level)))
    return {
        "p50_ms": quantile(times, 0.5),
        "p99_ms": quantile(times, 0.99),
        "texts_per_s": len(times) / (time.perf_counter() - began),
    }


async def run(directory: Path, seconds: float) -> list[dict[str, Any]]:
    """All contenders at every point, in turn."""
    rows: list[dict[str, Any]] = []
    rng = random.Random(4)
    async with AsyncExitStack() as stack:
        contenders: dict[str, Classify] = {}
        for name, start in PEERS.items():
            try:
                contenders[name] = await start(directory, stack)
                await contenders[name]("warm up")
            except Exception as error:  # noqa: BLE001 - a peer that does not run here is left out, with the reason
                contenders.pop(name, None)
                print(f"{name} is left out: {type(error).__name__}: {error}", file=sys.stderr)
        for tokens in (32, 128):
            for level in (1, 16, 64):
                point = {
                    name: await measure(classify, tokens, level, seconds, rng) for name, classify in contenders.items()
                }
                base = point["ours"]["texts_per_s"]
                rows += [
                    {
                        "tokens": tokens,
                        "concurrency": level,
                        "who": name,
                        **found,
                        "ours_x": base / found["texts_per_s"],
                    }
                    for name, found in point.items()
                ]
    return rows


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--seconds", type=float, default=1.5, help="seconds per measured point")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    rows = asyncio.run(run(args.model, args.seconds))
    found = {"hardware": hardware(), "rows": rows}
    print(json.dumps(found["hardware"]))
    table("Classifying beside peers; `ours_x` is how many times as many texts ours does", rows)
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
