"""OTLP over HTTP in its JSON encoding: what a collector takes under /v1/traces and /v1/metrics."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from router_extproc.telemetry import instruments
from router_extproc.telemetry.instruments import Histogram, Labels
from router_extproc.telemetry.tracing import Span, Value

SCOPE = "router_extproc"
CUMULATIVE = 2
ERROR = 2


def traces(resource: Mapping[str, str], spans: Iterable[Span]) -> dict[str, Any]:
    """An ExportTraceServiceRequest."""
    scope = {"scope": {"name": SCOPE}, "spans": [_span(span) for span in spans]}
    return {"resourceSpans": [{"resource": _resource(resource), "scopeSpans": [scope]}]}


def metrics(resource: Mapping[str, str], found: Iterable[instruments.Any], start: float, now: float) -> dict[str, Any]:
    """An ExportMetricsServiceRequest: totals since `start`. Times in seconds since 1970."""
    scope = {
        "scope": {"name": SCOPE},
        "metrics": [_metric(one, _nanos(start), _nanos(now)) for one in found if one.values],
    }
    return {"resourceMetrics": [{"resource": _resource(resource), "scopeMetrics": [scope]}]}


def _resource(attributes: Mapping[str, str]) -> dict[str, Any]:
    return {"attributes": [_attribute(key, value) for key, value in attributes.items()]}


def _span(span: Span) -> dict[str, Any]:
    made: dict[str, Any] = {
        "traceId": span.trace_id,
        "spanId": span.span_id,
        "name": span.name,
        "kind": span.kind,
        "startTimeUnixNano": _nanos(span.start),
        "endTimeUnixNano": _nanos(span.end),
        "attributes": [_attribute(key, value) for key, value in span.attributes.items()],
    }
    if span.parent_id:
        made["parentSpanId"] = span.parent_id
    if span.error:
        made["status"] = {"code": ERROR, "message": span.error}
        made["attributes"].append(_attribute("error.type", span.error))
    return made


def _metric(metric: instruments.Any, start: str, now: str) -> dict[str, Any]:
    made: dict[str, Any] = {"name": metric.name, "unit": metric.unit, "description": metric.description}
    times = {"startTimeUnixNano": start, "timeUnixNano": now}
    if isinstance(metric, Histogram):
        points = [
            {
                **times,
                "attributes": _labels(metric, labels),
                "count": str(series.count),
                "sum": series.sum,
                "bucketCounts": [str(count) for count in series.counts],
                "explicitBounds": list(metric.bounds),
                "exemplars": [
                    {"traceId": trace_id, "asDouble": value, "timeUnixNano": _nanos(at)}
                    for trace_id, value, at in list(series.exemplars.values())
                ],
            }
            for labels, series in list(metric.values.items())
        ]
        return made | {"histogram": {"aggregationTemporality": CUMULATIVE, "dataPoints": points}}
    numbers = [
        {**times, "attributes": _labels(metric, labels), "asDouble": float(value)}
        for labels, value in list(metric.values.items())
    ]
    if metric.kind == "gauge":
        return made | {"gauge": {"dataPoints": numbers}}
    total = {"aggregationTemporality": CUMULATIVE, "isMonotonic": metric.kind == "counter", "dataPoints": numbers}
    return made | {"sum": total}


def _labels(metric: instruments.Any, labels: Labels) -> list[dict[str, Any]]:
    pairs = zip(metric.labels, labels, strict=True)
    # The conventions have a port as a number.
    return [
        _attribute(key, int(value) if key == "server.port" and value.isdigit() else value)
        for key, value in pairs
        if value
    ]


def _attribute(key: str, value: Value) -> dict[str, Any]:
    return {"key": key, "value": _value(value)}


def _value(value: Value) -> dict[str, Any]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case list():
            return {"arrayValue": {"values": [_value(item) for item in value]}}
        case _:
            return {"stringValue": value}


def _nanos(seconds: float) -> str:
    """64-bit numbers are text in protobuf's JSON."""
    return str(int(seconds * 1e9))
