"""Counters, gauges and histograms that cost well under a microsecond to record.

The OpenTelemetry SDK takes 10 to 18 microseconds per recording, and a request records about fifteen. These keep plain
numbers in a dictionary by label values; the exposition does the rest when somebody asks.

Each instrument is written by one thread only. Reading from another is safe: it copies in one step.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

MAX_SERIES = 1000
OTHER = "other"
Labels = tuple[str, ...]


@dataclass(slots=True)
class Distribution:
    """One series of a histogram: `counts` per bucket (the last one has no upper bound), `sum` of the values.

    `exemplars` has the newest traced value of a bucket: trace id, value, seconds since 1970.
    """

    counts: list[int]
    sum: float = 0.0
    exemplars: dict[int, tuple[str, float, float]] = field(default_factory=dict)

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)


@dataclass(slots=True)
class Instrument:
    """What all kinds share. `labels` are attribute names; beyond `MAX_SERIES` combinations all of them are `other`."""

    name: str
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    kind: Literal["counter", "gauge", "updown", "histogram"] = field(init=False, default="gauge")

    @property
    def prometheus_name(self) -> str:
        """As OpenTelemetry's rules for Prometheus have it: unit and `_total` appended, annotations left out."""
        name = self.name.replace(".", "_")
        unit = {"s": "seconds", "By": "bytes"}.get(self.unit, "")
        if unit and not name.endswith(unit):
            name += f"_{unit}"
        return f"{name}_total" if self.kind == "counter" else name


@dataclass(slots=True)
class Counter(Instrument):
    """A sum that only grows (`kind` "updown": that may also fall)."""

    values: dict[Labels, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kind = "counter"

    def add(self, amount: float, *labels: str) -> None:
        """Adds to the series with these label values, given in the order of `labels`."""
        values = self.values
        if labels in values:
            values[labels] += amount
        else:
            labels = _bounded(values, labels)
            values[labels] = values.get(labels, 0) + amount

    def set(self, total: float, *labels: str) -> None:
        """Takes over a total that is counted elsewhere."""
        self.values[_bounded(self.values, labels)] = total


@dataclass(slots=True)
class UpDownCounter(Counter):
    """A sum that may also fall."""

    def __post_init__(self) -> None:
        self.kind = "updown"


@dataclass(slots=True)
class Gauge(Instrument):
    """The newest value."""

    values: dict[Labels, float] = field(default_factory=dict)

    def set(self, value: float, *labels: str) -> None:
        """Replaces the value."""
        self.values[_bounded(self.values, labels)] = value


@dataclass(slots=True)
class Histogram(Instrument):
    """A distribution over fixed buckets; a bucket includes its upper bound."""

    bounds: Sequence[float] = ()
    values: dict[Labels, Distribution] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kind = "histogram"

    def record(self, value: float, *labels: str) -> None:
        """Counts a value."""
        series = self.values.get(labels)
        if series is None:
            labels = _bounded(self.values, labels)
            series = self.values.setdefault(labels, Distribution([0] * (len(self.bounds) + 1)))
        series.counts[bisect_left(self.bounds, value)] += 1
        series.sum += value

    def exemplify(self, value: float, trace_id: str, at: float, *labels: str) -> None:
        """Names a trace as an example of a value that was recorded."""
        series = self.values.get(labels)
        if series is not None:
            series.exemplars[bisect_left(self.bounds, value)] = (trace_id, value, at)


Any = Counter | Gauge | Histogram


def _bounded(values: dict[Labels, float] | dict[Labels, Distribution], labels: Labels) -> Labels:
    if labels in values or len(values) < MAX_SERIES:
        return labels
    return (OTHER,) * len(labels)


def exposition(instruments: Iterable[Any], *, openmetrics: bool = False) -> bytes:
    """The Prometheus text format 0.0.4, or OpenMetrics 1.0, which alone can hold exemplars."""
    text = "".join(line for instrument in instruments for line in _lines(instrument, openmetrics))
    return (text + "# EOF\n" if openmetrics else text).encode()


def _lines(instrument: Any, openmetrics: bool) -> Iterator[str]:
    name = instrument.prometheus_name
    kind = {"updown": "gauge"}.get(instrument.kind, instrument.kind)
    family = name.removesuffix("_total") if openmetrics else name
    yield f"# HELP {family} {instrument.description}\n# TYPE {family} {kind}\n"
    keys = [label.replace(".", "_") for label in instrument.labels]
    if isinstance(instrument, Histogram):
        yield from _histogram(instrument, name, keys, openmetrics)
        return
    for labels, value in list(instrument.values.items()):
        pairs = _pairs(keys, labels)
        yield f"{name}{{{pairs}}} {_number(value)}\n" if pairs else f"{name} {_number(value)}\n"


def _histogram(instrument: Histogram, name: str, keys: Sequence[str], openmetrics: bool) -> Iterator[str]:
    bounds = (*map(_number, instrument.bounds), "+Inf")
    for labels, series in list(instrument.values.items()):
        pairs = _pairs(keys, labels)
        total = 0
        for index, (bound, count) in enumerate(zip(bounds, series.counts, strict=True)):
            total += count
            example = series.exemplars.get(index) if openmetrics else None
            shown = ""
            if example is not None:
                trace_id, value, at = example
                shown = f' # {{trace_id="{trace_id}"}} {_number(value)} {at:.3f}'
            yield f'{name}_bucket{{{pairs}{"," if pairs else ""}le="{bound}"}} {_number(total)}{shown}\n'
        braces = f"{{{pairs}}}" if pairs else ""
        yield f"{name}_sum{braces} {_number(series.sum)}\n{name}_count{braces} {_number(total)}\n"


def _pairs(keys: Sequence[str], labels: Labels) -> str:
    """An empty value is no label at all."""
    return ",".join(f'{key}="{_escaped(value)}"' for key, value in zip(keys, labels, strict=True) if value)


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    return repr(float(value))
