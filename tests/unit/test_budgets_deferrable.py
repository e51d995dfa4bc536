"""Prices by the hour, and requests that can wait for a cheap one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from router_extproc.admission import Admission, due_at
from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.config.loader import parse
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, Usage
from router_extproc.errors import ConfigError
from router_extproc.ledger import price
from router_extproc.prices import price_at
from router_extproc.router import Routed

TEXT = """
models:
  steady: {url: "http://127.0.0.1:1", price: {input: 5, output: 5}}
  nightly:
    url: "http://127.0.0.1:2"
    price:
      input: 8
      output: 8
      windows: [{from: "22:00", to: "06:00", timezone: Europe/Paris, input: 1, output: 2}]
default: steady
"""
DAY = datetime(2026, 1, 15, 12, 0, tzinfo=UTC)
NIGHT = datetime(2026, 1, 15, 21, 30, tzinfo=UTC)  # half past ten in Paris


def config(text: str = TEXT) -> RouterConfig:
    return parse(text.encode(), Path("router.yaml")).config


async def admitted(now: datetime, deadline: str | None, band: Band = Band.RECOMMENDED) -> tuple[str, ...]:
    decision = Decision("chat", band, 0.9, ("steady",), "sure")
    request = LlmRequest("chat_completions", "auto", None, "hello", tokens=1000)
    routed = Routed(request, SignalSet({}), decision, Plan(("steady", "nightly")))
    headers = {} if deadline is None else {"x-mom-deadline": deadline}
    return (await Admission(Budgets(Accounts()), lambda: now).admit("a", routed, headers, "", config())).plan.models


def test_the_price_is_that_of_the_hour() -> None:
    found = config().models["nightly"].price
    assert price_at(found, DAY).input == 8
    assert [price_at(found, NIGHT).input, price_at(found, NIGHT).output] == [Decimal(1), Decimal(2)]
    assert price_at(found, NIGHT - timedelta(minutes=31)).input == 8


def test_the_ledger_pays_the_price_of_the_hour() -> None:
    outcome = Outcome("a", "chat_completions", 200, "nightly", 1, 1.0, 0.1, Usage(1000, 1000), route="chat", band="x")
    assert price(outcome, config(), DAY.timestamp()).cost == Decimal("0.016")
    assert price(outcome, config(), NIGHT.timestamp()).cost == Decimal("0.003")
    assert price(outcome, config(), NIGHT.timestamp()).baseline == Decimal("0.01")


@pytest.mark.parametrize(
    ("now", "deadline", "first"),
    [
        (NIGHT, None, "steady"),
        (NIGHT, "12h", "nightly"),
        (NIGHT, "30m", "nightly"),
        (NIGHT, "5m", "steady"),
        (NIGHT, "2026-01-16T08:00:00+01:00", "nightly"),
        (NIGHT, "2026-01-16T08:00:00", "nightly"),
        (NIGHT, "2026-01-15T08:00:00Z", "steady"),
        (NIGHT, "tomorrow", "steady"),
        (DAY, "12h", "steady"),
    ],
)
async def test_who_can_wait_goes_where_it_is_cheap_now(now: datetime, deadline: str | None, first: str) -> None:
    assert (await admitted(now, deadline))[0] == first


async def test_a_named_model_stays() -> None:
    assert (await admitted(NIGHT, "12h", Band.NAMED))[0] == "steady"


@pytest.mark.parametrize("text", ["", "9999999999s", "12", "h", "-5m", "0" * 500, "2026-13-01", "9999999d"])
def test_no_header_breaks_it(text: str) -> None:
    found = due_at(text, NIGHT)
    assert found is None or found > NIGHT


def test_a_wrong_window_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown timezone"):
        config(TEXT.replace("Europe/Paris", "Europe/Pariss"))
