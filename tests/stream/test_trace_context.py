"""The caller's trace goes through: the model's server is told the span that waits for it."""

from __future__ import annotations

import pytest

from router_extproc.telemetry.context import Sampler
from router_extproc.telemetry.recorder import Decided
from tests.stream.conftest import Sidecar
from tests.stream.streams import chat, request

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(("flags", "on", "goes_on"), [("01", True, True), ("00", True, False), ("01", False, False)])
async def test_the_trace_goes_on_to_the_model(sidecar: Sidecar, flags: str, on: bool, goes_on: bool) -> None:
    seen: list[Decided] = []
    sidecar.recorder.sampler = Sampler(0, on=on)
    sidecar.recorder.on_decision.append(seen.append)
    header = f"00-{TRACE}-{PARENT}-{flags}"
    answers = await sidecar.exchange(request(chat("write code"), traceparent=header))
    (decided,) = seen
    assert (decided.trace is not None) == goes_on
    if decided.trace is None:
        assert "traceparent" not in answers.headers
    else:
        assert decided.trace.parent is not None
        assert decided.trace.parent.span_id == int(PARENT, 16)
        assert answers.headers["traceparent"] == f"00-{TRACE}-{decided.trace.chat_id:016x}-01"
