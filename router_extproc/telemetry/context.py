"""W3C trace context: in from the caller, out to the model's server, and whether an exchange is sampled at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Decision, ParentBased, TraceIdRatioBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

SAMPLED = TraceFlags(TraceFlags.SAMPLED)
_IDS = RandomIdGenerator()
_PROPAGATOR = TraceContextTextMapPropagator()


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a sampled exchange belongs: its trace, the span above ours (None at the top), and our own spans' ids."""

    trace_id: int
    parent: SpanContext | None
    route_id: int
    chat_id: int

    @property
    def traceparent(self) -> str:
        """What the model's server is told: the span that waits for it."""
        return f"00-{trace.format_trace_id(self.trace_id)}-{trace.format_span_id(self.chat_id)}-01"

    @property
    def above(self) -> Context:
        """The caller's span as OpenTelemetry's context."""
        return Context() if self.parent is None else _context(self.parent)

    @property
    def within(self) -> Context:
        """Our outermost span as OpenTelemetry's context, for measurements."""
        return _context(SpanContext(self.trace_id, self.route_id, is_remote=False, trace_flags=SAMPLED))


class Sampler:
    """Follows the decision of the span above; at the top it takes `ratio` (0 to 1) of the traces, by their id."""

    def __init__(self, ratio: float, *, on: bool = True) -> None:
        """`on` is false where nobody takes spans: nothing is sampled then, whatever the caller does."""
        self._sampler, self._on = ParentBased(TraceIdRatioBased(ratio)), on

    def context(self, headers: Mapping[str, str], identity: str) -> TraceContext | None:
        """The context to record under, None for an exchange that is not sampled.

        `identity` is a UUID as 32 hex digits and names the trace where nobody named it before.
        """
        if not self._on:
            return None
        above = _PROPAGATOR.extract(headers)
        # By the first half of the id: the second half of a UUID does not begin at random.
        found = self._sampler.should_sample(above, int(identity[:16], 16), "mom.route")
        if found.decision is not Decision.RECORD_AND_SAMPLE:
            return None
        parent = trace.get_current_span(above).get_span_context()
        route_id, chat_id = _IDS.generate_span_id(), _IDS.generate_span_id()
        if parent.is_valid:
            return TraceContext(parent.trace_id, parent, route_id, chat_id)
        return TraceContext(int(identity, 16), None, route_id, chat_id)


def _context(span: SpanContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(span), Context())
