"""The composition root: what is built from what, in which order it starts, how it stops without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from router_extproc.admin import Admin
from router_extproc.admission import Admission
from router_extproc.bookkeeping import BookOptions, keeping
from router_extproc.config.loader import LoadedConfig, load
from router_extproc.config.schema import RouterConfig
from router_extproc.config.watcher import watch
from router_extproc.domain import Outcome
from router_extproc.errors import ConfigMistakes
from router_extproc.inference import artifact
from router_extproc.inference.base import Model
from router_extproc.inference.engine import Engine
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.preferences import Preferences
from router_extproc.processor import Processor
from router_extproc.reloading import Reloading
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.selection.observed import Observed
from router_extproc.server import Server
from router_extproc.sessions import SessionKeys, session_secret
from router_extproc.shared_answers import SharedAnswers
from router_extproc.signals.base import SHIPPED
from router_extproc.signals.own_heads import OwnHeads, load_guest
from router_extproc.stores.affinity import MemoryAffinity
from router_extproc.stores.base import Store
from router_extproc.stores.table import open_store
from router_extproc.telemetry import instruments
from router_extproc.telemetry.metrics import Metrics, Values
from router_extproc.telemetry.recorder import Decided, Recorder
from router_extproc.tls import TlsFiles

if TYPE_CHECKING:
    from router_extproc.telemetry.otlp import Collector

log = logging.getLogger(__name__)

SHIPPED_MODEL = Path(__file__).resolve().parents[1] / "models" / "router-minilm"

MODEL_LOOK_SECONDS = 5.0
"""Between two looks at the classifier's folder. A new version counts when it is the same at two of them: a copy takes
its time."""

LET_GO_SECONDS = 1.0
"""Between two looks for streams that are in an earlier generation."""

GIL_SWITCH_SECONDS = 0.0001
"""How long a thread keeps the GIL while another one wants it; Python's default is 5 ms. The inference thread asks for
it after each of some sixty kernels, and beside a busy event loop each of these waits is part of a pass: 20 tokens
took 144 ms at 5 ms, 95 at 1 ms, and 68 at 0.1 ms or less, on two cores shared with other work."""


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Settings of the process, fixed while it runs. Everything that may change at run time is in router.yaml.

    `drain_notice` seconds pass between saying NOT_SERVING and refusing new streams: longer than Envoy's health check
    interval. `drain_grace` seconds are for the streams in flight then. The ledger is kept in `state_dir`; without it,
    it is lost when the process ends. `session_secret` is the file of the secret that conversations are hashed with.
    `threads` are the cores that one pass of the classifier uses on a CPU, 0 for all. `tls` is for `listen`; the admin
    port has none.
    """

    config: Path
    listen: str = "127.0.0.1:50051"
    admin_host: str = "127.0.0.1"
    admin_port: int = 9090
    model_dir: Path = SHIPPED_MODEL
    model_digest: str | None = None
    device: str = "auto"
    threads: int = 0
    max_queued: int = 512
    max_streams: int = 8192
    drain_notice: float = 2.5
    drain_grace: float = 30.0
    live: Callable[[Outcome, Decided | None], None] | None = None
    books: BookOptions = field(default_factory=BookOptions)
    session_secret: Path | None = None
    admin_token: str | None = field(default=None, repr=False)
    tls: TlsFiles | None = None


async def serve(options: ServeOptions, stop: asyncio.Event | None = None) -> None:
    """Runs until SIGTERM, SIGINT or `stop`, then drains. Raises ConfigError when the file cannot be used."""
    sys.setswitchinterval(GIL_SWITCH_SECONDS)
    stopping = stop or asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    began = time.monotonic()
    collector = _collector(options.books.otlp_endpoint)
    metrics = Metrics([collector.reader] if collector is not None else [])
    recorder = Recorder(metrics)
    if options.live is not None:
        live = options.live
        recorder.listeners.append(lambda outcome, decided: live(outcome, decided) if outcome is not None else None)
    runtimes: Runtimes | None = None
    engine: Engine | None = None
    ready = False

    def facts() -> dict[str, Any]:
        return {"classifier": engine.version if engine else None, "ready": ready}

    async with contextlib.AsyncExitStack() as stack:
        if collector is not None:
            stack.push_async_callback(asyncio.to_thread, collector.close)
        stack.push_async_callback(asyncio.to_thread, metrics.close)
        admin = Admin(
            *(options.admin_host, options.admin_port, metrics, lambda: runtimes, lambda: ready, facts),
            token=options.admin_token,
        )
        await admin.start()
        stack.push_async_callback(admin.close)

        loaded = await asyncio.to_thread(load, options.config)
        store = await _store(loaded, stack)
        shared = await _shared_answers(loaded.config, store, recorder, metrics, stack)
        stamp = await asyncio.to_thread(artifact.stamp, options.model_dir)
        engine, own_heads = await _engine(options, shared)
        stack.push_async_callback(engine.aclose)
        await own_heads.serve(engine, loaded)
        classifiers = {SHIPPED: engine}
        observed, affinity = Observed(), MemoryAffinity()
        keys = SessionKeys(await asyncio.to_thread(session_secret, options.session_secret, options.books.state_dir))
        outliving = (observed, keys, affinity)
        # No name for what is compiled: whoever keeps a generation keeps its own heads, too.
        runtimes = Runtimes(
            await asyncio.to_thread(compile_runtime, loaded, heads(classifiers), classifiers, 1, *outliving)
        )
        recorder.listeners.append(lambda outcome, _: observed.record(outcome) if outcome is not None else None)
        recorder.reloaded(accepted=True)
        recorder.serves(runtimes.current.generation, newest=True)
        serving = runtimes
        metrics.watch(instruments.MODEL_SCALE, lambda: scales(serving.current.preferences, datetime.now(UTC)))

        admin.books = books = await stack.enter_async_context(
            keeping(options.books, recorder, metrics, runtimes, engine.stats, facts, store, collector)
        )

        processor = Processor(runtimes, recorder, admit=Admission(books.budgets).admit)
        server = Server(
            options.listen,
            processor,
            recorder,
            lambda: runtimes.current.models_by_cluster,
            max_streams=options.max_streams,
            tls=options.tls,
        )
        await server.start()
        stack.push_async_callback(server.drain, 0.0, 0.0)
        reloading = Reloading(loaded, runtimes, engine, own_heads, recorder, outliving)
        watching = asyncio.create_task(_watching(options, reloading, loaded.digest, stamp))
        stack.callback(watching.cancel)
        # What was built so far lives as long as the process: collections need not look at it again.
        gc.collect()
        gc.freeze()
        await server.ready()
        ready = True
        log.info("ready on %s, admin on port %d, %.1f s", options.listen, admin.port, time.monotonic() - began)
        await stopping.wait()
        ready = False
        log.info("draining")
        await server.drain(options.drain_notice, options.drain_grace)


def scales(preferences: Preferences, now: datetime) -> Values:
    """The factor of every model that a schedule scales."""
    return {(model,): factor for model, factor in preferences.scale(now).items()}


def _collector(endpoint: str | None) -> Collector | None:
    if endpoint is None:
        return None
    # Imported here: an HTTP client that nobody else needs.
    from router_extproc.telemetry.otlp import Collector

    return Collector(endpoint)


async def _store(loaded: LoadedConfig, stack: contextlib.AsyncExitStack) -> Store | None:
    """What replicas share, until the stack is left. Raises ConfigError when its password cannot be had."""
    try:
        store = await asyncio.to_thread(open_store, loaded.config.store)
    except ConfigMistakes as error:
        raise loaded.error(error.mistakes) from None
    if store is not None:
        stack.push_async_callback(store.aclose)
    return store


def heads(classifiers: Mapping[str, Engine]) -> dict[str, Mapping[str, tuple[str, ...]]]:
    """Labels per classifier and head."""
    return {name: classifier.labels for name, classifier in classifiers.items()}


async def _shared_answers(
    config: RouterConfig, store: Store | None, recorder: Recorder, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> SharedAnswers | None:
    """What the classifiers of all replicas have said, where that is shared."""
    if store is None or not config.store.classifications:
        return None
    shared = SharedAnswers(
        store,
        config.store.classification_seconds,
        lambda answers: recorder.store_answers("classifications", answers),
    )
    shared.start()
    stack.push_async_callback(shared.aclose)
    metrics.watch(instruments.STORE_DROPPED, lambda: {(): shared.dropped})
    return shared


def _load_classifier(options: ServeOptions) -> Model:
    # Imported here: it takes seconds, and commands that classify nothing never pay for it.
    from router_extproc.inference import encoder

    return encoder.load(
        options.model_dir,
        digest=options.model_digest,
        device=options.device,
        threads=options.threads or None,
    )


async def _engine(options: ServeOptions, shared: SharedAnswers | None) -> tuple[Engine, OwnHeads]:
    model = await in_own_thread(partial(_load_classifier, options))
    engine = Engine(model, max_queued=options.max_queued, elsewhere=shared)
    await engine.start()
    return engine, OwnHeads(model, partial(load_guest, device=options.device))


async def _watching(options: ServeOptions, reloading: Reloading, config: str, model: str) -> None:
    """Watches what may change. `config` and `model` stand for what serves: it may have changed while that warmed up."""
    load_config, load_model = partial(load, options.config), partial(_load_classifier, options)
    await asyncio.gather(
        watch(options.config, partial(reloading.configuration, load_config), since=config),
        watch(
            options.model_dir,
            partial(reloading.classifier, load_model),
            since=model,
            interval=MODEL_LOOK_SECONDS,
            digest=artifact.stamp,
            settle=True,
        ),
        _letting_go(reloading),
    )


async def _letting_go(reloading: Reloading) -> None:
    while True:
        await asyncio.sleep(LET_GO_SECONDS)
        await reloading.let_go()
