"""A real redis-server on a free loopback port, which can be killed, stopped for a while and started again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

SERVER = shutil.which("redis-server") or shutil.which("valkey-server")

needs_redis = pytest.mark.skipif(
    SERVER is None and "CI" not in os.environ, reason="redis-server is not installed: apt-get install redis-server"
)


class RedisServer:
    """What was acknowledged survives a kill, unless it is `forgetful`."""

    def __init__(self, directory: Path, *, forgetful: bool = False, flags: Sequence[str] = (), port: int = 0) -> None:
        self.port = port or _free_port()
        self._directory = directory
        self._flags = ("--appendonly", "no" if forgetful else "yes", *flags)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        assert SERVER is not None
        plain = () if "--tls-port" in self._flags else ("--port", str(self.port))
        with (self._directory / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                (*(SERVER, "--bind", "127.0.0.1", *plain, "--save", ""), "--dir", str(self._directory), *self._flags),
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                assert self._process.poll() is None, (self._directory / "redis.log").read_text()
                assert time.monotonic() < deadline, "redis-server does not listen"

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._process = None

    def hang(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.kill()


@contextmanager
def redis_server(directory: Path, *, forgetful: bool = False, flags: Sequence[str] = ()) -> Iterator[RedisServer]:
    server = RedisServer(directory, forgetful=forgetful, flags=flags)
    server.start()
    try:
        yield server
    finally:
        server.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
