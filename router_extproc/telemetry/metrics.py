"""Every metric's name, unit and buckets, in one place. Names under `mom.` are ours.

No metric carries a user, a session or anything else that a client can make up: labels are catalogue models, routes,
bands, signals and codes, all bounded by the configuration.
"""

from __future__ import annotations

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

DECISION_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
ANSWER_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)


class Metrics:
    """The instruments of one process, with a registry of their own, so that tests can run side by side."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=self.registry)
        self._provider = MeterProvider([reader], resource=Resource.create({"service.name": "router-extproc"}))
        meter: Meter = self._provider.get_meter("router_extproc")
        self.decisions = meter.create_counter("mom.decisions", "{decision}", "Requests routed, by route, band, model")
        self.decision_seconds = meter.create_histogram(
            "mom.decision.duration",
            "s",
            "From the last byte of the body to the decision",
            explicit_bucket_boundaries_advisory=DECISION_SECONDS,
        )
        self.refused = meter.create_counter("mom.requests.refused", "{request}", "Requests answered with an error")
        self.failed = meter.create_counter("mom.requests.failed", "{request}", "Our errors: default model served")
        self.gone = meter.create_counter("mom.requests.abandoned", "{request}", "Clients that left before a decision")
        self.absent = meter.create_counter("mom.signals.absent", "{signal}", "Signals that were not there, by reason")
        self.unusable = meter.create_counter(
            "mom.streams.unusable", "{stream}", "Streams whose filter mode does not let the body decide the route"
        )
        self.outcomes = meter.create_counter("mom.outcomes", "{exchange}", "Finished exchanges, by model and status")
        self.attempts = meter.create_counter("mom.upstream.attempts", "{attempt}", "Upstream attempts")
        self.answer_seconds = meter.create_histogram(
            "mom.exchange.duration",
            "s",
            "Whole exchanges",
            explicit_bucket_boundaries_advisory=ANSWER_SECONDS,
        )
        self.tokens = meter.create_counter("mom.tokens", "{token}", "Tokens as providers counted them, by model, type")
        self.cost = meter.create_counter("mom.cost", "{USD}", "Cost of requests, the router's own included")
        self.savings = meter.create_up_down_counter("mom.savings", "{USD}", "Saved against the baseline model")
        self.generation = meter.create_gauge("mom.config.generation", "{generation}", "Configuration that serves")
        self.reload_ok = meter.create_gauge(
            "mom.config.last.reload.successful", "1", "0 while the newest file is refused"
        )
        self.reloads = meter.create_counter("mom.config.reloads", "{reload}", "Reloads, by result")

    def exposition(self) -> bytes:
        """The Prometheus text format."""
        return generate_latest(self.registry)

    def close(self) -> None:
        """Stops the provider."""
        self._provider.shutdown()
