"""Everything that keeps count beside the requests: ledger, decision log, metrics of the engine and of the loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from router_extproc import __version__
from router_extproc.budgets import Budgets
from router_extproc.config.providers import endpoint_of, upstream_name
from router_extproc.config.schema import Provider, RouterConfig
from router_extproc.decision_log import DecisionLog
from router_extproc.domain import Outcome
from router_extproc.export import Exporter
from router_extproc.inference.stats import EngineStats
from router_extproc.ledger import Ledger
from router_extproc.recent import Recent
from router_extproc.runtime import Runtime, Runtimes
from router_extproc.stores.base import Store
from router_extproc.telemetry.context import Sampler
from router_extproc.telemetry.loop import watch_lag
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Decided, Listener, Recorder, Served

PROVIDERS = {
    Provider.OPENAI: "openai",
    Provider.ANTHROPIC: "anthropic",
    Provider.AZURE_OPENAI: "azure.ai.openai",
    Provider.VLLM: "vllm",
}
"""OpenTelemetry's names. It has none for vLLM."""


OBSERVE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class BookOptions:
    """`state_dir` holds ledger and decision log (None: neither outlives the process). `prompts` lets texts into it.

    Traces and metrics go to `otlp_endpoint`; `trace_ratio` of the exchanges are traced, and all that a caller traces.
    """

    state_dir: Path | None = None
    prompts: bool = False
    log_bytes: int = 256 * 1024 * 1024
    otlp_endpoint: str | None = None
    trace_ratio: float = 0.0


@dataclass(frozen=True, slots=True)
class Books:
    """What the admin port shows."""

    ledger: Ledger
    log: DecisionLog
    recent: Recent
    budgets: Budgets


@contextlib.asynccontextmanager
async def keeping(
    options: BookOptions,
    recorder: Recorder,
    metrics: Metrics,
    runtimes: Runtimes,
    stats: Callable[[], EngineStats],
    versions: Callable[[], dict[str, Any]],
    store: Store | None = None,
) -> AsyncIterator[Books]:
    """Listens to the recorder until left; what waits then is written first. Raises JournalTaken or OSError.

    Budgets are shared through `store`, for as long as the configuration that serves now has it.
    """

    def config() -> RouterConfig:
        return runtimes.current.config

    ledger = Ledger(config, options.state_dir, on_entry=recorder.priced)
    log = DecisionLog(
        config,
        options.state_dir,
        prompts=options.prompts,
        max_bytes=options.log_bytes,
        versions=lambda: {"router": __version__, **versions()},
    )

    recent = Recent(config, prompts=options.prompts)
    section = config().store
    budgets = Budgets(
        options.state_dir,
        store=store if section.budgets else None,
        wait_seconds=section.wait_ms / 1000,
        acted=recorder.budget_acted,
        alone=recorder.budget_alone,
    )

    def on_outcome(outcome: Outcome | None, decided: Decided | None) -> None:
        if outcome is not None:
            ledger.outcome(outcome)
        log.record(outcome, decided)
        recent.outcome(outcome, decided)
        budgets.settle(outcome, decided, config())
        budgets.save()

    def observe() -> None:
        _observe_engine(metrics, stats())
        metrics.ledger_dropped.set(ledger.dropped)
        metrics.ledger_errors.set(ledger.write_errors)
        metrics.log_dropped.set(log.dropped)
        if budgets.trouble is not None:
            metrics.store_up.set(0 if budgets.trouble else 1, "budgets")
            budgets.ask(config())
        for row in budgets.shown(config()):
            metrics.budget_used.set(row["percent"] / 100, row["budget"], row["key"])

    async with contextlib.AsyncExitStack() as stack:
        await asyncio.to_thread(ledger.start)
        stack.push_async_callback(asyncio.to_thread, ledger.close)
        await asyncio.to_thread(log.start)
        stack.push_async_callback(asyncio.to_thread, log.close)
        await asyncio.to_thread(budgets.start)
        stack.push_async_callback(asyncio.to_thread, budgets.close)
        budgets.share()
        stack.push_async_callback(budgets.leave)
        recorder.served = _Catalogue(runtimes).served
        if options.otlp_endpoint is not None:
            exporter = Exporter(options.otlp_endpoint, metrics)
            exporter.start()
            stack.push_async_callback(asyncio.to_thread, exporter.close)
            recorder.sampler = Sampler(options.trace_ratio)
            observing = asyncio.create_task(_observe_often(metrics))
            stack.callback(observing.cancel)
            recorder.listeners.append(_traced(exporter, recorder))
        recorder.listeners.append(on_outcome)
        recorder.on_decision.append(recent.decided)
        stack.callback(recorder.drain)
        metrics.observers.append(observe)
        lag = asyncio.create_task(watch_lag(recorder.lagged))
        stack.callback(lag.cancel)
        yield Books(ledger, log, recent, budgets)


async def _observe_often(metrics: Metrics) -> None:
    """For the exporter, which reads on a thread of its own."""
    while True:
        metrics.observe()
        await asyncio.sleep(OBSERVE_SECONDS)


def _traced(exporter: Exporter, recorder: Recorder) -> Listener:
    def ended(outcome: Outcome | None, decided: Decided | None) -> None:
        model = outcome.model if outcome is not None else None
        exporter.ended(outcome, decided, recorder.served().get(model or ""))

    return ended


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
        found[name] = Served(PROVIDERS[model.provider], upstream_name(name, model), host, port)
    return found


def _observe_engine(metrics: Metrics, stats: EngineStats) -> None:
    metrics.queued.set(stats.queued)
    for result in ("refused", "late", "partial", "cancelled"):
        metrics.texts.set(getattr(stats, result), result)
    metrics.texts.set(stats.texts, "accepted")
    for size, count in stats.batch_sizes.items():
        metrics.batches.set(count, str(size))
    metrics.windows.set(stats.windows, "run")
    metrics.windows.set(stats.failed, "failed")
    metrics.windows.set(stats.remembered, "remembered")
    metrics.lookups.set(stats.remembered, "process", "hit")
    metrics.lookups.set(stats.unknown, "process", "miss")
    if stats.shared or stats.unshared:
        metrics.lookups.set(stats.shared, "store", "hit")
        metrics.lookups.set(stats.unshared, "store", "miss")
    metrics.classifier_tokens.set(stats.tokens, "real")
    metrics.classifier_tokens.set(stats.padded_tokens - stats.tokens, "padding")
    metrics.classifier_seconds.set(stats.queue_ms / 1e3, "queue")
    metrics.classifier_seconds.set(stats.run_ms / 1e3, "run")
