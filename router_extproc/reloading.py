"""What may change while the sidecar runs: router.yaml, and the classifier's folder. The last good one serves."""

from __future__ import annotations

import asyncio
import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

from router_extproc.config.envoy import RENDERED, same_for_envoy
from router_extproc.config.loader import LoadedConfig
from router_extproc.errors import RouterError
from router_extproc.inference.base import Model
from router_extproc.inference.engine import Engine
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.router import Router
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.selection.observed import Observed
from router_extproc.sessions import SessionKeys
from router_extproc.signals.base import SHIPPED
from router_extproc.signals.own_heads import OwnHeads, Signals
from router_extproc.stores.affinity import Affinity
from router_extproc.telemetry.recorder import Recorder

log = logging.getLogger(__name__)

RENDER_AGAIN = (
    f"{', '.join(RENDERED[:-1])} or {RENDERED[-1]} changed with generation %d: "
    "run `router-extproc envoy` again and restart Envoy "
    "(in Kubernetes `helm upgrade` does); until then it does not know them"
)
BACK_AGAIN = (
    "generation %d is for Envoy what this process began with: "
    "only an Envoy that was restarted since then has to be told again"
)

MOST_EARLIER = 4
"""Earlier generations whose own heads are answered, at most: a user's classifier adds its time to every text."""


@dataclass(frozen=True, slots=True)
class _Earlier:
    """A generation that streams may still be in. They keep its router alive, and nobody else does for long.

    `until` is for streams that never end (`time.monotonic()` seconds).
    """

    router: weakref.ref[Router]
    signals: Signals
    until: float


class Reloading:
    """Swaps in every new configuration and every new version of the classifier that is valid, one after the other.

    A new classifier is loaded and warmed up beside the one that serves, and takes over between two batches. What was
    refused is tried again when the other one changes. All methods are called on the event loop.
    """

    def __init__(
        self,
        loaded: LoadedConfig,
        runtimes: Runtimes,
        engine: Engine,
        own_heads: OwnHeads,
        recorder: Recorder,
        outliving: tuple[Observed, SessionKeys, Affinity],
    ) -> None:
        """`loaded` is what `runtimes` and `engine` serve now, `outliving` what every generation goes on with."""
        self._began_with = loaded.config
        self._loaded = loaded
        self._runtimes = runtimes
        self._engine = engine
        self._own_heads = own_heads
        self._recorder = recorder
        self._outliving = outliving
        self._refused_configuration: Callable[[], LoadedConfig] | None = None
        self._refused_classifier: Callable[[], Model] | None = None
        self._earlier: list[_Earlier] = []
        self._one_by_one = asyncio.Lock()

    async def configuration(self, load: Callable[[], LoadedConfig]) -> None:
        """Tries a new configuration; `load` reads it, or raises ConfigError."""
        async with self._one_by_one:
            taken = await self._try_configuration(load)
            if self._refused_classifier is None:
                return
            if taken:
                await self._try_classifier(self._refused_classifier)
            else:
                await self._try_both(load, self._refused_classifier)

    async def classifier(self, load: Callable[[], Model]) -> None:
        """Tries a new version of the shipped classifier; `load` reads it, or raises UnusableModel."""
        async with self._one_by_one:
            taken = await self._try_classifier(load)
            if self._refused_configuration is None:
                return
            if taken:
                await self._try_configuration(self._refused_configuration)
            else:
                await self._try_both(self._refused_configuration, load)

    async def let_go(self) -> None:
        """Takes away what only earlier generations read, once their streams have ended. Nothing to do costs nothing."""
        if len(self._in_use()) == len(self._earlier):
            return
        async with self._one_by_one:
            self._earlier = self._in_use()
            known = [self._loaded.config.signals, *(each.signals for each in self._earlier)]
            try:
                await self._own_heads.keep_only(self._engine, known)
            except Exception as error:
                log.error("what earlier generations read stays: %s", error, exc_info=_bug(error))

    async def _try_configuration(self, load: Callable[[], LoadedConfig]) -> bool:
        try:
            await self._serve(await asyncio.to_thread(load), self._own_heads)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the new one, the old one serves on
            self._refused_configuration = load
            self._refuse("configuration", error)
            return False
        self._refused_configuration = None
        self._accept("configuration")
        return True

    async def _try_classifier(self, load: Callable[[], Model]) -> bool:
        try:
            model = await in_own_thread(load)
            touched = model.version == self._own_heads.base.version
            if not touched:
                await self._serve(self._loaded, self._own_heads.on(model))
        except Exception as error:  # noqa: BLE001 - see above
            self._refused_classifier = load
            self._refuse("classifier", error)
            return False
        self._refused_classifier = None
        if touched:
            log.info("the classifier's folder was touched; it is still %s", model.version)
            self._runtimes.accept("classifier")
            self._tell()
        else:
            self._accept("classifier")
        return True

    async def _try_both(self, configuration: Callable[[], LoadedConfig], classifier: Callable[[], Model]) -> None:
        """Each was refused beside what the other is about to replace."""
        try:
            loaded = await asyncio.to_thread(configuration)
            await self._serve(loaded, self._own_heads.on(await in_own_thread(classifier)))
        except Exception as error:
            log.error("nor can the new configuration serve with the new classifier: %s", error, exc_info=_bug(error))
            return
        self._refused_configuration = self._refused_classifier = None
        self._accept("configuration", "classifier")

    async def _serve(self, loaded: LoadedConfig, own_heads: OwnHeads) -> None:
        current = self._runtimes.current
        generation = current.generation + 1
        labels = {SHIPPED: own_heads.base.labels}
        new = await asyncio.to_thread(
            compile_runtime, loaded, labels, {SHIPPED: self._engine}, generation, *self._outliving
        )
        changed = not await asyncio.to_thread(same_for_envoy, current.config, new.config)
        # Back to what the process began with: so did Envoy, as far as anybody here knows.
        back = changed and await asyncio.to_thread(same_for_envoy, self._began_with, new.config)
        lasts = current.config.retry.total_seconds
        leaving = _Earlier(weakref.ref(current.router), current.config.signals, time.monotonic() + lasts)
        earlier = [*self._in_use(), leaving][-MOST_EARLIER:]
        await own_heads.serve(self._engine, loaded, [each.signals for each in earlier])
        if new.config.store != current.config.store:
            log.warning("the store is opened at the start: the new `store` section counts after a restart")
        if changed:
            self._runtimes.envoy = None if back else RENDER_AGAIN % generation
            log.warning("%s", BACK_AGAIN % generation if back else self._runtimes.envoy)
        self._runtimes.swap(new)
        self._loaded, self._own_heads, self._earlier = loaded, own_heads, earlier
        self._outliving[0].keep(new.config.models)

    def _in_use(self) -> list[_Earlier]:
        now = time.monotonic()
        return [each for each in self._earlier if each.router() is not None and now < each.until]

    def _accept(self, *what: str) -> None:
        for each in what:
            self._runtimes.accept(each)
        self._recorder.reloaded(accepted=True)
        self._tell()
        log.info("generation %d serves, with classifier %s", self._runtimes.current.generation, self._engine.version)

    def _refuse(self, what: str, error: Exception) -> None:
        self._runtimes.reject(what, str(error))
        self._recorder.reloaded(accepted=False)
        self._tell()
        current = self._runtimes.current.generation
        log.error("refused the new %s, generation %d serves on: %s", what, current, error, exc_info=_bug(error))

    def _tell(self) -> None:
        self._recorder.serves(self._runtimes.current.generation, newest=self._runtimes.rejected is None)


def _bug(error: Exception) -> Exception | None:
    """What needs a traceback: an error that nobody has foreseen."""
    return None if isinstance(error, RouterError) else error
