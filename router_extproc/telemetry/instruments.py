"""Every metric's name, unit, labels and buckets, in one literal table.

`gen_ai.*` are OpenTelemetry's conventions for generative AI, to the letter; `mom.*` are ours. No metric carries a user,
a tenant, a session or anything else that a client can make up: labels are catalogue models, routes, bands, signals,
budgets and codes, all bounded by the configuration, and the SDK bounds the series of each instrument once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_SERIES = 1000
"""Combinations of labels of one instrument. All further ones are one series, which says `otel.metric.overflow`."""

DECISION_SECONDS_BOUNDS = (0.0005, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024)
STAGE_SECONDS_BOUNDS = (0.00005, 0.0001, 0.0002, 0.0005, *DECISION_SECONDS_BOUNDS[1:])
GEN_AI_SECONDS_BOUNDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
GEN_AI_TOKENS_BOUNDS = tuple(4**power for power in range(14))
FIRST_TOKEN_BOUNDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
PER_TOKEN_BOUNDS = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)

GEN_AI = (
    "gen_ai.operation.name",
    "gen_ai.provider.name",
    "gen_ai.request.model",
    "gen_ai.response.model",
    "server.address",
    "server.port",
)

Kind = Literal["counter", "updown", "gauge", "histogram"]


@dataclass(frozen=True, slots=True)
class Instrument:
    """One metric. `labels` are its attributes, `bounds` a histogram's buckets, each with its upper bound.

    An `observed` one is read from what is counted elsewhere when somebody asks; the others are recorded.
    """

    kind: Kind
    name: str
    unit: str
    description: str
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    observed: bool = False


TOKEN_USAGE = Instrument(
    "histogram",
    "gen_ai.client.token.usage",
    "{token}",
    "Number of input and output tokens used, as the provider counted them",
    (*GEN_AI, "gen_ai.token.type"),
    GEN_AI_TOKENS_BOUNDS,
)
OPERATION_SECONDS = Instrument(
    "histogram",
    "gen_ai.client.operation.duration",
    "s",
    "GenAI operation duration: from the first byte of the request to the last of the answer, at Envoy",
    (*GEN_AI, "error.type"),
    GEN_AI_SECONDS_BOUNDS,
)
FIRST_CHUNK_SECONDS = Instrument(
    "histogram",
    "gen_ai.client.operation.time_to_first_chunk",
    "s",
    "From the first byte of the request to the first of a streamed answer, at Envoy",
    GEN_AI,
    GEN_AI_SECONDS_BOUNDS,
)
FIRST_TOKEN_SECONDS = Instrument(
    "histogram",
    "gen_ai.server.time_to_first_token",
    "s",
    "Time to the first token of successful streamed answers; the decision and failed attempts are in it",
    GEN_AI,
    FIRST_TOKEN_BOUNDS,
)
PER_TOKEN_SECONDS = Instrument(
    "histogram",
    "gen_ai.server.time_per_output_token",
    "s",
    "Time per output token after the first, for successful streamed answers",
    GEN_AI,
    PER_TOKEN_BOUNDS,
)
DECISIONS = Instrument(
    "counter",
    "mom.decisions",
    "{decision}",
    "Requests routed",
    ("route", "band", "model"),
)
DECISION_SECONDS = Instrument(
    "histogram",
    "mom.decision.duration",
    "s",
    "From the last byte of the body to the decision",
    ("api",),
    DECISION_SECONDS_BOUNDS,
)
STAGE_SECONDS = Instrument(
    "histogram",
    "mom.decision.stage.duration",
    "s",
    "Parts of a decision: body (reading it while it arrives), classify (waiting for it), signals, policy",
    ("stage",),
    STAGE_SECONDS_BOUNDS,
)
REFUSED = Instrument(
    "counter",
    "mom.requests.refused",
    "{request}",
    "Answered with an error",
    ("api", "code"),
)
FAILED = Instrument(
    "counter",
    "mom.requests.failed",
    "{request}",
    "Our errors: default model served, or refused where a guard says on_error: block",
    ("api", "reason"),
)
GONE = Instrument(
    "counter",
    "mom.requests.abandoned",
    "{request}",
    "Clients that left before a decision",
    ("api",),
)
ABSENT = Instrument(
    "counter",
    "mom.signals.absent",
    "{signal}",
    "Signals that were not there, by reason",
    ("signal", "reason"),
)
UNUSABLE = Instrument(
    "counter",
    "mom.streams.unusable",
    "{stream}",
    "Streams whose filter mode does not let the body decide the route",
    ("mode",),
)
OUTCOMES = Instrument(
    "counter",
    "mom.outcomes",
    "{exchange}",
    "Finished exchanges",
    ("model", "status", "error.type"),
)
ATTEMPTS = Instrument(
    "counter",
    "mom.upstream.attempts",
    "{attempt}",
    "Upstream attempts, each at the model that was tried",
    ("model",),
)
EXCHANGE_SECONDS = Instrument(
    "histogram",
    "mom.exchange.duration",
    "s",
    "Whole exchanges, by route",
    ("route",),
    GEN_AI_SECONDS_BOUNDS,
)
TOKENS = Instrument(
    "counter",
    "mom.tokens",
    "{token}",
    "Tokens: input, output; cached and cache_write, parts of input that the provider's prompt cache gave and took; "
    "estimated where no provider counted all",
    ("model", "type", "estimated"),
)
COST = Instrument(
    "counter",
    "mom.cost",
    "{USD}",
    "US dollars that answers cost, the router's own cost included",
    ("model", "route"),
)
SAVINGS = Instrument(
    "updown",
    "mom.savings",
    "{USD}",
    "US dollars saved against the baseline model",
    ("model", "route"),
)
LEDGER_DROPPED = Instrument(
    "counter",
    "mom.ledger.dropped",
    "{exchange}",
    "Outcomes that the ledger had no room for",
    observed=True,
)
LEDGER_ERRORS = Instrument(
    "counter",
    "mom.ledger.write.errors",
    "{error}",
    "Failed writes; made up for later",
    observed=True,
)
LOG_DROPPED = Instrument(
    "counter",
    "mom.decision_log.dropped",
    "{line}",
    "Lines that are not in the files: there was no room for them to wait, or none on the disk",
    observed=True,
)
BUDGET_USED = Instrument(
    "gauge",
    "mom.budget.used",
    "",
    "Part of a budget that is spent or reserved, of the tenant, user or route that has used most of its own",
    ("budget",),
    observed=True,
)
BUDGET_EVICTED = Instrument(
    "counter",
    "mom.budget.evicted",
    "{account}",
    "Accounts of a budget that went, those that had used least first, because too many had one in the same window",
    ("budget",),
    observed=True,
)
BUDGET_ACTIONS = Instrument(
    "counter",
    "mom.budget.actions",
    "{request}",
    "Requests whose plan a budget changed: trimmed, cheaper, cheapest, refused",
    ("budget", "action"),
)
BUDGET_ALONE = Instrument(
    "counter",
    "mom.budget.alone",
    "{request}",
    "Requests whose budgets were judged without the other replicas: store slow, down or refused",
    ("reason",),
)
STORE_UP = Instrument(
    "gauge",
    "mom.store.up",
    "",
    "Whether the store that replicas share answers, by use",
    ("use",),
    observed=True,
)
GUARD_ACTIONS = Instrument(
    "counter",
    "mom.guard.actions",
    "{request}",
    "Requests that a guard tagged, masked or rerouted; blocked ones are `mom.requests.refused`, by code",
    ("guard",),
)
FEEDBACK = Instrument(
    "counter",
    "mom.feedback",
    "{verdict}",
    "What people said of decisions: good, bad, false_alarm, missed; by route, and by each guard that had held",
    ("verdict", "route", "guard"),
)
STICKY = Instrument(
    "counter",
    "mom.sticky.decisions",
    "{decision}",
    "Decisions of sticky routes: new conversations, those kept on their model, moved to another, or away from it for "
    "one turn that is unsure or can wait",
    ("route", "result"),
)
MODEL_SCALE = Instrument(
    "gauge",
    "mom.model.scale",
    "",
    "Factor that the schedules give a model now, for whatever scales its replicas",
    ("model",),
    observed=True,
)
GENERATION = Instrument(
    "gauge",
    "mom.config.generation",
    "{generation}",
    "Configuration that serves",
    observed=True,
)
RELOAD_OK = Instrument(
    "gauge",
    "mom.config.last.reload.successful",
    "",
    "0 while the newest file is refused",
    observed=True,
)
RELOADS = Instrument(
    "counter",
    "mom.config.reloads",
    "{reload}",
    "Reloads, by result",
    ("result",),
)
LOOP_LAG = Instrument(
    "histogram",
    "mom.loop.lag",
    "s",
    "How late the event loop wakes up, sampled ten times a second",
    (),
    STAGE_SECONDS_BOUNDS,
)
QUEUED = Instrument(
    "gauge",
    "mom.classifier.queued",
    "{window}",
    "Windows of text that wait for the classifier",
    observed=True,
)
TEXTS = Instrument(
    "counter",
    "mom.classifier.texts",
    "{text}",
    "Texts: accepted, and of them late, partial or cancelled; refused ones never entered",
    ("result",),
    observed=True,
)
BATCHES = Instrument(
    "counter",
    "mom.classifier.batches",
    "{batch}",
    "Batches, by windows rounded up to a power of two",
    ("size",),
    observed=True,
)
WINDOWS = Instrument(
    "counter",
    "mom.classifier.windows",
    "{window}",
    "Windows of text: run, failed, or remembered from an earlier request",
    ("result",),
    observed=True,
)
LOOKUPS = Instrument(
    "counter",
    "mom.classifier.lookups",
    "{window}",
    "Windows of text that were looked up: in the process's memory, and those it lacks in the store",
    ("where", "result"),
    observed=True,
)
STORE_DROPPED = Instrument(
    "counter",
    "mom.store.dropped",
    "{window}",
    "Answers of the classifier that did not get into the store",
    observed=True,
)
CLASSIFIER_TOKENS = Instrument(
    "counter",
    "mom.classifier.tokens",
    "{token}",
    "Tokens run: real, and padding that was computed for nothing",
    ("type",),
    observed=True,
)
CLASSIFIER_SECONDS = Instrument(
    "counter",
    "mom.classifier.time",
    "s",
    "Summed: queue (waiting, per window) and run (forward passes)",
    ("stage",),
    observed=True,
)
TELEMETRY_DROPPED = Instrument(
    "counter",
    "mom.telemetry.dropped",
    "{fact}",
    "Facts that were not counted: the thread of metrics and traces had no room for them",
    observed=True,
)
MEMORY = Instrument(
    "gauge",
    "process.memory.usage",
    "By",
    "Resident memory of the sidecar",
    observed=True,
)

ALL: tuple[Instrument, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Instrument))
"""In the order of the documentation."""
