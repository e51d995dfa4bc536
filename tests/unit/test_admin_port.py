"""The admin port: who may see what, what it says, and that watching costs nobody anything."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import ClientResponse, ClientSession

from router_extproc.admin import FILES, OPEN, PAGE, is_loopback
from router_extproc.recent import BACKLOG, KEPT, WATCHERS
from tests.watched import watched

CLOSED = ("/config", "/savings", "/state", "/events", "/decisions/x")


@pytest_asyncio.fixture
async def client() -> AsyncIterator[ClientSession]:
    async with ClientSession() as session:
        yield session


async def status(client: ClientSession, url: str, **headers: str) -> int:
    async with client.get(url, headers=headers) as answer:
        return answer.status


async def ask(client: ClientSession, url: str) -> Any:
    async with client.get(url) as answer:
        return await answer.json()


async def test_on_loopback_everything_is_open_to_this_machine_alone(client: ClientSession) -> None:
    async with watched() as sidecar:
        for path in (*OPEN, "/config", "/savings", "/state"):
            assert await status(client, sidecar.url + path) == 200, path
        for host in ("evil.example", "evil.example:9090", "127.0.0.1.evil.example"):
            assert await status(client, f"{sidecar.url}/savings", host=host) == 403
        for host in ("localhost:9", "[::1]:9", "127.0.0.1"):
            assert await status(client, f"{sidecar.url}/savings", host=host) == 200


async def test_beyond_loopback_only_probes_and_metrics_are_open(client: ClientSession) -> None:
    async with watched(host="0.0.0.0") as sidecar:
        assert [await status(client, sidecar.url + path) for path in OPEN] == [200] * len(OPEN)
        assert [await status(client, sidecar.url + path) for path in CLOSED] == [403] * len(CLOSED)


async def test_the_token_opens_the_rest(client: ClientSession) -> None:
    async with watched(host="0.0.0.0", token="s3cret") as sidecar:
        assert [await status(client, sidecar.url + path) for path in CLOSED] == [401] * len(CLOSED)
        assert await status(client, f"{sidecar.url}/savings", authorization="Bearer s3cre") == 401
        assert await status(client, f"{sidecar.url}/savings", authorization="Bearer s3cret") == 200
        async with client.post(f"{sidecar.url}/try", json={"prompt": "hello"}) as answer:
            assert answer.status == 401


async def test_every_answer_forbids_what_the_page_does_not_need(client: ClientSession) -> None:
    async with watched() as sidecar, client.get(f"{sidecar.url}/") as answer:
        assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_the_page_needs_nothing_from_elsewhere() -> None:
    for name, _ in FILES.values():
        text = (PAGE / name).read_text()
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text
        assert "eval(" not in text


async def test_a_decision_is_explained_rule_by_rule(client: ClientSession) -> None:
    async with watched() as sidecar:
        sidecar.exchange("d1")
        found = await ask(client, f"{sidecar.url}/decisions/d1")
        assert found["routes"] == [
            {"route": "code", "verdict": "matched", "why": "intent=code_generation"},
            {"route": "chat", "verdict": "not judged", "why": "an earlier route matched"},
        ]
        assert found["plan"] == ["coder", "small", "premium"]
        assert (found["cost"], found["baseline"]) == ("0.00052", "0.0045")
        assert "prompt" not in found["request"]
        assert await status(client, f"{sidecar.url}/decisions/d2") == 404


async def test_state_and_savings_agree_with_the_ledger(client: ClientSession) -> None:
    async with watched() as sidecar:
        for number in range(5):
            sidecar.exchange(str(number))
        sidecar.exchange("failed", status=503, usage=None)
        sidecar.exchange("broken", flags="UR", usage=None)
        await asyncio.to_thread(sidecar.books.ledger.flush)
        state = await ask(client, f"{sidecar.url}/state")
        assert state["savings"]["total"]["requests"] == 7
        assert state["savings"]["total"]["cost"] == "0.0026"
        assert state["bands"] == {"recommended": 7}
        assert sum(state["latency"]["counts"]) == 7
        health = {"answers": 7, "failures": 2, "retried": 0, "first_byte_ms": 210.0, "last_status": 200}
        health |= {"last_broken": True}
        assert state["models"]["coder"] == health
        assert (await ask(client, f"{sidecar.url}/savings"))["total"] == state["savings"]["total"]


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"prompt": "hello"}, 200, None),
        ({"prompt": "hello", "model": "small"}, 200, None),
        ({"prompt": "hello", "model": "nobody"}, 404, "does not exist"),
        ({"prompt": "hello", "model": 3}, 400, "must be text"),
        ({"prompt": "hello", "api": "nope"}, 400, "unknown api `nope`"),
        ({"prompt": "hello", "model": ""}, 400, "'model' must be a string"),
        ({"prompt": ""}, 400, "`prompt` must be text"),
        ([], 400, "not a prompt"),
    ],
)
async def test_a_prompt_can_be_tried(client: ClientSession, body: Any, code: int, says: str | None) -> None:
    async with watched() as sidecar, client.post(f"{sidecar.url}/try", json=body) as answer:
        assert answer.status == code
        found = await answer.json()
        if says is None:
            assert found["plan"][0] == "small"
        else:
            assert says in found["error"]


async def test_another_site_cannot_try_prompts(client: ClientSession) -> None:
    # A form of another site can send text/plain without asking; JSON it cannot.
    async with watched() as sidecar:
        content = {"content-type": "text/plain"}
        async with client.post(f"{sidecar.url}/try", data='{"prompt": "hi"}', headers=content) as answer:
            assert answer.status == 415
        async with client.post(f"{sidecar.url}/try", json={"prompt": "x" * 300_000}) as answer:
            assert answer.status == 413


async def events(answer: ClientResponse) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    while True:
        name = (await answer.content.readline()).decode().removeprefix("event: ").strip()
        data = (await answer.content.readline()).decode().removeprefix("data: ")
        await answer.content.readline()
        if not name:
            return
        yield name, json.loads(data)


async def test_events_tell_the_past_first_and_then_each_exchange(client: ClientSession) -> None:
    async with watched() as sidecar:
        sidecar.exchange("old")
        async with client.get(f"{sidecar.url}/events") as answer:
            stream = events(answer)
            assert (await anext(stream))[1]["id"] == "old"
            assert (await anext(stream))[0] == "state"
            sidecar.exchange("new")
            found = [item async for item in _until(stream, "new")]
            assert found[-1]["outcome"]["tokens"]["input"] == 1000


async def test_all_watchers_are_told_what_was_made_once(client: ClientSession) -> None:
    async with watched(state_seconds=1000.0) as sidecar:
        states = []
        for number in range(3):
            async with client.get(f"{sidecar.url}/events") as answer:
                states += [data async for name, data in _first_state(events(answer))]
            sidecar.exchange(str(number))
        assert [state["bands"] for state in states] == [{}, {}, {}]
        assert (await ask(client, f"{sidecar.url}/state"))["bands"] == {"recommended": 3}


async def _first_state(
    stream: AsyncIterator[tuple[str, dict[str, Any]]],
) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    async for name, data in stream:
        if name == "state":
            yield name, data
            return


async def test_the_page_is_told_no_tables_that_it_does_not_show(client: ClientSession) -> None:
    async with watched() as sidecar:
        savings = (await ask(client, f"{sidecar.url}/state"))["savings"]
        assert {"total", "models", "since", "baseline"} <= set(savings)
        assert not {"hours", "tenants", "routes", "bands"} & set(savings)


async def test_a_ledger_that_is_busy_holds_up_nobody(client: ClientSession) -> None:
    async with watched() as sidecar:
        with sidecar.books.ledger._guard:
            asked = [asyncio.create_task(ask(client, sidecar.url + path)) for path in ("/savings", "/state")]
            # As long as the ledger's thread has the totals; probes and requests go on.
            for _ in range(5):
                assert await status(client, f"{sidecar.url}/livez") == 200
            assert not any(task.done() for task in asked)
        assert all("total" in (found.get("savings") or found) for found in await asyncio.gather(*asked))


async def _until(stream: AsyncIterator[tuple[str, dict[str, Any]]], identity: str) -> AsyncIterator[dict[str, Any]]:
    async for name, data in stream:
        if name == "exchange":
            yield data
            if data["id"] == identity:
                return


async def test_watchers_and_what_is_kept_are_bounded(client: ClientSession) -> None:
    async with watched() as sidecar:
        answers = [await client.get(f"{sidecar.url}/events") for _ in range(WATCHERS)]
        for answer in answers:
            await answer.content.readline()
        assert await status(client, f"{sidecar.url}/events") == 503
        for number in range(KEPT + 10):
            sidecar.exchange(str(number))
        assert sidecar.books.recent.find("5") is None
        assert sidecar.books.recent.find(str(KEPT)) is not None
        # A watcher that does not read holds a bounded backlog, and closing does not wait for it.
        assert all(queue.qsize() <= BACKLOG for queue in sidecar.books.recent.watchers)
        for answer in answers:
            answer.close()


async def test_open_watchers_do_not_hold_up_the_end(client: ClientSession) -> None:
    async with watched() as sidecar:
        answer = await client.get(f"{sidecar.url}/events")
        await answer.content.readline()
    rest = await answer.content.read()
    assert rest.startswith(b"data: ")


async def test_while_starting_it_says_so(client: ClientSession) -> None:
    async with watched() as sidecar:
        books, sidecar.admin.books = sidecar.admin.books, None
        assert await status(client, f"{sidecar.url}/savings") == 503
        assert await status(client, f"{sidecar.url}/") == 200
        sidecar.admin.books = books


async def test_long_texts_are_not_kept() -> None:
    async with watched(prompts=True) as sidecar:
        sidecar.exchange("long", "x" * 100_000)
        seen = sidecar.books.recent.find("long")
        assert seen is not None
        assert seen.decided is not None
        assert len(seen.decided.request.prompt) == 4096


@pytest.mark.parametrize(
    ("host", "expected"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("", False)],
)
def test_what_loopback_is(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected
