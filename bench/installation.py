"""The processes that are measured, on loopback: how they start, when they are ready, what CPU time they use."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import yaml

from bench.envoy_variants import KEY, address_of

ENVOY = str(files("envoy") / "_bin" / "envoy")
START_SECONDS = 60.0
_TICKS = os.sysconf("SC_CLK_TCK")


class CannotMeasure(Exception):
    """Why there are no figures, in words for a terminal."""


@dataclass(frozen=True, slots=True)
class Variant:
    """One thing to measure: where its requests go and which processes work for it."""

    name: str
    about: str
    url: str
    processes: tuple[Process, ...] = ()


@dataclass(slots=True)
class Process:
    """A child whose output goes to a file."""

    name: str
    child: asyncio.subprocess.Process
    log: Path

    def check(self) -> None:
        """Raises CannotMeasure when it has ended."""
        if self.child.returncode is not None:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])
            raise CannotMeasure(f"{self.name} ended with {self.child.returncode}, see {self.log}\n{tail}")

    def cpu_seconds(self) -> float:
        """CPU time that it and its children, as far as they live, have used; 0 where there is no /proc."""
        return sum(_cpu_seconds(pid) for pid in _family(self.child.pid))


async def start(stack: AsyncExitStack, name: str, command: Sequence[str], directory: Path, **env: str) -> Process:
    """Starts a child that ends with `stack`, in a session of its own: Ctrl-C reaches only us."""
    log = directory / f"{name}.log"
    with log.open("wb") as output:
        child = await asyncio.create_subprocess_exec(
            *command, stdout=output, stderr=output, env={**os.environ, **env}, start_new_session=True
        )

    async def end() -> None:
        if child.returncode is None:
            child.terminate()
            try:
                async with asyncio.timeout(10):
                    await child.wait()
            except TimeoutError:
                child.kill()
                await child.wait()

    stack.push_async_callback(end)
    return Process(name, child, log)


async def start_envoy(
    stack: AsyncExitStack, name: str, document: Mapping[str, Any], directory: Path, workers: int
) -> Process:
    """Starts an Envoy and waits until it is ready."""
    path = directory / f"{name}.json"
    path.write_text(json.dumps(document, indent=1))
    command = [ENVOY, "-c", str(path), "--use-dynamic-base-id", "--concurrency", str(workers)]
    command += ["--log-level", "warning", "--component-log-level", "misc:error"]
    process = await start(stack, name, command, directory, **{KEY: "bench"})
    await ready(process, f"http://{address_of(document)}/ready", b"LIVE")
    return process


async def start_sidecar(
    stack: AsyncExitStack, name: str, config: Mapping[str, Any], directory: Path, ports: tuple[int, int], model: Path
) -> Process:
    """Starts `router-extproc serve`; `ports` are those of ext_proc and of the admin page."""
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(dict(config), sort_keys=False))
    command = [sys.executable, "-m", "router_extproc", "serve", "--config", str(path), "--log-level", "warning"]
    command += ["--listen", f"127.0.0.1:{ports[0]}", "--admin", f"127.0.0.1:{ports[1]}", "--drain-notice", "0"]
    return await start(stack, name, [*command, "--model-dir", str(model)], directory)


async def ready(process: Process, url: str, expected: bytes, seconds: float = START_SECONDS) -> None:
    """Waits until `url` answers with something that contains `expected`."""
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(_answers, url, expected):
        process.check()
        if time.monotonic() > deadline:
            raise CannotMeasure(f"{process.name} was not ready within {seconds:g} s, see {process.log}")
        await asyncio.sleep(0.1)


def _answers(url: str, expected: bytes) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            content: bytes = answer.read()
            return expected in content
    except (URLError, OSError):
        return False


def free_ports(number: int) -> list[int]:
    """Ports on loopback that nobody listens on."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]


def _family(pid: int) -> Iterable[int]:
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from _family(int(child))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS
