"""What people say of decisions: taken once, counted, kept, joined by the report; and refusals, which they may call
false alarms."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientSession

from router_extproc.decision_log import read_log
from router_extproc.domain import LlmRequest, Outcome, SignalSet, SignalValue, Turn
from router_extproc.feedback import REMEMBERED, Feedback, Verdict
from router_extproc.report import make_report
from router_extproc.report_page import report_page
from router_extproc.telemetry.recorder import Refused
from tests.watched import Watched, watched


@pytest_asyncio.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


CODE = "blocked_by_attack"


def refuse(sidecar: Watched, identity: str = "r1", request_id: str = "e1") -> None:
    """A request that a guard blocked, and Envoy's line about its answer."""
    block(sidecar, identity, request_id)
    answered(sidecar, request_id)


def answered(sidecar: Watched, request_id: str, details: str = f"mom_{CODE}", status: int = 403) -> None:
    ended = Outcome("", "messages", status, None, 0, 0.01, 0.01, None, details=details, request_id=request_id)
    sidecar.recorder.outcome(ended)


def block(sidecar: Watched, identity: str, request_id: str) -> None:
    asked = LlmRequest("messages", "auto", None, "SECRET", (Turn("user", "SECRET"),), "SECRET", 40, written=("SECRET",))
    signals = SignalSet({"guard": SignalValue("injection", 0.99)})
    refused = Refused(identity, request_id, asked, signals, 403, CODE, ("odd", "attack"), 1, "acme", "5e55", at=1.7e9)
    sidecar.recorder.refused("messages", CODE, refused)


def written(directory: Path) -> str:
    return "".join(path.read_text(encoding="utf-8") for path in directory.glob("decisions-*.jsonl"))


async def say(client: ClientSession, sidecar: Watched, **said: Any) -> tuple[int, dict[str, Any]]:
    async with client.post(f"{sidecar.url}/feedback", json=said) as answer:
        return answer.status, await answer.json()


async def test_refusals_find_their_answers_though_clients_may_send_one_request_id_twice() -> None:
    async with watched() as sidecar:
        for identity in ("r1", "r2"):
            block(sidecar, identity, "e1")
        # Another answer of the same request id: of a model, without us.
        answered(sidecar, "e1", "via_upstream", 200)
        for _ in range(2):
            answered(sidecar, "e1")
        statuses = {}
        for identity in ("r1", "r2", "e1"):
            seen = sidecar.books.recent.find(identity)
            assert seen is not None
            assert seen.outcome is not None
            statuses[identity] = (seen.outcome.status, seen.refused is not None)
        assert statuses == {"r1": (403, True), "r2": (403, True), "e1": (200, False)}


async def test_a_verdict_counts_once(client: ClientSession) -> None:
    async with watched() as sidecar:
        sidecar.exchange("d1")
        new = {"decision_id": "d1", "new": True, "known_decision": True}
        assert await say(client, sidecar, decision_id="d1", verdict="bad", wanted_route="chat") == (200, new)
        assert await say(client, sidecar, decision_id="d1", verdict="bad") == (200, {**new, "new": False})
        assert await say(client, sidecar, decision_id="d1", verdict="missed") == (200, new)
        unknown = {"decision_id": "d2", "new": True, "known_decision": False}
        assert await say(client, sidecar, decision_id="d2", verdict="good") == (200, unknown)
        assert sidecar.feedback() == {
            ("bad", "code", ""): 1,
            ("missed", "code", ""): 1,
            ("good", "unknown", ""): 1,
        }


async def test_who_changes_his_mind_twice_is_heard_twice(client: ClientSession, tmp_path: Path) -> None:
    async with watched(state_dir=tmp_path) as sidecar:
        sidecar.exchange("d1")
        for verdict in ("bad", "good", "bad"):
            _, answer = await say(client, sidecar, decision_id="d1", verdict=verdict)
            assert answer["new"], verdict
    said = [line["feedback"] for line in read_log(tmp_path) if "feedback" in line]
    assert said == ["bad", "good", "bad"]


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"decision_id": "d", "verdict": "nice"}, "`nice` is not one of"),
        ({"verdict": "good"}, "`decision_id` is missing"),
        ({"decision_id": "d\n", "verdict": "good"}, "not allowed here"),
        ({"decision_id": "d" * 65, "verdict": "good"}, "decision_id: `ddd"),
        ({"decision_id": "d", "verdict": "bad", "wanted_route": "cod"}, "unknown route `cod`, did you mean `code`?"),
        ({"decision_id": "d", "verdict": "bad", "wanted_label": "x" * 65}, "not allowed here"),
        ({"decision_id": "d", "verdict": "bad", "comment": "Anna said"}, "unknown field `comment`"),
        (["d"], "expected a mapping"),
    ],
)
async def test_what_is_no_verdict_is_refused_with_the_reason(client: ClientSession, said: Any, says: str) -> None:
    async with watched() as sidecar:
        async with client.post(f"{sidecar.url}/feedback", json=said) as answer:
            assert answer.status == 400
            assert says in (await answer.json())["error"]
        assert not sidecar.feedback()


async def test_the_port_takes_json_of_a_bounded_size_from_who_has_the_token(client: ClientSession) -> None:
    async with watched(host="0.0.0.0", token="s3cret") as sidecar:
        url, token = f"{sidecar.url}/feedback", {"authorization": "Bearer s3cret"}
        body = {"decision_id": "d", "verdict": "good"}
        async with client.post(url, json=body) as answer:
            assert answer.status == 401
        async with client.post(url, json=body, headers=token) as answer:
            assert answer.status == 200
        async with client.post(url, data="{}", headers={**token, "content-type": "text/plain"}) as answer:
            assert answer.status == 415
        async with client.post(url, json={"x": "y" * 5000}, headers=token) as answer:
            assert answer.status == 413
        async with client.post(url, data=b"{", headers={**token, "content-type": "application/json"}) as answer:
            assert answer.status == 400


async def test_what_is_remembered_of_verdicts_is_bounded() -> None:
    async with watched() as sidecar:
        box = sidecar.books.feedback
        for number in range(REMEMBERED + 1):
            assert box.take(Feedback(decision_id=str(number), verdict=Verdict.GOOD))[0]
        assert not box.take(Feedback(decision_id="1", verdict=Verdict.GOOD))[0]
        assert box.take(Feedback(decision_id="0", verdict=Verdict.GOOD))[0]


async def test_a_refused_request_can_be_looked_up_by_the_id_that_its_client_got(
    client: ClientSession, tmp_path: Path
) -> None:
    async with watched(state_dir=tmp_path) as sidecar:
        refuse(sidecar)
        async with client.get(f"{sidecar.url}/decisions/r1") as answer:
            found = await answer.json()
        assert found["refused"] == {"status": 403, "code": "blocked_by_attack", "request_id": "e1"}
        assert found["signals"]["guard"]["label"] == "injection"
        assert found["outcome"]["status"] == 403
        assert [row["id"] for row in sidecar.books.recent.last()] == ["r1"]
        assert await say(client, sidecar, decision_id="r1", verdict="false_alarm") == (
            200,
            {"decision_id": "r1", "new": True, "known_decision": True},
        )
        assert sidecar.feedback() == {("false_alarm", "", "odd"): 1, ("false_alarm", "", "attack"): 1}
        await asyncio.to_thread(sidecar.books.log.flush)
    refused, exchange, verdict = read_log(tmp_path)
    assert (refused["id"], refused["guards"], refused["session"]) == ("r1", ["odd", "attack"], "5e55")
    assert (exchange["id"], exchange["outcome"]["status"]) == ("e1", 403)
    assert (verdict["id"], verdict["feedback"]) == ("r1", "false_alarm")
    assert "SECRET" not in written(tmp_path)


async def test_the_report_joins_what_was_said(client: ClientSession, tmp_path: Path) -> None:
    async with watched(state_dir=tmp_path) as sidecar:
        for number in range(4):
            sidecar.exchange(f"c{number}")
            refuse(sidecar, f"r{number}", f"e{number}")
        sidecar.exchange("s0", route="chat")
        for identity, verdict, more in [
            ("c0", "good", {}),
            ("c1", "bad", {"wanted_route": "chat"}),
            ("c2", "bad", {"wanted_route": "chat"}),
            ("c3", "bad", {}),
            ("c3", "good", {}),  # the last word counts
            ("s0", "bad", {}),
            ("s0", "missed", {"wanted_label": "injection"}),
            ("r0", "false_alarm", {}),
            ("gone", "good", {}),
        ]:
            assert (await say(client, sidecar, decision_id=identity, verdict=verdict, **more))[0] == 200
    report = make_report(tmp_path)
    assert report.decisions == 5
    assert report.accuracy == {"code": (2, 4), "chat": (0, 1)}
    assert report.misrouted == {("code", "chat"): 2, ("chat", ""): 1}
    assert {name: (watch.acted, watch.false_alarms) for name, watch in report.guards.items()} == {
        "odd": (4, 1),
        "attack": (4, 1),
    }
    assert report.missed == {"injection": 1}
    assert [suspect.id for suspect in report.suspects] == ["c1", "c2", "s0"]
    text = report.text()
    for line in (
        "feedback on code: 2 of 4 good (50.0%)",
        "misrouted code, wanted chat: 2",
        "guard attack acted on 4, 1 false alarms",
        "guards missed injection: 1",
    ):
        assert line in text
    shown = report.json()
    assert shown["guards"]["attack"] == {"acted": 4, "false_alarms": 1}
    assert shown["misrouted"][0] == {"route": "code", "wanted": "chat", "requests": 2}
    page = report_page(report)
    assert "<h2>Guards</h2>" in page
    assert "<h2>Misrouted</h2>" in page
