"""Sends traces and metrics to an OpenTelemetry collector, on a thread, and loses them rather than wait for it."""

from __future__ import annotations

import gzip
import json
import logging
import time
import urllib.request
from collections.abc import Callable, Mapping
from typing import Any

from router_extproc import __version__
from router_extproc.domain import Outcome
from router_extproc.stores.background import Background
from router_extproc.telemetry import otlp
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Decided, Served
from router_extproc.telemetry.tracing import Span, spans_of

log = logging.getLogger(__name__)

FLUSH_SECONDS = 1.0
METRICS_SECONDS = 30.0
TIMEOUT_SECONDS = 5.0
MAX_WAITING = 4096
LOG_SECONDS = 60.0

Ended = tuple[Outcome | None, Decided, Served | None]


class Exporter:
    """`endpoint` is a collector's OTLP over HTTP, for instance http://localhost:4318.

    `ended` is for the event loop. A collector that is down costs what it would have got; one log line a minute says so,
    and `failures` counts.
    """

    def __init__(
        self,
        endpoint: str,
        metrics: Metrics | None,
        *,
        headers: Mapping[str, str] | None = None,
        metrics_seconds: float = METRICS_SECONDS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoint = endpoint.rstrip("/")
        self._metrics, self._metrics_seconds, self._clock = metrics, metrics_seconds, clock
        self._headers = {"content-type": "application/json", "content-encoding": "gzip", **(headers or {})}
        self._resource = {"service.name": "router-extproc", "service.version": __version__}
        self._work: Background[Ended] = Background("export", self._send, seconds=FLUSH_SECONDS, max_waiting=MAX_WAITING)
        self._started = clock()
        self._pushed = time.monotonic()
        self._complained = -LOG_SECONDS
        self.failures = 0

    @property
    def dropped(self) -> int:
        """Traces that found too many waiting."""
        return self._work.dropped

    def start(self) -> None:
        """Begins to send."""
        self._work.start()

    def ended(self, outcome: Outcome | None, decided: Decided | None, served: Served | None) -> None:
        """A sampled exchange has ended; others are passed over."""
        if decided is not None and decided.trace is not None:
            self._work.put((outcome, decided, served))

    def flush(self) -> None:
        """Blocks until everything so far was sent, or lost."""
        self._work.flush()

    def close(self) -> None:
        """Sends what waits, the metrics a last time, and ends. Blocks for that, at most some seconds."""
        self._work.close()
        self._push()

    def _send(self, batch: list[Ended]) -> None:
        spans: list[Span] = []
        for outcome, decided, served in batch:
            if decided.trace is not None:
                spans += spans_of(decided.trace, outcome, decided, served)
        if spans:
            self._post("/v1/traces", otlp.traces(self._resource, spans))
        if time.monotonic() - self._pushed >= self._metrics_seconds:
            self._pushed = time.monotonic()
            self._push()

    def _push(self) -> None:
        # Reading is safe on any thread; `Metrics.observe` is not, and runs on the loop.
        if self._metrics is not None:
            self._post("/v1/metrics", otlp.metrics(self._resource, self._metrics.all, self._started, self._clock()))

    def _post(self, path: str, body: dict[str, Any]) -> None:
        content = gzip.compress(json.dumps(body, separators=(",", ":")).encode(), 1)
        # The operator's own setting, not a client's: any scheme but HTTP is refused when it is read.
        request = urllib.request.Request(self._endpoint + path, content, self._headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:
                answer.read()
        except OSError as error:
            self.failures += 1
            if time.monotonic() - self._complained >= LOG_SECONDS:
                self._complained = time.monotonic()
                log.warning("%s%s takes no telemetry: %s", self._endpoint, path, error)
