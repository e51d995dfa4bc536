"""What the SDK has collected, as Prometheus text 0.0.4 or OpenMetrics 1.0, by OpenTelemetry's rules for Prometheus."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    DataT,
    Gauge,
    Histogram,
    HistogramDataPoint,
    Metric,
    MetricsData,
    NumberDataPoint,
    Sum,
)
from opentelemetry.trace import format_span_id, format_trace_id

from router_extproc.telemetry.instruments import Instrument, Kind

UNITS = {"s": "seconds", "By": "bytes"}
TYPES: Mapping[Kind, str] = {"counter": "counter", "updown": "gauge", "gauge": "gauge", "histogram": "histogram"}
_NOT_IN_NAMES = re.compile("[^a-zA-Z0-9_]")

Examples = dict[int, Exemplar]
"""The newest exemplar by bucket; of a sum, under 0."""


class Exposition:
    """Makes pages. For one thread at a time.

    A reader of the SDK gets each exemplar once. Here the newest of each bucket stays, so that several Prometheus
    servers, and one that asks often, all see it.
    """

    def __init__(self, table: Sequence[Instrument]) -> None:
        """The families of `table` stand on every page, those without a value too."""
        self._table = table
        self._examples: dict[tuple[str, str], Examples] = {}

    def page(self, data: MetricsData | None, *, openmetrics: bool) -> bytes:
        """`data` as text; None is what the SDK collects when nothing was recorded."""
        collected = {metric.name: metric for metric in _metrics(data)}
        lines = [*_target(data, openmetrics)]
        for one in self._table:
            lines += self._family(one, collected.pop(one.name, None), openmetrics)
        for metric in collected.values():
            # The SDK's own, where an operator has turned them on.
            kind = _kind(metric.data)
            if kind is not None:
                about = Instrument(kind, metric.name, metric.unit or "", metric.description or "")
                lines += self._family(about, metric, openmetrics)
        if openmetrics:
            lines.append("# EOF\n")
        return "".join(lines).encode()

    def _family(self, one: Instrument, metric: Metric | None, openmetrics: bool) -> Iterator[str]:
        shown = prometheus_name(one.name, one.unit, one.kind)
        family = shown.removesuffix("_total") if openmetrics else shown
        yield f"# HELP {family} {_escaped_help(one.description)}\n# TYPE {family} {TYPES[one.kind]}\n"
        if metric is None:
            return
        for point in metric.data.data_points:
            if isinstance(point, HistogramDataPoint):
                yield from self._histogram(shown, point, openmetrics)
            elif isinstance(point, NumberDataPoint):
                pairs = _pairs(point.attributes)
                example = self._newest(shown, pairs, point, ()).get(0) if one.kind == "counter" else None
                yield f"{shown}{_braces(pairs)} {_number(point.value)}{_example(example, openmetrics)}\n"

    def _histogram(self, name: str, point: HistogramDataPoint, openmetrics: bool) -> Iterator[str]:
        pairs = _pairs(point.attributes)
        examples = self._newest(name, pairs, point, point.explicit_bounds)
        bounds = (*map(_number, point.explicit_bounds), "+Inf")
        total = 0
        for index, (bound, count) in enumerate(zip(bounds, point.bucket_counts, strict=True)):
            total += count
            labels = f'{pairs}{"," if pairs else ""}le="{bound}"'
            yield f"{name}_bucket{{{labels}}} {_number(total)}{_example(examples.get(index), openmetrics)}\n"
        yield f"{name}_sum{_braces(pairs)} {_number(point.sum)}\n{name}_count{_braces(pairs)} {_number(total)}\n"

    def _newest(
        self, name: str, pairs: str, point: HistogramDataPoint | NumberDataPoint, bounds: Sequence[float]
    ) -> Examples:
        """Bounded as the series are."""
        if point.exemplars:
            examples = self._examples.setdefault((name, pairs), {})
            examples.update((bisect_left(bounds, one.value), one) for one in point.exemplars)
        return self._examples.get((name, pairs), {})


def prometheus_name(name: str, unit: str, kind: Kind) -> str:
    """Unit and `_total` are appended; an annotation such as `{token}` is no unit."""
    shown, suffix = _NOT_IN_NAMES.sub("_", name), UNITS.get(unit, "")
    if suffix and not shown.endswith(suffix):
        shown += f"_{suffix}"
    return f"{shown}_total" if kind == "counter" else shown


def _metrics(data: MetricsData | None) -> Iterable[Metric]:
    if data is not None:
        for of_resource in data.resource_metrics:
            for of_scope in of_resource.scope_metrics:
                yield from of_scope.metrics


def _kind(data: DataT) -> Kind | None:
    match data:
        case Sum():
            return "counter" if data.is_monotonic else "updown"
        case Gauge():
            return "gauge"
        case Histogram():
            return "histogram"
        case _:
            return None


def _target(data: MetricsData | None, openmetrics: bool) -> Iterator[str]:
    """The resource: which version runs, for instance."""
    if data is not None:
        pairs = _pairs(data.resource_metrics[0].resource.attributes)
        family, kind = ("target", "info") if openmetrics else ("target_info", "gauge")
        yield f"# HELP {family} Who exports this\n# TYPE {family} {kind}\ntarget_info{_braces(pairs)} 1\n"


def _example(example: Exemplar | None, openmetrics: bool) -> str:
    if example is None or not openmetrics or example.trace_id is None or example.span_id is None:
        return ""
    ids = f'trace_id="{format_trace_id(example.trace_id)}",span_id="{format_span_id(example.span_id)}"'
    return f" # {{{ids}}} {_number(example.value)} {example.time_unix_nano / 1e9:.3f}"


def _pairs(attributes: Mapping[str, object] | None) -> str:
    return ",".join(
        f'{_NOT_IN_NAMES.sub("_", key)}="{_escaped(_text(value))}"' for key, value in (attributes or {}).items()
    )


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _braces(pairs: str) -> str:
    return f"{{{pairs}}}" if pairs else ""


def _escaped_help(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _escaped(value: str) -> str:
    return _escaped_help(value).replace('"', '\\"')


def _number(value: float) -> str:
    return repr(float(value))
