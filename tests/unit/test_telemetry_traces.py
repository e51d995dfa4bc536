"""Traces: context in and out, spans by the conventions, and a collector that gets what a real one would parse."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from aiohttp import web
from google.protobuf.json_format import Parse
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, SignalValue, Usage
from router_extproc.export import Exporter
from router_extproc.telemetry.context import Sampler, TraceContext
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Decided, Recorder, Served
from router_extproc.telemetry.tracing import Span, spans_of

TRACE, PARENT, IDENTITY = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "80000000" + "0" * 23 + "1"
CONTEXT = TraceContext(TRACE, PARENT, "a" * 16, "b" * 16)
SERVED = Served("openai", "gpt-x", "api.example.com", 443)
DECIDED = Decided(
    decision_id="d1",
    request=LlmRequest("chat_completions", "auto", None, "SECRET", max_output_tokens=99),
    signals=SignalSet({"intent": SignalValue("chat", 0.91)}, {"pii": "late"}),
    decision=Decision("talk", Band.RECOMMENDED, 0.91, ("small",), "sure"),
    plan=Plan(("small", "big")),
    seconds=0.003,
    generation=4,
    stages=(("body", 0.01), ("classify", 0.002), ("signals", 0.0005), ("policy", 0.0005)),
    at=1000.0,
    trace=CONTEXT,
)
OUTCOME = Outcome("d1", "chat_completions", 200, "small", 1, 0.8, 0.2, Usage(10, 5, 2, "gpt-x-1"), stream=True)


def test_a_callers_trace_goes_on() -> None:
    found = Sampler(0).context(f"00-{TRACE}-{PARENT}-01", IDENTITY)
    assert found is not None
    assert (found.trace_id, found.parent_id) == (TRACE, PARENT)
    assert found.traceparent == f"00-{TRACE}-{found.chat_id}-01"
    assert len({found.route_id, found.chat_id, PARENT}) == 3
    assert Sampler(1).context(f"00-{TRACE}-{PARENT}-00", IDENTITY) is None
    assert Sampler(1, on=False).context(f"00-{TRACE}-{PARENT}-01", IDENTITY) is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "nonsense",
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{PARENT}-01",
        f"00-{TRACE}-{PARENT}-01-more",
    ],
)
def test_without_a_usable_header_the_ratio_decides(header: str | None) -> None:
    found = Sampler(0.51).context(header, IDENTITY)
    assert found is not None
    assert (found.trace_id, found.parent_id) == (IDENTITY, "")
    assert Sampler(0.49).context(header, IDENTITY) is None
    assert Sampler(1).context(header, "f" * 32) is not None
    assert Sampler(0).context(header, "0" * 31 + "1") is None


def test_a_later_version_of_the_header_is_read() -> None:
    assert Sampler(0).context(f"01-{TRACE}-{PARENT}-01-more", IDENTITY) is not None


@given(st.text(max_size=80))
def test_no_header_breaks_it(header: str) -> None:
    assert Sampler(1).context(header, IDENTITY) is not None


def named(spans: list[Span]) -> dict[str, Span]:
    return {span.name: span for span in spans}


def test_the_spans_of_an_exchange_make_one_tree() -> None:
    spans = list(spans_of(CONTEXT, OUTCOME, DECIDED, SERVED))
    by_id = {span.span_id: span for span in spans}
    found = named(spans)
    assert {span.trace_id for span in spans} == {TRACE}
    assert len(by_id) == len(spans)
    assert found["mom.route"].parent_id == PARENT
    assert found["chat gpt-x"].parent_id == found["mom.stage policy"].parent_id == found["mom.route"].span_id
    assert found["mom.signal intent"].parent_id == found["mom.stage signals"].span_id
    assert all(span.parent_id == PARENT or span.parent_id in by_id for span in spans)
    assert all(span.start <= span.end for span in spans)
    assert found["mom.route"].start == pytest.approx(999.987)
    assert found["mom.stage policy"].end == pytest.approx(found["mom.route"].end)
    assert found["mom.signal pii"].error == "late"


def test_the_answers_span_follows_the_conventions() -> None:
    span = named(list(spans_of(CONTEXT, OUTCOME, DECIDED, SERVED)))["chat gpt-x"]
    assert span.kind == 3
    assert span.span_id == "b" * 16
    assert span.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-x",
        "gen_ai.request.max_tokens": 99,
        "gen_ai.response.model": "gpt-x-1",
        "gen_ai.response.time_to_first_chunk": 0.2,
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 5,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "server.address": "api.example.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "mom.attempts": 1,
        "mom.decision.id": "d1",
    }
    failed = named(list(spans_of(CONTEXT, replace(OUTCOME, status=503, usage=None), DECIDED, None)))["chat"]
    assert failed.error == "503"
    assert "chat" not in named(list(spans_of(CONTEXT, None, DECIDED, SERVED)))


class Collector:
    """Takes OTLP as a real collector does, and parses it with OpenTelemetry's own messages."""

    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.text = ""
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        content = await request.read()
        assert request.content_type == "application/json"
        body = json.loads(gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content)
        self.text += json.dumps(body)
        _ids_as_protobuf_has_them(body)
        if request.path == "/v1/traces":
            self.traces.append(Parse(json.dumps(body), ExportTraceServiceRequest()))
        else:
            self.metrics.append(Parse(json.dumps(body), ExportMetricsServiceRequest()))
        return web.json_response({})


def _ids_as_protobuf_has_them(value: Any) -> None:
    """OTLP writes ids in hex where protobuf's JSON has base64."""
    if isinstance(value, list):
        for item in value:
            _ids_as_protobuf_has_them(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in ("traceId", "spanId", "parentSpanId"):
                value[key] = base64.b64encode(bytes.fromhex(item)).decode()
            else:
                _ids_as_protobuf_has_them(item)


@asynccontextmanager
async def collecting() -> AsyncIterator[Collector]:
    collector = Collector()
    app = web.Application()
    app.router.add_post("/v1/{signal}", collector.take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collector.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield collector
    finally:
        await runner.cleanup()


async def test_a_collector_gets_traces_and_metrics_that_it_can_parse() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    recorder.served = lambda: {"small": SERVED}
    async with collecting() as collector:
        exporter = Exporter(collector.url, metrics)
        recorder.listeners.append(lambda outcome, decided: exporter.ended(outcome, decided, SERVED))
        exporter.start()
        recorder.decided(DECIDED)
        recorder.outcome(OUTCOME)
        recorder.decided(replace(DECIDED, decision_id="d2", trace=None))
        recorder.outcome(replace(OUTCOME, decision_id="d2"))
        metrics.observe()
        await asyncio.to_thread(exporter.close)
        (traces,), (pushed,) = collector.traces, collector.metrics
    spans = traces.resource_spans[0].scope_spans[0].spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.name for span in spans} == set(named(list(spans_of(CONTEXT, OUTCOME, DECIDED, SERVED))))
    (answer,) = (span for span in spans if span.name == "chat gpt-x")
    assert answer.end_time_unix_nano - answer.start_time_unix_nano == pytest.approx(800_000_000, abs=1000)
    found = {metric.name: metric for metric in pushed.resource_metrics[0].scope_metrics[0].metrics}
    usage = found["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    assert sum(point.count for point in usage.histogram.data_points) == 4
    attributes = {pair.key: pair.value for pair in usage.histogram.data_points[0].attributes}
    assert attributes["server.port"].int_value == 443
    assert found["mom.decisions"].sum.is_monotonic
    assert found["mom.decisions"].sum.data_points[0].as_double == 2
    assert found["process.memory.usage"].gauge.data_points[0].as_double > 0
    examples = found["mom.decision.duration"].histogram.data_points[0].exemplars
    assert [example.trace_id.hex() for example in examples] == [TRACE]
    assert "SECRET" not in collector.text
    assert exporter.failures == 0


def test_openmetrics_names_the_trace_of_a_recent_request() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    recorder.decided(DECIDED)
    recorder.outcome(OUTCOME)
    text = metrics.exposition(openmetrics=True).decode()
    found = {
        sample.name: sample.exemplar
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    }
    assert set(found) == {"mom_decision_duration_seconds_bucket", "mom_exchange_duration_seconds_bucket"}
    example = found["mom_decision_duration_seconds_bucket"]
    assert (example.labels, example.value, float(example.timestamp)) == ({"trace_id": TRACE}, 0.003, 1000.0)
    assert "trace_id" not in metrics.exposition().decode()


async def test_a_collector_that_is_down_costs_telemetry_alone(caplog: pytest.LogCaptureFixture) -> None:
    async with collecting() as collector:
        url = collector.url
    exporter = Exporter(url, Metrics())
    exporter.start()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            exporter.ended(OUTCOME, DECIDED, SERVED)
            await asyncio.to_thread(exporter.flush)
        await asyncio.to_thread(exporter.close)
    assert exporter.failures == 4
    assert caplog.text.count("takes no telemetry") == 1
