"""Starts everything on loopback: four simulated models, the sidecar and a real Envoy. Ctrl-C stops it all.

The policy is `router.yaml` beside this file; edit it while this runs. Envoy reads its own part (addresses, keys) only
when it starts.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from simulated_models import servers_for

from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.loader import load
from router_extproc.config.schema import RouterConfig
from router_extproc.errors import ConfigError

HERE = Path(__file__).parent
ENVOY = str(files("envoy") / "_bin" / "envoy")
START_SECONDS = 60.0


class CannotStart(Exception):
    """Why nothing runs, in words for a terminal."""


def main() -> int:
    """Parses the command line and runs until interrupted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    _flag(parser, "config", str(HERE / "router.yaml"), "the policy")
    _flag(parser, "listen", "127.0.0.1:10000", "where clients connect to Envoy")
    _flag(parser, "envoy-admin", "127.0.0.1:9901", "Envoy's admin page")
    _flag(parser, "sidecar", "127.0.0.1:50051", "where Envoy reaches the sidecar")
    _flag(parser, "admin", "127.0.0.1:9090", "the sidecar's metrics, health and configuration")
    _flag(parser, "models-port", "", "first port of the simulated models; default: as the policy says")
    _flag(parser, "run-dir", ".run", "where logs and the rendered Envoy configuration go")
    try:
        asyncio.run(run(parser.parse_args()))
    except CannotStart as error:
        print(f"run: {error}", file=sys.stderr)
        return 1
    return 0


def _flag(parser: argparse.ArgumentParser, name: str, default: str, text: str) -> None:
    variable = "MOM_" + name.upper().replace("-", "_")
    parser.add_argument(f"--{name}", default=os.environ.get(variable, default), help=f"{text} [{variable}, {default}]")


async def run(arguments: argparse.Namespace) -> None:
    """Starts everything, shows the sidecar's live lines, and ends when interrupted or when a part dies."""
    directory = Path(arguments.run_dir)
    path, config = _policy(arguments, directory)
    keys = {m.auth.env: secrets.token_hex(16) for m in config.models.values() if m.auth is not None and m.auth.env}
    options = EnvoyOptions(
        listen=arguments.listen,
        admin=arguments.envoy_admin,
        sidecars=(arguments.sidecar,),
        access_log=str(directory / "access.log"),
    )
    for address in (arguments.listen, arguments.envoy_admin, arguments.sidecar, arguments.admin):
        _check_free(address)
    envoy_yaml = directory / "envoy.yaml"
    try:
        envoy_yaml.write_text(render(config, options))
    except ConfigError as error:
        raise CannotStart(str(error)) from error

    interrupted = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, interrupted.set)
    async with AsyncExitStack() as stack:
        for name, server in servers_for(config, keys).items():
            try:
                await server.start()
            except OSError as error:
                raise CannotStart(f"the simulated model {name} needs port {server.port}: {error.strerror}") from error
            stack.push_async_callback(server.stop)
        command = [sys.executable, "-m", "router_extproc", "serve", "--live", "--config", str(path)]
        command += ["--listen", arguments.sidecar, "--admin", arguments.admin, "--drain-notice", "0"]
        command += ["--state-dir", str(directory / "state")]
        sidecar = await _start(stack, command, directory / "sidecar.log", {}, show=True)
        command = [ENVOY, "-c", str(envoy_yaml), "--use-dynamic-base-id", "--concurrency", "2"]
        command += ["--log-level", "warning", "--component-log-level", "misc:error"]
        envoy = await _start(stack, command, directory / "envoy.log", keys, show=False)
        parts = {"the sidecar": sidecar, "Envoy": envoy}
        ended: dict[asyncio.Task[int], str] = {asyncio.create_task(part.wait()): name for name, part in parts.items()}
        stop: asyncio.Task[bool] = asyncio.create_task(interrupted.wait())
        ready = asyncio.create_task(_ready(arguments.admin, arguments.envoy_admin))
        waiting: list[asyncio.Task[Any]] = [ready, stop]
        try:
            await asyncio.wait([*waiting, *ended], timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not ready.done() and not stop.done():
                dead = [name for task, name in ended.items() if task.done()] or ["not everything"]
                raise CannotStart(f"{dead[0]} did not start; see {directory}/*.log\n{_tail(directory, dead[0])}")
            if not stop.done():
                print(_welcome(arguments, config, path, directory), flush=True)
                await asyncio.wait([stop, *ended], return_when=asyncio.FIRST_COMPLETED)
            for task, name in ended.items():
                if task.done() and not stop.done():
                    raise CannotStart(f"{name} ended; see {directory}/*.log\n{_tail(directory, name)}")
            print("\nstopping", flush=True)
        finally:
            for task in (*waiting, *ended):
                task.cancel()


def _policy(arguments: argparse.Namespace, directory: Path) -> tuple[Path, RouterConfig]:
    """The policy and where it stands: a copy with other ports when the models shall listen elsewhere."""
    directory.mkdir(parents=True, exist_ok=True)
    path = Path(arguments.config)
    if arguments.models_port:
        text = path.read_text(encoding="utf-8")
        ports = dict.fromkeys(re.findall(r"url: http://127\.0\.0\.1:(\d+)", text))
        moved = {port: str(int(arguments.models_port) + index) for index, port in enumerate(ports)}
        text = re.sub(r"(url: http://127\.0\.0\.1:)(\d+)", lambda m: m[1] + moved[m[2]], text)
        path = directory / "router.yaml"
        path.write_text(text, encoding="utf-8")
    try:
        return path, load(path).config
    except (ConfigError, OSError) as error:
        raise CannotStart(str(error)) from error


def _check_free(address: str) -> None:
    if address.startswith("unix:"):
        return
    host, _, port = address.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except (OSError, ValueError) as error:
            raise CannotStart(f"{address}: {error}; every port has a flag, see --help") from error


async def _start(
    stack: AsyncExitStack, command: Sequence[str], log: Path, environment: dict[str, str], show: bool
) -> asyncio.subprocess.Process:
    """A child in a session of its own, so that Ctrl-C reaches only us and the order of stopping is ours."""
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdout=None if show else output,
            stderr=output,
            env={**os.environ, **environment},
            start_new_session=True,
        )

    async def end() -> None:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(5):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()

    stack.push_async_callback(end)
    return process


async def _ready(admin: str, envoy_admin: str) -> None:
    """Until the sidecar is ready, Envoy is, and Envoy knows that the sidecar is."""
    member = "cluster.mom-sidecar.membership_healthy"
    wanted = (
        (f"http://{admin}/readyz", b"ok"),
        (f"http://{envoy_admin}/ready", b"LIVE"),
        (f"http://{envoy_admin}/stats?filter={member}", f"{member}: 1".encode()),
    )
    for url, answer in wanted:
        while not await asyncio.to_thread(_answers, url, answer):  # noqa: ASYNC110  # another process: no event to await
            await asyncio.sleep(0.05)


def _answers(url: str, expected: bytes) -> bool:
    try:
        with urlopen(url, timeout=2) as answer:
            content: bytes = answer.read()
            return expected in content
    except (URLError, OSError):
        return False


def _tail(directory: Path, name: str) -> str:
    log = directory / ("envoy.log" if name == "Envoy" else "sidecar.log")
    return "\n".join(log.read_text(errors="replace").splitlines()[-15:])


def _welcome(arguments: argparse.Namespace, config: RouterConfig, path: Path, directory: Path) -> str:
    first = next(iter(config.models.values()))
    chat = f"curl -s http://{arguments.listen}/v1/chat/completions -H 'content-type: application/json'"
    code = '{"model": "auto", "messages": [{"role": "user", "content": "Write a Python function to merge lists"}]}'
    hello = '{"model": "auto", "stream": true, "messages": [{"role": "user", "content": "Where is my parcel?"}]}'
    fail = '{"do": "status", "status": 503, "times": 3}'
    coder = config.models.get("coder", first).url.removeprefix("http://").partition("/")[0]
    return f"""
  Envoy    http://{arguments.listen}    admin http://{arguments.envoy_admin}
  sidecar  http://{arguments.admin}/    live page; also /metrics  /config  /savings  /readyz
  policy   {path} (edit it: rules reload; for new models restart)
  logs     {directory}/

Paste one of these into another terminal:

  {chat} -i -d '{code}'

  {chat} -N -d '{hello}'

  curl -s http://{coder}/_simulate -d '{fail}'   # then send the first again: another model answers

Requests:"""


if __name__ == "__main__":
    sys.exit(main())
