"""The what-if calculator: known figures to the cent, and every mistake in a plan by its line."""

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.config.cost_plan import CostPlan, load_plan
from router_extproc.config.loader import parse_as
from router_extproc.config.price import Price
from router_extproc.cost import CostReport, calculate, money, rounded
from router_extproc.domain import Usage
from router_extproc.errors import ConfigError
from router_extproc.prices import cost_of

PLANS = Path(__file__).resolve().parents[2] / "examples" / "cost"


def report(text: str) -> CostReport:
    return calculate(parse_as(CostPlan, text.encode(), Path("plan.yaml"))[0])


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_as(CostPlan, text.encode(), Path("plan.yaml"))
    return caught.value.mistakes


@pytest.mark.parametrize(
    ("plan", "figures"),
    [
        ("three-tiers", {"mixture": "640", "single": "3000", "saved": "2360"}),
        ("support", {"mixture": "2067.50"}),
        ("education", {"mixture": "642.50"}),
        (
            "one-year",
            {"single": "444000", "mixture": "278000", "saved": "166000", "saved_per_month": "18000"},
        ),
    ],
)
def test_the_known_plans_come_out_exactly(plan: str, figures: dict[str, str]) -> None:
    result = calculate(load_plan(PLANS / f"{plan}.yaml"))
    assert {name: result.figures[name] for name in figures} == {name: Decimal(v) for name, v in figures.items()}
    assert result.claims
    assert result.follows


def test_every_shipped_plan_is_tested() -> None:
    assert {path.stem for path in PLANS.glob("*.yaml")} == {"three-tiers", "support", "education", "one-year"}


def test_percentages_and_months_are_rounded_as_people_do() -> None:
    tiers = calculate(load_plan(PLANS / "three-tiers.yaml")).figures
    assert rounded(tiers["saved_percent"], Decimal("0.1")) == Decimal("78.7")
    year = calculate(load_plan(PLANS / "one-year.yaml")).figures
    assert rounded(year["break_even_months"], Decimal("0.1")) == Decimal("2.8")
    assert rounded(year["net_payback_months"], Decimal("0.1")) == Decimal("3.6")
    assert rounded(Decimal("2.5"), Decimal(1)) == 3


def test_each_step_is_printed() -> None:
    text = calculate(load_plan(PLANS / "support.yaml")).text()
    assert "35 % x 50,000 = 17,500 queries x $0.001 = $17.50" in text
    assert "25 % x 50,000 = 12,500 queries x $0.15 = $1,875.00" in text
    assert "together               $2,067.50 a day" in text


SMALL = """\
name: small
traffic: {queries: 1000}
mixture: {models: [{name: a, share: 60%, per_query: 0.001}, {name: b, share: 0.4, per_query: 0.01}]}
single: {models: [{name: b, per_query: 0.01}]}
"""


def test_a_published_figure_that_does_not_follow_is_caught() -> None:
    good = report(SMALL + "published: {mixture: 4.6, saved_percent: 54}\n")
    assert good.follows
    bad = report(SMALL + "published: {mixture: 4.5, break_even_months: 3}\n")
    assert not bad.follows
    assert "mixture 4.5: DOES NOT FOLLOW: 4.6" in bad.text()
    assert "break_even_months 3: DOES NOT FOLLOW: the plan does not give it" in bad.text()
    assert [claim["ours"] for claim in bad.json()["published"]] == ["4.6000", None]  # type: ignore[attr-defined]


def test_tokens_and_catalogue_prices_make_a_price_per_query() -> None:
    result = report(
        "name: tokens\ntraffic: {queries: 10, per: day}\nmonths: 2\n"
        "mixture:\n  models:\n  - name: a\n    tokens: {input: 1000, output: 300, cached: 200}\n"
        "    price: {input: 3, output: 15, cached_input: 0.3, per_request: 0.001}\n"
        "  costs: [{name: router, per_query: 0.0001}, {name: people, per_month: 5}]\n"
    )
    # (800 x 3 + 200 x 0.30 + 300 x 15) / 1,000,000 + 0.001 = 0.00796; 600 queries; 600 x 0.0001; 2 x 5
    assert result.figures["mixture"] == Decimal("0.00796") * 600 + Decimal("0.06") + 10
    assert "1,000 input (200 cached) and 300 output tokens = $0.00796 a query" in result.text()


def test_what_is_put_into_the_providers_cache_has_its_own_price() -> None:
    result = report(
        "name: cache\ntraffic: {queries: 10}\nmixture:\n  models:\n  - name: a\n"
        "    tokens: {input: 10500, output: 100, cached: 500, cache_write: 9000}\n"
        "    price: {input: 3, output: 15, cached_input: 0.3, cache_write: 3.75}\n"
    )
    # (1000 x 3 + 500 x 0.30 + 9000 x 3.75 + 100 x 15) / 1,000,000
    assert result.figures["mixture"] == Decimal("0.0384") * 10
    as_input = Price(input=Decimal(3), output=Decimal(15))
    assert cost_of(as_input, Usage(10_500, 100, cache_write=9000)) == cost_of(as_input, Usage(10_500, 100))
    assert "10,500 input (500 cached, 9,000 put into the cache) and 100 output tokens = $0.0384" in result.text()


def test_one_off_costs_that_never_come_back_say_so() -> None:
    text = report(
        "name: dear\ntraffic: {queries: 10, per: month}\nmonths: 12\n"
        "mixture: {models: [{name: a, per_query: 2}], costs: [{name: set-up, once: 100}]}\n"
        "single: {models: [{name: b, per_query: 1}]}\n"
    )
    assert "break-even: never" in text.text()
    assert text.figures["saved"] == -220
    assert "-$220.00" in text.text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("share: 60%", "share: 50%", "plan.yaml:1: mixture.models: the shares add up to 90 %, not 100 %"),
        ("share: 60%", "share: 6x%", "`6x%` is not a percentage"),
        ("share: 60%", "queries: 600", "every model needs a share, or every model needs queries"),
        ("per_query: 0.001", "per_qery: 0.001", "plan.yaml:3: mixture.models[0].per_qery: unknown field `per_qery`"),
        ("per_query: 0.001", "price: {input: 1, output: 2}", "plan.yaml:3: mixture.models[0]: tokens and price go"),
        (
            "per_query: 0.001",
            "tokens: {input: 1, output: 1}, price: {input: 1, output: 2, windows: [{from: '01:00', to: '02:00'}]}",
            "price.windows: a plan has no hours: give the price that holds",
        ),
        (
            "per_query: 0.001",
            "tokens: {input: 1, output: 1, cached: 1, cache_write: 1}",
            "there cannot be more of them",
        ),
        ("queries: 1000", "queries: -1", "plan.yaml:2: traffic.queries: input should be greater than or equal to 1"),
        ("name: small", "name: small\npublished: {mixtre: 3}", "published: unknown figure `mixtre`"),
        ("name: small", "name: small\nmonths: 0", "plan.yaml:2: months:"),
    ],
)
def test_mistakes_are_named_with_their_line(old: str, new: str, message: str) -> None:
    found = mistakes(SMALL.replace(old, new, 1))
    assert any(message in mistake for mistake in found), found


def test_queries_must_add_up_to_the_traffic() -> None:
    models = "[{name: a, queries: 4, per_query: 1}, {name: b, queries: 5, per_query: 1}]"
    text = f"name: x\ntraffic: {{queries: 10}}\nmixture: {{models: {models}}}"
    assert any("the queries add up to 9, the traffic is 10" in mistake for mistake in mistakes(text))
    assert report(text.replace("queries: 5", "queries: 6")).figures["mixture"] == 10


def test_monthly_costs_need_a_horizon() -> None:
    text = (
        "name: x\ntraffic: {queries: 1}\nmixture: {models: [{name: a, per_query: 1}], costs: [{name: c, per_month: 1}]}"
    )
    assert any("costs per month or year need `months`" in mistake for mistake in mistakes(text))


def test_money_shows_cents_and_more_only_where_there_is_more() -> None:
    assert [money(Decimal(text)) for text in ("140", "0.0015", "17.5", "-2.00", "1e6", "0")] == [
        "$140.00",
        "$0.0015",
        "$17.50",
        "-$2.00",
        "$1,000,000.00",
        "$0.00",
    ]


amounts = st.decimals(min_value=0, max_value=1000, places=6)


@given(
    st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9), amounts, amounts, st.none() | amounts, amounts
)
def test_a_price_is_exact_to_the_last_place(
    tokens: int,
    cached: int,
    output: int,
    per_input: Decimal,
    per_output: Decimal,
    per_cached: Decimal | None,
    fee: Decimal,
) -> None:
    price = Price(input=per_input, output=per_output, cached_input=per_cached, per_request=fee)
    cached = min(cached, tokens)
    # The same in whole picodollars, which integers hold exactly.
    pico = [int(amount * 10**6) for amount in (per_input, per_input if per_cached is None else per_cached, per_output)]
    expected = pico[0] * (tokens - cached) + pico[1] * cached + pico[2] * output + int(fee * 10**6) * 10**6
    assert int(cost_of(price, Usage(tokens, output, cached)).scaleb(12)) == expected
