"""The decision log: one line per exchange, with everything but texts, bounded on disk."""

import json
import logging
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from router_extproc.config.loader import parse
from router_extproc.decision_log import DecisionLog, by_time, read_joined, read_log
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, SignalValue, Usage
from router_extproc.records import VERSION, outcome_of, record, request_of, signals_of
from router_extproc.telemetry.recorder import Decided

CONFIG = parse(
    b'{models: {small: {url: "http://127.0.0.1:1", price: {input: 1, output: 2}},'
    b' big: {url: "http://127.0.0.1:2", price: {input: 3, output: 15}}}, default: big}',
    Path("router.yaml"),
).config

REQUEST = LlmRequest(
    "chat_completions", "auto", (1, 7), "SECRET prompt", tokens=12, max_output_tokens=50, has_tools=True, turns=3
)
DECIDED = Decided(
    decision_id="d1",
    request=REQUEST,
    signals=SignalSet({"intent": SignalValue("chat", 0.91234, 0.0, {"chat": 0.91234, "code": 0.1})}, {"pii": "late"}),
    decision=Decision("talk", Band.RECOMMENDED, 0.91234, ("small",), "intent=chat 0.91 > 0.90"),
    plan=Plan(("small", "big")),
    seconds=0.0021,
    generation=4,
    stages=(("policy", 0.0001),),
    tenant="acme",
    at=1_700_000_000.0,
)
OUTCOME = Outcome("d1", "chat_completions", 200, "small", 1, 0.8, 0.2, Usage(1000, 100, 200), request_id="r1")


def log_to(directory: Path | None, **more: object) -> DecisionLog:
    return DecisionLog(lambda: CONFIG, directory, versions=lambda: {"classifier": "c1"}, **more)  # type: ignore[arg-type]


def test_a_line_tells_everything_but_texts(tmp_path: Path) -> None:
    log = log_to(tmp_path)
    log.start()
    log.record(OUTCOME, DECIDED)
    log.close()
    (line,) = read_log(tmp_path)
    assert line["signals"]["intent"] == {"label": "chat", "confidence": 0.9123, "scores": {"chat": 0.9123, "code": 0.1}}
    assert (line["route"], line["band"], line["plan"], line["tenant"]) == (
        "talk",
        "recommended",
        ["small", "big"],
        "acme",
    )
    tokens = {"input": 1000, "output": 100, "cached": 200, "cache_write": 0, "estimated": False}
    assert line["outcome"]["tokens"] == tokens
    assert (line["cost"], line["baseline"], line["saved"]) == ("0.0012", "0.0045", "0.0033")
    assert line["versions"] == {"classifier": "c1"}
    assert line["ms"] == {"decision": 2.1, "policy": 0.1}
    assert "SECRET" not in json.dumps(line)


def test_the_line_that_the_docs_show_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "observability.md").read_text(encoding="utf-8")
    (shown,) = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", page, re.S)]
    log = log_to(tmp_path)
    log.start()
    log.record(OUTCOME, DECIDED)
    log.close()
    (line,) = read_log(tmp_path)
    assert shown.keys() == line.keys()
    for part in ("request", "outcome"):
        assert shown[part].keys() == line[part].keys()
    assert request_of(shown).api == "chat_completions"
    assert list(signals_of(shown).values) == ["intent"]


def test_texts_are_there_when_the_operator_says_so(tmp_path: Path) -> None:
    log = log_to(tmp_path, prompts=True)
    log.start()
    log.record(OUTCOME, replace(DECIDED, request=replace(REQUEST, prompt="SECRET" + "x" * 9000)))
    log.close()
    (line,) = read_log(tmp_path)
    assert line["request"]["prompt"].startswith("SECRET")
    assert len(line["request"]["prompt"]) == 4096


def test_what_is_known_by_one_side_alone_is_logged_too(tmp_path: Path) -> None:
    log = log_to(tmp_path)
    log.start()
    log.record(None, DECIDED)
    log.record(replace(OUTCOME, decision_id="", route="default"), None)
    log.close()
    decision, outcome = read_log(tmp_path)
    assert "outcome" not in decision
    assert (outcome["id"], outcome["route"], outcome["outcome"]["status"]) == ("r1", "default", 200)


def test_a_record_gives_back_what_a_policy_needs() -> None:
    made = json.loads(json.dumps(record(OUTCOME, DECIDED)))
    assert request_of(made) == replace(REQUEST, prompt="", model_span=None)
    assert signals_of(made).absent == {"pii": "late"}
    assert signals_of(made).values["intent"].scores == {"chat": 0.9123, "code": 0.1}
    partly = replace(DECIDED, signals=SignalSet({"words": SignalValue("false", partial=True)}))
    assert signals_of(record(None, partly)) == partly.signals


def test_a_record_says_that_an_answer_broke_off() -> None:
    made = json.loads(json.dumps(record(replace(OUTCOME, flags="UC"), DECIDED)))
    assert made["outcome"]["broken"] is True
    told = outcome_of(made)
    assert told is not None
    assert told.broken
    assert "broken" not in record(replace(OUTCOME, flags="DC"), DECIDED)["outcome"]


def test_the_files_are_bounded_and_read_in_order(tmp_path: Path) -> None:
    log = log_to(tmp_path, max_bytes=80_000)
    log.start()
    for number in range(600):
        log.record(OUTCOME, replace(DECIDED, decision_id=str(number)))
        if number % 20 == 0:
            log.flush()
    log.close()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.jsonl")) < 160_000
    kept = [int(line["id"]) for line in read_log(tmp_path)]
    assert kept == list(range(kept[0], 600))
    assert len(kept) > 50


def test_restarts_cost_no_history_and_make_no_files(tmp_path: Path) -> None:
    for process in range(12):
        log = log_to(tmp_path)
        log.start()
        log.record(OUTCOME, replace(DECIDED, decision_id=str(process)))
        log.close()
    assert [line["id"] for line in read_log(tmp_path)] == [str(process) for process in range(12)]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_many_small_files_of_earlier_starts_stay_while_there_is_room(tmp_path: Path) -> None:
    for number in range(1, 21):
        (tmp_path / f"decisions-{number:08}.jsonl").write_bytes(b'{"v":1,"id":"%d"}\n' % number)
    log = log_to(tmp_path, max_bytes=8_000)
    log.start()
    for number in range(21, 25):
        log.record(OUTCOME, replace(DECIDED, decision_id=str(number)))
        log.flush()
    log.close()
    kept = [line["id"] for line in read_log(tmp_path)]
    assert kept == [str(number) for number in range(1, 25)]
    assert len(list(tmp_path.glob("*.jsonl"))) > 20


def test_a_line_that_a_crash_cut_off_goes_and_what_stands_before_it_stays(tmp_path: Path) -> None:
    file = tmp_path / "decisions-00000003.jsonl"
    file.write_bytes(b'{"v":1,"id":"a"}\n{"v":1,"id":"' + b"x" * 100_000)
    for identity in ("b", "c"):
        log = log_to(tmp_path)
        log.start()
        log.record(OUTCOME, replace(DECIDED, decision_id=identity))
        log.close()
    assert [line.get("id") for line in read_log(tmp_path)] == ["a", "b", "c"]
    assert list(tmp_path.glob("*.jsonl")) == [file]


FULL = """
import resource, signal, sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from dataclasses import replace
from test_decision_log import DECIDED, OUTCOME, log_to

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
log = log_to(Path({directory!r}))
log.start()

def tell(first, count):
    for number in range(first, first + count):
        log.record(OUTCOME, replace(DECIDED, decision_id=str(number)))
        log.flush()

tell(0, 3)
size = sum(path.stat().st_size for path in Path({directory!r}).glob("*.jsonl"))
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))
tell(100, 12)
assert log.lost == 12, log.lost
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
tell(3, 3)
log.close()
"""


def test_a_full_disk_costs_the_lines_that_it_did_not_take_and_no_others(tmp_path: Path) -> None:
    script = FULL.format(tests=str(Path(__file__).parent), directory=str(tmp_path))
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, capture_output=True)
    assert [line.get("id") for line in read_log(tmp_path)] == ["0", "1", "2", "3", "4", "5"]
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_without_a_directory_there_are_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    log = log_to(None)
    with caplog.at_level(logging.INFO, "router_extproc.exchange"):
        log.start()
        log.record(OUTCOME, DECIDED)
        log.close()
    assert json.loads(caplog.messages[0])["id"] == "d1"


def test_lines_that_are_no_records_are_empty_ones_and_a_file_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    for number in range(1, 5):
        (tmp_path / f"decisions-{number:08}.jsonl").write_bytes(b'{"v":1,"id":"%d"}\n' % number)
    (tmp_path / "decisions-00000004.jsonl").write_bytes(b'{"v":1\n\xff\n[]\n{"v":2}\n' + b"[" * 100_000 + b"\n")
    found = read_log(tmp_path)
    assert next(found) == {"v": 1, "id": "1"}
    (tmp_path / "decisions-00000002.jsonl").unlink()
    assert list(found) == [{"v": 1, "id": "3"}, {}, {}, {}, {}, {}]
    with pytest.raises(FileNotFoundError):
        list(read_log(tmp_path / "other.jsonl"))


def test_joined_records_come_by_their_times_also_those_that_were_written_late(tmp_path: Path) -> None:
    """A decision whose outcome another sidecar was told is written when nobody waits for that any more."""

    def line(identity: str, minute: int, **members: object) -> str:
        return json.dumps({"v": VERSION, "id": identity, "time": f"2026-11-26T12:{minute:02d}:00Z", **members}) + "\n"

    here, there = tmp_path / "here.jsonl", tmp_path / "there.jsonl"
    here.write_text(line("a", 8, plan=["m"], outcome={}) + line("p", 1, plan=["m"], outcome=None))
    there.write_text(line("p", 2, route="r", outcome={"ms": 1}) + line("b", 9, plan=["m"], outcome={}))
    found = [(made["id"], made["time"][14:16]) for made in by_time(read_joined([here, there]))]
    assert found == [("p", "02"), ("a", "08"), ("b", "09")]


def test_a_disk_that_is_gone_costs_lines_and_nothing_else(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "gone"
    log = log_to(directory)
    log.start()
    (directory / "decisions.lock").unlink()
    directory.rmdir()
    for _ in range(3):
        log.record(OUTCOME, DECIDED)
    log.flush()
    assert log.lost == 3
    directory.mkdir()
    log.record(OUTCOME, DECIDED)
    log.close()
    assert len(list(read_log(directory))) == 1
    assert "lines of the decision log are lost" in caplog.text
