"""A real gRPC server on loopback with the real processor, and a client that speaks as Envoy does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest
import pytest_asyncio

from router_extproc.config.loader import parse
from router_extproc.pb import access_log_pb2_grpc, ext_proc_pb2, ext_proc_pb2_grpc
from router_extproc.processor import Processor
from router_extproc.runtime import Runtime, Runtimes, compile_runtime
from router_extproc.server import Server
from router_extproc.signals.base import SHIPPED
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import FakeClassifier
from tests.stream.streams import Answers, chunks_of

CONFIG = """
models:
  small: {url: "http://127.0.0.1:1", upstream_model: small-v1, price: {input: 0.1, output: 0.2}, context_window: 4000}
  coder: {url: "http://127.0.0.1:2", cluster: coder-cluster, price: {input: 1, output: 2}, modalities: [text, image]}
  claude: {url: "http://127.0.0.1:3", provider: anthropic, price: {input: 3, output: 9}}
  premium: {url: "http://127.0.0.1:4", price: {input: 5, output: 15}}
signals:
  intent: {type: classifier, head: intent}
routes:
  - {name: code, when: 'intent.label == "code_generation"', models: [coder], fallback: [small]}
  - {name: talk, when: 'intent.label == "small_talk"', models: [small]}
default: [premium, claude]
limits: {deadline_ms: 200, max_body_bytes: 1000000}
"""

LABELS = {"intent": ("other", "code_generation", "small_talk")}
ANSWERS: dict[str, dict[str, str | tuple[str, float]]] = {
    "write code": {"intent": ("code_generation", 0.97)},
    "maybe code": {"intent": ("code_generation", 0.8)},
    "hardly code": {"intent": ("code_generation", 0.4)},
    "hello": {"intent": ("small_talk", 0.95)},
}


def compiled(text: str, classifier: FakeClassifier, generation: int = 1) -> Runtime:
    return compile_runtime(
        parse(text.encode(), Path("router.yaml")), {SHIPPED: classifier.labels}, {SHIPPED: classifier}, generation
    )


@dataclass
class Sidecar:
    """The running server and what stands behind it."""

    classifier: FakeClassifier
    runtimes: Runtimes
    metrics: Metrics
    recorder: Recorder
    stub: ext_proc_pb2_grpc.ExternalProcessorAsyncStub
    log_stub: access_log_pb2_grpc.AccessLogServiceAsyncStub
    address: str

    async def exchange(self, messages: Iterable[ext_proc_pb2.ProcessingRequest]) -> Answers:
        """Sends all messages and collects all answers."""
        messages = list(messages)
        call = self.stub.Process(iter(messages))
        return Answers([reply async for reply in call], chunks_of(messages))

    def open(self) -> grpc.aio.StreamStreamCall[ext_proc_pb2.ProcessingRequest, ext_proc_pb2.ProcessingResponse]:
        """A stream to be driven message by message."""
        return self.stub.Process()  # type: ignore[call-arg] # without an iterator it is written to by hand


@pytest.fixture
def classifier() -> FakeClassifier:
    return FakeClassifier(ANSWERS, LABELS)


@pytest_asyncio.fixture
async def sidecar(classifier: FakeClassifier) -> AsyncIterator[Sidecar]:
    metrics = Metrics()
    recorder = Recorder(metrics)
    runtimes = Runtimes(compiled(CONFIG, classifier))
    server = Server("127.0.0.1:0", Processor(runtimes, recorder), recorder, lambda: runtimes.current.models_by_cluster)
    await server.start()
    await server.ready()
    address = f"127.0.0.1:{server.port}"
    async with grpc.aio.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        yield Sidecar(
            classifier,
            runtimes,
            metrics,
            recorder,
            ext_proc_pb2_grpc.ExternalProcessorStub(channel),
            access_log_pb2_grpc.AccessLogServiceStub(channel),
            address,
        )
    await server.drain(0, 1)
    metrics.close()


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], object]:
    """Waits for a condition that another task brings about; the test's own timeout bounds it."""

    async def wait(condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the condition is set by code that knows no event of ours
            await asyncio.sleep(0.001)

    return wait
