"""Shared installations: one per module, because a classifier takes seconds to load."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.stack import Stack, running, write_config

# Generous, for a loaded machine: what is late goes to the default model, which is a test of its own.
LIMITS = """
limits: {deadline_ms: 5000, max_attempts: 3}
retry: {first_byte_seconds: 1, answer_seconds: 4}
"""

_STACKS: list[Stack] = []


@contextmanager
def registered(found: Stack) -> Iterator[None]:
    """Its logs are shown when a test fails."""
    _STACKS.append(found)
    try:
        yield
    finally:
        _STACKS.remove(found)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Simulated models, one sidecar with the shipped classifier, Envoy."""
    directory = tmp_path_factory.mktemp("stack")
    with running(directory, write_config(directory, LIMITS)) as found, registered(found):
        yield found


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The same without a sidecar: what Envoy does alone."""
    directory = tmp_path_factory.mktemp("bare")
    with running(directory, write_config(directory, LIMITS), sidecars=0) as found, registered(found):
        yield found


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for found in _STACKS:
        found.reset()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Shows the end of every log when a test fails."""
    report = yield
    if report.failed:  # type: ignore[attr-defined] # a wrapper's yield is not typed
        for found in _STACKS:
            report.sections += _sections(found)  # type: ignore[attr-defined]
    return report


def _sections(found: Stack) -> list[tuple[str, str]]:
    logs: list[Path] = [found.directory / "envoy.log", found.directory / "access.log"]
    logs += [car.process.log for car in found.sidecars if car.process is not None]
    return [(log.name, "\n".join(log.read_text(errors="replace").splitlines()[-40:])) for log in logs if log.exists()]


def shown(found: Stack, prompt: str) -> str:
    """The sidecar's live line about a prompt; empty until it is there."""
    return next((line for line in found.sidecars[0].lines() if prompt in line and " ms" in line), "")
