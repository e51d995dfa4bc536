"""Where the gateways' port can be, and what is said where it cannot."""

from __future__ import annotations

import socket

import pytest

from router_extproc.processor import Processor
from router_extproc.runtime import Runtimes
from router_extproc.server import Server
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import FakeClassifier
from tests.stream.conftest import ANSWERS, CONFIG, LABELS, compiled


async def test_an_address_that_is_taken_is_named() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    processor = Processor(Runtimes(compiled(CONFIG, FakeClassifier(ANSWERS, LABELS))), recorder)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match=f"cannot listen on {address}: it is taken"):
            Server(address, processor, recorder, dict)
    metrics.close()
