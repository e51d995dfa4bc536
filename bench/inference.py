"""What classifying costs: `python -m bench.inference [--model DIR] [--seconds S] [--out FILE]`, about two minutes.

Tables, on whatever hardware this runs on (a GPU where there is one), named in the output:

1. The forward pass, no queue: the shipped lean pass (every head on) in the number type that this device is given, in
   float32 where that is another one, the same network through `transformers` (encoder only, no heads, which flatters
   it) and through `torch.compile` where there is a compiler, as ratios to the lean pass.
   The contenders take turns, so that a busy machine disturbs them alike.
2. The engine under load: latency p50 and p99 and texts per second for lengths 16..512 tokens and 8,000, at concurrency
   1..64. Every text is new, so nothing is remembered.
3. Short texts beside a long one: four clients with 32 tokens, alone and while a fifth sends 30,000 at a time.
4. Labels from examples: seconds to embed and fit a dozen prompts per label.
5. The CPU's part: what tokenising, n-grams and answers cost per text without the network. It bounds what a GPU can do.
6. With a GPU: 128 tokens at rising concurrency, against the target of 2,000 texts/s at p99 < 15 ms.

`--soak N` sends N texts of mixed length instead, and prints the memory as it goes. What reading ahead saves is another
bench: `python -m bench.overlap`.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import platform
import random
import resource
import statistics
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from router_extproc.app import GIL_SWITCH_SECONDS
from router_extproc.inference import encoder  # first: it sets how the threads of PyTorch wait
from router_extproc.inference.base import InferenceError, Prompt
from router_extproc.inference.cpus import available_cores
from router_extproc.inference.encoder import BertClassifier
from router_extproc.inference.encoder.heads import Scores
from router_extproc.inference.engine import Engine
from router_extproc.inference.ensemble import fit_head
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.inference.tokens import TokenWindow

# isort: split
import numpy as np
import torch
from transformers import AutoModel
from transformers.utils import logging as transformers_logging

SHIPPED = Path(__file__).parents[1] / "models" / "router-minilm"
GPU_TARGET = {"texts_per_s": 2000.0, "p99_ms": 15.0}
T = TypeVar("T")
LENGTHS = [16, 32, 64, 128, 256, 512, 8000]
SOAK_LENGTHS = [8, 20, 60, 400]
WORDS = ["the", "quick", "model", "reads", "a", "prompt", "and", "tells", "which", "of", "many", "fields", "it", "is"]


LONG_WORDS = random.Random(0).choices(WORDS, k=200_000)
"""What long texts are parts of: to draw one word by word keeps the event loop longer than a GPU takes to read it."""


def text_of(tokens: int, rng: random.Random) -> str:
    """A text of about that many tokens (every word is one), different at every call."""
    count = max(1, tokens - 2)
    start = rng.randrange(len(LONG_WORDS) - count)
    return " ".join(rng.choices(WORDS, k=count) if count <= 512 else LONG_WORDS[start : start + count])


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
        "vnni": torch.cpu._is_vnni_supported(),
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
    model.warm_up()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    exact = encoder.load(directory, dtype="float32") if model.number_type != "float32" else None
    kept = {"add_pooling_layer": False, "attn_implementation": "sdpa"}
    plain: Any = AutoModel.from_pretrained(directory, **kept).to(device)
    plain16: Any = AutoModel.from_pretrained(directory, **kept, dtype=torch.bfloat16).to(device)
    compiled: Any = None
    if with_compile:
        import torch._inductor.config as inductor

        inductor.freezing = True
        compiled = torch.compile(plain16, dynamic=False)
    rng = random.Random(1)
    rows = []
    for count, tokens in ((1, 16), (1, 32), (1, 64), (1, 128), (1, 256), (8, 64), (32, 16)):
        prompts = [Prompt(text_of(tokens, rng)) for _ in range(count)]
        ids = torch.randint(1000, 20_000, (count, tokens), device=device)
        mask = torch.ones_like(ids)

        def run(network: Any, ids: torch.Tensor = ids, mask: torch.Tensor = mask) -> object:
            with torch.no_grad():
                return network(input_ids=ids, attention_mask=mask).last_hidden_state[0, 0, 0].item()

        seconds_to_compile: float | None = None
        contenders: dict[str, Callable[[], object]] = {
            "lean": lambda prompts=prompts: model.run(prompts),  # type: ignore[misc]
            "transformers_float32": lambda run=run: run(plain),  # type: ignore[misc]
            "transformers_bfloat16": lambda run=run: run(plain16),  # type: ignore[misc]
        }
        if exact is not None:
            contenders["lean_float32"] = lambda prompts=prompts, exact=exact: exact.run(prompts)  # type: ignore[misc]
        if compiled is not None and (count, tokens) in ((1, 32), (1, 128), (8, 64)):
            seconds_to_compile = first_call(lambda run=run, network=compiled: run(network))  # type: ignore[misc]
            if seconds_to_compile is not None:
                contenders["compiled_bfloat16"] = lambda run=run, network=compiled: run(network)  # type: ignore[misc]
        times = take_turns(contenders, seconds)
        row: dict[str, Any] = {"texts": count, "tokens": tokens, "lean_ms": times["lean"], "in": model.number_type}
        row |= {f"{name}_x": ms / times["lean"] for name, ms in times.items() if name != "lean"}
        if "compiled_bfloat16" in times:
            row["compile_s"] = seconds_to_compile
        rows.append(row)
    return rows


async def clients(engine: Engine, tokens: int, level: int, seconds: float, rng: random.Random) -> dict[str, Any]:
    """`level` clients that each send one new text of that length after the other."""
    times: list[float] = []
    failed = 0
    end = time.monotonic() + seconds

    async def client() -> None:
        nonlocal failed
        while time.monotonic() < end:
            prompt = Prompt(text_of(tokens, rng))
            began = time.perf_counter()
            try:
                await engine.classify(prompt, time.monotonic() + 30)
            except InferenceError:
                failed += 1
            times.append((time.perf_counter() - began) * 1e3)

    before, began = engine.stats(), time.perf_counter()
    await asyncio.gather(*(client() for _ in range(level)))
    elapsed, after = time.perf_counter() - began, engine.stats()
    return {
        "tokens": tokens,
        "concurrency": level,
        "p50_ms": quantile(times, 0.5),
        "p99_ms": quantile(times, 0.99),
        "texts_per_s": len(times) / elapsed,
        "windows_per_batch": (after.windows - before.windows) / max(1, after.batches - before.batches),
        "failed": failed,
    }


@asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Engine]:
    """An engine that refuses nothing for want of room, in a process that is set up as the sidecar's is."""
    engine = Engine(await in_own_thread(lambda: encoder.load(directory)), max_queued=4096)
    await engine.start()
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    gc.collect()
    gc.freeze()
    try:
        yield engine
    finally:
        await engine.aclose()


async def under_load(directory: Path, seconds: float, lengths: list[int], levels: list[int]) -> list[dict[str, Any]]:
    """Table 2."""
    rng = random.Random(2)
    async with serving(directory) as engine:
        return [
            await clients(engine, tokens, level, seconds, rng)
            for tokens in lengths
            for level in levels
            if tokens <= 512 or level <= 4
        ]


async def beside_a_long_text(directory: Path, seconds: float) -> list[dict[str, Any]]:
    """Table 3."""
    rng = random.Random(3)
    rows = []
    async with serving(directory) as engine:
        for long in (0, 30_000):
            other = asyncio.create_task(clients(engine, long, 1, seconds, rng)) if long else None
            row = await clients(engine, 32, 4, seconds, rng)
            rows.append({"beside_tokens": long, **row, "long_ms": (await other)["p50_ms"] if other else None})
    return rows


def from_examples(directory: Path) -> list[dict[str, Any]]:
    """Table 4."""
    model = encoder.load(directory)
    model.warm_up()
    rng = random.Random(4)
    rows = []
    for labels in (4, 10):
        examples = {f"label {i}": [text_of(20, rng) for _ in range(12)] for i in range(labels)}
        times = []
        for _ in range(5):
            began = time.perf_counter()
            fit_head(model, examples)
            times.append(time.perf_counter() - began)
        rows.append({"labels": labels, "examples": labels * 12, "seconds": statistics.median(times)})
    return rows


class Hollow(BertClassifier):
    """The shipped classifier without its network: the scores are zeros, everything around them is real."""

    def _scores(self, rows: Sequence[TokenWindow], texts: Sequence[str]) -> Scores:
        self._heads.from_text(texts)
        longest = max(len(row.ids) for row in rows)
        labels = {head.name: len(head.labels) for head in self._artifact.heads if head.kind != "token"}
        tokens = {head.name: (len(rows), longest, len(head.labels)) for head, _ in self._heads.token_heads}
        return Scores(
            np.zeros((len(rows), sum(labels.values())), np.float32),
            np.zeros((len(rows), self._artifact.encoder.width), np.float32),
            {name: np.zeros(shape, np.float32) for name, shape in tokens.items()},
        )


def around_the_network(directory: Path, seconds: float) -> list[dict[str, Any]]:
    """Table 5, in CPU time, which others on the same cores do not lengthen: of the one thread, and of all that help."""
    model = encoder.load(directory)
    model.__class__ = Hollow
    rng = random.Random(5)
    rows = []
    for tokens in (32, 128):
        prompts = [Prompt(text_of(tokens, rng)) for _ in range(32)]
        model.run(prompts)
        times: list[tuple[float, float]] = []
        end = time.monotonic() + seconds
        while time.monotonic() < end or len(times) < 3:
            began = time.thread_time(), time.process_time()
            model.run(prompts)
            times.append((time.thread_time() - began[0], time.process_time() - began[1]))
        thread, process = (statistics.median(each) / 32 for each in zip(*times, strict=True))
        rows.append(
            {
                "tokens": tokens,
                "texts": 32,
                "thread_us_per_text": thread * 1e6,
                "all_us_per_text": process * 1e6,
                "texts_per_s_at_most": 1 / thread,
            }
        )
    return rows


async def gpu_targets(directory: Path, seconds: float) -> list[dict[str, Any]]:
    """Table 6."""
    rng = random.Random(6)
    rows = []
    async with serving(directory) as engine:
        for level in (1, 8, 16, 32, 64, 128):
            row = await clients(engine, 128, level, 3 * seconds, rng)
            reached = row["texts_per_s"] >= GPU_TARGET["texts_per_s"] and row["p99_ms"] < GPU_TARGET["p99_ms"]
            rows.append({**row, "target": "reached" if reached else "missed"})
    return rows


async def soak(directory: Path, count: int, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """`count` texts of mixed `lengths` (in tokens), with the resident memory after each tenth."""
    rng = random.Random(7)
    rows = []
    async with serving(directory) as engine:

        async def some(number: int) -> None:
            for _ in range(number):
                await engine.classify(Prompt(text_of(rng.choice(lengths), rng)), time.monotonic() + 60)

        for tenth in range(1, 11):
            began = time.perf_counter()
            await asyncio.gather(*(some(count // 160) for _ in range(16)))
            rate = count // 160 * 16 / (time.perf_counter() - began)
            rows.append({"texts": tenth * (count // 160) * 16, "rss_mb": resident_mb(), "texts_per_s": rate})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def resident_mb() -> float:
    """Resident memory of this process now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 1024**2


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


def alone(work: Callable[[], T]) -> T:
    """What `work` gives, on a thread that ends: a main thread that has multiplied would slow the engine down."""
    return asyncio.run(in_own_thread(work))


def main() -> None:
    """Runs them all, or the soak alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED)
    parser.add_argument("--seconds", type=float, default=1.0, help="seconds per measured point")
    parser.add_argument("--lengths", type=int, nargs="+", help=f"tokens (default: {LENGTHS}; soak: {SOAK_LENGTHS})")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 4, 16, 64])
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes half a minute")
    parser.add_argument("--soak", type=int, metavar="N", help="only send N texts and watch the memory")
    parser.add_argument("--out", type=Path, help="write all figures to this JSON file")
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    found: dict[str, Any] = {"hardware": hardware(), "model": args.model.name}
    print(json.dumps(found["hardware"]))
    if args.soak:
        found["soak"] = asyncio.run(soak(args.model, args.soak, args.lengths or SOAK_LENGTHS))
        table("Memory over many texts", found["soak"])
        return
    found["forward"] = alone(lambda: forward_passes(args.model, args.seconds, not args.no_compile))
    table(
        "Forward pass: milliseconds of the lean pass with all heads, and how many times as long others take",
        found["forward"],
    )
    found["load"] = asyncio.run(under_load(args.model, args.seconds, args.lengths or LENGTHS, args.concurrency))
    table("Engine under load", found["load"])
    found["beside"] = asyncio.run(beside_a_long_text(args.model, 3 * args.seconds))
    table("Short texts beside a long one", found["beside"])
    found["examples"] = alone(lambda: from_examples(args.model))
    table("Labels from examples: to embed and to fit", found["examples"])
    found["host"] = alone(lambda: around_the_network(args.model, args.seconds))
    table("The CPU's part of a batch, without the network", found["host"])
    if torch.cuda.is_available():
        found["gpu"] = asyncio.run(gpu_targets(args.model, args.seconds))
        table(f"GPU: {GPU_TARGET['texts_per_s']:.0f} texts/s at p99 < {GPU_TARGET['p99_ms']:.0f} ms", found["gpu"])
    else:
        print("\nGPU: not measured, there is none")
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\npeak resident memory: {found['rss_mb']:.0f} MB")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
