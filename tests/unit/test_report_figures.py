"""Report and simulation, from the records that a sidecar really writes."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from router_extproc.config.loader import parse
from router_extproc.decision_log import by_time, read_joined, read_log
from router_extproc.domain import Usage
from router_extproc.errors import RouterError
from router_extproc.report import Report, make_report
from router_extproc.report_page import report_page
from router_extproc.signals.base import SHIPPED
from router_extproc.simulation import GONE, Simulation, simulate
from tests.watched import CONFIG, LABELS, watched

EVIL = "<script>alert(1)</script>"
WITH_QUALITY = CONFIG
for _price, _quality in ((b"output: 0.3}", b"0.70"), (b"output: 1.2}", b"0.85"), (b"output: 15}", b"0.95")):
    WITH_QUALITY = WITH_QUALITY.replace(_price, _price + b", quality: " + _quality)


async def records(state: Path) -> None:
    """70 exchanges: 40 code, 20 chat, 6 at the premium default, 3 that fell back, and one that failed."""
    async with watched(state_dir=state) as sidecar:
        for number in range(40):
            sidecar.exchange(f"c{number}")
        for number in range(20):
            sidecar.exchange(f"s{number}", model="small", route="chat", usage=Usage(200, 50))
        for number in range(6):
            sidecar.exchange(f"p{number}", model="premium", route="default", band="default")
        for number in range(3):
            sidecar.exchange(f"f{number}", model="small", attempts=2)
        sidecar.exchange("x", status=503, usage=None, model="premium", attempts=3)


@pytest.fixture
async def state(tmp_path: Path) -> Path:
    await records(tmp_path)
    return tmp_path


async def test_the_report_adds_up(state: Path) -> None:
    report = make_report(state)
    total = report.totals.all
    # 1000 tokens in (200 cached) and 100 out each, but for the 20 short ones.
    coder, small, short = Decimal("0.00052"), Decimal("0.00013"), Decimal("0.000035")
    assert total.cost == 40 * coder + 6 * Decimal("0.0045") + 3 * small + 20 * short
    assert (total.requests, total.answered) == (70, 69)
    assert sum(value.requests for value in report.days.values()) == 70
    assert sum((value.cost for value in report.days.values()), Decimal(0)) == total.cost
    assert report.decisions == 70
    assert report.latency_ms == {50: 2.3, 90: 2.3, 99: 2.3}
    # The simulated plan always begins with the coder.
    assert report.fallbacks["coder", "small"] == 23
    shown = report.json()
    assert shown["total"]["requests"] == 70
    assert json.loads(json.dumps(shown)) == shown
    text = report.text()
    assert "70 requests, 69 answered" in text
    assert "per route" in text


async def test_feedback_gives_accuracy_and_suspects(state: Path, tmp_path: Path) -> None:
    said = [{"id": f"c{n}", "good": n > 0} for n in range(4)] + [{"id": "s1", "good": True}]
    feedback = tmp_path / "feedback.jsonl"
    feedback.write_text("\n".join(map(json.dumps, said)) + "\n\n")
    report = make_report(state, feedback=feedback)
    assert report.accuracy == {"code": (3, 4), "chat": (1, 1)}
    assert [(suspect.id, suspect.bad) for suspect in report.suspects] == [("c0", True)]
    assert "feedback on code: 3 of 4 good (75.0%)" in report.text()
    feedback.write_text('{"id": 1}\n')
    with pytest.raises(RouterError, match=r"feedback\.jsonl:1: expected"):
        make_report(state, feedback=feedback)


async def test_the_frontier_has_each_model_and_the_mixture(state: Path) -> None:
    report = make_report(state, config=parse(WITH_QUALITY, Path("router.yaml")).config)
    points = {point.name: point for point in report.frontier}
    assert set(points) == {"small", "coder", "premium", "mixture"}
    assert points["small"].cost < points["mixture"].cost < points["premium"].cost
    assert points["mixture"].quality == pytest.approx((40 * 0.85 + 23 * 0.70 + 6 * 0.95) / 69)
    assert make_report(state, config=parse(CONFIG, Path("router.yaml")).config).frontier == []


class Strict(HTMLParser):
    """Collects what a browser would load or run."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href")]


async def test_the_page_is_one_file_without_scripts(tmp_path: Path) -> None:
    async with watched(state_dir=tmp_path) as sidecar:
        sidecar.exchange("evil", model=EVIL, route=EVIL, attempts=2)
    report = make_report(tmp_path, config=parse(WITH_QUALITY, Path("router.yaml")).config)
    page = report_page(report)
    found = Strict()
    found.feed(page)
    assert "script" not in found.tags
    assert found.links == []
    assert "&lt;script&gt;" in page
    assert "svg" in found.tags


def test_an_empty_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RouterError, match="no ledger here"):
        make_report(tmp_path)


async def test_a_ledger_without_exchanges_is_a_report(tmp_path: Path) -> None:
    async with watched(state_dir=tmp_path) as sidecar:
        sidecar.exchange("refused", status=404, usage=None, attempts=0, model=None)
    report: Report = make_report(tmp_path)
    assert report.totals.all.answered == 0
    assert "svg" in report_page(report)
    assert "1 requests, 0 answered" in report.text()


def replayed(records: Iterable[Mapping[str, Any]], text: bytes) -> Simulation:
    return simulate(records, parse(text, Path("router.yaml")), {SHIPPED: LABELS})


async def test_the_same_policy_moves_nobody(state: Path) -> None:
    found = replayed(read_log(state), CONFIG)
    assert (found.replayed, found.moved, found.skipped) == (70, 0, 0)
    assert found.after == 69 * Decimal("0.00052") - 20 * (Decimal("0.00052") - Decimal("0.00014"))
    # The fallbacks' lower prices are no effect of the policy.
    assert found.before == found.after
    assert "(+0.0 %)" in found.text()


async def test_a_model_that_is_gone_has_no_cost_to_compare(state: Path) -> None:
    changed = CONFIG.replace(b"coder", b"cheaper")
    found = replayed(read_log(state), changed)
    assert (found.priced, found.before, found.after) == (0, Decimal(0), Decimal(0))
    assert found.not_replayed == {GONE: 69}


async def test_another_policy_moves_whom_it_says(state: Path) -> None:
    changed = WITH_QUALITY.replace(b"models: coder, fallback: small", b"models: premium")
    found = replayed(read_log(state), changed)
    assert found.moved == 70
    assert found.moves["coder", "premium"] == 70
    assert found.after > found.before
    assert found.json()["quality"] == {
        "before": pytest.approx(0.85),
        "after": pytest.approx(0.95),
        "requests": 70,
        "predicted": 0,
    }
    text = found.text()
    assert "70 would go to another model (100.0%)" in text
    assert "model coder -> premium: 70" in text


async def test_what_was_not_recorded_is_said(state: Path) -> None:
    extra = b"signals:\n  size: {type: tokens}\n  words: {type: keywords, any: [hello]}\n"
    changed = CONFIG.replace(b"signals:\n", extra)
    found = replayed(read_log(state), changed)
    assert found.missing == {"words": 70}
    assert "signal words is not in 70 records" in found.text()


async def test_refusals_and_unusable_records_are_counted(state: Path) -> None:
    changed = CONFIG.replace(b"price: {", b"apis: [embeddings], price: {")
    found = replayed([*read_log(state), {"v": 1}, {"v": 1, "request": {}, "signals": 3}, {}], changed)
    assert found.refused == {"model_not_supported": 70}
    assert (found.skipped, found.unreadable) == (2, 1)
    assert "70 would be refused: model_not_supported" in found.text()
    assert "1 lines cannot be read and are left out" in found.text()


@pytest.mark.parametrize("order", ["abc", "cba"])
async def test_what_two_sidecars_know_of_a_request_is_one_line(tmp_path: Path, order: str) -> None:
    """Envoy asks one and tells the other what became of it; the third is told of nothing."""
    states = [tmp_path / name for name in order]
    async with (
        watched(state_dir=tmp_path / "a") as one,
        watched(state_dir=tmp_path / "b") as other,
        watched(state_dir=tmp_path / "c") as third,
    ):
        one.exchange("own")
        third.exchange("c0", teller=other.recorder)
        for number in range(3):
            one.exchange(f"a{number}", teller=other.recorder, model="small", attempts=2)
        other.exchange("b0", teller=one.recorder)
        # Nobody decided it: its id is Envoy's, which a client may have chosen.
        unknown = {"decision_id": "", "request_id": "lost", "route": "", "band": ""}
        other.exchange("lost", teller=one.recorder, **unknown)
    report = make_report(*states)
    assert report.fallbacks == {("coder", "small"): 3}
    assert (report.decisions, report.unreadable) == (7, 0)
    total = report.totals.all
    assert (total.requests, total.cost) == (7, 3 * Decimal("0.00013") + 4 * Decimal("0.00052"))
    assert {name: value.requests for name, value in report.totals.by["model"].items()} == {"coder": 4, "small": 3}
    found = replayed(by_time(read_joined(states)), CONFIG)
    assert (found.replayed, found.priced, found.skipped) == (7, 6, 1)
    # All in one file, as a collector of logs would have it.
    whole = tmp_path / "all.jsonl"
    whole.write_bytes(b"".join(file.read_bytes() for state in states for file in files(state, "decisions")))
    assert replayed(by_time(read_joined([whole])), CONFIG).json() == found.json()


def files(state: Path, name: str) -> list[Path]:
    return sorted(state.glob(f"{name}-*.jsonl"))


DAMAGED: list[tuple[str, Any]] = [
    ("signals", []),
    ("signals", {"intent": 1}),
    ("absent", None),
    ("request", None),
    ("outcome", "gone"),
    ("plan", []),
    ("plan", "coder"),
    ("guards", 3),
    ("ms", []),
    ("confidence", None),
    ("confidence", float("nan")),
    ("route", None),
    ("time", 3),
    ("refused", 3),
]
OLDER = ("guards", "ms", "id", "outcome", "cost", "selection", "affinity", "considered", "wishes", "session", "tenant")


@pytest.mark.parametrize(("key", "value"), DAMAGED)
async def test_a_damaged_line_costs_no_other(state: Path, key: str, value: Any) -> None:
    first = next(read_log(state))
    line = json.dumps(first | {key: value}).encode() + b"\n"
    (state / "decisions-00000009.jsonl").write_bytes(line + b"not JSON\n")
    report = make_report(state)
    assert report.decisions + report.unreadable == 72
    assert 1 <= report.unreadable <= 2
    assert f"{report.unreadable} lines of the decision log cannot be read" in report.text()
    assert "cannot be read" in report_page(report)
    assert report.json()["unreadable"] == report.unreadable
    found = replayed(read_log(state), CONFIG)
    assert found.replayed + found.unreadable == 72
    assert 1 <= found.json()["unreadable"] <= 2


@pytest.mark.parametrize("cost", [None, "n/a"])
async def test_a_recorded_cost_is_not_what_a_simulation_goes_by(state: Path, cost: Any) -> None:
    lines = [line | {"cost": cost} for line in read_log(state)]
    found = replayed(lines, CONFIG)
    assert (found.replayed, found.priced, found.before) == (70, 69, found.after)


async def test_lines_of_an_older_sidecar_are_read(state: Path) -> None:
    lines = [{key: value for key, value in line.items() if key not in OLDER} for line in read_log(state)]
    lines[0]["time"] = "2026-01-01T00:00:00"
    [file] = files(state, "decisions")
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = make_report(state)
    assert (report.decisions, report.unreadable, report.latency_ms) == (70, 0, {})
    found = replayed(read_log(state), CONFIG)
    assert (found.replayed, found.unreadable, found.moved) == (70, 0, 0)


async def test_what_was_said_must_be_true_or_false(state: Path, tmp_path: Path) -> None:
    feedback = tmp_path / "feedback.jsonl"
    for said in (b'{"id": "c0", "good": "false"}\n', b'{"id": "c0", "good": 0}\n', b"\xff\n", b"[]\n"):
        feedback.write_bytes(said)
        with pytest.raises(RouterError, match=r"feedback\.jsonl:1: expected"):
            make_report(state, feedback=feedback)


async def test_a_ledger_with_nothing_in_it_has_a_page(tmp_path: Path) -> None:
    async with watched(state_dir=tmp_path) as sidecar:
        sidecar.exchange("x")
    [segment] = files(tmp_path, "ledger")
    segment.write_bytes(segment.read_bytes().splitlines(keepends=True)[0])
    report = make_report(tmp_path)
    assert report.totals.all.requests == 0
    assert "svg" in report_page(report)
