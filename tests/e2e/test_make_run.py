"""What `make run` starts: one command, an answer, and nothing left after Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.stack import QUICKSTART, free_ports, wait_until


@pytest.mark.parametrize("busy", [False, True])
def test_the_launcher(tmp_path: Path, busy: bool) -> None:
    listen, envoy_admin, sidecar, admin = free_ports(4)
    # Four in a row for the models: above the range that connections take their ports from.
    models = next(p for p in range(61_010, 65_000, 4) if all(free(p + i) for i in range(4)))
    flags = [f"--listen=127.0.0.1:{listen}", f"--envoy-admin=127.0.0.1:{envoy_admin}", f"--models-port={models}"]
    flags += [f"--sidecar=127.0.0.1:{sidecar}", f"--admin=127.0.0.1:{admin}", f"--run-dir={tmp_path}"]
    command = [sys.executable, str(QUICKSTART.with_name("run.py")), *flags]
    with socket.socket() as other, (tmp_path / "out").open("wb") as output:
        if busy:
            other.bind(("127.0.0.1", admin))
            other.listen()
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
        try:
            if busy:
                assert process.wait(60) == 1
                assert f"127.0.0.1:{admin}" in (tmp_path / "out").read_text()
                return
            wait_until(lambda: process.poll() is not None or "Requests:" in said(tmp_path), "everything started", 60)
            assert process.poll() is None, said(tmp_path)
            answer = httpx.post(
                f"http://127.0.0.1:{listen}/v1/chat/completions",
                json={"model": "auto", "messages": [{"role": "user", "content": "Write a Python function"}]},
                timeout=30,
            )
            assert (answer.status_code, answer.headers["x-mom-model"]) == (200, "coder"), said(tmp_path)
            wait_until(lambda: "Write a Python function" in said(tmp_path).rpartition("Requests:")[2], "the live line")
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, said(tmp_path)
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGTERM)
                process.wait(30)
    assert all(free(port) for port in (listen, envoy_admin, sidecar, admin, models))


def said(directory: Path) -> str:
    return (directory / "out").read_text(errors="replace")


def free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
