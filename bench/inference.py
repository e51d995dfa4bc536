"""What classifying costs: `python -m bench.inference [--model DIR] [--seconds S] [--out FILE]`, about two minutes.

Three tables, on whatever hardware this runs on, named in the output:

1. The forward pass, no queue: the shipped lean pass (every head on), the same network through `transformers` (encoder
   only, no heads, which flatters it) and through `torch.compile` where there is a compiler, as ratios to the lean pass.
   The contenders take turns, so that a busy machine disturbs them alike.
2. The engine under load: latency p50 and p99 and texts per second for lengths 16..512 tokens and 8,000, at concurrency
   1..64. Every text is new, so nothing is remembered.
3. Overlap: from the last byte to the answer, against the size of a body that arrives at a slow and at a fast pace, with
   the text classified while it grows and without.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router_extproc.inference import encoder  # first: it sets how the threads of PyTorch wait
from router_extproc.inference.base import InferenceError, Prompt
from router_extproc.inference.cpus import available_cores
from router_extproc.inference.engine import Engine

# isort: split
import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

SHIPPED = Path(__file__).parents[1] / "models" / "router-minilm"
DEADLINE = 0.25
"""Seconds: the default that a request has for all its signals."""
PACES = ((1, 1.0), (4, 0.01), (4, 10.0), (16, 0.01), (16, 10.0), (50, 0.01), (50, 10.0), (1024, 0.2), (10240, 2.0))
"""Kilobytes of text, and megabytes per second at which they arrive."""
WORDS = ["the", "quick", "model", "reads", "a", "prompt", "and", "tells", "which", "of", "many", "fields", "it", "is"]


def text_of(tokens: int, rng: random.Random) -> str:
    """A text of about that many tokens (every word is one), different at every call."""
    return " ".join(rng.choice(WORDS) for _ in range(max(1, tokens - 2)))


def hardware() -> dict[str, Any]:
    """What this ran on."""
    model = next(
        (line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), platform.processor()
    )
    return {
        "cpu": model,
        "cores": available_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "bf16_units": torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        "amx": torch.cpu._is_amx_tile_supported(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpuinfo() -> list[str]:
    try:
        return Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return []


def quantile(values: list[float], q: float) -> float:
    """The value below which the share `q` lies."""
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


def take_turns(contenders: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Median milliseconds of each."""
    for contender in contenders.values():
        contender()
        contender()
    times: dict[str, list[float]] = {name: [] for name in contenders}
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(next(iter(times.values()))) < 3:
        for name, contender in contenders.items():
            began = time.perf_counter()
            contender()
            times[name].append((time.perf_counter() - began) * 1e3)
    return {name: statistics.median(each) for name, each in times.items()}


def first_call(compiled: Callable[[], object]) -> float | None:
    """Seconds that the first call takes, in which the compiler runs; None where there is none that works."""
    began = time.perf_counter()
    try:
        compiled()
    except Exception as error:  # noqa: BLE001 - whatever the compiler's trouble is, it only costs a column
        print(f"torch.compile failed: {type(error).__name__}", file=sys.stderr)
        return None
    return time.perf_counter() - began


def forward_passes(directory: Path, seconds: float, with_compile: bool) -> list[dict[str, Any]]:
    """Table 1."""
    model = encoder.load(directory)
    plain = AutoModel.from_pretrained(directory, add_pooling_layer=False, attn_implementation="sdpa")
    plain16 = AutoModel.from_pretrained(
        directory, add_pooling_layer=False, attn_implementation="sdpa", dtype=torch.bfloat16
    )
    compiled: Any = None
    if with_compile:
        import torch._inductor.config as inductor

        inductor.freezing = True
        compiled = torch.compile(plain16, dynamic=False)
    rng = random.Random(1)
    rows = []
    for count, tokens in ((1, 16), (1, 32), (1, 64), (1, 128), (1, 256), (8, 64), (32, 16)):
        prompts = [Prompt(text_of(tokens, rng)) for _ in range(count)]
        ids = torch.randint(1000, 20_000, (count, tokens))
        mask = torch.ones_like(ids)

        def run(network: Any, ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> object:
            with torch.no_grad():
                return network(input_ids=ids, attention_mask=mask)

        seconds_to_compile: float | None = None
        contenders: dict[str, Callable[[], object]] = {
            "lean": lambda prompts=prompts: model.run(prompts),  # type: ignore[misc]
            "transformers_float32": lambda run=run: run(plain),  # type: ignore[misc]
            "transformers_bfloat16": lambda run=run: run(plain16),  # type: ignore[misc]
        }
        if compiled is not None and (count, tokens) in ((1, 32), (1, 128), (8, 64)):
            seconds_to_compile = first_call(lambda run=run, network=compiled: run(network))  # type: ignore[misc]
            if seconds_to_compile is not None:
                contenders["compiled_bfloat16"] = lambda run=run, network=compiled: run(network)  # type: ignore[misc]
        times = take_turns(contenders, seconds)
        row: dict[str, Any] = {"texts": count, "tokens": tokens, "lean_ms": times["lean"]}
        row |= {f"{name}_x": ms / times["lean"] for name, ms in times.items() if name != "lean"}
        if "compiled_bfloat16" in times:
            row["compile_s"] = seconds_to_compile
        rows.append(row)
    return rows


async def under_load(directory: Path, seconds: float, lengths: list[int], levels: list[int]) -> list[dict[str, Any]]:
    """Table 2."""
    engine = Engine(encoder.load(directory), max_queued=4096)
    await engine.start()
    rng = random.Random(2)
    rows = []
    for tokens in lengths:
        for level in levels:
            if tokens > 512 and level > 4:
                continue
            times: list[float] = []
            failed = 0
            end = time.monotonic() + seconds

            async def client(tokens: int = tokens, end: float = end, times: list[float] = times) -> int:
                refused = 0
                while time.monotonic() < end:
                    prompt = Prompt(text_of(tokens, rng))
                    began = time.perf_counter()
                    try:
                        await engine.classify(prompt, time.monotonic() + 30)
                    except InferenceError:
                        refused += 1
                    times.append((time.perf_counter() - began) * 1e3)
                return refused

            before, began = engine.stats(), time.perf_counter()
            failed = sum(await asyncio.gather(*(client() for _ in range(level))))
            elapsed, after = time.perf_counter() - began, engine.stats()
            batches = max(1, after.batches - before.batches)
            rows.append(
                {
                    "tokens": tokens,
                    "concurrency": level,
                    "p50_ms": quantile(times, 0.5),
                    "p99_ms": quantile(times, 0.99),
                    "texts_per_s": len(times) / elapsed,
                    "windows_per_batch": (after.windows - before.windows) / batches,
                    "failed": failed,
                }
            )
    await engine.aclose()
    return rows


async def overlap(directory: Path) -> list[dict[str, Any]]:
    """Table 3. The text grows in up to 64 chunks; it is classified again whenever the last classification has ended.

    `read` is the part of the text that was read by the deadline, `ms` the time from its last byte to the answer.
    """
    engine = Engine(encoder.load(directory))
    await engine.start()
    rng = random.Random(3)
    rows = []
    for kilobytes, megabytes_per_s in PACES:
        row: dict[str, Any] = {"kilobytes": kilobytes, "megabytes_per_s": megabytes_per_s}
        for name in ("whole", "overlapped"):
            base = text_of(min(kilobytes * 210, 60_000), rng)
            text = (base * (kilobytes * 1024 // len(base) + 1))[: kilobytes * 1024]
            ahead: asyncio.Task[Any] | None = None
            step = max(1024, len(text) // 64)
            for end in range(step, len(text) + step, step):
                await asyncio.sleep(step / (megabytes_per_s * 1e6))
                if name == "overlapped" and end < len(text) and (ahead is None or ahead.done()):
                    ahead = asyncio.create_task(engine.classify(Prompt(text[:end]), time.monotonic() + 30))
            began = time.perf_counter()
            if ahead is not None:
                ahead.cancel()
            try:
                result = await engine.classify(Prompt(text), time.monotonic() + DEADLINE)
                row[f"{name}_read"], row["windows"] = result.coverage, result.windows
            except InferenceError:
                row[f"{name}_read"] = 0.0
            row[f"{name}_ms"] = (time.perf_counter() - began) * 1e3
        rows.append(row)
    await engine.aclose()
    return rows


def table(title: str, rows: list[dict[str, Any]]) -> None:
    """Prints one table; columns are the union of the rows' keys."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[i]) for line in cells)) for i, column in enumerate(columns)]
    print(f"\n{title}")
    for line in [columns, *cells]:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cell(value: object) -> str:
    return "" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    """Runs all three."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measured point")
    parser.add_argument("--lengths", type=int, nargs="+", default=[16, 32, 128, 512, 8000])
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes half a minute")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    encoder.load(args.model)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    found: dict[str, Any] = {"hardware": hardware(), "model": args.model.name}
    print(json.dumps(found["hardware"]))
    found["forward"] = forward_passes(args.model, args.seconds, not args.no_compile)
    table(
        "Forward pass: milliseconds of the lean pass with all heads, and how many times as long others take",
        found["forward"],
    )
    found["load"] = asyncio.run(under_load(args.model, args.seconds, args.lengths, args.concurrency))
    table("Engine under load", found["load"])
    found["overlap"] = asyncio.run(overlap(args.model))
    table("From the last byte to the answer", found["overlap"])
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak resident memory: {found['rss_mb']:.0f} MB")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
