"""The operator's port: /livez, /readyz, /metrics, /config, /savings.

Loopback by default; it tells no secrets and no prompts.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aiohttp import web

from router_extproc.bookkeeping import Books
from router_extproc.runtime import Runtimes
from router_extproc.telemetry.metrics import Metrics


class Admin:
    """Serves HTTP on `host:port` (0 picks a free one) from `start` to `close`."""

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        runtimes: Callable[[], Runtimes | None],
        ready: Callable[[], bool],
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        self._host, self.port = host, port
        self._metrics, self._runtimes, self._ready, self._facts = metrics, runtimes, ready, facts
        self.books: Books | None = None
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/config", self._config)
        app.router.add_get("/savings", self._savings)
        self._runner = web.AppRunner(app, access_log=None)

    async def start(self) -> None:
        """Listens."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stops listening."""
        await self._runner.cleanup()

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ok\n" if ready else "not ready\n", status=200 if ready else 503)

    async def _metrics_page(self, _: web.Request) -> web.Response:
        return web.Response(
            body=self._metrics.exposition(), headers={"content-type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def _config(self, _: web.Request) -> web.Response:
        """What serves now, and why a newer file does not."""
        runtimes = self._runtimes()
        if runtimes is None:
            return web.json_response({"error": "starting"}, status=503)
        current = runtimes.current
        return web.json_response(
            {
                "generation": current.generation,
                "digest": current.digest,
                "source": str(current.source),
                "rejected": runtimes.rejected,
                **self._facts(),
                "config": current.config.model_dump(mode="json", exclude_none=True),
            }
        )

    async def _savings(self, _: web.Request) -> web.Response:
        """What requests cost, against the baseline model."""
        if self.books is None:
            return web.json_response({"error": "starting"}, status=503)
        return web.json_response(self.books.ledger.savings())
