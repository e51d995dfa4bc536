"""A spent budget as a client meets it: 429 in the shape of its API, with the time to wait."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import pytest

from router_extproc import wire
from router_extproc.admission import Admission
from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.processor import Processor
from router_extproc.runtime import Runtimes
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import FakeClassifier
from tests.stream.conftest import CONFIG, compiled
from tests.stream.streams import Answers, chat, chunks_of, request

BUDGETS = "budgets: [{name: daily, usd: 0.05, when_spent: refuse}]\n"


async def routed(processor: Processor, content: bytes) -> Answers:
    messages = request(content)

    async def received() -> AsyncIterator[wire.Message]:
        for message in messages:
            yield wire.decode(message)

    return Answers([reply async for reply in processor.run(received())], chunks_of(messages))


async def test_a_spent_budget_answers_429_with_the_time_to_wait(classifier: FakeClassifier) -> None:
    metrics = Metrics()
    recorder = Recorder(metrics)
    budgets = Budgets(Accounts(), acted=recorder.budget_acted)
    runtimes = Runtimes(compiled(CONFIG + BUDGETS, classifier))
    processor = Processor(runtimes, recorder, admit=Admission(budgets).admit)
    # A thousand output tokens are reserved: $0.002 at the coder, $0.0002 at small, $0.015 at premium.
    answers = await routed(processor, chat("write code"))
    assert answers.plan == ["coder-cluster", "small", "premium"]
    for _ in range(2):
        await routed(processor, chat("write code"))
    answers = await routed(processor, chat("write code"))
    assert answers.plan == ["small", "coder-cluster"]
    assert "budget daily at 9" in str(answers.metadata["reason"])
    for _ in range(20):
        answers = await routed(processor, chat("something else"))
        if answers.replies[0].HasField("immediate_response"):
            break
    refused = answers.replies[0].immediate_response
    assert refused.status.code == 429
    found = {h.header.key: h.header.raw_value.decode() for h in refused.headers.set_headers}
    assert 0 < int(found["retry-after"]) <= 86_401
    error = json.loads(refused.body)["error"]
    assert (error["type"], error["code"]) == ("rate_limit_error", "budget_exceeded")
    assert 'mom_budget_actions_total{budget="daily",action="refused"} 1.0' in metrics.exposition().decode()


@pytest.mark.parametrize("budgets", ["", BUDGETS])
async def test_without_budgets_nothing_changes(classifier: FakeClassifier, budgets: str) -> None:
    runtimes, admission = Runtimes(compiled(CONFIG + budgets, classifier)), Admission(Budgets(Accounts()))
    processor = Processor(runtimes, Recorder(Metrics()), admit=admission.admit)
    answers = await routed(processor, chat("write code"))
    assert answers.plan == ["coder-cluster", "small", "premium"]
