"""`litellm[proxy]` in front of the same simulated model, for comparison: a proxy in Python that classifies nothing.

It gets a virtual environment of its own under the run directory, since its dependencies are not ours.
"""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from bench.installation import CannotMeasure, Process, ready, start

VERSION = "1.102.4"
INSTALL_SECONDS = 600.0
READY_SECONDS = 120.0


async def install(directory: Path) -> Path:
    """The virtual environment, made on the first call. Raises CannotMeasure when pip does."""
    home = directory / "litellm-venv"
    stamp = home / f"installed-{VERSION}"
    if stamp.exists():
        return home
    print(f"litellm: installing litellm[proxy]=={VERSION} into {home}", file=sys.stderr, flush=True)
    commands = (
        [sys.executable, "-m", "venv", str(home)],
        [str(home / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", f"litellm[proxy]=={VERSION}"],
    )
    for command in commands:
        child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
        try:
            async with asyncio.timeout(INSTALL_SECONDS):
                code = await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise CannotMeasure(f"litellm: `{' '.join(command)}` took more than {INSTALL_SECONDS:g} s") from None
        if code:
            raise CannotMeasure(f"litellm: `{' '.join(command)}` ended with {code}")
    stamp.touch()
    return home


async def start_litellm(
    stack: AsyncExitStack, home: Path, directory: Path, port: int, model_url: str, workers: int
) -> Process:
    """Starts the proxy with `workers` processes and waits until it answers."""
    config = {
        "model_list": [
            {
                "model_name": "auto",
                "litellm_params": {"model": "openai/bench", "api_base": f"{model_url}/v1", "api_key": "bench"},
            }
        ],
        "litellm_settings": {"telemetry": False},
    }
    path = directory / "litellm.yaml"
    path.write_text(json.dumps(config))
    command = [str(home / "bin" / "litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--num_workers", str(workers)]
    # Its list of prices comes from its own package, not from the network.
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_TELEMETRY": "False"}
    process = await start(stack, "litellm", command, directory, **quiet)
    await ready(process, f"http://127.0.0.1:{port}/health/liveliness", b"alive", READY_SECONDS)
    return process
