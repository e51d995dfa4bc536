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


def must_judge(config: RouterConfig) -> bool:
    """Whether a request that nobody could judge has to be refused: a guard that does more than `tag` counts what it
    cannot see as found."""
    return any(guard.on_error is OnError.BLOCK and guard.action is not GuardAction.TAG for guard in config.guards)


@dataclass(frozen=True, slots=True)
class _CompiledGuard:
    """`points` are the signals of the rule that point at what a mask covers."""

    guard: Guard
    rule: Rule
    models: tuple[str, ...]
    points: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GuardResult:
    """What became of one guard for one request. `holds` is None when a signal is absent, or it was not looked at."""

    guard: str
    action: str
    holds: bool | None
    why: str


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
            points = tuple(name for name in rule.signals if name not in signals or marks(signals[name]))
            if guard.action is GuardAction.MASK and not points:
                mistakes.append(Mistake(("guards", index, "when"), _NOTHING_TO_MASK))
            compiled.append(_CompiledGuard(guard, rule, expand(guard.models or (), config.models), points))
        if mistakes:
            raise ConfigMistakes(mistakes)
        return cls(tuple(compiled))

    def apply(self, decision: Decision, facts: Facts) -> Decision:
        """`decision` as the guards allow it, in the order of the file; all guards that hold act.

        Raises GuardBlocked, and ModelForbidden when a reroute leaves no model.
        """
        if not self._guards:
            return decision
        seen = _as_guards_see(facts)
        for each in self._guards:
            guard = each.guard
            holds = each.rule.holds(seen)
            if _strikes(guard, holds):
                noted = f"{decision.reason}; guard {guard.name}"[:MAX_REASON]
                decision = replace(decision, guards=(*decision.guards, guard.name), reason=noted)
                decision = self._acted(each, decision, holds, facts.signals)
        return decision

    def explain(self, facts: Facts) -> list[GuardResult]:
        """What became of every guard, as far as `apply` asks them: until one refuses."""
        seen = _as_guards_see(facts)
        results: list[GuardResult] = []
        refused = False
        for each in self._guards:
            guard = each.guard
            holds = None if refused else each.rule.holds(seen)
            why = "an earlier guard refused" if refused else _why(each, holds, seen, facts.signals)
            results.append(GuardResult(guard.name, guard.action.value, holds, why))
            refused = refused or (_strikes(guard, holds) and _refuses(each, holds, facts.signals))
        return results

    def _acted(self, each: _CompiledGuard, decision: Decision, holds: bool | None, signals: SignalSet) -> Decision:
        guard = each.guard
        if guard.action is GuardAction.REROUTE:
            return narrowed(decision, frozenset(each.models), each.models, f"guard {guard.name}")
        if guard.action is GuardAction.MASK and not _refuses(each, holds, signals):
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


def _as_guards_see(facts: Facts) -> Facts:
    """A guard must not take for read what was not; a route, which only chooses, may go by what was."""
    partial = [name for name, value in facts.signals.values.items() if value.partial]
    return facts.without(partial) if partial else facts


def _strikes(guard: Guard, holds: bool | None) -> bool:
    return bool(holds) or (holds is None and guard.on_error is OnError.BLOCK)


def _refuses(each: _CompiledGuard, holds: bool | None, signals: SignalSet) -> bool:
    """Whether the guard, which strikes, ends the request. A mask does where it is not known what to mask; where a part
    of it is known, it depends on what the guard does on errors."""
    guard = each.guard
    if guard.action is not GuardAction.MASK:
        return guard.action is GuardAction.BLOCK
    return not holds or (guard.on_error is OnError.BLOCK and bool(_unknown(each, signals)))


def _unknown(each: _CompiledGuard, signals: SignalSet) -> list[str]:
    """Which signals may lack something that a mask should cover, each with the reason."""
    found = []
    for name in each.points:
        value = signals.values.get(name)
        if value is None:
            found.append(f"{name} {signals.absent.get(name, 'absent')}")
        elif value.partial or value.more:
            found.append(f"{name} in part")
    return found


def _why(each: _CompiledGuard, holds: bool | None, seen: Facts, signals: SignalSet) -> str:
    """What the rule read, with the confidence; or what it could not read. Of a mask, also what it may lack."""
    rule, read = each.rule, seen.signals.values
    if holds is None:
        partly = dict.fromkeys(signals.values, "read in part")
        missing = [
            f"{name} {partly.get(name) or signals.absent.get(name, 'absent')}"
            for name in rule.signals
            if name not in read
        ]
        return ", ".join(missing) or rule.why_not(seen)
    found = [f"{name}={read[name].label} {read[name].confidence:.3f}" for name in rule.signals if name in read]
    unknown = _unknown(each, signals) if holds and each.guard.action is GuardAction.MASK else []
    lacks = f"; what to mask is not known in full: {', '.join(unknown)}" if unknown else ""
    return (", ".join(found) or "by the request alone") + lacks
