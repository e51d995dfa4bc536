"""Figures from rounds: medians, spreads, ratios within a round, shares of verdicts."""

from __future__ import annotations

from typing import Any

import pytest

from bench.report import spread, summarise, tables


def cell(variant: str, number: int, p50: float, per_second: float = 100, **more: Any) -> dict[str, Any]:
    return {
        "variant": variant,
        "concurrency": 1,
        "round": number,
        "requests": 10,
        "per_second": per_second,
        "errors": {},
        "verdicts": {"none": 10},
        "ms": {"p50": p50, "p99": 2 * p50},
        "sizes": {"short": {"p50": p50}},
        "cpu_ms": {"envoy": p50 / 2},
        **more,
    }


def test_a_ratio_is_taken_within_its_round() -> None:
    # The second round was ten times slower for both: the ratio of the medians would say 1.8, each round says 2 and 4.
    cells = [cell("alone", 1, 1.0), cell("alone", 2, 10.0), cell("trivial", 1, 2.0), cell("trivial", 2, 40.0)]
    rows = {row["variant"]: row for row in summarise(cells)}
    against = rows["trivial"]["against"]["alone"]
    assert against["p50_ratio"] == {"median": 3.0, "min": 2.0, "max": 4.0}
    assert against["added_p50_ms"] == {"median": 15.5, "min": 1.0, "max": 30.0}
    assert rows["alone"]["against"]["trivial"]["p50_ratio"]["min"] == 0.25
    assert rows["alone"]["p50_ms"] == {"median": 5.5, "min": 1.0, "max": 10.0}


def test_a_round_that_lacks_one_side_is_in_no_ratio() -> None:
    dead = cell("alone", 2, 1.0, 0, requests=0, ms={}, sizes={}, errors={"status 503": 4})
    cells = [cell("alone", 1, 1.0), dead, cell("trivial", 1, 3.0), cell("trivial", 2, 9.0)]
    rows = {row["variant"]: row for row in summarise(cells)}
    assert rows["trivial"]["against"]["alone"]["p50_ratio"] == {"median": 3.0, "min": 3.0, "max": 3.0}
    assert rows["alone"]["errors"] == {"status 503": 4}
    assert rows["alone"]["per_second"] == {"median": 50.0, "min": 0, "max": 100}


def test_verdicts_are_shares_of_all_rounds() -> None:
    cells = [
        cell("all-heads", 1, 1.0, verdicts={"decided": 30}),
        cell("all-heads", 2, 1.0, verdicts={"decided": 45, "late": 20, "none": 5}),
    ]
    (row,) = summarise(cells)
    assert row["verdicts"] == {"decided": 0.75, "late": 0.2, "none": 0.05}
    assert row["decided_per_second"] == {
        "median": pytest.approx(82.14, abs=0.01),
        "min": pytest.approx(64.29, abs=0.01),
        "max": 100,
    }


def test_the_ceiling_is_compared_with_nothing() -> None:
    rows = {row["variant"]: row for row in summarise([cell("direct", 1, 0.1), cell("alone", 1, 1.0)])}
    assert rows["direct"]["against"] == {}


def test_tables_show_every_row_its_decisions_and_its_errors() -> None:
    cells = [
        cell("alone", 1, 1.0, errors={"timeout": 3}),
        cell("all-heads", 1, 5.0, verdicts={"decided": 6, "late": 3, "none": 1}),
        {**cell("alone", 1, 4.0), "concurrency": 16},
    ]
    shown = tables(summarise(cells))
    one, sixteen, sizes = shown.split("\n\n")
    assert one.startswith("concurrency 1\n")
    assert "timeout: 3" in one
    assert "decided 60% late 30% not asked 10.0%" in one
    assert "5.00 [5.00-5.00]" in one
    assert sixteen.startswith("concurrency 16\n")
    assert "all-heads" not in sixteen
    assert "short" in sizes


def test_a_spread_is_median_minimum_and_maximum() -> None:
    assert spread([]) is None
    assert spread([3.0, 1.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}
