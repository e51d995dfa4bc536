"""What users, tenants and the hour of the week prefer among the models that the policy allows."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from router_extproc.config.policy import GuardAction
from router_extproc.config.preferences import Prefer, Preference
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision, Wishes
from router_extproc.errors import ConfigMistakes, Mistake, ModelForbidden
from router_extproc.routes import MAX_REASON, Candidate, check_candidates, expand, narrowed
from router_extproc.validation import Path, did_you_mean

PREFER_HEADER = "x-mom-prefer"
DEADLINE_HEADER = "x-mom-deadline"

SELECTIONS = {Prefer.CHEAP: "cheapest", Prefer.BEST: "best", Prefer.FAST: "lowest_latency"}
"""The selection that stands for a preference."""

STRANGER = "*"
"""Stands in `Wishes` for somebody who has no entry: what a header says of others is not recorded."""

_TIME = re.compile(r"[0-9smhdTZ:.+ -]{1,40}")
_BY_NAME = {str(prefer): prefer for prefer in Prefer}


@dataclass(frozen=True, slots=True)
class _Wish:
    """A `Preference` with labels expanded. `allowed` is None when everything is; `limit` says what limits it. `only`
    are the models that it names as the only ones, in its order."""

    prefer: Prefer | None = None
    favourites: frozenset[str] = frozenset()
    allowed: frozenset[str] | None = None
    limit: str = "forbidden"
    only: tuple[str, ...] = ()


class Preferences:
    """All preferences and schedules of a configuration generation. Immutable; used on the event loop."""

    def __init__(self, config: RouterConfig) -> None:
        """Raises ConfigMistakes with every unknown model."""
        self._config = config
        self._mistakes: list[Mistake] = []
        given, at = config.preferences, ("preferences",)
        self._everyone = self._wish(given.everyone, (*at, "everyone"))
        self._users = {name: self._wish(user, (*at, "users", name)) for name, user in given.users.items()}
        self._virtual = {name: virtual.prefer for name, virtual in config.virtual_models.items()}
        self._schedules = [
            (
                schedule,
                ZoneInfo(schedule.timezone),
                frozenset(self._models(schedule.favourite, ("schedules", index, "favourite"))),
            )
            for index, schedule in enumerate(config.schedules)
        ]
        for index, schedule in enumerate(config.schedules):
            for name in schedule.scale:
                if name not in config.models:
                    message = f"unknown model `{name}`{did_you_mean(name, config.models)}"
                    self._mistakes.append(Mistake(("schedules", index, "scale", name), message))
        if given.header is None and (given.users or given.users_file is not None):
            missing = "`header` is missing: the request header that says whose preferences count"
            self._mistakes.append(Mistake((*at, "header"), missing))
        if self._mistakes:
            raise ConfigMistakes(self._mistakes)

    def apply(self, decision: Decision, asked: str, headers: Mapping[str, str], now: datetime) -> Decision:
        """`decision` on a request for the model `asked` as its sender prefers it at `now` (aware).

        Raises ModelForbidden when what is forbidden to the sender leaves nothing, or is the very model that was named.
        """
        given = self._config.preferences
        user = self._users.get(headers.get(given.header, "")) if given.header is not None else None
        wishes = [self._everyone] if user is None else [user, self._everyone]
        default = self._config.default_of(asked)
        known = {*decision.candidates, *decision.fallbacks, *default}
        last = next((wish.only for wish in wishes if wish.only), tuple(self._config.models))
        for wish in wishes:
            if wish.allowed is not None:
                if decision.band is Band.NAMED and asked not in wish.allowed:
                    raise ModelForbidden(f"the model `{asked}` is not for you")
                why = f"preferences: {wish.limit}"
                decision = narrowed(decision, wish.allowed, () if decision.ends else default, why, last)
        if decision.band is Band.NAMED:
            return decision
        prefer = self._prefer(asked, headers, wishes)
        favourites = frozenset[str]().union(*(wish.favourites for wish in wishes))
        if prefer is None:  # the hour only has a say where nobody asked for anything
            favourites |= self._of_the_hour(now)
        if favourites:
            decision = replace(decision, favourites=favourites)
        # Models that only stand in are no choice of the policy's: the cheapest of them all would be a surprise.
        return decision if known.isdisjoint(decision.candidates) else self._preferring(decision, prefer)

    def gaps(self) -> list[str]:
        """Whom these preferences can leave without any model, and where: one line each, since each may be meant."""
        config, ceiling = self._config, self._everyone.allowed
        limits = [
            (f"guard `{guard.name}`", frozenset(expand(guard.models or (), config.models)))
            for guard in config.guards
            if guard.action is GuardAction.REROUTE
        ] + [
            (f"`require` of route `{route.name}`", frozenset(expand([route.require], config.models)))
            for route in config.routes
            if route.require
        ]
        found: list[str] = []
        for who, allowed in [("everyone", ceiling), *((f"users.{name}", w.allowed) for name, w in self._users.items())]:
            if allowed is None:
                continue
            both = allowed if ceiling is None else allowed & ceiling
            without = [what for what, models in limits if not both & models] if both else ["`everyone`"]
            where = f"preferences.{who}: allows no model that"
            found += [f"{where} {what} allows: such requests get a 403" for what in without]
        return found

    def wishes(self, headers: Mapping[str, str], user: str) -> Wishes:
        """What the headers ask for, as far as it may be recorded. `user` is the hash of the body's user."""
        header = self._config.preferences.header
        member = headers.get(header, "") if header is not None else None
        prefer, deadline = headers.get(PREFER_HEADER, ""), headers.get(DEADLINE_HEADER, "")
        return Wishes(
            prefer=prefer if prefer in _BY_NAME else "",
            member=STRANGER if member and member not in self._users else member,
            user=user,
            deadline=deadline if _TIME.fullmatch(deadline) else "",
        )

    def scale(self, now: datetime) -> dict[str, float]:
        """The factor of every model that a schedule names: the product of those whose window it is, 1 without any."""
        factors = {name: 1.0 for schedule, _, _ in self._schedules for name in schedule.scale}
        for schedule, zone, _ in self._schedules:
            if schedule.holds(now.astimezone(zone)):
                for name, factor in schedule.scale.items():
                    factors[name] *= factor
        return factors

    def _prefer(self, asked: str, headers: Mapping[str, str], wishes: Iterable[_Wish]) -> Prefer | None:
        """The virtual model's own preference, else the client's header, else the user's, else everyone's."""
        header = headers.get(PREFER_HEADER, "") if self._config.preferences.client_header else ""
        wanted = [self._virtual.get(asked), _BY_NAME.get(header)]
        return next((prefer for prefer in (*wanted, *(wish.prefer for wish in wishes)) if prefer is not None), None)

    def _preferring(self, decision: Decision, prefer: Prefer | None) -> Decision:
        """Puts the candidates and their fallbacks into one list, to be ordered by what is preferred."""
        if prefer is None:
            return decision
        return replace(
            decision,
            candidates=(*decision.candidates, *decision.fallbacks),
            fallbacks=(),
            selection=SELECTIONS[prefer],
            reason=f"{decision.reason}; {prefer} preferred"[:MAX_REASON],
        )

    def _of_the_hour(self, now: datetime) -> frozenset[str]:
        holding = (favourites for schedule, zone, favourites in self._schedules if schedule.holds(now.astimezone(zone)))
        return frozenset[str]().union(*holding)

    def _wish(self, preference: Preference, at: Path) -> _Wish:
        allowed = None
        only = self._models(preference.only, (*at, "only"))
        if preference.only is not None or preference.forbidden is not None:
            forbidden = frozenset(self._models(preference.forbidden, (*at, "forbidden")))
            allowed = frozenset(self._config.models if preference.only is None else only) - forbidden
            if not allowed:
                self._mistakes.append(Mistake(at, "leaves no model at all"))
        favourites = frozenset(self._models(preference.favourite, (*at, "favourite")))
        limit = "forbidden" if preference.only is None else "only others"
        return _Wish(preference.prefer, favourites, allowed, limit, only)

    def _models(self, candidates: Iterable[Candidate] | None, at: Path) -> tuple[str, ...]:
        self._mistakes += check_candidates(candidates or (), self._config.models, at)
        return expand(candidates or (), self._config.models)
