"""Routes as they are compiled: everything that does not depend on the request is decided and checked here, once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from router_extproc.config.catalogue import check_catalogue
from router_extproc.config.model import Model
from router_extproc.config.policy import Bands, Route
from router_extproc.config.preferences import VirtualModel
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import MAX_CONSIDERED, Band, Considered, Decision
from router_extproc.errors import ConfigMistakes, Mistake, ModelForbidden
from router_extproc.rules import RESERVED, Rule, compile_rule
from router_extproc.signals.base import Signal, known_labels
from router_extproc.validation import Path, did_you_mean

DEFAULT_ROUTE = "default"
NAMED_ROUTE = "named"
MAX_REASON = 199
"""Longest reason of a decision, in characters: it travels in a header."""

Candidate = str | dict[str, str]
"""A model's name, or the labels that it must have."""


@dataclass(frozen=True, slots=True)
class CompiledRoute:
    """A route with its three possible decisions ready, so that a request only fills in confidence and reason.

    `deciding` are the signals whose confidence picks the band, `mixed` says that its rule reads facts beside them and
    may hold by those alone.
    """

    name: str
    rule: Rule
    bands: Bands
    deciding: tuple[str, ...]
    second: str | None
    mixed: bool
    recommended: Decision
    fallback: Decision
    default: Decision


@dataclass(frozen=True, slots=True)
class View:
    """The policy under one virtual model name."""

    routes: tuple[CompiledRoute, ...]
    default: Decision


def expand(candidates: Iterable[Candidate], models: Mapping[str, Model]) -> tuple[str, ...]:
    """Names, with labels replaced by the models that have them, in the order of the catalogue."""
    names: dict[str, None] = {}
    for candidate in candidates:
        if isinstance(candidate, str):
            names[candidate] = None
        else:
            wanted = candidate.items()
            names |= dict.fromkeys(name for name, model in models.items() if wanted <= model.labels.items())
    return tuple(names)


def check_candidates(candidates: Iterable[Candidate], models: Mapping[str, Model], path: Path) -> list[Mistake]:
    """Models that do not exist or stand twice, labels that no model has."""
    mistakes: list[Mistake] = []
    seen: list[Candidate] = []
    for index, candidate in enumerate(candidates):
        if candidate in seen:
            mistakes.append(Mistake((*path, index), f"`{_shown(candidate)}` stands twice in this list"))
        elif isinstance(candidate, str) and candidate not in models:
            mistakes.append(Mistake((*path, index), f"unknown model `{candidate}`{did_you_mean(candidate, models)}"))
        elif not expand([candidate], models):
            mistakes.append(Mistake((*path, index), f"no model has the labels {_shown(candidate)}"))
        seen.append(candidate)
    return mistakes


def narrowed(
    decision: Decision, allowed: frozenset[str], instead: Iterable[str], why: str, last: Iterable[str] = ()
) -> Decision:
    """`decision` with no models but the `allowed` ones, and those of `instead` that are as its last fallbacks.

    When nothing is left, those of `last` stand in, in this order whatever the route's selection: it was written for
    other models. Neither do where the decision has no stand-ins. Raises ModelForbidden when nothing is left at all.
    """
    both = allowed if decision.allowed is None else allowed & decision.allowed
    out = [Considered(name, out=why) for name in (*decision.candidates, *decision.fallbacks) if name not in both]
    candidates = tuple(name for name in decision.candidates if name in both)
    others = instead if decision.stand_ins else ()
    fallbacks = tuple(name for name in (*decision.fallbacks, *others) if name in both)
    if not candidates:
        candidates, fallbacks = fallbacks, ()
    if not candidates and decision.stand_ins:
        candidates = tuple(name for name in last if name in both)
        reason = f"{decision.reason}; others stand in ({why})"[:MAX_REASON]
        decision = replace(decision, selection="first", reason=reason)
    if not candidates:
        alone = "" if decision.stand_ins else "; vectors of another one could not be compared"
        raise ModelForbidden(f"no model may take this request ({why}){alone}")
    return replace(
        decision,
        candidates=tuple(dict.fromkeys(candidates)),
        fallbacks=_others(fallbacks, candidates),
        allowed=both,
        considered=(*decision.considered, *out)[:MAX_CONSIDERED] if out else decision.considered,
    )


class RouteCompiler:
    """Goes through the configuration once and collects what is wrong."""

    def __init__(self, config: RouterConfig, signals: Mapping[str, Signal]) -> None:
        self.mistakes: list[Mistake] = []
        self._config = config
        self._signals = signals
        self._labels = known_labels(config.signals, signals)

    def views(self) -> dict[str, View]:
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
        self.mistakes += check_catalogue(self._config.models)
        for name, model in self._config.models.items():
            self._check_models(model.fallback or (), ("models", name, "fallback"))

    def _check_names(self) -> None:
        seen: dict[str, int] = {}
        for index, route in enumerate(self._config.routes):
            if route.name in (DEFAULT_ROUTE, NAMED_ROUTE):
                self._wrong(("routes", index, "name"), f"`{route.name}` is a reserved route name")
            if route.name in seen:
                self._wrong(("routes", index, "name"), f"routes[{seen[route.name]}] is called `{route.name}` too")
            seen.setdefault(route.name, index)

    def _check_models(self, names: Iterable[str], path: Path) -> None:
        self.mistakes += check_candidates(names, self._config.models, path)

    def _allowed(self, require: Mapping[str, str]) -> frozenset[str]:
        return frozenset(expand([dict(require)], self._config.models))

    def _rule(self, route: Route, path: Path) -> Rule | None:
        self.mistakes += check_candidates(route.models, self._config.models, (*path, "models"))
        self.mistakes += check_candidates(route.fallback or (), self._config.models, (*path, "fallback"))
        models = expand(route.models, self._config.models)
        if route.require and models and not set(models) & self._allowed(route.require):
            self._wrong((*path, "require"), f"none of {', '.join(models)} has the labels {_shown(route.require)}")
        for field, name in (("confidence", route.confidence), ("second_opinion", route.second_opinion)):
            if name is not None and name not in self._config.signals:
                suggestion = did_you_mean(name, self._config.signals)
                self._wrong((*path, field), f"unknown signal `{name}`{suggestion}")
        try:
            rule = compile_rule(route.when, self._labels)
        except ConfigMistakes as error:
            self.mistakes += [Mistake((*path, "when"), mistake.message) for mistake in error.mistakes]
            return None
        self._check_second(route, rule, path)
        return rule

    def _check_second(self, route: Route, rule: Rule, path: Path) -> None:
        """One that can never agree would only take the route away: what it says is always another label."""
        own = self._labels.get(route.second_opinion or "")
        deciding = self._deciding(route, rule)
        if own is None or not deciding:
            return
        for labels in map(self._labels.get, deciding):
            if labels is None or not set(own).isdisjoint(labels):
                return
        others = ", ".join(f"`{name}`" for name in deciding)
        self._wrong((*path, "second_opinion"), f"`{route.second_opinion}` has none of the labels of {others}")

    def _view(self, name: str, virtual: VirtualModel, rules: list[Rule | None], path: Path) -> View:
        if name in self._config.models:
            self._wrong(path, f"`{name}` is also a model of the catalogue")
        self._check_models(virtual.default or (), (*path, "default"))
        names = [route.name for route in self._config.routes]
        for index, route in enumerate(virtual.routes or ()):
            if route not in names:
                self._wrong((*path, "routes", index), f"unknown route `{route}`{did_you_mean(route, names)}")
        default = self._config.default_of(name)
        compiled = [
            self._compiled(route, rule, default)
            for route, rule in zip(self._config.routes, rules, strict=True)
            if rule is not None and rule.constant is not False and _takes(virtual, route)
        ]
        return View(
            routes=tuple(compiled),
            default=Decision(DEFAULT_ROUTE, Band.DEFAULT, 0.0, default, "no rule matched"),
        )

    def _compiled(self, route: Route, rule: Rule, default: tuple[str, ...]) -> CompiledRoute:
        allowed = self._allowed(route.require) if route.require else None

        def expanded(candidates: Iterable[Candidate]) -> tuple[str, ...]:
            return tuple(name for name in expand(candidates, self._config.models) if allowed is None or name in allowed)

        models, fallback, default = expanded(route.models), expanded(route.fallback or ()), expanded(default)
        default = default or fallback or models
        wanted = expand((*route.models, *(route.fallback or ())), self._config.models)
        outside = [name for name in wanted if allowed is not None and name not in allowed][:MAX_CONSIDERED]
        out = tuple(Considered(name, out=f"require {_shown(route.require)}") for name in outside)
        deciding = self._deciding(route, rule)
        return CompiledRoute(
            name=route.name,
            rule=rule,
            bands=route.bands or self._config.bands,
            deciding=deciding,
            second=route.second_opinion,
            mixed=route.confidence is None and bool(deciding) and rule.reads_more_than(deciding),
            recommended=Decision(
                route=route.name,
                band=Band.RECOMMENDED,
                confidence=1.0,
                candidates=models,
                reason="",
                fallbacks=_others((*fallback, *default), models),
                selection=route.selection.key,
                allowed=allowed,
                considered=out,
                sticky=route.sticky,
            ),
            fallback=Decision(
                route=route.name,
                band=Band.FALLBACK,
                confidence=1.0,
                candidates=fallback or default,
                reason="",
                fallbacks=_others(default, fallback or default),
                selection=route.selection.key if fallback else "first",
                allowed=allowed,
                considered=out,
                sticky=route.sticky,
            ),
            default=Decision(
                route.name, Band.DEFAULT, 0.0, default, "", allowed=allowed, considered=out, sticky=route.sticky
            ),
        )

    def _deciding(self, route: Route, rule: Rule) -> tuple[str, ...]:
        return (route.confidence,) if route.confidence else tuple(self._uncertain(rule))

    def _uncertain(self, rule: Rule) -> Iterator[str]:
        for name in rule.signals:
            signal = self._signals.get(name)
            if signal is not None and signal.classifier is not None:
                yield name

    def _check_reachable(self, views: Mapping[str, View], rules: list[Rule | None]) -> None:
        names = {route.name for route in self._config.routes}
        if any(not names.issuperset(virtual.routes or ()) for virtual in self._config.virtual_models.values()):
            return  # that is said already, and the right name may lead to what nothing leads to now
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


def _shown(candidate: Candidate) -> str:
    if isinstance(candidate, str):
        return candidate
    return ", ".join(f"{key}: {value}" for key, value in candidate.items())


def _takes(virtual: VirtualModel, route: Route) -> bool:
    return virtual.routes is None or route.name in virtual.routes


def _others(names: Iterable[str], known: Collection[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for name in names if name not in known))
