"""Compiled routes: which one a request takes, in which confidence band, and which models are its candidates. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import cel

from router_extproc.config.schema import Bands, Route, RouterConfig, VirtualModel
from router_extproc.domain import Band, Decision, LlmRequest, SignalSet
from router_extproc.errors import ConfigMistakes, Mistake
from router_extproc.rules import RESERVED, Rule, compile_rule, request_fields, signal_fields
from router_extproc.signals.base import Signal
from router_extproc.validation import Path, did_you_mean

DEFAULT_ROUTE = "default"
NAMED_ROUTE = "named"
MAX_REASON = 199


@dataclass(frozen=True, slots=True)
class RouteResult:
    """What became of one route for one request. `matched` is None when the route was not looked at or has no value."""

    route: str
    matched: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class _CompiledRoute:
    """A route with its three possible decisions ready, so that a request only fills in confidence and reason."""

    name: str
    rule: Rule
    bands: Bands
    deciding: tuple[str, ...]
    recommended: Decision
    fallback: Decision
    default: Decision


@dataclass(frozen=True, slots=True)
class _View:
    """The policy under one virtual model name."""

    routes: tuple[_CompiledRoute, ...]
    default: Decision
    reads: frozenset[str]
    scores: frozenset[str]


class Policy:
    """All routes of a configuration generation. Immutable; used on the event loop."""

    def __init__(self, views: Mapping[str, _View]) -> None:
        self._views = views

    @classmethod
    def compile(
        cls, config: RouterConfig, signals: Mapping[str, Signal], selections: Collection[str] = ("first",)
    ) -> Policy:
        """Checks all names and compiles all rules. Raises ConfigMistakes with every mistake.

        `signals` may lack some that could not be built: rules may name them, what they say of them goes unchecked.
        `selections` are the selection types there are.
        """
        compiler = _Compiler(config, signals, selections)
        views = compiler.views()
        if compiler.mistakes:
            raise ConfigMistakes(compiler.mistakes)
        return cls(views)

    def decide(self, request: LlmRequest, signals: SignalSet, virtual: str) -> Decision:
        """The decision on a request that asked for the virtual model `virtual`. Never raises on any request.

        A rule that needs an absent signal does not match. A catch-all after such a rule does not match either: it means
        "none of the above", which nobody knows then.
        """
        view = self._views[virtual]
        context: cel.Context | None = None
        skipped = False
        for route in view.routes:
            rule = route.rule
            if rule.constant:
                if skipped:
                    break
                return _decided(route, signals)
            if context is None:
                context = _context(view, request, signals, virtual)
            holds, _ = rule.holds(context)
            if holds:
                return _decided(route, signals)
            skipped = skipped or holds is None
        return replace(view.default, reason=_no_route(signals, skipped))

    def explain(self, request: LlmRequest, signals: SignalSet, virtual: str) -> list[RouteResult]:
        """What became of every route: the first that matched is the one that `decide` takes."""
        view = self._views[virtual]
        context = _context(view, request, signals, virtual)
        results: list[RouteResult] = []
        skipped = done = False
        for route in view.routes:
            absent = [name for name in route.rule.signals if name not in signals.values]
            holds, why = route.rule.holds(context)
            if done:
                result = RouteResult(route.name, None, "an earlier route matched")
            elif route.rule.constant and skipped:
                result = RouteResult(route.name, None, "a rule above it could not be judged")
            elif holds is None:
                missing = ", ".join(f"{name} {signals.absent.get(name, 'absent')}" for name in absent)
                result = RouteResult(route.name, None, missing or why)
            else:
                result = RouteResult(route.name, holds, _facts(route, signals))
            results.append(result)
            done = done or result.matched is True
            skipped = skipped or result.matched is None
        return results


def _context(view: _View, request: LlmRequest, signals: SignalSet, virtual: str) -> cel.Context:
    """The variables of a request, converted once for all rules."""
    variables = {
        name: signal_fields(value, name in view.scores) for name, value in signals.values.items() if name in view.reads
    }
    variables["request"] = request_fields(request, virtual)
    return cel.Context(variables)


def _decided(route: _CompiledRoute, signals: SignalSet) -> Decision:
    """The route's decision in the band that the confidence of its deciding signals gives."""
    present = [(signals.values[name].confidence, name) for name in route.deciding if name in signals.values]
    if not present:
        if route.deciding and not set(route.deciding).intersection(route.rule.signals):
            late = route.deciding[0]
            return replace(route.default, reason=f"{late} {signals.absent.get(late, 'absent')}")
        return replace(route.recommended, reason=_clean(_facts(route, signals)))
    confidence, name = min(present)
    bands = route.bands
    decision, sign, threshold = route.recommended, ">", bands.recommended
    if not confidence > bands.recommended:
        decision, threshold = route.fallback, bands.fallback
        if not confidence > bands.fallback:
            decision, sign = route.default, "<="
    places = 2 if f"{confidence:.2f}" != f"{threshold:.2f}" or confidence == threshold else 4
    label = signals.values[name].label
    reason = f"{name}={label} {confidence:.{places}f} {sign} {threshold:.{places}f}"
    return replace(decision, confidence=confidence, reason=_clean(reason))


def _facts(route: _CompiledRoute, signals: SignalSet) -> str:
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


class _Compiler:
    """Goes through the configuration once and collects what is wrong."""

    def __init__(self, config: RouterConfig, signals: Mapping[str, Signal], selections: Collection[str]) -> None:
        self.mistakes: list[Mistake] = []
        self._config = config
        self._signals = signals
        self._selections = selections
        self._labels = {name: signals[name].labels if name in signals else None for name in config.signals}

    def views(self) -> dict[str, _View]:
        """The policy of every virtual model."""
        for name in self._config.signals:
            if name in RESERVED:
                self._wrong(("signals", name), f"`{name}` is a reserved word of the rule language: rename the signal")
        self._check_models(self._config.default, ("default",))
        self._check_catalogue()
        rules = [self._rule(route, ("routes", index)) for index, route in enumerate(self._config.routes)]
        self._check_names()
        views = {
            name: self._view(name, virtual, rules, ("virtual_models", name))
            for name, virtual in self._config.virtual_models.items()
        }
        self._check_reachable(views, rules)
        return views

    def _wrong(self, path: Path, message: str) -> None:
        self.mistakes.append(Mistake(path, message))

    def _check_catalogue(self) -> None:
        clusters: dict[str, str] = {}
        for name, model in self._config.models.items():
            self._check_models(model.fallback or (), ("models", name, "fallback"))
            cluster = model.cluster or name
            if cluster in clusters:
                # Envoy puts name, path, host and key of the model per cluster: two models in one would mix them up.
                self._wrong(("models", name, "cluster"), f"the cluster `{cluster}` is that of `{clusters[cluster]}` too")
            clusters.setdefault(cluster, name)

    def _check_names(self) -> None:
        seen: dict[str, int] = {}
        for index, route in enumerate(self._config.routes):
            if route.name in (DEFAULT_ROUTE, NAMED_ROUTE):
                self._wrong(("routes", index, "name"), f"`{route.name}` is a reserved route name")
            if route.name in seen:
                self._wrong(("routes", index, "name"), f"routes[{seen[route.name]}] is called `{route.name}` too")
            seen.setdefault(route.name, index)

    def _check_models(self, names: Iterable[str], path: Path) -> None:
        seen = set()
        for index, name in enumerate(names):
            if name not in self._config.models:
                self._wrong((*path, index), f"unknown model `{name}`{did_you_mean(name, self._config.models)}")
            if name in seen:
                self._wrong((*path, index), f"`{name}` stands twice in this list")
            seen.add(name)

    def _rule(self, route: Route, path: Path) -> Rule | None:
        self._check_models(route.models, (*path, "models"))
        self._check_models(route.fallback or (), (*path, "fallback"))
        if route.selection not in self._selections:
            suggestion = did_you_mean(route.selection, self._selections)
            self._wrong((*path, "selection"), f"unknown selection `{route.selection}`{suggestion}")
        if route.confidence is not None and route.confidence not in self._config.signals:
            suggestion = did_you_mean(route.confidence, self._config.signals)
            self._wrong((*path, "confidence"), f"unknown signal `{route.confidence}`{suggestion}")
        try:
            return compile_rule(route.when, self._labels)
        except ConfigMistakes as error:
            self.mistakes += [Mistake((*path, "when"), mistake.message) for mistake in error.mistakes]
            return None

    def _view(self, name: str, virtual: VirtualModel, rules: list[Rule | None], path: Path) -> _View:
        if name in self._config.models:
            self._wrong(path, f"`{name}` is also a model of the catalogue")
        self._check_models(virtual.default or (), (*path, "default"))
        names = [route.name for route in self._config.routes]
        for index, route in enumerate(virtual.routes or ()):
            if route not in names:
                self._wrong((*path, "routes", index), f"unknown route `{route}`{did_you_mean(route, names)}")
        default = tuple(virtual.default or self._config.default)
        compiled = [
            self._compiled(route, rule, default)
            for route, rule in zip(self._config.routes, rules, strict=True)
            if rule is not None and rule.constant is not False and _takes(virtual, route)
        ]
        return _View(
            routes=tuple(compiled),
            default=Decision(DEFAULT_ROUTE, Band.DEFAULT, 0.0, default, "no rule matched"),
            reads=frozenset(name for route in compiled for name in route.rule.signals),
            scores=frozenset(name for route in compiled for name in route.rule.scores),
        )

    def _compiled(self, route: Route, rule: Rule, default: tuple[str, ...]) -> _CompiledRoute:
        models, fallback = tuple(route.models), tuple(route.fallback or ())
        deciding = (route.confidence,) if route.confidence else tuple(self._uncertain(rule))
        return _CompiledRoute(
            name=route.name,
            rule=rule,
            bands=route.bands or self._config.bands,
            deciding=deciding,
            recommended=Decision(
                route.name, Band.RECOMMENDED, 1.0, models, "", _others((*fallback, *default), models), route.selection
            ),
            fallback=Decision(
                route.name,
                Band.FALLBACK,
                1.0,
                fallback or default,
                "",
                _others(default, fallback or default),
                route.selection if fallback else "first",
            ),
            default=Decision(route.name, Band.DEFAULT, 0.0, default, ""),
        )

    def _uncertain(self, rule: Rule) -> Iterator[str]:
        for name in rule.signals:
            signal = self._signals.get(name)
            if signal is not None and signal.classifier is not None:
                yield name

    def _check_reachable(self, views: Mapping[str, _View], rules: list[Rule | None]) -> None:
        reachable: set[str] = set()
        for view in views.values():
            for route in view.routes:
                reachable.add(route.name)
                if route.rule.constant:
                    break
        for index, (written, rule) in enumerate(zip(self._config.routes, rules, strict=True)):
            if rule is None or rule.constant is False or written.name in reachable:
                continue
            used = any(_takes(virtual, written) for virtual in self._config.virtual_models.values())
            why = "a route before it always matches" if used else "no virtual model has it in `routes`"
            self._wrong(("routes", index), f"`{written.name}` can never be taken: {why}")


def _takes(virtual: VirtualModel, route: Route) -> bool:
    return virtual.routes is None or route.name in virtual.routes


def _others(names: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name not in known))
