"""The spans of one exchange, made with OpenTelemetry's SDK from what is recorded anyway.

They are made when the exchange has ended, on the telemetry's thread: a request that is not sampled costs a look at one
header. Two of their ids were drawn when the request came, since the model's server was told one of them.
"""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.util.types import Attributes, AttributeValue

from router_extproc import __version__
from router_extproc.domain import Outcome
from router_extproc.telemetry.context import TraceContext
from router_extproc.telemetry.recorder import OPERATIONS, Decided, Served, error_type
from router_extproc.telemetry.resource import resource


class GivenIds(RandomIdGenerator):
    """Random ids, but for the one that is given for the next span, and the one of its trace. For one thread."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_trace_id(self) -> int:
        """The given one: who starts a trace has given it."""
        return self.trace_id or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The given one, once."""
        given, self.span_id = self.span_id, 0
        return given or super().generate_span_id()

    def is_trace_id_random(self) -> bool:
        """A UUID, and the model's server was told the same flags."""
        return False


class Tracing:
    """Makes spans and gives them to `processor`. For one thread."""

    def __init__(self, processor: SpanProcessor) -> None:
        # What is sampled was decided when the request came: the model's server had to be told.
        self._ids = GivenIds()
        provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource(), shutdown_on_exit=False, id_generator=self._ids
        )
        provider.add_span_processor(processor)
        self._tracer = provider.get_tracer("router_extproc", __version__)

    def exchange(self, outcome: Outcome | None, decided: Decided, served: Served | None) -> None:
        """The decision with its stages and signals, and the model's answer where it is known."""
        context = decided.trace
        if context is None:
            return
        body = sum(seconds for stage, seconds in decided.stages if stage == "body")
        began = decided.at - decided.seconds - body
        self._ids.trace_id = context.trace_id
        route = self._start("mom.route", context.above, began, _of_route(decided), identity=context.route_id)
        within = trace.set_span_in_context(route, Context())
        at = began
        for stage, seconds in decided.stages:
            span = self._start(f"mom.stage {stage}", within, at)
            if stage == "signals":
                self._signals(decided, trace.set_span_in_context(span, Context()), at, at + seconds)
            at += seconds
            _end(span, at)
        if outcome is not None:
            self._answer(context, within, outcome, decided, served, began)
        _end(route, decided.at)

    def _signals(self, decided: Decided, within: Context, start: float, end: float) -> None:
        """One each. They are evaluated together, in microseconds, so all have the stage's times."""
        for name, value in decided.signals.values.items():
            about: dict[str, AttributeValue] = {
                "mom.signal.label": value.label,
                "mom.signal.confidence": value.confidence,
                "mom.signal.value": value.value,
            }
            _end(self._start(f"mom.signal {name}", within, start, about), end)
        for name, reason in decided.signals.absent.items():
            span = self._start(f"mom.signal {name}", within, start, {"mom.signal.absent": reason})
            _end(span, end, reason)

    def _answer(
        self,
        context: TraceContext,
        within: Context,
        outcome: Outcome,
        decided: Decided,
        served: Served | None,
        began: float,
    ) -> None:
        """By the conventions: `{operation} {model}`, kind CLIENT. Envoy's time: from the request's first byte."""
        operation = OPERATIONS.get(outcome.api, outcome.api)
        name = f"{operation} {served.name}" if served is not None else operation
        about = _of_answer(operation, outcome, decided, served)
        span = self._start(name, within, began, about, identity=context.chat_id, kind=SpanKind.CLIENT)
        _end(span, began + outcome.duration_seconds, error_type(outcome))

    def _start(
        self,
        name: str,
        within: Context,
        start: float,
        attributes: Attributes = None,
        *,
        identity: int = 0,
        kind: SpanKind = SpanKind.INTERNAL,
    ) -> Span:
        """Times in seconds since 1970. An `identity` of 0 is a random one."""
        self._ids.span_id = identity
        return self._tracer.start_span(name, within, kind, attributes, start_time=_nanos(start))


def _end(span: Span, end: float, error: str = "") -> None:
    """`error` is OpenTelemetry's `error.type`, empty for success."""
    if error:
        span.set_status(StatusCode.ERROR, error)
        span.set_attribute("error.type", error)
    span.end(_nanos(end))


def _of_route(decided: Decided) -> dict[str, AttributeValue]:
    decision = decided.decision
    return {
        "mom.decision.id": decided.decision_id,
        "mom.route": decision.route,
        "mom.band": decision.band.value,
        "mom.confidence": decision.confidence,
        "mom.reason": decision.reason,
        "mom.plan": decided.plan.models,
        "mom.config.generation": decided.generation,
        "mom.request.tokens": decided.request.tokens,
    }


def _of_answer(operation: str, outcome: Outcome, decided: Decided, served: Served | None) -> dict[str, AttributeValue]:
    attributes: dict[str, AttributeValue] = {
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
            "gen_ai.usage.cache_creation.input_tokens": usage.cache_write,
        }
        if usage.model:
            attributes["gen_ai.response.model"] = usage.model
    return attributes


def _nanos(seconds: float) -> int:
    return int(seconds * 1e9)
