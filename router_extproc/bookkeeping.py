"""Everything that keeps count beside the requests: ledger, decision log, metrics of the engine and of the loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router_extproc import __version__
from router_extproc.budget_accounts import Accounts
from router_extproc.budget_file import SAVE_SECONDS
from router_extproc.budgets import Budgets
from router_extproc.config.providers import GEN_AI_PROVIDERS, endpoint_of, upstream_name
from router_extproc.config.schema import RouterConfig
from router_extproc.decision_log import DecisionLog
from router_extproc.domain import Outcome
from router_extproc.feedback import FeedbackBox
from router_extproc.inference.stats import EngineStats
from router_extproc.ledger import Ledger
from router_extproc.recent import Recent
from router_extproc.runtime import Runtime, Runtimes
from router_extproc.stores.background import Background, sharing
from router_extproc.stores.base import Store
from router_extproc.telemetry import instruments
from router_extproc.telemetry.context import Sampler
from router_extproc.telemetry.loop import watch_lag
from router_extproc.telemetry.metrics import Metrics, Values
from router_extproc.telemetry.recorder import Decided, Recorder, Served, Work
from router_extproc.telemetry.tracing import Tracing

if TYPE_CHECKING:
    from router_extproc.telemetry.otlp import Collector

log = logging.getLogger(__name__)

OBSERVE_SECONDS = 5.0
MEASURE_SECONDS = 0.25
MAX_FACTS = 8192


@dataclass(frozen=True, slots=True)
class BookOptions:
    """`state_dir` holds ledger and decision log (None: neither outlives the process). `prompts` lets texts into it.

    Traces and metrics go to `otlp_endpoint`; `trace_ratio` of the exchanges are traced, and all that a caller traces.
    At most `max_facts` (at least 1) wait to be measured, two of a request; beyond it they are dropped and counted.
    """

    state_dir: Path | None = None
    prompts: bool = False
    log_bytes: int = 256 * 1024 * 1024
    otlp_endpoint: str | None = None
    trace_ratio: float = 0.0
    max_facts: int = MAX_FACTS


@dataclass(frozen=True, slots=True)
class Books:
    """What the admin port shows."""

    ledger: Ledger
    log: DecisionLog
    recent: Recent
    budgets: Budgets
    feedback: FeedbackBox
    queued: Callable[[], int]
    """Windows of text that wait for the classifier."""


@contextlib.asynccontextmanager
async def keeping(
    options: BookOptions,
    recorder: Recorder,
    metrics: Metrics,
    runtimes: Runtimes,
    stats: Callable[[], EngineStats],
    versions: Callable[[], dict[str, Any]],
    store: Store | None = None,
    collector: Collector | None = None,
) -> AsyncIterator[Books]:
    """Listens to the recorder until left; what waits then is written first. Raises JournalTaken or OSError.

    Budgets are shared through `store`, for as long as the configuration that serves now has it. `collector` gets the
    traces.
    """

    def config() -> RouterConfig:
        return runtimes.current.config

    ledger = Ledger(config, options.state_dir, on_entry=recorder.priced)
    lines = DecisionLog(
        config,
        options.state_dir,
        prompts=options.prompts,
        max_bytes=options.log_bytes,
        versions=lambda: {"router": __version__, **versions()},
    )

    recent = Recent(config, prompts=options.prompts)
    section = config().store
    accounts = Accounts(
        options.state_dir, store=store if section.budgets else None, wait_seconds=section.wait_ms / 1000
    )
    budgets = Budgets(accounts, acted=recorder.budget_acted, alone=recorder.budget_alone)

    def on_outcome(outcome: Outcome | None, decided: Decided | None) -> None:
        if outcome is not None and decided is not None:
            runtimes.current.router.answered(outcome, decided.session)
        if outcome is not None:
            ledger.outcome(outcome)
            budgets.settle(outcome, config())
        lines.record(outcome, decided)
        recent.outcome(outcome, decided)

    used: Values = {}
    evicted: Values = {}

    def observe() -> None:
        nonlocal used, evicted
        if accounts.trouble is not None:
            recorder.store_answers("budgets", not accounts.trouble)
            accounts.ask(config())
        used = {(name,): part for name, part in accounts.fullest(config()).items()}
        evicted = {(name,): count for name, count in accounts.evicted.items()}

    metrics.watch(instruments.LEDGER_DROPPED, lambda: {(): ledger.dropped})
    metrics.watch(instruments.LEDGER_ERRORS, lambda: {(): ledger.write_errors})
    metrics.watch(instruments.LOG_DROPPED, lambda: {(): lines.dropped + lines.lost})
    metrics.watch(instruments.BUDGET_USED, lambda: used)
    metrics.watch(instruments.BUDGET_EVICTED, lambda: evicted)
    watch_engine(metrics, stats)

    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(_measuring(options, recorder, metrics, collector))
        await asyncio.to_thread(ledger.start)
        stack.push_async_callback(asyncio.to_thread, ledger.close)
        await asyncio.to_thread(lines.start)
        stack.push_async_callback(asyncio.to_thread, lines.close)
        await asyncio.to_thread(accounts.start)
        stack.push_async_callback(asyncio.to_thread, accounts.close)
        accounts.share()
        stack.push_async_callback(accounts.leave)
        saving = asyncio.create_task(_save_often(accounts))
        stack.callback(saving.cancel)
        recorder.served = _Catalogue(runtimes).served
        recorder.patience = lambda: config().retry.told_seconds
        recorder.listeners.append(on_outcome)
        recorder.on_decision.append(recent.decided)
        recorder.on_refusal += [recent.refused, lines.refused]
        stack.callback(recorder.drain)
        metrics.observers.append(observe)
        if collector is not None:
            observing = asyncio.create_task(_observe_often(metrics))
            stack.callback(observing.cancel)
        lag = asyncio.create_task(watch_lag(recorder.lagged))
        stack.callback(lag.cancel)
        verdicts = FeedbackBox(config, recent, lines, recorder)
        yield Books(ledger, lines, recent, budgets, verdicts, lambda: stats().queued)


async def _save_often(accounts: Accounts) -> None:
    """Also when nothing happens: what was spent or reserved last must not wait for the next request."""
    while True:
        await asyncio.sleep(SAVE_SECONDS)
        accounts.save()


async def _observe_often(metrics: Metrics) -> None:
    """For the collector's reader, which has a thread of its own; a scrape asks on the loop before it reads."""
    while True:
        metrics.observe()
        await asyncio.sleep(OBSERVE_SECONDS)


@contextlib.asynccontextmanager
async def _measuring(
    options: BookOptions, recorder: Recorder, metrics: Metrics, collector: Collector | None
) -> AsyncIterator[None]:
    """Measures and makes spans on a thread of its own until left."""
    work: Background[Work] = Background("telemetry", _do, seconds=MEASURE_SECONDS, max_waiting=options.max_facts)
    metrics.watch(instruments.TELEMETRY_DROPPED, lambda: {(): work.dropped})
    work.start()
    recorder.later, metrics.settle = work.put, work.flush
    if collector is not None:
        recorder.trace, recorder.sampler = Tracing(collector.spans).exchange, Sampler(options.trace_ratio)
    try:
        yield
    finally:
        await asyncio.to_thread(work.close)


def _do(batch: list[Work]) -> None:
    for work in sharing(batch):
        try:
            work()
        except Exception:
            log.exception("a fact could not be measured")


class _Catalogue:
    """What metrics say of each model, worked out once per configuration."""

    def __init__(self, runtimes: Runtimes) -> None:
        self._runtimes = runtimes
        self._of: Runtime | None = None
        self._served: Mapping[str, Served] = {}

    def served(self) -> Mapping[str, Served]:
        """By catalogue name."""
        current = self._runtimes.current
        if current is not self._of:
            self._of, self._served = current, served_by(current.config)
        return self._served


def served_by(config: RouterConfig) -> dict[str, Served]:
    """Provider, name and address of every model, in OpenTelemetry's words."""
    found = {}
    for name, model in config.models.items():
        try:
            endpoint = endpoint_of(model)
            host, port = endpoint.host, endpoint.port
        except ValueError:
            host, port = "", 0
        found[name] = Served(GEN_AI_PROVIDERS[model.provider], upstream_name(name, model), host, port)
    return found


def watch_engine(metrics: Metrics, stats: Callable[[], EngineStats]) -> None:
    """Shows what the engine counts. Its numbers may be read on any thread."""

    def texts() -> Values:
        now = stats()
        return {
            ("accepted",): now.texts,
            **{(result,): getattr(now, result) for result in ("refused", "late", "partial", "cancelled")},
        }

    def windows() -> Values:
        now = stats()
        return {("run",): now.windows, ("failed",): now.failed, ("remembered",): now.remembered}

    def tokens() -> Values:
        now = stats()
        return {("real",): now.tokens, ("padding",): now.padded_tokens - now.tokens}

    def lookups() -> Values:
        now = stats()
        found: Values = {("process", "hit"): now.remembered, ("process", "miss"): now.unknown}
        if now.shared or now.unshared:
            found = {**found, ("store", "hit"): now.shared, ("store", "miss"): now.unshared}
        return found

    def seconds() -> Values:
        now = stats()
        return {("queue",): now.queue_ms / 1e3, ("run",): now.run_ms / 1e3}

    metrics.watch(instruments.QUEUED, lambda: {(): stats().queued})
    metrics.watch(instruments.TEXTS, texts)
    metrics.watch(instruments.BATCHES, lambda: {(str(size),): n for size, n in stats().batch_sizes.items()})
    metrics.watch(instruments.WINDOWS, windows)
    metrics.watch(instruments.LOOKUPS, lookups)
    metrics.watch(instruments.CLASSIFIER_TOKENS, tokens)
    metrics.watch(instruments.CLASSIFIER_SECONDS, seconds)
