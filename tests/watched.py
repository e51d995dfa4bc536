"""A sidecar's bookkeeping and admin port, without Envoy: tests tell the recorder what happened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from router_extproc.admin import STATE_SECONDS, Admin
from router_extproc.bookkeeping import MAX_FACTS, BookOptions, Books, keeping
from router_extproc.config.loader import parse
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, SignalValue, Usage
from router_extproc.inference.stats import Counters
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.signals.base import SHIPPED
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import REMEMBERED, Decided, Recorder
from router_extproc.testing import FakeClassifier

CONFIG = b"""
models:
  small: {url: "http://127.0.0.1:1", price: {input: 0.1, output: 0.3}}
  coder: {url: "http://127.0.0.1:2", price: {input: 0.4, output: 1.2}}
  premium: {url: "http://127.0.0.1:3", price: {input: 3, output: 15}}
signals:
  intent: {type: classifier, head: intent}
routes:
  - {name: code, when: 'intent.label == "code_generation"', models: coder, fallback: small}
  - {name: chat, when: 'intent.label == "small_talk"', models: small}
default: premium
ledger: {router_per_query: 0.00001}
"""
LABELS = {"intent": ("other", "code_generation", "small_talk")}
ANSWERS: dict[str, dict[str, str | tuple[str, float]]] = {
    "write code": {"intent": ("code_generation", 0.97)},
    "hello": {"intent": ("small_talk", 0.95)},
}


@dataclass
class Watched:
    """What a test can tell and ask."""

    recorder: Recorder
    metrics: Metrics
    books: Books
    admin: Admin
    runtimes: Runtimes

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.admin.port}"

    def feedback(self) -> dict[tuple[str, str, str], float]:
        """What is counted: by verdict, route and guard."""
        text = self.metrics.exposition().decode()
        return {
            (sample.labels["verdict"], sample.labels.get("route", ""), sample.labels.get("guard", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "mom_feedback_total"
        }

    def exchange(
        self, identity: str, prompt: str = "write code", teller: Recorder | None = None, **changes: Any
    ) -> None:
        """A request that was decided here and has ended, which Envoy tells `teller`."""
        request = LlmRequest("chat_completions", "auto", (1, 7), prompt, tokens=900)
        signals = SignalSet({"intent": SignalValue("code_generation", 0.97)})
        changes = {"route": "code", "band": "recommended"} | changes
        band = Band(changes["band"]) if changes["band"] in list(Band) else Band.RECOMMENDED
        decision = Decision(changes["route"], band, 0.97, ("coder",), "intent=code_generation 0.97 > 0.90")
        stages = (("body", 0.0004), ("classify", 0.0021), ("signals", 0.00002), ("policy", 0.00004))
        plan = Plan(("coder", "small", "premium"))
        self.recorder.decided(
            Decided(identity, request, signals, decision, plan, 0.0023, 1, stages, "acme", 1_790_000_000.0)
        )
        outcome = Outcome(identity, "chat_completions", 200, "coder", 1, 0.84, 0.21, Usage(1000, 100, 200))
        (teller or self.recorder).outcome(replace(outcome, **changes))


@asynccontextmanager
async def watched(
    *,
    host: str = "127.0.0.1",
    token: str | None = None,
    prompts: bool = False,
    state_dir: Path | None = None,
    more: bytes = b"",
    state_seconds: float = STATE_SECONDS,
    max_facts: int = MAX_FACTS,
    remembered: int = REMEMBERED,
) -> AsyncIterator[Watched]:
    """Everything in one process, on a free port. `more` is added to the configuration."""
    classifier = FakeClassifier(ANSWERS, LABELS)
    loaded = parse(CONFIG + more, Path("router.yaml"))
    runtimes = Runtimes(compile_runtime(loaded, {SHIPPED: LABELS}, {SHIPPED: classifier}))
    metrics, counters = Metrics(), Counters()
    recorder = Recorder(metrics, remembered=remembered)
    recorder.serves(1, newest=True)

    def facts() -> dict[str, Any]:
        return {"classifier": "fake-1", "ready": True}

    admin = Admin(host, 0, metrics, lambda: runtimes, lambda: True, facts, token=token, state_seconds=state_seconds)
    async with keeping(
        BookOptions(state_dir, prompts, max_facts=max_facts),
        *(recorder, metrics, runtimes, lambda: counters.snapshot(queued=0, queued_bytes=0), facts),
    ) as books:
        admin.books = books
        await admin.start()
        try:
            yield Watched(recorder, metrics, books, admin, runtimes)
        finally:
            await admin.close()
