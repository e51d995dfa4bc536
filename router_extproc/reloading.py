"""What may change while the sidecar runs: router.yaml, and the classifier's folder. The last good one serves."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from router_extproc.config.envoy import RENDERED, same_for_envoy
from router_extproc.config.loader import LoadedConfig
from router_extproc.errors import RouterError
from router_extproc.inference.base import Model
from router_extproc.inference.engine import Engine
from router_extproc.inference.own_thread import in_own_thread
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.selection.observed import Observed
from router_extproc.sessions import SessionKeys
from router_extproc.signals.base import SHIPPED
from router_extproc.signals.own_heads import OwnHeads
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


class Reloading:
    """Swaps in every new configuration and every new version of the classifier that is valid, one after the other.

    A new classifier is loaded and warmed up beside the one that serves, and takes over between two batches. All methods
    are called on the event loop.
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
        self._one_by_one = asyncio.Lock()

    async def configuration(self, load: Callable[[], LoadedConfig]) -> None:
        """Tries a new configuration; `load` reads it, or raises ConfigError."""
        async with self._one_by_one:
            try:
                loaded = await asyncio.to_thread(load)
                await self._serve(loaded, self._own_heads, self._engine.labels)
                self._runtimes.accept("configuration")
            except Exception as error:  # noqa: BLE001 - whatever is wrong with the new one, the old one serves on
                self._refuse("configuration", error)

    async def classifier(self, load: Callable[[], Model]) -> None:
        """Tries a new version of the shipped classifier; `load` reads it, or raises UnusableModel."""
        async with self._one_by_one:
            try:
                model = await in_own_thread(load)
                if model.version == self._own_heads.base.version:
                    log.info("the classifier's folder was touched; it is still %s", model.version)
                else:
                    await self._serve(self._loaded, self._own_heads.on(model), model.labels)
                self._runtimes.accept("classifier")
            except Exception as error:  # noqa: BLE001 - see above
                self._refuse("classifier", error)

    async def _serve(self, loaded: LoadedConfig, own_heads: OwnHeads, labels: Mapping[str, tuple[str, ...]]) -> None:
        current = self._runtimes.current
        generation = current.generation + 1
        new = await asyncio.to_thread(
            compile_runtime, loaded, {SHIPPED: labels}, {SHIPPED: self._engine}, generation, *self._outliving
        )
        await own_heads.serve(self._engine, loaded)
        if new.config.store != current.config.store:
            log.warning("the store is opened at the start: the new `store` section counts after a restart")
        changed = not await asyncio.to_thread(same_for_envoy, current.config, new.config)
        if changed:
            # Back to what the process began with: so did Envoy, as far as anybody here knows.
            back = await asyncio.to_thread(same_for_envoy, self._began_with, new.config)
            self._runtimes.envoy = None if back else RENDER_AGAIN % generation
            log.warning("%s", BACK_AGAIN % generation if back else self._runtimes.envoy)
        self._runtimes.swap(new)
        self._loaded, self._own_heads = loaded, own_heads
        self._outliving[0].keep(new.config.models)
        self._recorder.reloaded(generation, accepted=True)
        log.info("generation %d serves, with classifier %s", generation, self._engine.version)

    def _refuse(self, what: str, error: Exception) -> None:
        current = self._runtimes.current.generation
        self._runtimes.reject(what, str(error))
        self._recorder.reloaded(current, accepted=False)
        bug = None if isinstance(error, RouterError) else error
        log.error("refused the new %s, generation %d serves on: %s", what, current, error, exc_info=bug)
