"""A whole installation on loopback: simulated models, sidecars and a real Envoy with the configuration that we ship."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

from simulated_models import SimulatedModel, servers_for

from router_extproc.config.envoy import BodyMode, EnvoyOptions, Profile, render
from router_extproc.config.envoy_tls import SidecarTls, write_secrets
from router_extproc.config.loader import load
from router_extproc.config.schema import RouterConfig

ENVOY = str(files("envoy") / "_bin" / "envoy")
OLD_ENVOY = Path(__file__).parents[2] / ".venv-old-envoy"
"""An Envoy before priority groups, retries to other clusters and key prefixes: what gateways of others may bring."""
QUICKSTART = Path(__file__).parents[2] / "examples" / "quickstart" / "router.yaml"


def envoy_of(version: str) -> str:
    """The Envoy of a version: 1.40, which we ship for, or 1.36, the oldest that profiles are run with."""
    if version == "1.40":
        return ENVOY
    found = list(OLD_ENVOY.glob("lib/python*/site-packages/envoy/_bin/envoy"))
    if not found:
        raise FileNotFoundError(f"{OLD_ENVOY.name} is missing: `make {OLD_ENVOY.name}/.installed` makes it")
    return str(found[0])


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on."""
    with ExitStack() as open_sockets:
        found = []
        for _ in range(count):
            probe = open_sockets.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            found.append(probe.getsockname()[1])
        return found


def wait_until(condition: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Polls until `condition` gives something true. An OSError counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            found = condition()
        except (OSError, urllib.error.URLError):
            found = None
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.02)


def get(url: str) -> bytes:
    """The body at `url`; an error status raises."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        content: bytes = answer.read()
        return content


class Process:
    """A child process whose output goes to a file."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env={**os.environ, **environment}
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raises when it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.log.name} ended with {self._process.returncode}:\n{self.tail()}")

    def tail(self) -> str:
        """The end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-60:])

    def kill(self) -> None:
        """SIGKILL, and waits for its end."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """SIGTERM, SIGKILL after a while."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self.kill()


class Models:
    """Simulated models on an event loop of their own thread."""

    def __init__(self, servers: Mapping[str, SimulatedModel]) -> None:
        self.servers = servers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="simulated-models", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        for name in self.servers:
            self.start(name)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for name in self.servers:
            self.stop(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def start(self, name: str) -> None:
        """Lets a model listen (again)."""
        asyncio.run_coroutine_threadsafe(self.servers[name].start(), self._loop).result(10)

    def stop(self, name: str) -> None:
        """From now on connections to it are refused."""
        asyncio.run_coroutine_threadsafe(self.servers[name].stop(), self._loop).result(10)


@dataclass
class Sidecar:
    """One `router-extproc serve`, which can be killed and started again on the same ports."""

    config: Path
    directory: Path
    port: int
    admin_port: int
    flags: Sequence[str] = ()
    process: Process | None = None

    @property
    def address(self) -> str:
        """Where Envoy reaches it."""
        return f"127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        """Its operator's port."""
        return f"http://127.0.0.1:{self.admin_port}"

    def start(self, wait: bool = True) -> None:
        """Starts it, and waits until it is ready."""
        command = [sys.executable, "-m", "router_extproc", "serve", "--live", "--drain-notice", "0"]
        command += ["--config", str(self.config), "--listen", self.address]
        command += ["--admin", f"127.0.0.1:{self.admin_port}", *self.flags]
        self.process = Process(command, self.directory / f"sidecar-{self.port}.log", {})
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Until `/readyz` says so."""
        wait_until(self._ready, "sidecar ready", 60)

    def _ready(self) -> bool:
        assert self.process is not None
        self.process.check()
        return bool(get(f"{self.admin}/readyz"))

    def metrics(self) -> str:
        """The page of metrics."""
        return get(f"{self.admin}/metrics").decode()

    def lines(self) -> list[str]:
        """What it printed."""
        assert self.process is not None
        return self.process.log.read_text(errors="replace").splitlines()


@dataclass
class Stack:
    """Everything that runs. `config` is the router.yaml that sidecars and Envoy were started with."""

    url: str
    admin: str
    config: Path
    models: Models
    sidecars: list[Sidecar]
    envoy: Process
    directory: Path
    logs: list[Process] = field(default_factory=list)

    def server(self, name: str) -> SimulatedModel:
        """A simulated model."""
        return self.models.servers[name]

    def reset(self) -> None:
        """Forgets what the models saw, and failures that were not used up."""
        for server in self.models.servers.values():
            server.seen.clear()
            server.failures.clear()

    def counter(self, name: str) -> int:
        """One of Envoy's statistics."""
        stats = json.loads(get(f"{self.admin}/stats?format=json&filter=^{re.escape(name)}$"))["stats"]
        return int(stats[0]["value"]) if stats and "value" in stats[0] else 0

    def healthy_sidecars(self) -> int:
        """How many sidecars Envoy takes for healthy."""
        return self.counter("cluster.mom-sidecar.membership_healthy")

    def wait_sidecars(self, count: int) -> None:
        """Until Envoy's health checks agree."""
        wait_until(lambda: self.healthy_sidecars() == count, f"{count} healthy sidecars")

    def access_log(self) -> list[dict[str, Any]]:
        """Envoy's access log."""
        lines = (self.directory / "access.log").read_text().splitlines()
        return [json.loads(line) for line in lines]


def write_config(directory: Path, extra: str = "", edit: Callable[[str], str] = lambda text: text) -> Path:
    """The quickstart's router.yaml with free ports, and sections added at its end."""
    text = QUICKSTART.read_text()
    for port in sorted(set(re.findall(r"127\.0\.0\.1:(\d+)", text))):
        text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_ports(1)[0]}")
    path = directory / "router.yaml"
    path.write_text(edit(text) + extra)
    return path


def envoy_keys(config: RouterConfig) -> dict[str, str]:
    """A key for every model, by the environment variable that it is read from."""
    return {m.auth.env: f"sk-{name}-0123" for name, m in config.models.items() if m.auth and m.auth.env}


@contextmanager
def running(
    directory: Path,
    config: Path,
    *,
    sidecars: int = 1,
    body_mode: BodyMode = BodyMode.STREAMED,
    flags: Sequence[str] = (),
    addresses: Sequence[str] = (),
    message_timeout: float | None = None,
    prepare: Callable[[dict[str, SimulatedModel]], None] = lambda servers: None,
    ca_file: str = EnvoyOptions().ca_file,
    sidecar_tls: SidecarTls | None = None,
    wait_healthy: bool = True,
    profile: Profile = Profile.FULL,
    backups: Mapping[str, tuple[str, ...]] = MappingProxyType({}),
    proxy: str = ENVOY,
    edit: Callable[[str], str] = lambda text: text,
) -> Iterator[Stack]:
    """Starts everything and stops it again.

    `addresses` are sidecars that somebody else runs; `prepare` may change or drop simulated models before they start.
    `wait_healthy` waits until Envoy takes every sidecar for healthy. `edit` changes Envoy's configuration.
    """
    loaded = load(config).config
    keys = envoy_keys(loaded)
    listen, admin, *ports = free_ports(2 + 2 * sidecars)
    with ExitStack() as stack:
        servers = servers_for(loaded, keys)
        prepare(servers)
        models = stack.enter_context(Models(servers))
        cars = [Sidecar(config, directory, ports[2 * i], ports[2 * i + 1], flags) for i in range(sidecars)]
        for car in cars:
            car.start(wait=False)
            stack.callback(lambda car=car: car.process and car.process.kill())  # type: ignore[misc] # mypy takes no default
        options = EnvoyOptions(
            listen=f"127.0.0.1:{listen}",
            admin=f"127.0.0.1:{admin}",
            sidecars=(*(car.address for car in cars), *addresses) or (f"127.0.0.1:{free_ports(1)[0]}",),
            body_mode=body_mode,
            message_timeout_seconds=message_timeout,
            access_log=str(directory / "access.log"),
            ca_file=ca_file,
            sidecar_tls=sidecar_tls,
            profile=profile,
            backups=backups,
        )
        if sidecar_tls is not None and sidecar_tls.sds_directory is not None:
            write_secrets(sidecar_tls, Path(sidecar_tls.sds_directory))
        path = directory / "envoy.yaml"
        path.write_text(edit(render(loaded, options)))
        command = [proxy, "-c", str(path), "--concurrency", "2", "--use-dynamic-base-id"]
        command += ["--log-level", "warning", "--component-log-level", "misc:error", "--file-flush-interval-msec", "50"]
        envoy = Process(command, directory / "envoy.log", keys)
        stack.callback(envoy.stop)
        found = Stack(f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{admin}", config, models, cars, envoy, directory)

        def ready() -> bool:
            envoy.check()
            return get(f"{found.admin}/ready") == b"LIVE\n"

        wait_until(ready, "Envoy ready")
        for car in cars:
            car.wait_ready()
        if wait_healthy and (cars or addresses):
            found.wait_sidecars(len(cars) + len(addresses))
        yield found
        envoy.check()
