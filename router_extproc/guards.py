"""Guards: rules before all routes that refuse a request, keep it to some models, mask parts of it, or tag it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from router_extproc.config.policy import Guard, GuardAction, OnError
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Decision, SignalSet
from router_extproc.errors import ConfigMistakes, GuardBlocked, Mistake
from router_extproc.facts import Facts
from router_extproc.routes import MAX_REASON, check_candidates, expand, narrowed
from router_extproc.rules import Rule, compile_rule
from router_extproc.signals.base import Signal, known_labels, marks

_NOTHING_TO_MASK = (
    "nothing that this rule reads can be masked: give a keywords signal `mark: true`, or use the pii head"
)


@dataclass(frozen=True, slots=True)
class _CompiledGuard:
    guard: Guard
    rule: Rule
    models: tuple[str, ...]


class Guards:
    """All guards of a configuration generation. Immutable; used on the event loop."""

    def __init__(self, guards: tuple[_CompiledGuard, ...]) -> None:
        self._guards = guards

    @classmethod
    def compile(cls, config: RouterConfig, signals: Mapping[str, Signal]) -> Guards:
        """Checks names and compiles the rules. Raises ConfigMistakes with every mistake."""
        mistakes: list[Mistake] = []
        compiled: list[_CompiledGuard] = []
        labels = known_labels(config.signals, signals)
        seen: set[str] = set()
        for index, guard in enumerate(config.guards):
            if guard.name in seen:
                mistakes.append(Mistake(("guards", index, "name"), f"another guard is called `{guard.name}` too"))
            seen.add(guard.name)
            mistakes += check_candidates(guard.models or (), config.models, ("guards", index, "models"))
            try:
                rule = compile_rule(guard.when, labels)
            except ConfigMistakes as error:
                mistakes += [Mistake(("guards", index, "when"), mistake.message) for mistake in error.mistakes]
                continue
            # What a signal that could not be built would do is not known.
            maskable = any(name not in signals or marks(signals[name]) for name in rule.signals)
            if guard.action is GuardAction.MASK and not maskable:
                mistakes.append(Mistake(("guards", index, "when"), _NOTHING_TO_MASK))
            compiled.append(_CompiledGuard(guard, rule, expand(guard.models or (), config.models)))
        if mistakes:
            raise ConfigMistakes(mistakes)
        return cls(tuple(compiled))

    def apply(self, decision: Decision, facts: Facts) -> Decision:
        """`decision` as the guards allow it, in the order of the file; all guards that hold act.

        Raises GuardBlocked, and ModelForbidden when a reroute leaves no model.
        """
        for each in self._guards:
            guard = each.guard
            holds = each.rule.holds(facts)
            if holds or (holds is None and guard.on_error is OnError.BLOCK):
                noted = f"{decision.reason}; guard {guard.name}"[:MAX_REASON]
                decision = replace(decision, guards=(*decision.guards, guard.name), reason=noted)
                decision = self._acted(each, decision, holds, facts.signals)
        return decision

    def _acted(self, each: _CompiledGuard, decision: Decision, holds: bool | None, signals: SignalSet) -> Decision:
        guard = each.guard
        if guard.action is GuardAction.REROUTE:
            return narrowed(decision, frozenset(each.models), each.models, f"guard {guard.name}")
        if guard.action is GuardAction.MASK and holds:
            read = [signals.values[name] for name in each.rule.signals if name in signals.values]
            pieces = dict.fromkeys(piece for value in read for piece in value.pieces)
            return replace(decision, masked=tuple(dict.fromkeys((*decision.masked, *pieces))))
        if guard.action is GuardAction.TAG:
            return decision
        error = GuardBlocked(guard.message)
        error.status = guard.status
        error.code = f"blocked_by_{guard.name}"
        error.guards = decision.guards
        raise error
