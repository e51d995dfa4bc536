"""The metrics of one process: OpenTelemetry's SDK with our table of instruments, and the page for Prometheus.

A recording costs 10 to 20 microseconds, so that the event loop makes none: `Recorder.later` hands them to a thread.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation, UpDownCounter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader
from opentelemetry.sdk.metrics.view import View

from router_extproc import __version__
from router_extproc.telemetry import instruments
from router_extproc.telemetry.exposition import Exposition
from router_extproc.telemetry.instruments import MAX_SERIES, Instrument
from router_extproc.telemetry.resource import resource

Label = str | int
Values = Mapping[tuple[Label, ...], float]
"""What an observed instrument shows: a number by label values, in the order of its labels."""
SHUTDOWN_SECONDS = 2.5


class Metrics:
    """Not global, so that tests can run side by side. Recording and reading are safe on any thread.

    What `readers` make gets everything too, for instance to push it to a collector.
    """

    def __init__(self, readers: Iterable[Callable[[], MetricReader]] = ()) -> None:
        self._reader = InMemoryMetricReader()
        self._exposition = Exposition(instruments.ALL)
        self._reading = threading.Lock()
        self._reads: dict[str, Callable[[], Values]] = {}
        # They bind the table: no attribute that it does not name, and no more series than it allows.
        views = [
            View(instrument_name=one.name, attribute_keys=set(one.labels), aggregation_cardinality_limit=MAX_SERIES)
            for one in instruments.ALL
        ]
        who = resource()
        # Last of all: a reader with a clock of its own begins at once.
        made = [make() for make in readers]
        self._provider = MeterProvider([self._reader, *made], resource=who, shutdown_on_exit=False, views=views)
        meter = self._provider.get_meter("router_extproc", __version__)
        self._counters: dict[str, Counter | UpDownCounter] = {}
        self._histograms: dict[str, Histogram] = {}
        for one in instruments.ALL:
            self._make(meter, one)
        self.settle: Callable[[], None] = lambda: None
        """Called before the page is made: blocks until what was told before has been recorded."""
        self.observers: list[Callable[[], None]] = []
        """For what only the event loop may read: called by `observe`."""
        self.watch(instruments.MEMORY, _resident)

    def add(self, instrument: Instrument, amount: float, *labels: Label, context: Context | None = None) -> None:
        """Adds to the series with these label values, in the order of the instrument's labels; empty is none.

        `context` has the span that the exemplar names.
        """
        self._counters[instrument.name].add(amount, _attributes(instrument, labels), context)

    def record(self, instrument: Instrument, value: float, *labels: Label, context: Context | None = None) -> None:
        """Counts a value of a histogram; the rest as in `add`."""
        self._histograms[instrument.name].record(value, _attributes(instrument, labels), context)

    def watch(self, instrument: Instrument, read: Callable[[], Values]) -> None:
        """`read` is asked for the values of an observed instrument, on whatever thread reads."""
        self._reads[instrument.name] = read

    def observe(self) -> None:
        """Takes over what only the event loop may read. To be called there, before reading elsewhere."""
        for observer in self.observers:
            observer()

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """The Prometheus text format, or OpenMetrics, which can hold exemplars. Takes milliseconds."""
        self.settle()
        with self._reading:
            return self._exposition.page(self._reader.get_metrics_data(), openmetrics=openmetrics)

    def close(self) -> None:
        """Hands the readers everything a last time. Blocks for that, for at most `SHUTDOWN_SECONDS`."""
        self._provider.shutdown(SHUTDOWN_SECONDS * 1e3)

    def _make(self, meter: Meter, one: Instrument) -> None:
        about = (one.unit, one.description)
        match one.kind, one.observed:
            case "counter", False:
                self._counters[one.name] = meter.create_counter(one.name, *about)
            case "updown", False:
                self._counters[one.name] = meter.create_up_down_counter(one.name, *about)
            case "histogram", False:
                self._histograms[one.name] = meter.create_histogram(
                    one.name, *about, explicit_bucket_boundaries_advisory=one.bounds
                )
            case "counter", True:
                meter.create_observable_counter(one.name, [self._callback(one)], *about)
            case "gauge", True:
                meter.create_observable_gauge(one.name, [self._callback(one)], *about)
            case unknown:
                raise ValueError(f"{one.name}: nothing makes a {unknown}")

    def _callback(self, one: Instrument) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def callback(_: CallbackOptions) -> Iterator[Observation]:
            read = self._reads.get(one.name)
            for labels, value in read().items() if read is not None else ():
                yield Observation(value, _attributes(one, labels))

        return callback


def _attributes(instrument: Instrument, labels: tuple[Label, ...]) -> dict[str, Label]:
    """An empty value is no attribute at all."""
    return {key: value for key, value in zip(instrument.labels, labels, strict=True) if value != ""}


def _resident() -> Values:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return {(): pages * os.sysconf("SC_PAGE_SIZE")}
