"""Compiled routes: which one a request takes, in which confidence band, and which models are its candidates. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Decision, SignalSet
from router_extproc.errors import ConfigMistakes
from router_extproc.facts import Facts
from router_extproc.routes import MAX_REASON, CompiledRoute, RouteCompiler, View
from router_extproc.signals.base import Signal


@dataclass(frozen=True, slots=True)
class RouteResult:
    """What became of one route for one request. `matched` is None when the route was not looked at or has no value."""

    route: str
    matched: bool | None
    why: str


class Policy:
    """All routes of a configuration generation. Immutable; used on the event loop."""

    def __init__(self, views: Mapping[str, View]) -> None:
        self._views = views

    @classmethod
    def compile(cls, config: RouterConfig, signals: Mapping[str, Signal]) -> Policy:
        """Checks all names and compiles all rules. Raises ConfigMistakes with every mistake.

        `signals` may lack some that could not be built: rules may name them, what they say of them goes unchecked.
        """
        compiler = RouteCompiler(config, signals)
        views = compiler.views()
        if compiler.mistakes:
            raise ConfigMistakes(compiler.mistakes)
        return cls(views)

    def decide(self, facts: Facts) -> Decision:
        """The decision on a request that asked for a virtual model. Never raises on any request.

        A rule that needs an absent signal does not match. A catch-all after such a rule does not match either: it means
        "none of the above", which nobody knows then.
        """
        view = self._views[facts.virtual]
        skipped = False
        for route in view.routes:
            rule = route.rule
            if rule.constant:
                if skipped:
                    break
                holds: bool | None = True
            else:
                holds = rule.holds(facts)
            decision = _decided(route, facts) if holds else None
            if decision is not None:
                return decision
            skipped = skipped or holds is None
        return replace(view.default, reason=_no_route(facts.signals, skipped))

    def certain(self) -> set[str]:
        """The routes whose band no signal's confidence picks: their rules hold or do not."""
        return {route.name for view in self._views.values() for route in view.routes if not route.deciding}

    def explain(self, facts: Facts) -> list[RouteResult]:
        """What became of every route: the first that matched is the one that `decide` takes."""
        view, signals = self._views[facts.virtual], facts.signals
        results: list[RouteResult] = []
        skipped, done = False, ""
        for route in view.routes:
            absent = [name for name in route.rule.signals if name not in signals.values]
            holds = route.rule.holds(facts)
            if done:
                result = RouteResult(route.name, None, done)
            elif route.rule.constant and skipped:
                result = RouteResult(route.name, None, "a rule above it could not be judged")
                done = "not looked at"
            elif holds is None:
                missing = ", ".join(f"{name} {signals.absent.get(name, 'absent')}" for name in absent)
                result = RouteResult(route.name, None, missing or route.rule.why_not(facts))
            elif holds and _decided(route, facts) is None:
                other = signals.values[route.second or ""]
                result = RouteResult(route.name, False, _clean(f"{route.second}={other.label} says otherwise"))
            else:
                result = RouteResult(route.name, holds, _clean(_because(route, signals)))
            results.append(result)
            if result.matched:
                done = "an earlier route matched"
            skipped = skipped or result.matched is None
        return results


def _decided(route: CompiledRoute, facts: Facts) -> Decision | None:
    """The route's decision in the band that the confidence of its deciding signals gives.

    Where the rule holds by facts alone, whatever those signals say, there is nothing to be unsure of. None when the
    deciding signals are unsure and the second opinion is sure of another label.
    """
    if route.mixed:
        beside = facts.without(route.deciding)
        if route.rule.holds(beside):
            return replace(route.recommended, reason=_clean(_because(route, beside.signals)))
    signals = facts.signals
    present = [(signals.values[name].confidence, name) for name in route.deciding if name in signals.values]
    if not present:
        if route.deciding and not set(route.deciding).intersection(route.rule.signals):
            late = route.deciding[0]
            return replace(route.default, reason=f"{late} {signals.absent.get(late, 'absent')}")
        return replace(route.recommended, reason=_clean(_because(route, signals)))
    confidence, name = min(present)
    bands = route.bands
    second = signals.values.get(route.second) if route.second is not None else None
    if second is not None and not confidence > bands.recommended:
        if second.label != signals.values[name].label:
            if second.confidence > bands.recommended:
                return None
        elif second.confidence > confidence:
            confidence, name = second.confidence, str(route.second)
    decision, sign, threshold = route.recommended, ">", bands.recommended
    if not confidence > bands.recommended:
        decision, threshold = route.fallback, bands.fallback
        if not confidence > bands.fallback:
            decision, sign = route.default, "<="
    places = 2 if f"{confidence:.2f}" != f"{threshold:.2f}" or confidence == threshold else 4
    label = signals.values[name].label
    reason = f"{name}={label} {confidence:.{places}f} {sign} {threshold:.{places}f}"
    return replace(decision, confidence=confidence, reason=_clean(reason))


def _because(route: CompiledRoute, signals: SignalSet) -> str:
    if route.rule.constant:
        return "catch-all"
    read = [f"{name}={signals.values[name].label}" for name in route.rule.signals if name in signals.values]
    return ", ".join(read[:3]) or "by the request alone"


def _no_route(signals: SignalSet, skipped: bool) -> str:
    if not skipped:
        return "no rule matched"
    if signals.absent:
        whys = sorted(set(signals.absent.values()))
        return _clean(f"signals {' and '.join(whys)}")
    return "no rule could be judged"


def _clean(reason: str) -> str:
    """As a header value may be: printable ASCII, short."""
    return "".join(char if " " <= char <= "~" else "?" for char in reason[:MAX_REASON])
