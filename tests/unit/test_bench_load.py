"""The load generator against a real server on loopback, and its reader of answers byte by byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from bench.http_answer import AnswerReader, BadAnswer, verdict
from bench.load import measure, quantiles
from bench.prompts import MIXED, SIZES, templates

PLAIN = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nx-mom-band: default\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n5;x=1\r\nhello\r\n1\r\n!\r\n0\r\n\r\n"


@pytest.mark.parametrize(("answer", "status"), [(PLAIN, 200), (CHUNKED, 503)])
def test_an_answer_is_complete_with_its_last_byte_however_it_is_cut(answer: bytes, status: int) -> None:
    for size in range(1, len(answer) + 1):
        reader = AnswerReader()
        pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
        assert [reader.feed(piece) for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert reader.status == status


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.0 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\nno length",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nmore",
        b"x" * 70_000,
    ],
)
def test_an_answer_that_cannot_be_read_is_an_error(answer: bytes) -> None:
    with pytest.raises(BadAnswer):
        AnswerReader().feed(answer)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ("", "none"),
        ("x-mom-band: recommended\r\nx-mom-reason: intent=code 0.98 > 0.90\r\n", "decided"),
        ("x-mom-band: default\r\nx-mom-reason: no rule matched\r\n", "decided"),
        ("x-mom-band: default\r\nx-mom-reason: signals late\r\n", "late"),
        ("x-mom-band: default\r\nx-mom-reason: signals overloaded\r\n", "overloaded"),
        ("x-mom-band: default\r\nx-mom-reason: internal error\r\n", "failed"),
        ("x-mom-band: recommended\r\nx-mom-reason: domain=translated 0.95 > 0.90\r\n", "decided"),
    ],
)
def test_an_answer_that_skipped_the_classifier_is_told_apart(headers: str, expected: str) -> None:
    reader = AnswerReader()
    assert reader.feed(f"HTTP/1.1 200 OK\r\n{headers}content-length: 0\r\n\r\n".encode())
    assert verdict(reader) == expected


def test_bodies_are_requests_and_no_prompt_comes_twice() -> None:
    mixed = templates(MIXED)
    assert [template.size for template in mixed[: len(SIZES)]] == list(SIZES)
    for template in mixed:
        bodies = [template.body(number) for number in range(50)]
        assert len(set(bodies)) == 50
        assert {len(body) for body in bodies} == {len(bodies[0])}
        content = json.loads(bodies[7])["messages"][0]["content"]
        # A classifier reads long texts in windows: none of them may be the same in two prompts.
        assert all("0000000007" in content[start : start + 600] for start in range(0, max(1, len(content) - 600), 50))


def test_quantiles_are_milliseconds_by_nearest_rank() -> None:
    assert quantiles([]) == {}
    found = quantiles([number / 1000 for number in range(100, 0, -1)])
    assert {name: round(value, 6) for name, value in found.items()} == {
        "p50": 51,
        "p90": 91,
        "p99": 100,
        "mean": 50.5,
        "max": 100,
    }


@asynccontextmanager
async def serving(answer: Callable[[int], bytes | None]) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers its n-th request with `answer(n)`, or closes the connection where that is None."""
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length: "))
                seen.append(await reader.readexactly(int(length.split()[1])))
                content = answer(len(seen))
                if content is None:
                    break
                writer.write(content)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1/chat/completions", seen
    finally:
        server.close()
        await server.wait_closed()


async def test_every_connection_asks_again_when_answered() -> None:
    async with serving(lambda _: PLAIN) as (url, seen):
        found = await measure(url, connections=3, seconds=0.3, warm_up=0.05, prompts=MIXED)
    assert found["errors"] == {}
    assert found["answers"] >= found["requests"] > 3
    assert found["verdicts"] == {"decided": found["requests"]}
    assert set(found["sizes"]) == set(SIZES)
    assert 0 < found["ms"]["p50"] <= found["ms"]["p99"] <= found["ms"]["max"]
    assert {json.loads(body)["model"] for body in seen} == {"auto"}
    assert len(set(seen)) == len(seen)


async def test_what_is_no_success_is_an_error_and_no_latency() -> None:
    answers = {0: PLAIN, 1: CHUNKED, 2: None}
    async with serving(lambda number: answers[number % 3]) as (url, _):
        found = await measure(url, connections=1, seconds=0.3, warm_up=0, prompts="short")
    assert set(found["errors"]) == {"status 503", "connection closed"}
    assert found["requests"] > 0
    assert list(found["sizes"]) == ["short"]


async def test_a_server_that_is_not_there_ends_in_time_with_errors() -> None:
    async with serving(lambda _: PLAIN) as (url, _):
        pass
    found = await measure(url, connections=2, seconds=0.2, warm_up=0, prompts="short")
    assert found["requests"] == 0
    assert found["ms"] == {}
    assert [why for why in found["errors"] if why.startswith("connect: ")] == list(found["errors"])
    assert sum(found["errors"].values()) >= 2
