"""The spans of one exchange.

They are made from what is recorded anyway, when the exchange has ended, on the exporter's thread: a request that is
not sampled costs a look at one header.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from router_extproc.domain import Outcome
from router_extproc.telemetry.context import TraceContext
from router_extproc.telemetry.recorder import OPERATIONS, Decided, Served, error_type

INTERNAL: Final = 1
CLIENT: Final = 3
"""Span kinds of OTLP."""
Value = str | int | float | bool | list[str]


@dataclass(frozen=True, slots=True)
class Span:
    """One span; times in seconds since 1970. `error` is OpenTelemetry's `error.type`, empty for success."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    kind: Literal[1, 3] = INTERNAL
    attributes: dict[str, Value] = field(default_factory=dict)
    error: str = ""


def spans_of(context: TraceContext, outcome: Outcome | None, decided: Decided, served: Served | None) -> Iterator[Span]:
    """The decision with its stages and signals, and the model's answer where it is known."""
    body = sum(seconds for stage, seconds in decided.stages if stage == "body")
    decision_began = decided.at - decided.seconds
    began = decision_began - body
    request, decision = decided.request, decided.decision
    yield Span(
        "mom.route",
        *(context.trace_id, context.route_id, context.parent_id, began, decided.at),
        attributes={
            "mom.decision.id": decided.decision_id,
            "mom.route": decision.route,
            "mom.band": decision.band.value,
            "mom.confidence": decision.confidence,
            "mom.reason": decision.reason,
            "mom.plan": list(decided.plan.models),
            "mom.config.generation": decided.generation,
            "mom.request.tokens": request.tokens,
        },
    )
    at = began
    for stage, seconds in decided.stages:
        stage_id = secrets.token_hex(8)
        yield Span(f"mom.stage {stage}", context.trace_id, stage_id, context.route_id, at, at + seconds)
        if stage == "signals":
            yield from _signals(context, decided, stage_id, at, at + seconds)
        at += seconds
    if outcome is not None:
        yield _answer(context, outcome, decided, served, began)


def _signals(context: TraceContext, decided: Decided, parent: str, start: float, end: float) -> Iterator[Span]:
    """One each. They are evaluated together, in microseconds, so all have the stage's times."""
    for name, value in decided.signals.values.items():
        yield Span(
            f"mom.signal {name}",
            *(context.trace_id, secrets.token_hex(8), parent, start, end),
            attributes={
                "mom.signal.label": value.label,
                "mom.signal.confidence": value.confidence,
                "mom.signal.value": value.value,
            },
        )
    for name, reason in decided.signals.absent.items():
        yield Span(
            f"mom.signal {name}",
            *(context.trace_id, secrets.token_hex(8), parent, start, end),
            attributes={"mom.signal.absent": reason},
            error=reason,
        )


def _answer(context: TraceContext, outcome: Outcome, decided: Decided, served: Served | None, began: float) -> Span:
    """By the conventions: `{operation} {model}`, kind CLIENT. Envoy's time: from the request's first byte."""
    operation = OPERATIONS.get(outcome.api, outcome.api)
    attributes: dict[str, Value] = {
        "gen_ai.operation.name": operation,
        "mom.decision.id": outcome.decision_id,
        "mom.attempts": outcome.attempts,
        "http.response.status_code": outcome.status,
    }
    if served is not None:
        attributes |= {
            "gen_ai.provider.name": served.provider,
            "gen_ai.request.model": served.name,
            "server.address": served.address,
            "server.port": served.port,
        }
    if decided.request.max_output_tokens is not None:
        attributes["gen_ai.request.max_tokens"] = decided.request.max_output_tokens
    if outcome.first_byte_seconds is not None and outcome.stream:
        attributes["gen_ai.response.time_to_first_chunk"] = outcome.first_byte_seconds
    usage = outcome.usage
    if usage is not None and not usage.estimated:
        attributes |= {
            "gen_ai.usage.input_tokens": usage.input,
            "gen_ai.usage.output_tokens": usage.output,
            "gen_ai.usage.cache_read.input_tokens": usage.cached,
        }
        if usage.model:
            attributes["gen_ai.response.model"] = usage.model
    name = f"{operation} {served.name}" if served is not None else operation
    return Span(
        name,
        *(context.trace_id, context.chat_id, context.route_id, began, began + outcome.duration_seconds),
        kind=CLIENT,
        attributes=attributes,
        error=error_type(outcome),
    )
