"""Two sidecars behind one Envoy share a redis-server: budgets and classifications, whatever becomes of that server."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Any

import httpx
import pytest
import redis

from router_extproc.config.loader import load
from router_extproc.domain import Usage
from router_extproc.prices import cost_of
from tests.e2e import load as clients
from tests.e2e.conftest import LIMITS, registered
from tests.e2e.load import Answered
from tests.e2e.stack import Sidecar, Stack, get, running, wait_until, write_config
from tests.redis_server import RedisServer, needs_redis, redis_server

pytestmark = needs_redis

CODE = "Write a Python function that sorts a list"
SHARED = """
ledger: {{tenant_header: x-tenant}}
budgets:
  - {{name: everything, window: month, usd: 1000}}
  - {{name: small, per: tenant, only: poor, window: month, tokens: 3000, when_spent: refuse}}
store: {{url: "{url}", wait_ms: 500, timeout_ms: 1000}}
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory, server: RedisServer) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("shared")
    config = write_config(directory, LIMITS + SHARED.format(url=server.url))
    with running(directory, config, sidecars=2) as found, registered(found):
        yield found


def budget(sidecar: Sidecar, name: str) -> dict[str, Any]:
    shown = json.loads(get(f"{sidecar.admin}/budgets"))["budgets"]
    return next((row for row in shown if row["budget"] == name), {"spent": "0", "reserved": "0"})


def in_store(sidecar: Sidecar) -> bool:
    return bool(json.loads(get(f"{sidecar.admin}/budgets"))["store"] == "ok")


def costs(stack: Stack, answers: Iterable[tuple[str | None, str]]) -> Decimal:
    """What answers cost, by the model's name and the body that each client got."""
    models = load(stack.config).config.models
    total = Decimal(0)
    for model, body in answers:
        usage = json.loads(body)["usage"]
        total += cost_of(models[model or ""].price, Usage(usage["prompt_tokens"], usage["completion_tokens"]))
    return total


def decided(sidecar: Sidecar) -> float:
    lines = [line for line in sidecar.metrics().splitlines() if line.startswith("mom_decisions_total{")]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


def agreed(pair: Stack) -> Decimal:
    """What is spent, once both are asked by Envoy, say the same and hold nothing."""
    pair.wait_sidecars(len(pair.sidecars))

    def same() -> list[str]:
        rows = [budget(sidecar, "everything") for sidecar in pair.sidecars]
        spent = {row["spent"] for row in rows if row["reserved"] == "0" and in_store(pair.sidecars[0])}
        return list(spent) if len(spent) == 1 and all(row["reserved"] == "0" for row in rows) else []

    [spent] = wait_until(same, "both say the same")
    return Decimal(spent)


def settled(pair: Stack, spent: Decimal) -> None:
    """Until every sidecar knows of that much, and nothing is held any more."""
    for sidecar in pair.sidecars:
        wait_until(
            lambda sidecar=sidecar: (
                (row := budget(sidecar, "everything"))  # type: ignore[misc] # takes no default
                and (Decimal(row["spent"]), row["reserved"]) == (spent, "0")
            ),
            f"{spent} spent, {budget(sidecar, 'everything')}",
        )


def test_a_budget_is_spent_over_both(pair: Stack) -> None:
    body = {"model": "auto", "max_tokens": 200, "messages": [{"role": "user", "content": CODE}]}
    answers: list[httpx.Response] = []
    with httpx.Client(timeout=30) as http:
        # Envoy draws the sidecar by lot, and few requests fit the budget: until both have had their turn.
        while not all(decided(sidecar) for sidecar in pair.sidecars):
            assert http.post(f"{pair.url}/v1/chat/completions", json=body | {"max_tokens": 1}).status_code == 200
        before = agreed(pair)
        while not answers or answers[-1].status_code == 200:
            answers.append(http.post(f"{pair.url}/v1/chat/completions", json=body, headers={"x-tenant": "poor"}))
            assert len(answers) < 200
    refused = answers.pop()
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "budget_exceeded")
    assert len(answers) > 3
    used = sum(answer.json()["usage"]["total_tokens"] for answer in answers)
    assert used <= 3000
    settled(pair, before + costs(pair, ((answer.headers["x-mom-model"], answer.text) for answer in answers)))
    for sidecar in pair.sidecars:
        assert decided(sidecar) > 0
        assert (budget(sidecar, "small")["spent"], budget(sidecar, "small")["reserved"]) == (str(used), "0")


def lookups(sidecar: Sidecar, result: str) -> float:
    name = f'mom_classifier_lookups_total{{where="store",result="{result}"}} '
    return sum(float(line.removeprefix(name)) for line in sidecar.metrics().splitlines() if line.startswith(name))


def test_what_one_has_classified_the_other_knows(pair: Stack, server: RedisServer) -> None:
    """Ever new prompts, each asked of both: some answer of the store comes before the classifier's own."""

    def ask(number: int) -> None:
        messages = [{"role": "user", "content": f"Explain how a lighthouse of type {number} works. " * 15}]
        answer = http.post(f"{pair.url}/v1/chat/completions", json={"model": "auto", "messages": messages})
        assert answer.status_code == 200

    with httpx.Client(timeout=30) as http, redis.Redis.from_url(server.url) as store:
        for number in range(30):
            before = [decided(sidecar) for sidecar in pair.sidecars]
            known = len(list(store.scan_iter("{mom}:c:*")))
            ask(number)
            wait_until(lambda known=known: len(list(store.scan_iter("{mom}:c:*"))) > known, "written")  # type: ignore[misc] # takes no default
            while any(decided(sidecar) <= count for sidecar, count in zip(pair.sidecars, before, strict=True)):
                ask(number)
            if sum(lookups(sidecar, "hit") for sidecar in pair.sidecars):
                break
        assert not any(b"lighthouse" in (store.get(key) or b"") for key in store.scan_iter("{mom}:c:*"))
    assert sum(lookups(sidecar, "hit") for sidecar in pair.sidecars) >= 1
    assert sum(lookups(sidecar, "miss") for sidecar in pair.sidecars) >= 1
    assert all('mom_store_up{use="classifications"} 1.0' in sidecar.metrics() for sidecar in pair.sidecars)


def test_the_store_is_killed_and_comes_back(pair: Stack, server: RedisServer) -> None:
    """No request fails, and no cent is missing or counted twice."""
    before = agreed(pair)

    def answered(answer: Answered) -> bool:
        return answer.status == 200

    with clients.load(pair.url, CODE) as load_:
        load_.wait(answered, 20, "answers before")
        server.kill()
        load_.wait(answered, 60, "answers without the store")
        assert not any(map(in_store, pair.sidecars))
        server.start()
        wait_until(lambda: all(map(in_store, pair.sidecars)), "the store is used again")
        load_.wait(answered, 20, "answers after")
    assert not load_.failed
    assert all(answer.route == "code" for answer in load_.answers)
    settled(pair, before + costs(pair, ((answer.model, answer.error) for answer in load_.answers)))
    metrics = "".join(sidecar.metrics() for sidecar in pair.sidecars)
    assert 'mom_budget_alone_total{reason="down"}' in metrics
    assert metrics.count('mom_store_up{use="budgets"} 1.0') == 2


def test_a_store_that_hangs_holds_up_nobody(pair: Stack, server: RedisServer) -> None:
    before = agreed(pair)
    with clients.load(pair.url, CODE) as load_:
        load_.wait(lambda answer: answer.status == 200, 20, "answers before")
        server.hang()
        load_.wait(lambda answer: answer.status == 200, 60, "answers without the store")
        server.go_on()
        load_.wait(lambda answer: answer.status == 200, 20, "answers after")
    assert not load_.failed
    settled(pair, before + costs(pair, ((answer.model, answer.error) for answer in load_.answers)))


def test_a_sidecar_that_is_killed_knows_the_total_when_it_comes_back(pair: Stack) -> None:
    first = pair.sidecars[0]
    before = agreed(pair)
    assert first.process is not None
    first.process.kill()
    pair.wait_sidecars(1)
    first.start()
    pair.wait_sidecars(2)
    with clients.load(pair.url, CODE) as load_:
        wait_until(lambda: decided(first) > 0, "a decision by the first")
    settled(pair, before + costs(pair, ((answer.model, answer.error) for answer in load_.answers)))
