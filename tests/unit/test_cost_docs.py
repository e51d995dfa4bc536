"""What docs/savings.md and docs/observability.md show really works."""

import re
from pathlib import Path

import pytest
import yaml

from router_extproc import cli
from router_extproc.admin import Admin
from router_extproc.config.accounting import Budget, Ledger
from router_extproc.config.cost_plan import CostPlan
from router_extproc.config.price import Price
from router_extproc.config.store import Store
from router_extproc.cost import calculate
from router_extproc.telemetry.metrics import Metrics
from router_extproc.validation import validate

DOCS = Path(__file__).parents[2] / "docs"
SAVINGS, OBSERVABILITY = (DOCS / "savings.md").read_text(), (DOCS / "observability.md").read_text()


def snippets() -> list[dict[str, object]]:
    return [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", SAVINGS, re.DOTALL)]


def test_every_snippet_is_valid() -> None:
    ledger, price, budgets, store, plan = snippets()
    assert validate(Ledger, ledger["ledger"]).tenant_header == "x-tenant"
    assert len(validate(Price, price["price"]).windows) == 1
    assert isinstance(budgets["budgets"], list)
    assert [validate(Budget, budget).name for budget in budgets["budgets"]] == ["tenants-daily", "trial"]
    assert validate(Store, store["store"]).password_env == "STORE_PASSWORD"
    assert calculate(validate(CostPlan, plan)).figures["saved"] > 0


def test_every_flag_exists(capsys: pytest.CaptureFixture[str]) -> None:
    known = ""
    for command in ("serve", "envoy", "report", "simulate", "cost"):
        with pytest.raises(SystemExit):
            cli.main([command, "--help"])
        known += capsys.readouterr().out
    flags = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", SAVINGS + OBSERVABILITY))
    assert len(flags) > 8
    assert [flag for flag in flags if flag not in known] == []


async def test_every_path_exists() -> None:
    admin = Admin("127.0.0.1", 0, Metrics(), lambda: None, lambda: False, dict)
    table = OBSERVABILITY.partition("The admin port")[0]
    paths = set(re.findall(r"`(/[a-z/{}]*)`", table))
    assert len(paths) == 11
    assert paths <= set(admin.paths)
