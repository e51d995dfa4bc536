"""W3C trace context: in from the caller, out to the model's server, and whether an exchange is sampled at all."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
SAMPLED = 1


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where an exchange belongs: its trace, the span above ours ("" at the top), and our own spans' ids."""

    trace_id: str
    parent_id: str
    route_id: str
    chat_id: str

    @property
    def traceparent(self) -> str:
        """What the model's server is told: the span that waits for it."""
        return f"00-{self.trace_id}-{self.chat_id}-01"


class Sampler:
    """Follows the decision of the span above; at the top it takes `ratio` (0 to 1) of the traces, by their id."""

    def __init__(self, ratio: float, *, on: bool = True) -> None:
        """`on` is false where nobody takes spans: nothing is sampled then, whatever the caller does."""
        self._bound, self._on = int(ratio * 2**32), on

    def context(self, traceparent: str | None, identity: str) -> TraceContext | None:
        """The context to record under, None for an exchange that is not sampled.

        `identity` is 32 hex digits and names the trace where nobody named it before.
        """
        if not self._on:
            return None
        if traceparent:
            found = _TRACEPARENT.fullmatch(traceparent.strip())
            if found is not None and _valid(found):
                if not int(found[4], 16) & SAMPLED:
                    return None
                return TraceContext(found[2], found[3], secrets.token_hex(8), secrets.token_hex(8))
        if int(identity[:8], 16) >= self._bound:
            return None
        return TraceContext(identity, "", secrets.token_hex(8), secrets.token_hex(8))


def _valid(found: re.Match[str]) -> bool:
    """The specification: version 255 and ids of zeros are invalid, version 0 has nothing behind the flags."""
    version, trace_id, span_id, rest = found[1], found[2], found[3], found[5]
    return version != "ff" and trace_id.strip("0") != "" and span_id.strip("0") != "" and not (version == "00" and rest)
