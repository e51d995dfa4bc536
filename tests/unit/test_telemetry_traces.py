"""Traces: context in and out, spans by the conventions, and a collector that gets what a real one would parse."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, StatusCode, TraceFlags
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from router_extproc import __version__
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, SignalValue, Usage
from router_extproc.telemetry import otlp
from router_extproc.telemetry.context import Sampler, TraceContext
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.otlp import Collector
from router_extproc.telemetry.recorder import Decided, Recorder, Served
from router_extproc.telemetry.tracing import Tracing

TRACE, PARENT, IDENTITY = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "80000000" + "0" * 23 + "1"
ROUTE_ID, CHAT_ID = int("a" * 16, 16), int("b" * 16, 16)
ABOVE = SpanContext(int(TRACE, 16), int(PARENT, 16), is_remote=True, trace_flags=TraceFlags(1))
CONTEXT = TraceContext(int(TRACE, 16), ABOVE, ROUTE_ID, CHAT_ID)
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


def traced(header: str | None) -> dict[str, str]:
    return {} if header is None else {"traceparent": header}


def test_a_callers_trace_goes_on() -> None:
    found = Sampler(0).context(traced(f"00-{TRACE}-{PARENT}-01") | {"tracestate": "vendor=1"}, IDENTITY)
    assert found is not None
    assert found.parent is not None
    assert (found.trace_id, found.parent.trace_id, found.parent.span_id) == (int(TRACE, 16), *ABOVE[:2])
    assert found.parent.trace_state.to_header() == "vendor=1"
    assert found.traceparent == f"00-{TRACE}-{found.chat_id:016x}-01"
    assert len({found.route_id, found.chat_id, int(PARENT, 16)}) == 3
    assert Sampler(1).context(traced(f"00-{TRACE}-{PARENT}-00"), IDENTITY) is None
    assert Sampler(1, on=False).context(traced(f"00-{TRACE}-{PARENT}-01"), IDENTITY) is None


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
    found = Sampler(0.51).context(traced(header), IDENTITY)
    assert found is not None
    assert (found.trace_id, found.parent) == (int(IDENTITY, 16), None)
    assert Sampler(0.49).context(traced(header), IDENTITY) is None
    assert Sampler(1).context(traced(header), "f" * 32) is not None
    assert Sampler(0).context(traced(header), "0" * 31 + "1") is None


def test_the_ratio_is_one_of_real_decision_ids() -> None:
    taken = sum(Sampler(0.2).context({}, uuid.uuid4().hex) is not None for _ in range(5000))
    assert 850 < taken < 1150


def test_a_later_version_of_the_header_is_read() -> None:
    assert Sampler(0).context(traced(f"01-{TRACE}-{PARENT}-01-more"), IDENTITY) is not None


@given(st.text(max_size=80), st.text(max_size=80))
def test_no_header_breaks_it(header: str, state: str) -> None:
    assert Sampler(1).context({"traceparent": header, "tracestate": state}, IDENTITY) is not None
    usable = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": state}
    assert Sampler(1).context(usable, IDENTITY) is not None


def spans_of(outcome: Outcome | None, decided: Decided, served: Served | None) -> dict[str, ReadableSpan]:
    exporter = InMemorySpanExporter()
    Tracing(SimpleSpanProcessor(exporter)).exchange(outcome, decided, served)
    spans = exporter.get_finished_spans()
    found = {span.name: span for span in spans}
    assert len(found) == len(spans)
    return found


def id_of(span: ReadableSpan) -> int:
    context: SpanContext | None = span.context
    assert context is not None
    return context.span_id


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent is not None else 0


def times(span: ReadableSpan) -> tuple[float, float]:
    assert span.start_time is not None
    assert span.end_time is not None
    return span.start_time / 1e9, span.end_time / 1e9


def test_the_spans_of_an_exchange_make_one_tree() -> None:
    found = spans_of(OUTCOME, DECIDED, SERVED)
    ids = {id_of(span) for span in found.values()}
    assert {span.context.trace_id for span in found.values() if span.context} == {int(TRACE, 16)}
    assert len(ids) == len(found)
    route = found["mom.route"]
    assert (id_of(route), parent_of(route)) == (ROUTE_ID, int(PARENT, 16))
    assert parent_of(found["chat gpt-x"]) == parent_of(found["mom.stage policy"]) == ROUTE_ID
    assert parent_of(found["mom.signal intent"]) == id_of(found["mom.stage signals"])
    assert all(parent_of(span) in {*ids, int(PARENT, 16)} for span in found.values())
    assert all(times(span)[0] <= times(span)[1] for span in found.values())
    assert times(route)[0] == pytest.approx(999.987)
    assert times(found["mom.stage policy"])[1] == pytest.approx(times(route)[1])
    absent = found["mom.signal pii"]
    assert (absent.status.status_code, absent.status.description) == (StatusCode.ERROR, "late")
    assert set(found) == {
        *("mom.route", "chat gpt-x", "mom.signal intent", "mom.signal pii"),
        *(f"mom.stage {stage}" for stage, _ in DECIDED.stages),
    }


def test_a_trace_of_our_own_is_named_by_the_decision() -> None:
    context = Sampler(1).context({}, IDENTITY)
    assert context is not None
    found = spans_of(OUTCOME, replace(DECIDED, trace=context), SERVED)
    assert {span.context.trace_id for span in found.values() if span.context} == {int(IDENTITY, 16)}
    assert parent_of(found["mom.route"]) == 0
    assert id_of(found["chat gpt-x"]) == context.chat_id


def test_the_answers_span_follows_the_conventions() -> None:
    span = spans_of(OUTCOME, DECIDED, SERVED)["chat gpt-x"]
    assert span.kind is SpanKind.CLIENT
    assert id_of(span) == CHAT_ID
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
        "gen_ai.usage.cache_creation.input_tokens": 0,
        "server.address": "api.example.com",
        "server.port": 443,
        "http.response.status_code": 200,
        "mom.attempts": 1,
        "mom.decision.id": "d1",
    }
    failed = spans_of(replace(OUTCOME, status=503, usage=None), DECIDED, None)["chat"]
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "503"
    assert "chat" not in spans_of(None, DECIDED, SERVED)


class Receiver:
    """Takes OTLP as a real collector does, and parses it with OpenTelemetry's own messages."""

    def __init__(self) -> None:
        self.traces: list[ExportTraceServiceRequest] = []
        self.metrics: list[ExportMetricsServiceRequest] = []
        self.content = b""
        self.headers: list[dict[str, str]] = []
        self.url = ""
        self.answering = asyncio.Event()
        self.answering.set()

    async def take(self, request: web.Request) -> web.Response:
        content = await request.read()
        assert request.content_type == "application/x-protobuf"
        # aiohttp has undone the compression.
        self.content += content
        self.headers.append({name.lower(): value for name, value in request.headers.items()})
        if request.path == "/v1/traces":
            self.traces.append(ExportTraceServiceRequest.FromString(content))
        else:
            self.metrics.append(ExportMetricsServiceRequest.FromString(content))
        await self.answering.wait()
        return web.Response(content_type="application/x-protobuf")


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/v1/{signal}", receiver.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        receiver.answering.set()
        await runner.cleanup()


async def test_a_collector_gets_traces_and_metrics_that_it_can_parse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
    async with receiving() as receiver:
        collector = Collector(f"{receiver.url}/")
        metrics = Metrics([collector.reader])
        recorder = Recorder(metrics)
        recorder.served = lambda: {"small": SERVED}
        recorder.trace = Tracing(collector.spans).exchange
        recorder.decided(DECIDED)
        recorder.outcome(OUTCOME)
        recorder.decided(replace(DECIDED, decision_id="d2", trace=None))
        recorder.outcome(replace(OUTCOME, decision_id="d2"))
        await asyncio.to_thread(metrics.close)
        await asyncio.to_thread(collector.close)
        (traces,), (pushed,) = receiver.traces, receiver.metrics
    spans = traces.resource_spans[0].scope_spans[0].spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    assert {span.name for span in spans} == set(spans_of(OUTCOME, DECIDED, SERVED))
    (answer,) = (span for span in spans if span.name == "chat gpt-x")
    assert answer.span_id.hex() == "b" * 16
    assert answer.end_time_unix_nano - answer.start_time_unix_nano == pytest.approx(800_000_000, abs=1000)
    found = {metric.name: metric for metric in pushed.resource_metrics[0].scope_metrics[0].metrics}
    usage = found["gen_ai.client.token.usage"]
    assert usage.unit == "{token}"
    assert sum(point.count for point in usage.histogram.data_points) == 4
    attributes = {pair.key: pair.value for pair in usage.histogram.data_points[0].attributes}
    assert attributes["server.port"].int_value == 443
    assert found["mom.decisions"].sum.is_monotonic
    assert found["mom.decisions"].sum.data_points[0].as_int == 2
    assert found["process.memory.usage"].gauge.data_points[0].as_int > 0
    examples = found["mom.decision.duration"].histogram.data_points[0].exemplars
    assert [example.trace_id.hex() for example in examples] == [TRACE]
    for resource in (traces.resource_spans[0].resource, pushed.resource_metrics[0].resource):
        said = {pair.key: pair.value.string_value for pair in resource.attributes}
        assert (said["service.name"], said["service.version"]) == ("router-extproc", __version__)
        assert len(said["service.instance.id"]) == 36
    assert all(headers["authorization"] == "Bearer collector" for headers in receiver.headers)
    assert all(headers["content-encoding"] == "gzip" for headers in receiver.headers)
    assert b"SECRET" not in receiver.content


def examples(metrics: Metrics) -> dict[str, dict[str, str]]:
    """Labels of the newest exemplar, by sample."""
    text = metrics.exposition(openmetrics=True).decode()
    return {
        sample.name: sample.exemplar.labels
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar is not None
    }


def test_openmetrics_names_the_trace_of_a_recent_request() -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    recorder.decided(replace(DECIDED, decision_id="d2", trace=None))
    assert examples(metrics) == {}
    recorder.decided(DECIDED)
    recorder.outcome(OUTCOME)
    found = examples(metrics)
    expected = {"mom_decision_duration_seconds_bucket", "mom_exchange_duration_seconds_bucket", "mom_decisions_total"}
    assert expected <= set(found)
    ours = {"trace_id": TRACE, "span_id": "a" * 16}
    assert all(labels == ours for labels in found.values())
    assert "trace_id" not in metrics.exposition().decode()
    text = metrics.exposition(openmetrics=True).decode()
    (line,) = (line for line in text.splitlines() if "mom_decision_duration" in line and "trace_id" in line)
    bucket, value, at = line.partition('le="')[2].partition('"')[0], *line.split()[-2:]
    assert (bucket, value) == ("0.004", "0.003")
    assert float(at) == pytest.approx(time.time(), abs=60)
    # Every server that asks gets it, however often one asks, until a newer one takes its place.
    assert examples(metrics) == found
    assert DECIDED.trace is not None
    recorder.decided(replace(DECIDED, decision_id="d3", trace=replace(DECIDED.trace, route_id=7)))
    assert examples(metrics)["mom_decision_duration_seconds_bucket"]["span_id"] == f"{7:016x}"


async def test_a_collector_that_is_down_costs_telemetry_alone(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.5")
    async with receiving() as receiver:
        url = receiver.url
    collector = Collector(url)
    reader = collector.reader()
    metrics = Metrics([lambda: reader])
    tracing = Tracing(collector.spans)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            tracing.exchange(OUTCOME, DECIDED, SERVED)
            await asyncio.to_thread(collector.spans.force_flush)
            await asyncio.to_thread(reader.force_flush)
        await asyncio.to_thread(metrics.close)
        await asyncio.to_thread(collector.close)
    complaints = [record.name for record in caplog.records]
    assert sorted(complaints) == sorted(otlp.LOGGERS)


async def test_a_collector_that_never_answers_holds_up_the_end_for_seconds_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "30")
    before = set(threading.enumerate())
    async with receiving() as receiver:
        receiver.answering.clear()
        collector = Collector(receiver.url, shutdown_seconds=0.2)
        Tracing(collector.spans).exchange(OUTCOME, DECIDED, SERVED)
        began = time.monotonic()
        await asyncio.to_thread(collector.close)
        assert time.monotonic() - began < 5
        assert receiver.traces
    # The SDK's own threads, which nobody waits for, say that they end: not in another test.
    for thread in set(threading.enumerate()) - before:
        if "asyncio" not in thread.name:
            await asyncio.to_thread(thread.join, 30)


async def test_a_collector_that_ends_before_there_are_metrics_never_looks_for_any(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1")
    before = set(threading.enumerate())
    async with receiving() as receiver:
        collector = Collector(receiver.url)
        Tracing(collector.spans).exchange(OUTCOME, DECIDED, SERVED)
        await asyncio.to_thread(collector.close)
        assert receiver.traces
    assert [thread.name for thread in set(threading.enumerate()) - before if "asyncio" not in thread.name] == []
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_exporters_complain_once_a_minute() -> None:
    now = 1000.0
    logger = logging.getLogger("tests.seldom")
    seldom = otlp.Seldom(logger.name, clock=lambda: now)
    record = logging.LogRecord(logger.name, logging.ERROR, "", 0, "down", None, None)
    assert [seldom.filter(record) for _ in range(3)] == [True, False, False]
    now += otlp.LOG_SECONDS
    assert seldom.filter(record)
    seldom.remove()
    assert logger.filters == []
