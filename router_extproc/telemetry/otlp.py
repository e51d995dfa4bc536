"""To an OpenTelemetry collector over OTLP/HTTP, by the SDK's own exporters, on threads of theirs.

Queues, batches, retries and time-outs are the SDK's and bounded: a collector that is down costs what it would have
got. OTEL_EXPORTER_OTLP_HEADERS, _TIMEOUT, _COMPRESSION, _CERTIFICATE and their kin, OTEL_BSP_* and
OTEL_METRIC_EXPORT_INTERVAL work as everywhere.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import BatchSpanProcessor

LOG_SECONDS = 60.0
SHUTDOWN_SECONDS = 2.5
LOGGERS = (
    "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class Collector:
    """`endpoint` is a collector's OTLP over HTTP, for instance http://localhost:4318. Sends from now on.

    Each exporter complains once a minute. The end waits for spans for at most `shutdown_seconds` (0 or more).
    """

    def __init__(self, endpoint: str, shutdown_seconds: float = SHUTDOWN_SECONDS) -> None:
        self._base = endpoint.rstrip("/")
        self._shutdown_seconds = shutdown_seconds
        self._seldom = [Seldom(name) for name in LOGGERS]
        self._exporter = OTLPSpanExporter(f"{self._base}/v1/traces")
        self.spans = BatchSpanProcessor(self._exporter)
        """For `Tracing`."""

    def reader(self) -> PeriodicExportingMetricReader:
        """Reads the metrics and sends them. For `Metrics`, which makes it when it can be read, and closes it.

        The SDK's reader has a thread from the start, which complains of metrics that it cannot read yet.
        """
        return PeriodicExportingMetricReader(OTLPMetricExporter(f"{self._base}/v1/metrics"))

    def close(self) -> None:
        """Sends the spans that wait. Blocks for at most `shutdown_seconds`; what is left then is lost.

        After `Metrics.close`, which does the same for the metrics.
        """
        # The SDK would wait for half a minute.
        closing = threading.Thread(target=self.spans.shutdown, daemon=True)
        closing.start()
        closing.join(self._shutdown_seconds)
        if closing.is_alive():
            self._exporter.shutdown()  # type: ignore[no-untyped-call]
        for seldom in self._seldom:
            seldom.remove()


class Seldom(logging.Filter):
    """Lets one record a minute of a logger through. On from the start, until `remove`."""

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._logger, self._clock, self._next = logging.getLogger(name), clock, 0.0
        self._logger.addFilter(self)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one goes through."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + LOG_SECONDS
        return True

    def remove(self) -> None:
        """Lets everything through again."""
        self._logger.removeFilter(self)
