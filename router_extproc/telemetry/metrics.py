"""Every metric's name, unit, labels and buckets, in one place.

`gen_ai.*` are OpenTelemetry's conventions for generative AI, to the letter; `mom.*` are ours. No metric carries a user,
a session or anything else that a client can make up: labels are catalogue models, routes, bands, signals and codes, all
bounded by the configuration, and every instrument bounds its series once more.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from router_extproc.telemetry import instruments
from router_extproc.telemetry.instruments import Counter, Gauge, Histogram, UpDownCounter

DECISION_SECONDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
STAGE_SECONDS = (0.00005, 0.0001, 0.0002, 0.0005, *DECISION_SECONDS[1:])
GEN_AI_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
GEN_AI_TOKENS = tuple(4**power for power in range(14))
FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_SECONDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

GEN_AI = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)


class Metrics:
    """The instruments of one process. Not global, so that tests can run side by side."""

    def __init__(self) -> None:
        self.token_usage = Histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Number of input and output tokens used, as the provider counted them",
            (*GEN_AI, "gen_ai.token.type"),
            GEN_AI_TOKENS,
        )
        self.operation_seconds = Histogram(
            "gen_ai.client.operation.duration",
            "s",
            "GenAI operation duration: from the first byte of the request to the last of the answer, at Envoy",
            (*GEN_AI, "error.type"),
            GEN_AI_SECONDS,
        )
        self.first_chunk_seconds = Histogram(
            "gen_ai.client.operation.time_to_first_chunk",
            "s",
            "From the first byte of the request to the first of a streamed answer, at Envoy",
            GEN_AI,
            GEN_AI_SECONDS,
        )
        self.first_token_seconds = Histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "Time to the first token of successful streamed answers; the decision and failed attempts are in it",
            GEN_AI,
            FIRST_TOKEN_SECONDS,
        )
        self.per_token_seconds = Histogram(
            "gen_ai.server.time_per_output_token",
            "s",
            "Time per output token after the first, for successful streamed answers",
            GEN_AI,
            PER_TOKEN_SECONDS,
        )
        self.decisions = Counter("mom.decisions", "{decision}", "Requests routed", ("route", "band", "model"))
        self.decision_seconds = Histogram(
            "mom.decision.duration",
            "s",
            "From the last byte of the body to the decision",
            ("api",),
            DECISION_SECONDS,
        )
        self.stage_seconds = Histogram(
            "mom.decision.stage.duration",
            "s",
            "Parts of a decision: body (reading it while it arrives), classify (waiting for it), signals, policy",
            ("stage",),
            STAGE_SECONDS,
        )
        self.refused = Counter("mom.requests.refused", "{request}", "Answered with an error", ("api", "code"))
        self.failed = Counter("mom.requests.failed", "{request}", "Our errors: default model served", ("api", "reason"))
        self.gone = Counter("mom.requests.abandoned", "{request}", "Clients that left before a decision", ("api",))
        self.absent = Counter(
            "mom.signals.absent", "{signal}", "Signals that were not there, by reason", ("signal", "reason")
        )
        self.unusable = Counter(
            "mom.streams.unusable",
            "{stream}",
            "Streams whose filter mode does not let the body decide the route",
            ("mode",),
        )
        self.outcomes = Counter("mom.outcomes", "{exchange}", "Finished exchanges", ("model", "status"))
        self.attempts = Counter("mom.upstream.attempts", "{attempt}", "Upstream attempts", ("model",))
        self.exchange_seconds = Histogram(
            "mom.exchange.duration", "s", "Whole exchanges, by route", ("route",), GEN_AI_SECONDS
        )
        self.tokens = Counter(
            "mom.tokens",
            "{token}",
            "Tokens: input, output, cached (a part of input); estimated where no provider counted",
            ("model", "type", "estimated"),
        )
        self.cost = Counter(
            "mom.cost", "{USD}", "US dollars that answers cost, the router's own cost included", ("model", "route")
        )
        self.savings = UpDownCounter(
            "mom.savings", "{USD}", "US dollars saved against the baseline model", ("model", "route")
        )
        self.ledger_dropped = Counter("mom.ledger.dropped", "{exchange}", "Outcomes that the ledger had no room for")
        self.ledger_errors = Counter("mom.ledger.write.errors", "{error}", "Failed writes; made up for later")
        self.log_dropped = Counter("mom.decision_log.dropped", "{exchange}", "Lines that the log had no room for")
        self.budget_used = Gauge(
            "mom.budget.used",
            "",
            "Part of a budget that is spent or reserved, fullest first where there are many keys",
            ("budget", "key"),
        )
        self.budget_actions = Counter(
            "mom.budget.actions",
            "{request}",
            "Requests whose plan a budget changed: trimmed, cheaper, cheapest, refused",
            ("budget", "action"),
        )
        self.budget_alone = Counter(
            "mom.budget.alone",
            "{request}",
            "Requests whose budgets were judged without the other replicas: store slow, down or refused",
            ("reason",),
        )
        self.store_up = Gauge("mom.store.up", "", "Whether the store that replicas share answers, by use", ("use",))
        self.guard_actions = Counter(
            "mom.guard.actions",
            "{request}",
            "Requests that a guard tagged, masked or rerouted; blocked ones are `mom.requests.refused`, by code",
            ("guard",),
        )
        self.model_scale = Gauge(
            "mom.model.scale",
            "",
            "Factor that the schedules give a model now, for whatever scales its replicas",
            ("model",),
        )
        self.generation = Gauge("mom.config.generation", "{generation}", "Configuration that serves")
        self.reload_ok = Gauge("mom.config.last.reload.successful", "", "0 while the newest file is refused")
        self.reloads = Counter("mom.config.reloads", "{reload}", "Reloads, by result", ("result",))
        self.loop_lag = Histogram(
            "mom.loop.lag", "s", "How late the event loop wakes up, sampled ten times a second", (), STAGE_SECONDS
        )
        self.queued = Gauge("mom.classifier.queued", "{window}", "Windows of text that wait for the classifier")
        self.texts = Counter(
            "mom.classifier.texts",
            "{text}",
            "Texts: accepted, and of them late, partial or cancelled; refused ones never entered",
            ("result",),
        )
        self.batches = Counter(
            "mom.classifier.batches", "{batch}", "Batches, by windows rounded up to a power of two", ("size",)
        )
        self.windows = Counter(
            "mom.classifier.windows",
            "{window}",
            "Windows of text: run, failed, or remembered from an earlier request",
            ("result",),
        )
        self.lookups = Counter(
            "mom.classifier.lookups",
            "{window}",
            "Windows of text that were looked up: in the process's memory, and those it lacks in the store",
            ("where", "result"),
        )
        self.answers_dropped = Counter(
            "mom.store.dropped", "{window}", "Answers of the classifier that did not get into the store"
        )
        self.classifier_tokens = Counter(
            "mom.classifier.tokens", "{token}", "Tokens run: real, and padding that was computed for nothing", ("type",)
        )
        self.classifier_seconds = Counter(
            "mom.classifier.time", "s", "Summed: queue (waiting, per window) and run (forward passes)", ("stage",)
        )
        self.memory = Gauge("process.memory.usage", "By", "Resident memory of the sidecar")
        self.observers: list[Callable[[], None]] = [self._memory]
        """Called before each exposition, to take over what is counted elsewhere."""

    @property
    def all(self) -> list[instruments.Any]:
        """Every instrument, in the order of the documentation."""
        return [value for value in vars(self).values() if isinstance(value, instruments.Instrument)]  # type: ignore[misc]

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """The Prometheus text format, or OpenMetrics with exemplars."""
        self.observe()
        return instruments.exposition(self.all, openmetrics=openmetrics)

    def observe(self) -> None:
        """Takes over what is counted elsewhere."""
        for observer in self.observers:
            observer()

    def close(self) -> None:
        """Nothing is held."""

    def _memory(self) -> None:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        self.memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
