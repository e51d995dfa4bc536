"""Every way a body can come, in every mode in which Envoy can hand it to the sidecar."""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Iterator

import httpx
import pytest

from router_extproc.config.envoy import BodyMode
from tests.e2e.conftest import LIMITS, registered
from tests.e2e.stack import Stack, running, wait_until, write_config
from tests.e2e.trailers import posted_with_trailers


@pytest.fixture(scope="module")
def shared(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[BodyMode, Stack]]:
    """An Envoy per mode, all with the same sidecar."""
    address = stack.sidecars[0].address
    found = {BodyMode.STREAMED: stack}
    names = (BodyMode.FULL_DUPLEX, BodyMode.BUFFERED)
    directories = [tmp_path_factory.mktemp(name) for name in names]
    configs = [write_config(directory, LIMITS) for directory in directories]
    with (
        running(directories[0], configs[0], sidecars=0, addresses=[address], body_mode=names[0]) as duplex,
        running(directories[1], configs[1], sidecars=0, addresses=[address], body_mode=names[1]) as buffered,
        registered(duplex),
        registered(buffered),
    ):
        yield {**found, names[0]: duplex, names[1]: buffered}


@pytest.fixture(params=list(BodyMode))
def any_mode(request: pytest.FixtureRequest, shared: dict[BodyMode, Stack]) -> Stack:
    return shared[request.param]


def body_of(size: int, model: str = "auto") -> bytes:
    """A chat request of `size` bytes that is no fun to parse. The bulk is no prompt: it would fit no context window."""
    prompt = b"Write a Python function that sorts"
    head = b'{"metadata":{"model":"no","x":"'
    tail = (
        b'","e":"\\u00e9\\"\\\\"},"n":1e-7,"messages":[{"role":"user","content":"' + prompt + b'"}],"model":"'
    ) + model.encode()
    return head + b"x\\n" * ((size - len(head) - len(tail) - 2) // 3) + tail + b'"}'


def check(stack: Stack, body: bytes) -> None:
    [seen] = stack.server("coder").seen
    expected = body.replace(b'"model":"auto"', b'"model":"coder-32b"')
    assert (seen.size, seen.sha1) == (len(expected), hashlib.sha1(expected).hexdigest())
    assert int(seen.headers["content-length"]) == seen.size


@pytest.mark.parametrize("size", [200, 60_000, 1_500_000, 12_000_000])
def test_bodies_arrive_byte_by_byte(any_mode: Stack, size: int) -> None:
    body = body_of(size)
    answer = httpx.post(f"{any_mode.url}/v1/chat/completions", content=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-mom-route"] == "code"
    check(any_mode, body)


def test_a_big_body_fails_over(any_mode: Stack) -> None:
    any_mode.server("coder").fail("status", status=503)
    body = body_of(3_000_000)
    answer = httpx.post(f"{any_mode.url}/v1/chat/completions", content=body, timeout=60)
    assert (answer.status_code, answer.headers["x-mom-model"]) == (200, "general"), answer.text
    check(any_mode, body)
    [seen] = any_mode.server("general").seen
    expected = body.replace(b'"model":"auto"', b'"model":"general-70b"')
    assert (seen.size, seen.sha1) == (len(expected), hashlib.sha1(expected).hexdigest())


def test_chunked_uploads(any_mode: Stack) -> None:
    body = body_of(20_000)

    def pieces() -> Iterator[bytes]:
        for at in range(0, len(body), 777):
            yield body[at : at + 777]

    answer = httpx.post(f"{any_mode.url}/v1/chat/completions", content=pieces(), timeout=60)
    assert answer.status_code == 200, answer.text
    check(any_mode, body)


def test_http2(any_mode: Stack) -> None:
    body = body_of(300_000)
    with httpx.Client(http1=False, http2=True, timeout=60) as client:
        answer = client.post(f"{any_mode.url}/v1/chat/completions", content=body)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200), answer.text
    check(any_mode, body)


def test_trailers(any_mode: Stack) -> None:
    body = body_of(500)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(any_mode.url).port or 0), timeout=30) as client:
        client.sendall(head + f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\nx-sum: 1\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
    check(any_mode, body)


@pytest.mark.parametrize("with_length", [False, True])
def test_trailers_over_http2(any_mode: Stack, with_length: bool) -> None:
    body = body_of(500)
    extra = {"content_length": str(len(body))} if with_length else {}
    answer = posted_with_trailers(any_mode, body, **extra)
    assert (answer[":status"], answer["x-mom-route"]) == ("200", "code")
    check(any_mode, body)


@pytest.mark.parametrize("late", [b"", b"\r\n", b'{"model":"premium"}'])
def test_a_client_that_says_late_that_it_has_sent_all(stack: Stack, late: bytes) -> None:
    """By then the sidecar has answered: what was not read reaches no model."""
    body = body_of(400)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", httpx.URL(stack.url).port or 0), timeout=30) as client:
        client.sendall(head + f"{len(body):x}\r\n".encode() + body + b"\r\n")
        time.sleep(2)  # the pause is what is tested
        client.sendall((f"{len(late):x}\r\n".encode() + late + b"\r\n" if late else b"") + b"0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x-mom-route: code" in answer
    check(stack, body)


def test_mistakes_are_answered_in_the_apis_shape(any_mode: Stack) -> None:
    chat, messages = f"{any_mode.url}/v1/chat/completions", f"{any_mode.url}/v1/messages"
    ask = {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 5}
    cases = [
        (b"{", 400, "invalid_request_error"),
        (b"", 400, "invalid_request_error"),
        (json.dumps(ask | {"model": "nobody"}).encode(), 404, "not_found_error"),
        (body_of(200).replace(b'"model":"auto"', b'"model":"auto","model":"b"'), 400, "invalid_request_error"),
    ]
    for body, status, kind in cases:
        openai, anthropic = (httpx.post(url, content=body, timeout=30) for url in (chat, messages))
        assert (openai.status_code, anthropic.status_code) == (status, status), (body[:50], openai.text)
        assert openai.json()["error"]["type"] == "invalid_request_error"
        assert (anthropic.json()["type"], anthropic.json()["error"]["type"]) == ("error", kind)
        assert openai.headers["content-type"] == anthropic.headers["content-type"] == "application/json"
    assert not any(server.seen for server in any_mode.models.servers.values())


def test_a_body_over_the_limit(any_mode: Stack) -> None:
    answer = httpx.post(f"{any_mode.url}/v1/chat/completions", content=body_of(36_000_000), timeout=60)
    assert answer.status_code == 413
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_client_that_leaves_while_it_sends(any_mode: Stack) -> None:
    url = httpx.URL(any_mode.url)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", url.port or 0)) as client:
            client.sendall(head + b'{"model":"auto",')
    wait_until(lambda: any_mode.counter("http.mom.downstream_rq_active") == 0, "no request left in Envoy")
    assert not any_mode.server("coder").seen
    assert httpx.post(f"{any_mode.url}/v1/chat/completions", content=body_of(300), timeout=30).status_code == 200


def test_a_client_that_leaves_while_it_is_answered(any_mode: Stack) -> None:
    body = body_of(300)[:-1] + b',"stream":true}'
    with httpx.stream("POST", f"{any_mode.url}/v1/chat/completions", content=body, timeout=30) as answer:
        assert next(answer.iter_lines()).startswith("data:")
    wait_until(lambda: any_mode.counter("http.mom.downstream_rq_active") == 0, "no request left in Envoy")
    wait_until(lambda: any_mode.counter("cluster.coder.upstream_rq_active") == 0, "no request left at the model")


def test_a_client_that_pauses_while_it_sends(stack: Stack) -> None:
    """Longer than the deadline: that begins with the last byte."""
    body = body_of(400)
    url = httpx.URL(stack.url)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", url.port or 0), timeout=30) as client:
        client.sendall(head.encode() + body[:100])
        time.sleep(0.5)  # the pause is what is tested
        client.sendall(body[100:])
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"x-mom-route: code" in answer
