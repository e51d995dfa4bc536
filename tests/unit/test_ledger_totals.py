"""The ledger: exact prices, exact totals, nothing twice, nothing lost on a kill, bounded on disk."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from router_extproc.config.accounting import Ledger as LedgerSection
from router_extproc.config.loader import parse
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Outcome, Usage
from router_extproc.errors import Mistake
from router_extproc.ledger import (
    DIMENSIONS,
    MAX_HOURS,
    MAX_KEYS,
    OTHER,
    Entry,
    Ledger,
    Sum,
    Totals,
    check_ledger,
    price,
    read_totals,
)
from router_extproc.stores.journal import Journal, JournalTaken

CONFIG = b"""
models:
  small: {url: "http://127.0.0.1:1", price: {input: 0.1, output: 0.3, cached_input: 0.05}}
  premium: {url: "http://127.0.0.1:2", price: {input: 3, output: 15, per_request: 0.0001}}
default: premium
ledger: {router_per_query: 0.00001}
"""


def config() -> RouterConfig:
    return parse(CONFIG, Path("router.yaml")).config


def test_the_baseline_is_a_model() -> None:
    assert check_ledger(config()) == []
    other = config().model_copy(update={"ledger": LedgerSection(baseline="premum")})
    assert check_ledger(other) == [Mistake(("ledger", "baseline"), "unknown model `premum`, did you mean `premium`?")]


def outcome(identity: str, model: str | None = "small", usage: Usage | None = None, **more: object) -> Outcome:
    base = Outcome(
        decision_id=identity,
        api="chat_completions",
        status=200,
        model=model,
        attempts=1,
        duration_seconds=0.5,
        first_byte_seconds=0.1,
        usage=usage if usage is not None else Usage(1000, 100, 400),
        route="chat",
        band="recommended",
        tenant="acme",
    )
    return replace(base, **more)  # type: ignore[arg-type]


@contextmanager
def running(directory: Path | None = None, **more: int) -> Iterator[Ledger]:
    ledger = Ledger(config, directory, **more)  # type: ignore[arg-type]
    ledger.start()
    try:
        yield ledger
    finally:
        ledger.close()


def test_an_outcome_is_priced_against_the_baseline() -> None:
    entry = price(outcome("a"), config(), at=0)
    assert entry.cost == Decimal("0.00011")  # 600 x 0.1 + 400 x 0.05 + 100 x 0.3, per million
    assert entry.baseline == Decimal("0.0046")  # 1000 x 3 + 100 x 15, per million, + 0.0001
    assert entry.router == Decimal("0.00001")
    assert entry.saved == Decimal("0.00448")
    assert (entry.tenant, entry.hour) == ("acme", "1970-01-01T00")


@pytest.mark.parametrize(
    ("changes", "cost", "saved"),
    [
        ({"model": None, "usage": None, "status": 0, "flags": "DC"}, "0", "-0.00001"),
        ({"usage": None, "status": 503}, "0", "-0.00001"),
        ({"model": "elsewhere"}, "0", "-0.00001"),
        ({"band": "named"}, "0.00011", "-0.00001"),
        ({"model": "premium"}, "0.0046", "-0.00001"),
        ({"decision_id": "", "request_id": "r"}, "0.00011", "0.00449"),
        ({"api": "messages"}, "0.00011", "-0.00001"),
    ],
)
def test_what_saves_nothing_is_not_counted_as_saved(changes: dict[str, object], cost: str, saved: str) -> None:
    found = replace(outcome("a"), **changes)  # type: ignore[arg-type]
    entry = price(found, config(), at=0)
    assert (entry.cost, entry.saved) == (Decimal(cost), Decimal(saved))
    assert entry.priced == (changes.get("model") != "elsewhere")


def test_an_entry_survives_its_line() -> None:
    entry = price(outcome('a"\n', usage=Usage(7, 8, 1, estimated=True, cache_write=3)), config(), at=1.5)
    assert entry.line().count(b"\n") == 1
    assert Entry.parse(entry.line()) == entry
    # Written before cache writes were told.
    older = json.dumps(json.loads(entry.line())[:-1]).encode()
    assert Entry.parse(older) == replace(entry, cache_write=0)
    totals = Totals()
    totals.add(entry)
    header = json.loads(json.dumps(totals.json()).replace('"cache_write": 3, ', ""))
    assert Totals.parse(header).all == replace(totals.all, cache_write=0)


def test_totals_add_up_in_every_table_and_survive_the_header() -> None:
    totals, chance = Totals(), random.Random(7)
    for number in range(2000):
        found = outcome(
            str(number),
            chance.choice(["small", "premium", None]),
            Usage(chance.randrange(9999), chance.randrange(999)),
            route=chance.choice("abc"),
            tenant=f"tenant {number % (MAX_KEYS + 200)}",
        )
        totals.add(price(found, config(), at=number * 7200.0))
    for name in DIMENSIONS:
        added = Sum()
        for value in totals.by[name].values():
            added.merge(value)
        assert added == totals.all, name
    assert totals.all.requests == 2000
    assert len(totals.by["tenant"]) <= MAX_KEYS + 1
    assert totals.by["tenant"][OTHER].requests > 0
    assert Totals.parse(json.loads(json.dumps(totals.json()))) == totals


def test_old_hours_are_folded_together() -> None:
    totals = Totals()
    entry = price(outcome("a"), config(), at=0)
    for hour in range(MAX_HOURS + 5):
        totals.add(replace(entry, at=hour * 3600.0))
    assert len(totals.by["hour"]) <= MAX_HOURS + 1
    assert sum(value.requests for value in totals.by["hour"].values()) == MAX_HOURS + 5


def test_an_id_counts_once_also_after_a_restart(tmp_path: Path) -> None:
    with running(tmp_path) as ledger:
        for identity in ("a", "b", "a", "a"):
            ledger.outcome(outcome(identity))
        ledger.flush()
        assert ledger.savings()["total"]["requests"] == 2
    with running(tmp_path) as ledger:
        for identity in ("a", "b", "c"):
            ledger.outcome(outcome(identity))
        ledger.flush()
        shown = ledger.savings()
    assert shown["total"]["requests"] == 3
    assert shown["total"]["cost"] == "0.00033"
    assert shown["total"]["saved"] == "0.01344"
    assert shown["models"]["small"] == shown["total"]
    with running(tmp_path) as ledger:
        assert ledger.savings()["total"] == shown["total"]


def test_without_any_id_everything_counts() -> None:
    with running() as ledger:
        for _ in range(3):
            ledger.outcome(outcome(""))
        ledger.flush()
        assert ledger.savings()["total"]["requests"] == 3
        assert ledger.savings()["durable"] is False


def test_a_request_id_that_comes_twice_is_not_the_same_answer() -> None:
    with running() as ledger:
        for _ in range(5):
            ledger.outcome(outcome("", request_id="the client's own"))
        ledger.flush()
        assert ledger.savings()["total"]["requests"] == 5


def test_only_the_tables_that_are_asked_for_are_made() -> None:
    with running() as ledger:
        ledger.outcome(outcome("a"))
        ledger.flush()
        found = ledger.savings(["model"])
        assert [name for name in found if name.rstrip("s") in DIMENSIONS] == ["models"]
        assert found["models"] == ledger.savings()["models"]


def test_a_segment_that_is_gone_by_now_is_passed_over(tmp_path: Path) -> None:
    with running(tmp_path) as ledger:
        ledger.outcome(outcome("a"))
    (tmp_path / "ledger-00000000.jsonl").symlink_to(tmp_path / "removed")
    totals = read_totals(tmp_path)
    assert totals is not None
    assert totals.all.requests == 1


def test_rotation_carries_totals_and_bounds_the_disk(tmp_path: Path) -> None:
    for start in range(0, 4000, 500):
        with running(tmp_path, segment_bytes=20_000) as ledger:
            for number in range(start, start + 500):
                ledger.outcome(outcome(str(number)))
                if number % 50 == 0:
                    ledger.flush()
    with running(tmp_path) as ledger:
        total = ledger.savings()["total"]
    assert total["requests"] == 4000
    assert Decimal(total["cost"]) == 4000 * Decimal("0.00011")
    segments = sorted(tmp_path.glob("ledger-*.jsonl"))
    assert len(segments) <= 2
    # A segment may exceed its bound by one batch and its header.
    assert sum(path.stat().st_size for path in segments) < 200_000


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path: Path) -> None:
    with running(tmp_path) as ledger:
        for identity in ("a", "b"):
            ledger.outcome(outcome(identity))
    segment = sorted(tmp_path.glob("ledger-*.jsonl"))[-1]
    segment.write_bytes(segment.read_bytes()[:-20])
    with running(tmp_path) as ledger:
        assert ledger.savings()["total"]["requests"] == 1


def test_a_segment_that_a_crash_left_without_a_header_is_passed_over(tmp_path: Path) -> None:
    with running(tmp_path) as ledger:
        ledger.outcome(outcome("a"))
    last = sorted(tmp_path.glob("ledger-*.jsonl"))[-1]
    number = int(last.stem[-8:]) + 1
    (tmp_path / f"ledger-{number:08}.jsonl").write_bytes(b'{"version":1,"carr')
    with running(tmp_path) as ledger:
        assert ledger.savings()["total"]["requests"] == 1


def test_two_processes_cannot_write_one_ledger(tmp_path: Path) -> None:
    with running(tmp_path), pytest.raises(JournalTaken, match="another process"):
        Ledger(config, tmp_path).start()


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ledger_totals import config, outcome
from router_extproc.ledger import Ledger
ledger = Ledger(config, Path({directory!r}), segment_bytes=30_000)
ledger.start()
number = 0
for line in sys.stdin:
    for _ in range(int(line)):
        ledger.outcome(outcome(str(number)))
        number += 1
    print(number, flush=True)
"""


def test_a_kill_loses_nothing_that_is_older_than_a_second(tmp_path: Path) -> None:
    script = WRITER.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    sent = 0
    for _ in range(5):
        process.stdin.write("200\n")
        process.stdin.flush()
        sent = int(process.stdout.readline())
    deadline = time.monotonic() + 1.0
    while time.monotonic() < deadline and written(tmp_path) < sent:
        os.sched_yield()
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdin.close()
    process.stdout.close()
    with running(tmp_path) as ledger:
        total = ledger.savings()["total"]
    assert total["requests"] == sent == 1000
    assert Decimal(total["cost"]) == sent * Decimal("0.00011")


def written(directory: Path) -> int:
    ids = {
        line.split(b",", 1)[0]
        for path in directory.glob("ledger-*.jsonl")
        for line in path.read_bytes().splitlines()[1:]
    }
    return len(ids)


FULL = """
import resource, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_ledger_totals import config, outcome
from router_extproc.ledger import Ledger
ledger = Ledger(config, Path({directory!r}))
ledger.start()
ledger.outcome(outcome("first"))
ledger.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
for number in range(300):
    ledger.outcome(outcome(str(number)))
    if number % 30 == 0:
        ledger.flush()
while not ledger.write_errors or ledger.savings()["total"]["requests"] < 301:
    pass
assert ledger.savings()["total"]["requests"] == 301
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
ledger.outcome(outcome("last"))
ledger.close()
"""


def test_what_a_full_disk_kept_back_is_made_up_for(tmp_path: Path) -> None:
    script = FULL.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)
    with running(tmp_path) as ledger:
        assert ledger.savings()["total"]["requests"] == 302


def test_more_than_can_wait_is_counted_as_dropped() -> None:
    ledger = Ledger(config, max_waiting=3)
    for number in range(5):
        ledger.outcome(outcome(str(number)))
    assert ledger.dropped == 2
    ledger.start()
    ledger.close()
    assert ledger.savings()["total"]["requests"] == 3
    assert ledger.savings()["dropped"] == 2


@pytest.mark.parametrize("header", [lambda: b"", lambda: b'{"h":1}\n'])
def test_a_journal_keeps_only_what_it_is_told_to(tmp_path: Path, header: Callable[[], bytes]) -> None:
    journal = Journal(tmp_path, "x", max_bytes=100, keep=2, header=header)
    journal.open()
    for number in range(100):
        journal.append(f'{{"n":{number}}}\n'.encode())
    journal.close()
    segments = journal.segments()
    assert len(segments) == 3
    assert all(path.read_bytes().startswith(header()) for path in segments)
    assert b"".join(path.read_bytes() for path in segments).endswith(b'{"n":99}\n')
