"""Who gets which models: users, tenants, virtual models, the client's own header, and the hour of the week."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from router_extproc.app import scales
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision
from router_extproc.errors import ConfigMistakes, ModelForbidden
from router_extproc.preferences import Preferences
from router_extproc.telemetry.instruments import MODEL_SCALE
from router_extproc.telemetry.metrics import Metrics
from router_extproc.validation import validate

PRICE = {"input": 1, "output": 1}
BASE: dict[str, Any] = {
    "models": {
        name: {"url": "http://h", "price": PRICE, "labels": {"tier": tier}}
        for name, tier in (("tiny", "light"), ("mid", "middle"), ("big", "premium"), ("huge", "premium"))
    },
    "default": ["big", "huge"],
    "virtual_models": {"auto": {}, "auto:cheap": {"prefer": "cheap"}, "auto:local": {"default": "mid"}},
}
ROUTED = Decision("code", Band.RECOMMENDED, 0.95, ("tiny", "mid"), "why", ("big",), "weighted(cost=1)")
NAMED = Decision("named", Band.NAMED, 1.0, ("big",), "the client named the model", ("huge",))
MONDAY_NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


def preferences(schedules: Any = (), **given: Any) -> Preferences:
    return Preferences(validate(RouterConfig, {**BASE, "preferences": given, "schedules": list(schedules)}))


def applied(
    given: Preferences,
    decision: Decision = ROUTED,
    asked: str = "auto",
    headers: Mapping[str, str] | None = None,
    now: datetime = MONDAY_NOON,
) -> Decision:
    return given.apply(decision, asked, headers or {}, now)


USERS = {
    "header": "x-tenant",
    "users": {
        "thrifty": {"prefer": "cheap"},
        "picky": {"prefer": "best", "favourite": "mid", "forbidden": "tiny"},
        "modest": {"only": [{"tier": "light"}, "mid"]},
    },
}


def test_nobody_prefers_anything_by_default() -> None:
    assert applied(preferences()) == ROUTED
    assert applied(preferences(), NAMED, "big") == NAMED
    assert applied(preferences(**USERS), headers={"x-tenant": "somebody else"}) == ROUTED


@pytest.mark.parametrize(
    ("headers", "asked", "selection"),
    [
        ({"x-mom-prefer": "cheap"}, "auto", "cheapest"),
        ({"x-mom-prefer": "best"}, "auto", "best"),
        ({"x-mom-prefer": "fast"}, "auto", "lowest_latency"),
        ({"x-mom-prefer": "free"}, "auto", "weighted(cost=1)"),
        ({}, "auto:cheap", "cheapest"),
        ({"x-mom-prefer": "best"}, "auto:cheap", "cheapest"),
        ({"x-tenant": "thrifty"}, "auto", "cheapest"),
        ({"x-tenant": "thrifty", "x-mom-prefer": "best"}, "auto", "best"),
    ],
)
def test_a_preference_orders_candidates_and_fallbacks_together(
    headers: dict[str, str], asked: str, selection: str
) -> None:
    found = applied(preferences(**USERS), asked=asked, headers=headers)
    assert found.selection == selection
    if selection == ROUTED.selection:
        assert found == ROUTED
    else:
        assert (found.candidates, found.fallbacks) == (("tiny", "mid", "big"), ())
        assert found.reason in ("why; cheap preferred", "why; best preferred", "why; fast preferred")


def test_everyone_prefers_and_clients_may_be_denied_their_say() -> None:
    given = preferences(everyone={"prefer": "fast"}, client_header=False)
    assert applied(given, headers={"x-mom-prefer": "best"}).selection == "lowest_latency"


def test_favourites_and_forbidden_models() -> None:
    found = applied(preferences(**USERS), headers={"x-tenant": "picky"})
    assert found.favourites == {"mid"}
    assert found.candidates == ("mid", "big", "huge")
    assert found.allowed == frozenset({"mid", "big", "huge"})


def test_only_some_models() -> None:
    found = applied(preferences(**USERS), headers={"x-tenant": "modest"})
    assert (found.candidates, found.fallbacks, found.allowed) == (("tiny", "mid"), (), frozenset({"tiny", "mid"}))
    with pytest.raises(ModelForbidden, match="`big` is not for you"):
        applied(preferences(**USERS), NAMED, "big", {"x-tenant": "modest"})


def test_a_ceiling_holds_for_all_and_for_fallbacks_of_named_models() -> None:
    given = preferences(everyone={"forbidden": ["huge", "tiny"]}, **USERS)
    assert applied(given).candidates == ("mid",)
    assert applied(given, NAMED, "big").fallbacks == ()
    assert applied(given, headers={"x-tenant": "modest"}).candidates == ("mid",)
    with pytest.raises(ModelForbidden):
        applied(given, NAMED, "huge")


def test_when_the_route_has_nothing_left_the_default_models_help_as_far_as_they_may() -> None:
    given = preferences(everyone={"only": {"tier": "premium"}})
    unlucky = Decision("code", Band.RECOMMENDED, 0.95, ("tiny",), "why", ("mid",))
    assert applied(given, unlucky).candidates == ("big", "huge")
    alone = Decision("code", Band.RECOMMENDED, 0.95, ("tiny", "big"), "why")
    assert applied(preferences(everyone={"forbidden": "tiny"}), alone, "auto:local").fallbacks == ("mid",)


DEFAULTS = Decision("default", Band.DEFAULT, 0, ("big", "huge"), "no rule matched", selection="cheapest")


@pytest.mark.parametrize(
    ("everyone", "user", "candidates"),
    [
        ({"only": "mid"}, {}, ("mid",)),
        ({}, {"only": ["mid", {"tier": "light"}]}, ("mid", "tiny")),
        ({}, {"forbidden": {"tier": "premium"}}, ("tiny", "mid")),
        ({"only": ["mid", "tiny", "big"]}, {"forbidden": {"tier": "premium"}}, ("mid", "tiny")),
        ({"forbidden": "mid"}, {"only": ["mid", "tiny"]}, ("tiny",)),
    ],
)
def test_when_no_default_model_is_left_either_the_allowed_ones_stand_in_in_the_order_of_the_file(
    everyone: dict[str, Any], user: dict[str, Any], candidates: tuple[str, ...]
) -> None:
    given = preferences(header="x-tenant", users={"a": user}, everyone=everyone)
    for more in ({}, {"x-mom-prefer": "cheap"}):
        found = applied(given, DEFAULTS, headers={"x-tenant": "a", **more})
        assert (found.candidates, found.fallbacks, found.selection) == (candidates, (), "first")
        assert found.reason.startswith("no rule matched; others stand in (preferences: ")
    spared = applied(given, replace(DEFAULTS, candidates=("mid", "tiny", "big")), headers={"x-tenant": "a"})
    assert (spared.selection, spared.reason) == ("cheapest", "no rule matched")


def test_a_favourite_goes_first_among_those_that_stand_in() -> None:
    given = preferences(everyone={"forbidden": {"tier": "premium"}, "favourite": "mid"})
    assert applied(given, DEFAULTS).favourites == {"mid"}


def test_nobody_stands_in_where_nothing_is_left_or_vectors_would_differ() -> None:
    given = preferences(header="x-tenant", everyone={"forbidden": "tiny"}, users={"a": {"only": "tiny"}})
    with pytest.raises(ModelForbidden, match="preferences"):
        applied(given, DEFAULTS, headers={"x-tenant": "a"})
    kept = replace(DEFAULTS, allowed=frozenset({"big"}))
    with pytest.raises(ModelForbidden, match=r"only others\)$"):
        applied(preferences(everyone={"only": "mid"}), kept)
    vectors = Decision("emb", Band.RECOMMENDED, 1.0, ("tiny",), "why", stand_ins=False)
    with pytest.raises(ModelForbidden, match="vectors of another one could not be compared"):
        applied(given, vectors)
    assert applied(preferences(everyone={"forbidden": "mid"}), vectors).fallbacks == ()


def test_who_can_be_left_without_any_model_is_said() -> None:
    text: dict[str, Any] = {
        **BASE,
        "guards": [{"name": "house", "when": "request.tokens > 1", "action": "reroute", "models": {"tier": "light"}}],
        "routes": [{"name": "dear", "when": "true", "models": "big", "require": {"tier": "premium"}}],
        "preferences": {
            "header": "x-tenant",
            "users": {
                "a": {"only": "mid"},
                "b": {"only": "huge"},
                "c": {"only": ["tiny", "big"]},
                "d": {"prefer": "cheap"},
                "e": {"forbidden": ["mid", "tiny"]},
            },
            "everyone": {"forbidden": "huge"},
        },
    }
    ends = "allows: such requests get a 403"
    assert Preferences(validate(RouterConfig, text)).gaps() == [
        f"preferences.users.a: allows no model that guard `house` {ends}",
        f"preferences.users.a: allows no model that `require` of route `dear` {ends}",
        f"preferences.users.b: allows no model that `everyone` {ends}",
        f"preferences.users.e: allows no model that guard `house` {ends}",
    ]
    assert preferences(**USERS).gaps() == []


NIGHT = {"name": "night", "timezone": "Europe/Paris", "from": "22:00", "to": "06:00"}


@pytest.mark.parametrize(("hour", "favourites"), [(20, frozenset()), (21, frozenset({"mid"})), (12, frozenset())])
def test_schedules_prefer_models_by_the_wall_clock(hour: int, favourites: frozenset[str]) -> None:
    given = preferences([{**NIGHT, "favourite": {"tier": "middle"}}])
    found = applied(given, now=datetime(2026, 11, 23, hour, tzinfo=UTC))
    assert found.favourites == favourites
    assert applied(given, NAMED, "big", now=datetime(2026, 11, 23, hour, tzinfo=UTC)) == NAMED
    wish = {"x-mom-prefer": "best"}
    assert applied(given, headers=wish, now=datetime(2026, 11, 23, hour, tzinfo=UTC)).favourites == frozenset()


def test_schedules_scale_models() -> None:
    schedules = [
        {**NIGHT, "scale": {"big": 0.5, "tiny": 2}},
        {"name": "monday", "days": ["mon"], "scale": {"big": 0.5, "mid": 3}},
    ]
    given = preferences(schedules)
    assert given.scale(MONDAY_NOON) == {"big": 0.5, "tiny": 1.0, "mid": 3.0}
    assert given.scale(datetime(2026, 11, 23, 22, tzinfo=UTC)) == {"big": 0.25, "tiny": 2.0, "mid": 3.0}
    assert given.scale(datetime(2026, 11, 25, 12, tzinfo=UTC)) == {"big": 1.0, "tiny": 1.0, "mid": 1.0}


def test_the_scale_is_a_gauge() -> None:
    metrics, now = Metrics(), [MONDAY_NOON]
    given = preferences([{"name": "monday", "days": ["mon"], "scale": {"big": 0.5}}])
    metrics.watch(MODEL_SCALE, lambda: scales(given, now[0]))
    assert 'mom_model_scale{model="big"} 0.5\n' in metrics.exposition().decode()
    now[0] += timedelta(days=1)
    assert 'mom_model_scale{model="big"} 1.0\n' in metrics.exposition().decode()
    given = preferences()
    assert "mom_model_scale{" not in metrics.exposition().decode()


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigMistakes) as caught:
        preferences(
            [{**NIGHT, "favourite": "bigg", "scale": {"tiny": 1, "tinny": 1}}],
            everyone={"only": "mid", "forbidden": {"tier": "middle"}},
            users={"a": {"favourite": "hug"}},
        )
    assert [(mistake.path, mistake.message) for mistake in caught.value.mistakes] == [
        (("preferences", "everyone"), "leaves no model at all"),
        (("preferences", "users", "a", "favourite", 0), "unknown model `hug`, did you mean `huge`?"),
        (("schedules", 0, "favourite", 0), "unknown model `bigg`, did you mean `big`?"),
        (("schedules", 0, "scale", "tinny"), "unknown model `tinny`, did you mean `tiny`?"),
        (("preferences", "header"), "`header` is missing: the request header that says whose preferences count"),
    ]


def test_a_file_of_users_needs_the_header_too() -> None:
    with pytest.raises(ConfigMistakes, match="`header` is missing"):
        preferences(users_file="users.yaml")
    preferences(header="x-tenant", users_file="users.yaml")
