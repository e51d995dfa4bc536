"""What is known of one request, as rules see it: converted to CEL's values once, and only what a rule reads."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable
from functools import cached_property
from typing import Any

import cel

from router_extproc.domain import LlmRequest, SignalSet, SignalValue
from router_extproc.rule_tokens import Read


def request_fields(request: LlmRequest, virtual: str) -> dict[str, Any]:
    """What rules see of a request as `request`."""
    return {
        "api": request.api,
        "model": request.model or "",
        "tokens": request.tokens,
        "max_output_tokens": request.max_output_tokens or 0,
        "turns": request.turns,
        "stream": request.stream,
        "has_tools": request.has_tools,
        "json_mode": request.json_mode,
        "stateful": request.stateful,
        "modalities": sorted(request.modalities),
        "virtual": virtual,
    }


def signal_fields(value: SignalValue) -> dict[str, Any]:
    """What rules see of a signal."""
    return {"label": value.label, "confidence": value.confidence, "value": value.value, "scores": dict(value.scores)}


class Facts:
    """One request and its signals, for all guards and routes of one decision. `virtual` is the model asked for."""

    def __init__(self, request: LlmRequest, signals: SignalSet, virtual: str) -> None:
        self.request = request
        self.signals = signals
        self.virtual = virtual
        self._fields = _Converted(self._value)

    def without(self, names: Collection[str]) -> Facts:
        """The same request as if these signals had no value."""
        values = {name: value for name, value in self.signals.values.items() if name not in names}
        return Facts(self.request, SignalSet(values, self.signals.absent), self.virtual)

    def context(self, reads: Iterable[Read]) -> cel.Context:
        """CEL's context with at least `reads`, as far as they have a value."""
        return self._fields.context(reads)

    def whole(self, reads: Iterable[Read]) -> cel.Context:
        """The same for reads of whole signals by their own names, which may be those of other rules' variables."""
        return self._whole.context(reads)

    @cached_property
    def _whole(self) -> _Converted:
        # Few rules need it.
        return _Converted(self._value)

    @cached_property
    def _request(self) -> dict[str, Any]:
        return request_fields(self.request, self.virtual)

    def _value(self, read: Read) -> Any:
        if read.name == "request":
            return self._request[read.field] if read.field else self._request
        value = self.signals.values.get(read.name)
        if value is None:
            return None
        if not read.field:
            return signal_fields(value)
        if read.field == "scores":
            return value.scores.get(read.label) if read.label else dict(value.scores)
        return getattr(value, read.field)


class _Converted:
    """A context of CEL that grows by what is asked for. Converts each value once."""

    def __init__(self, value: Callable[[Read], Any]) -> None:
        """`value` gives what a read stands for, None where it is absent."""
        self._value = value
        self._asked: set[str] = set()
        self._context = cel.Context()

    def context(self, reads: Iterable[Read]) -> cel.Context:
        """With at least `reads`, as far as they have a value."""
        for read in reads:
            if read.variable not in self._asked:
                self._asked.add(read.variable)
                value = self._value(read)
                if value is not None:
                    # What CEL has no value for is absent: it must not take the rule's other facts with it.
                    with contextlib.suppress(ValueError):
                        self._context.add_variable(read.variable, value)
        return self._context
