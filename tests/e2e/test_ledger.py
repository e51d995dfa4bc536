"""Money through the real Envoy: every way in which an exchange can end is priced, and a kill loses nothing."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import openai
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from router_extproc.config.loader import load
from router_extproc.config.schema import RouterConfig
from router_extproc.decision_log import read_log
from router_extproc.domain import Usage
from router_extproc.prices import cost_of
from tests.e2e.conftest import LIMITS, registered
from tests.e2e.stack import Stack, get, running, wait_until, write_config

CODE = {"model": "auto", "messages": [{"role": "user", "content": "Write a Python function that sorts a list"}]}
LEDGER = """
ledger: {tenant_header: x-tenant, router_per_query: 0.00002}
budgets: [{name: tiny, per: tenant, only: poor, tokens: 10, when_spent: refuse}]
"""

PREMIUM = "{input: 3.00, output: 15.00}"
PREMIUM_WITH_CACHE = "{input: 3.00, output: 15.00, cached_input: 0.30, cache_write: 3.75}"


class Collector:
    """Keeps the spans that it is sent, as an OpenTelemetry collector would."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.path == "/v1/traces":
                    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                        spans.extend(resource.scope_spans[0].spans)
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    found = Collector()
    thread = threading.Thread(target=found.server.serve_forever, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def books(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("books")
    config = write_config(directory, LIMITS + LEDGER, lambda text: text.replace(PREMIUM, PREMIUM_WITH_CACHE))
    otlp = f"http://127.0.0.1:{collector.server.server_port}"
    flags = ("--state-dir", str(directory / "state"), "--otlp-endpoint", otlp)
    with running(directory, config, flags=flags) as found, registered(found):
        yield found


@pytest.fixture
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def savings(stack: Stack) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(get(f"{stack.sidecars[0].admin}/savings"))
    return found


def after(stack: Stack, requests: int) -> dict[str, Any]:
    """The totals once that many requests are in."""
    return dict(wait_until(lambda: (s := savings(stack))["total"]["requests"] >= requests and s, "priced"))


def post(stack: Stack, http: httpx.Client, body: dict[str, Any], **headers: str) -> httpx.Response:
    return http.post(f"{stack.url}/v1/chat/completions", json=body, headers=headers)


def price(config: RouterConfig, model: str, usage: dict[str, Any]) -> Decimal:
    return cost_of(config.models[model].price, Usage(usage["prompt_tokens"], usage["completion_tokens"]))


def on_disk(stack: Stack) -> int:
    segments = (stack.directory / "state").glob("ledger-*.jsonl")
    return sum(len(segment.read_bytes().splitlines()) - 1 for segment in segments)


def test_every_end_of_an_exchange_is_priced(books: Stack, http: httpx.Client) -> None:
    config = load(books.config).config
    before, failed = savings(books)["total"], failed_attempts(books, "coder")

    answer = post(books, http, CODE, **{"x-tenant": "acme"})
    model, usage = answer.headers["x-mom-model"], answer.json()["usage"]
    # By its tenant, who sends nothing else: the last request of another test may still be on its way into the totals.
    found = dict(wait_until(lambda: (s := savings(books)) and "acme" in s["tenants"] and s, "priced"))
    cost = price(config, model, usage)
    baseline = price(config, "premium", usage)
    assert Decimal(found["tenants"]["acme"]["cost"]) == cost
    assert Decimal(found["tenants"]["acme"]["baseline"]) == baseline
    assert Decimal(found["tenants"]["acme"]["saved"]) == baseline - cost - Decimal("0.00002")
    assert found["tenants"]["acme"]["estimated"] == 0

    # Streamed with usage, streamed without, broken off by the client, moved on after a failure, all failed, refused.
    streamed = post(
        books, http, CODE | {"stream": True, "stream_options": {"include_usage": True}}, **{"x-tenant": "s"}
    )
    assert streamed.status_code == 200
    assert post(books, http, CODE | {"stream": True}, **{"x-tenant": "estimated"}).status_code == 200
    headers = {"x-tenant": "aborted"}
    with http.stream("POST", f"{books.url}/v1/chat/completions", json=CODE | {"stream": True}, headers=headers) as left:
        next(left.iter_lines())
    books.server("coder").fail("status", status=503)
    moved = post(books, http, CODE, **{"x-tenant": "moved"})
    for name in ("coder", "general", "premium"):
        books.server(name).fail("status", status=503)
    assert post(books, http, CODE, **{"x-tenant": "failed"}).status_code == 503
    assert post(books, http, {"model": "nobody", "messages": []}, **{"x-tenant": "refused"}).status_code in (400, 404)

    found = after(books, before["requests"] + 7)
    by = found["tenants"]
    assert by["s"]["estimated"] == 0
    assert by["s"]["output"] > 0
    assert (by["estimated"]["estimated"], by["aborted"]["estimated"]) == (1, 1)
    assert by["estimated"]["input"] > 0
    assert by["estimated"]["output"] > by["aborted"]["output"]
    assert Decimal(by["moved"]["cost"]) == price(config, moved.headers["x-mom-model"], moved.json()["usage"])
    assert (by["failed"]["cost"], by["failed"]["answered"], by["failed"]["saved"]) == ("0", 0, "-0.00002")
    assert "refused" not in by
    # The models that failed are those that the attempts count for.
    assert failed_attempts(books, "coder") == failed + 2
    for table in ("routes", "models", "tenants", "bands", "hours"):
        assert sum(Decimal(row["cost"]) for row in found[table].values()) == Decimal(found["total"]["cost"])
    text = books.sidecars[0].metrics()
    assert f'mom_cost_total{{model="{model}",route="code"}}' in text
    assert 'gen_ai_client_token_usage_count{gen_ai_operation_name="chat",gen_ai_provider_name="openai"' in text


def test_a_stream_that_breaks_off_is_no_success(books: Stack, http: httpx.Client) -> None:
    def told(answer: httpx.Response) -> dict[str, Any]:
        url = f"{books.sidecars[0].admin}/decisions/{answer.headers['x-mom-decision-id']}"
        found: dict[str, Any] = wait_until(lambda: json.loads(get(url)).get("outcome"), "the outcome")
        return found

    # What was given up for another model has not broken off.
    books.server("coder").fail("reset")
    assert "broken" not in told(post(books, http, CODE | {"stream": True}))
    books.server("coder").fail("cut", chunks=4)
    with http.stream("POST", f"{books.url}/v1/chat/completions", json=CODE | {"stream": True}) as answer:
        with pytest.raises(httpx.RemoteProtocolError):
            list(answer.iter_raw())
        found = told(answer)
    assert (found["status"], found["model"], found["broken"]) == (200, "coder", True)
    labels = 'model="coder",status="200",error_type="stream_broken"'
    assert f"mom_outcomes_total{{{labels}}} 1.0" in books.sidecars[0].metrics()


def failed_attempts(stack: Stack, model: str) -> float:
    """Attempts at a model that were not the last of their exchange."""
    text = stack.sidecars[0].metrics()
    found = re.findall(rf'^mom_(upstream_attempts|outcomes)_total{{model="{model}"[^}}]*}} (\S+)$', text, re.MULTILINE)
    return sum(float(value) if name == "upstream_attempts" else -float(value) for name, value in found)


@pytest.mark.parametrize("stream", [False, True])
def test_what_the_providers_cache_gave_and_took_has_its_own_price(
    books: Stack, http: httpx.Client, stream: bool
) -> None:
    tenant = f"cache-{stream}"
    body = {"model": "premium", "max_tokens": 99, "messages": CODE["messages"], "stream": stream}
    headers = {"x-tenant": tenant, "anthropic-version": "2023-06-01"}
    books.server("premium").cache = {"cache_creation_input_tokens": 9000, "cache_read_input_tokens": 500}
    try:
        assert http.post(f"{books.url}/v1/messages", json=body, headers=headers).status_code == 200
    finally:
        books.server("premium").cache = {}
    found = dict(wait_until(lambda: savings(books)["tenants"].get(tenant), "priced"))
    assert (found["cached"], found["cache_write"], found["estimated"]) == (500, 9000, 0)
    # Anthropic counts them beside the input, Envoy adds them to it.
    plain = found["input"] - 9500
    assert 0 < plain < 500
    micro = 3 * plain + Decimal("0.3") * 500 + Decimal("3.75") * 9000 + 15 * found["output"]
    assert Decimal(found["cost"]) == micro / 10**6


def test_a_decision_can_be_looked_up_by_the_id_that_the_client_got(books: Stack, http: httpx.Client) -> None:
    answer = post(books, http, CODE)
    url = f"{books.sidecars[0].admin}/decisions/{answer.headers['x-mom-decision-id']}"
    found = wait_until(lambda: (d := json.loads(get(url))).get("outcome") and d, "the outcome")
    assert found["outcome"]["status"] == 200
    assert found["plan"][0] == answer.headers["x-mom-model"]
    assert [rule["verdict"] for rule in found["routes"]].count("matched") == 1
    assert found["outcome"]["tokens"]["input"] == answer.json()["usage"]["prompt_tokens"]
    logged = wait_until(
        lambda: [line for line in read_log(books.directory / "state") if line["id"] == found["id"]], "the log line"
    )
    assert logged[0]["signals"] == found["signals"]
    assert "Python" not in json.dumps(logged)


def test_a_browser_s_preflight_is_no_exchange(books: Stack, http: httpx.Client) -> None:
    def unanswered() -> list[str]:
        text = books.sidecars[0].metrics()
        return re.findall(r'^mom_outcomes_total{model="none",status="404"}.*$', text, re.MULTILINE)

    before = unanswered()
    assert http.options(f"{books.url}/v1/chat/completions").status_code == 404
    assert post(books, http, CODE, **{"x-tenant": "browser"}).status_code == 200
    # On the same connection, so that Envoy has told of the other by then.
    wait_until(lambda: "browser" in savings(books)["tenants"], "priced")
    assert unanswered() == before


def test_one_trace_joins_the_caller_the_sidecar_and_the_model(
    books: Stack, http: httpx.Client, collector: Collector
) -> None:
    trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    answer = post(books, http, CODE, traceparent=f"00-{trace}-{parent}-01")
    [seen] = books.server(answer.headers["x-mom-model"]).seen
    spans = wait_until(lambda: [s for s in collector.spans if s.trace_id.hex() == trace], "spans")
    (route,) = (span for span in spans if span.name == "mom.route")
    (chat,) = (span for span in spans if span.name.startswith("chat "))
    assert route.parent_span_id.hex() == parent
    assert chat.parent_span_id == route.span_id
    assert seen.headers["traceparent"] == f"00-{trace}-{chat.span_id.hex()}-01"
    post(books, http, CODE, traceparent=f"00-{'1' * 32}-{parent}-00")
    assert post(books, http, CODE).status_code == 200
    assert {span.trace_id.hex() for span in collector.spans} == {trace}


def test_a_spent_budget_is_a_429_with_the_time_to_wait(books: Stack) -> None:
    client = openai.OpenAI(base_url=f"{books.url}/v1", api_key="sk-client", max_retries=0)
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**CODE, extra_headers={"x-tenant": "poor"})  # type: ignore[call-overload]
    assert caught.value.code == "budget_exceeded"
    assert 0 < int(caught.value.response.headers["retry-after"]) <= 86_401
    assert not books.server("coder").seen
    # Envoy's line of the answer has no decision id; it is joined all the same.
    url = f"{books.sidecars[0].admin}/decisions/{caught.value.response.headers['x-mom-decision-id']}"
    found = wait_until(lambda: (d := json.loads(get(url))).get("outcome") and d, "the outcome")
    assert (found["outcome"]["status"], found["outcome"]["details"]) == (429, "mom_budget_exceeded")


def test_a_killed_sidecar_has_lost_nothing(books: Stack, http: httpx.Client) -> None:
    before = savings(books)["total"]["requests"]
    for _ in range(20):
        assert post(books, http, CODE).status_code == 200
    known = after(books, before + 20)
    wait_until(lambda: on_disk(books) >= known["total"]["requests"], "written", 1.0)
    process = books.sidecars[0].process
    assert process is not None
    process.kill()
    books.sidecars[0].start()
    assert savings(books)["total"] == known["total"]
    books.wait_sidecars(1)
