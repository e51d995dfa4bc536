from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.config.model import Model
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import LlmRequest, Outcome, SignalSet, SignalValue
from router_extproc.errors import ConfigMistakes
from router_extproc.selection.base import SelectionInputs
from router_extproc.selection.observed import HALF_LIFE_SECONDS, Observed
from router_extproc.selection.quality import check_likes
from router_extproc.selection.table import SELECTIONS, WITHOUT_PARAMETERS, build_selections
from router_extproc.validation import validate


def model(price_in: float, price_out: float, **more: Any) -> dict[str, Any]:
    return {"url": "http://h", "price": {"input": price_in, "output": price_out}, **more}


CATALOGUE = {
    "premium": model(3, 15, quality=0.95, like="ref-large"),
    "light": model(0.1, 0.4, quality=0.6, like="ref-small"),
    "odd": model(0.05, 30, quality=0.7),
    "new": model(0.1, 0.4),
}
MODELS = {name: validate(Model, entry) for name, entry in CATALOGUE.items()}
NO_SIGNALS = SignalSet({})
NOON = datetime(2026, 1, 5, 12, tzinfo=UTC)
HARD = SignalSet({"win": SignalValue("", scores={"ref-large": 0.8, "ref-small": 0.1})})
EASY = SignalSet({"win": SignalValue("", scores={"ref-large": 0.9, "ref-small": 0.97})})


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def request(tokens: int = 100, limit: int | None = None) -> LlmRequest:
    return LlmRequest("chat_completions", "auto", None, "", tokens=tokens, max_output_tokens=limit)


def order(
    name: str,
    candidates: Sequence[str] = tuple(CATALOGUE),
    asked: LlmRequest | None = None,
    signals: SignalSet = NO_SIGNALS,
    observed: Observed | None = None,
    now: datetime = NOON,
    models: Mapping[str, Model] = MODELS,
    **params: Any,
) -> list[str]:
    inputs = SelectionInputs(models, ("win", "quality_head"), observed or Observed())
    built = SELECTIONS.build(name, params, ("selection",), inputs)
    return [row.model for row in built.rank(candidates, asked or request(), signals, now)]


def answered(
    name: str,
    seconds: float,
    status: int = 200,
    attempts: int = 1,
    first_byte: float | None = None,
    plan: tuple[str, ...] = (),
    flags: str = "",
) -> Outcome:
    return Outcome("id", "chat_completions", status, name, attempts, seconds, first_byte, None, flags, plan=plan)


def test_first_keeps_the_order_of_the_file() -> None:
    assert order("first", ["odd", "premium", "light"]) == ["odd", "premium", "light"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(100), ["light", "new", "premium", "odd"]),
        (request(1_000_000, 1), ["odd", "light", "new", "premium"]),  # nearly all input: cheap input wins
        (request(10, 100_000), ["light", "new", "premium", "odd"]),  # a generous limit says little of what will be used
    ],
)
def test_cheapest_reckons_with_the_request(asked: LlmRequest, expected: list[str]) -> None:
    assert order("cheapest", asked=asked) == expected


@pytest.mark.parametrize(
    ("signals", "least", "expected"),
    [
        (NO_SIGNALS, 0.5, ["light", "premium", "odd", "new"]),
        (NO_SIGNALS, 0.65, ["premium", "odd", "light", "new"]),
        (NO_SIGNALS, 0.99, ["premium", "odd", "light", "new"]),
        (HARD, 0.5, ["premium", "odd", "light", "new"]),
        (EASY, 0.95, ["light", "premium", "odd", "new"]),
    ],
)
def test_cheapest_that_is_good_enough_for_the_prompt(signals: SignalSet, least: float, expected: list[str]) -> None:
    assert order("cheapest", signals=signals, min_quality=least) == expected


def test_best_follows_the_prediction_then_the_catalogue() -> None:
    assert order("best") == ["premium", "odd", "light", "new"]
    assert order("best", signals=EASY) == ["light", "premium", "odd", "new"]
    assert order("best", signals=EASY, quality_signal="quality_head") == ["premium", "odd", "light", "new"]


def test_best_within_a_price() -> None:
    # At 100 tokens in and 500 out: premium 0.0078, light and new 0.00021, odd 0.015 USD.
    assert order("best_within", price=0.01) == ["premium", "light", "new", "odd"]
    assert order("best_within", price=0.001) == ["light", "new", "premium", "odd"]
    assert order("best_within", price=0.0001) == ["light", "new", "premium", "odd"]
    assert order("best_within", price=1) == ["premium", "odd", "light", "new"]


NIGHT = {"from": "22:00", "to": "06:00", "timezone": "Europe/Paris", "input": 0.1, "output": 0.3}
HOURLY = {
    "day": validate(Model, model(1, 3, quality=0.5)),
    "night": validate(
        Model, {"url": "http://h", "price": {"input": 20, "output": 60, "windows": [NIGHT]}, "quality": 0.9}
    ),
}


@pytest.mark.parametrize(
    ("name", "params"), [("cheapest", {}), ("best_within", {"price": 0.002}), ("weighted", {"cost": 1})]
)
def test_costs_are_those_of_the_hour(name: str, params: dict[str, Any]) -> None:
    built = SELECTIONS.build(name, params, ("selection",), SelectionInputs(HOURLY, (), Observed()))
    firsts, costs = [], []
    for minutes in (0, 9 * 60 - 1, 9 * 60, 17 * 60 - 1, 17 * 60, 0):  # from 13:00 in Paris; at last the clock goes back
        now = NOON + timedelta(minutes=minutes)
        rows = built.rank(["day", "night"], request(), NO_SIGNALS, now)
        firsts.append(rows[0].model)
        costs += [row.cost for row in rows if row.model == "night"]
    assert firsts == ["day", "day", "night", "night", "day", "day"]
    assert costs == pytest.approx([0.032, 0.032, 0.00016, 0.00016, 0.032, 0.032])


def test_weights_trade_cost_for_quality() -> None:
    assert order("weighted", cost=1)[0] == "light"
    assert order("weighted", cost=1, quality=0.1)[0] == "new"  # nothing is known of its quality: the middle
    assert order("weighted", cost=0.1, quality=1)[0] == "premium"


def test_weights_of_latency_and_load() -> None:
    observed = Observed()
    observed.record(answered("premium", 0.1))
    observed.record(answered("light", 2.0))
    assert order("weighted", observed=observed, latency=1)[0] == "premium"
    for _ in range(5):
        observed.picked("premium")
    assert order("weighted", ["premium", "odd"], observed=observed, load=1) == ["odd", "premium"]


def test_lowest_latency_finds_out_first_then_prefers_the_fastest() -> None:
    observed = Observed(Clock())
    observed.record(answered("premium", 9.0, first_byte=0.5))
    observed.record(answered("light", 0.9))
    assert order("lowest_latency", observed=observed) == ["odd", "new", "premium", "light"]
    for _ in range(3):
        observed.picked("odd")
        observed.picked("new")
    assert order("lowest_latency", observed=observed) == ["premium", "light", "odd", "new"]


def test_failures_count_as_slowness_and_retries_as_nothing() -> None:
    clock = Clock()
    observed = Observed(clock)
    for _ in range(10):
        observed.record(answered("premium", 0.1))
        observed.record(answered("light", 0.5))
    observed.record(answered("light", 60.0, attempts=2))
    assert observed.latency("light") == pytest.approx(0.5)
    for _ in range(10):
        observed.record(answered("premium", 0.01, status=503))
    assert observed.latency("premium") == pytest.approx(0.1 * 5.5)
    assert order("lowest_latency", ["premium", "light"], observed=observed) == ["light", "premium"]
    observed.record(answered("odd", 0.01, status=429))
    assert observed.latency("odd") == pytest.approx(50.0)
    observed.record(answered("new", 0.01, status=0))
    assert observed.latency("new") is None


@pytest.mark.parametrize("flags", ["UC", "UR", "UPE", "LR", "UT", "UMSDR", "SI", "URX,UC"])
def test_an_answer_that_breaks_off_is_a_failure(flags: str) -> None:
    observed = Observed(Clock())
    for _ in range(10):
        observed.record(answered("premium", 0.1))
        observed.record(answered("light", 0.2))
    for _ in range(10):
        observed.record(answered("premium", 0.01, flags=flags))
        observed.record(answered("light", 0.2, flags="URX"))  # the last attempt answered after all
    assert observed.latency("premium") == pytest.approx(0.1 * 5.5)
    assert observed.latency("light") == pytest.approx(0.2)


def test_a_failure_that_another_model_covered_counts_as_slowness() -> None:
    observed = Observed(Clock())
    for _ in range(10):
        observed.record(answered("premium", 0.1))
        observed.record(answered("light", 0.2))
    assert order("lowest_latency", ["premium", "light"], observed=observed) == ["premium", "light"]
    for _ in range(10):
        observed.record(answered("light", 0.3, attempts=2, plan=("premium", "light", "odd")))
    assert observed.latency("premium") == pytest.approx(0.1 * 5.5)
    assert observed.latency("light") == pytest.approx(0.2)
    assert order("lowest_latency", ["premium", "light"], observed=observed) == ["light", "premium"]


@pytest.mark.parametrize(
    ("outcome", "failed"),
    [
        (answered("odd", 0.3, attempts=3, plan=("premium", "light", "odd")), {"premium", "light"}),
        (answered("odd", 0.3, status=503, attempts=3, plan=("premium", "light", "odd")), {"premium", "light", "odd"}),
        (answered("odd", 0.3, attempts=2, plan=("premium", "light", "odd")), {"premium"}),
        (answered("odd", 0.3, attempts=1, plan=("premium", "light", "odd")), set()),  # Envoy knew that they were down
        (answered("premium", 0.3, attempts=3, plan=("premium", "light")), set()),  # a gateway that tries one model
        (answered("new", 0.3, attempts=2, plan=("premium", "light")), set()),
        (answered("light", 0.3, status=0, attempts=2, plan=("premium", "light")), set()),
    ],
)
def test_as_many_models_failed_as_attempts_were_made_before_the_last(outcome: Outcome, failed: set[str]) -> None:
    observed = Observed(Clock())
    observed.record(outcome)
    assert {name for name in MODELS if (observed.latency(name) or 0.0) > 1} == failed


def test_what_was_observed_is_forgotten() -> None:
    clock = Clock()
    observed = Observed(clock)
    observed.record(answered("premium", 0.1))
    observed.picked("premium")
    clock.now += HALF_LIFE_SECONDS
    assert observed.latency("premium") == pytest.approx(0.1)
    assert observed.load("premium") == pytest.approx(0.5)
    clock.now += 5 * HALF_LIFE_SECONDS
    assert observed.latency("premium") is None
    observed.record(answered("light", 1.0))
    observed.keep(["premium"])
    assert observed.latency("light") is None


def config(*selections: Any) -> RouterConfig:
    routes = [{"name": f"r{i}", "when": "true", "models": "light", "selection": s} for i, s in enumerate(selections)]
    return validate(RouterConfig, {"models": CATALOGUE, "routes": routes, "default": "premium"})


def test_routes_share_selections_that_say_the_same() -> None:
    budget = {"type": "best_within", "price": 0.01}
    built, mistakes = build_selections(config("cheapest", budget, budget, {"type": "cheapest"}), Observed())
    assert not mistakes
    assert sorted(built) == sorted([*WITHOUT_PARAMETERS, "best_within(price=0.01)"])


@pytest.mark.parametrize(
    ("selection", "path", "message"),
    [
        ("cheap", ("type",), "unknown selection `cheap`, did you mean `cheapest`?"),
        ("best_within", ("price",), "`price` is missing"),
        ({"type": "cheapest", "min": 1}, ("min",), "unknown field `min`, did you mean `min_quality`?"),
        ({"type": "best", "quality_signal": "wim"}, ("quality_signal",), "unknown signal `wim`"),
        ({"type": "weighted"}, (), "give at least one of cost, latency, load, quality a weight above 0"),
    ],
)
def test_bad_selections_are_named(selection: Any, path: tuple[str, ...], message: str) -> None:
    _, mistakes = build_selections(config(selection), Observed())
    assert [(mistake.path, mistake.message) for mistake in mistakes] == [(("routes", 0, "selection", *path), message)]


def test_a_selection_needs_a_type() -> None:
    with pytest.raises(ConfigMistakes, match="`type` is missing"):
        config({"price": 3})


def test_models_are_like_one_that_is_predicted() -> None:
    asking = config({"type": "best", "quality_signal": "own"})
    assert check_likes(config("best"), {"other": ("x",)}) == []
    assert check_likes(config("best"), {"win": ("ref-large", "ref-small")}) == []
    assert check_likes(config("best"), {"win": None}) == []
    assert check_likes(asking, {"win": ("ref-small",), "own": ("ref-large",)}) == []
    assert [
        (mistake.path, mistake.message) for mistake in check_likes(asking, {"own": ("ref-large-2", "ref-small")})
    ] == [(("models", "premium", "like"), "`own` has no label `ref-large`, did you mean `ref-large-2`?")]


PARAMS: Mapping[str, Mapping[str, Any]] = {"best_within": {"price": 0.001}, "weighted": {"cost": 1, "quality": 2}}


@pytest.mark.parametrize("name", sorted(SELECTIONS.table))
@given(st.lists(st.sampled_from(sorted(MODELS)), min_size=1, unique=True), st.integers(0, 10**6), st.booleans())
def test_no_selection_adds_or_loses_candidates(name: str, candidates: list[str], tokens: int, hard: bool) -> None:
    ordered = order(name, candidates, request(tokens), HARD if hard else NO_SIGNALS, **PARAMS.get(name, {}))
    assert sorted(ordered) == sorted(candidates)
