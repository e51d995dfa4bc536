"""The operator's port: a page to look at, and what it shows as JSON. It tells no secrets, and prompts only if allowed.

Open: /livez, /readyz, /metrics, and the page's own files, which hold no data. Everything else needs the token where the
port is not on loopback; without a token it is closed there. On loopback a request must say so in its `Host`, since any
web site could otherwise have its own name point here and read along.
"""

from __future__ import annotations

import asyncio
import hmac
import ipaddress
import json
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from router_extproc.bookkeeping import Books
from router_extproc.config.model import Api
from router_extproc.domain import LlmRequest
from router_extproc.errors import ClientError, ConfigMistakes
from router_extproc.explanation import as_sent, rules, tried
from router_extproc.feedback import Feedback
from router_extproc.recent import END, LATENCY_BOUNDS
from router_extproc.runtime import Runtimes
from router_extproc.telemetry.metrics import Metrics
from router_extproc.validation import validate

PAGE = Path(__file__).resolve().parent / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
OPEN = frozenset({"/livez", "/readyz", "/metrics", *FILES})
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
MAX_TRY_BYTES = 256 * 1024
MAX_FEEDBACK_BYTES = 4096
TRY_SECONDS = 10.0
STATE_SECONDS = 2.0
"""Between two `state` events of a watcher, and so long all of them are told the same."""


class Admin:
    """Serves HTTP on `host:port` (0 picks a free one) from `start` to `close`. `token` opens what is not open.

    Watchers are told the state every `state_seconds` (above 0).
    """

    def __init__(
        self,
        host: str,
        port: int,
        metrics: Metrics,
        runtimes: Callable[[], Runtimes | None],
        ready: Callable[[], bool],
        facts: Callable[[], dict[str, Any]],
        token: str | None = None,
        state_seconds: float = STATE_SECONDS,
    ) -> None:
        self._host, self.port = host, port
        self._metrics, self._runtimes, self._ready, self._facts = metrics, runtimes, ready, facts
        self._token, self._state_seconds = token, state_seconds
        self._loopback = is_loopback(host)
        self.books: Books | None = None
        self._made, self._made_until, self._making = "", 0.0, asyncio.Lock()
        app = web.Application(middlewares=[self._guard], client_max_size=MAX_TRY_BYTES)
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics_page)
        app.router.add_get("/config", self._config)
        app.router.add_get("/savings", self._savings)
        app.router.add_get("/budgets", self._budgets)
        app.router.add_get("/state", self._state)
        app.router.add_get("/events", self._events)
        app.router.add_get("/decisions/{id}", self._decision)
        app.router.add_post("/try", self._try)
        app.router.add_post("/feedback", self._feedback)
        for path in FILES:
            app.router.add_get(path, self._file)
        self.paths = sorted({resource.canonical for resource in app.router.resources()})
        """Everything that it answers to."""
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)

    async def start(self) -> None:
        """Listens."""
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def close(self) -> None:
        """Stops listening."""
        if self.books is not None:
            self.books.recent.close()
        await self._runner.cleanup()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.path not in OPEN:
            refused = self._refusal(request)
            if refused is not None:
                return refused
            if self.books is None and request.path != "/config":
                return web.json_response({"error": "starting"}, status=503)
        response = await handler(request)
        if not response.prepared:
            response.headers.update(HEADERS)
        return response

    def _refusal(self, request: web.Request) -> web.Response | None:
        """Why a request may not see what is not open; None when it may."""
        if self._token is not None:
            given = request.headers.get("authorization", "").removeprefix("Bearer ")
            if hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self._token.encode()):
                return None
            challenge = {"www-authenticate": 'Bearer realm="router-extproc"'}
            return web.json_response({"error": "a bearer token is needed"}, status=401, headers=challenge)
        if not self._loopback:
            why = "this port is not on loopback: start with --admin-token-file to open it"
            return web.json_response({"error": why}, status=403)
        if not is_loopback(urlsplit(f"//{request.host}").hostname or ""):
            return web.json_response({"error": "unknown host"}, status=403)
        return None

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        ready = self._ready()
        return web.Response(text="ok\n" if ready else "not ready\n", status=200 if ready else 503)

    async def _metrics_page(self, request: web.Request) -> web.Response:
        """Prometheus asks for OpenMetrics where it stores exemplars."""
        openmetrics = "application/openmetrics-text" in request.headers.get("accept", "")
        kind = OPENMETRICS if openmetrics else PROMETHEUS
        self._metrics.observe()
        page = await asyncio.to_thread(self._metrics.exposition, openmetrics=openmetrics)
        return web.Response(body=page, headers={"content-type": kind})

    async def _file(self, request: web.Request) -> web.Response:
        name, kind = FILES[request.path]
        return web.Response(text=(PAGE / name).read_text(encoding="utf-8"), content_type=kind, charset="utf-8")

    async def _config(self, _: web.Request) -> web.Response:
        """What serves now, and why a newer file does not."""
        runtimes = self._runtimes()
        if runtimes is None:
            return web.json_response({"error": "starting"}, status=503)
        current = runtimes.current
        return web.json_response(
            {
                **self._serving(runtimes),
                **self._facts(),
                "config": current.config.model_dump(mode="json", exclude_none=True),
            }
        )

    async def _savings(self, _: web.Request) -> web.Response:
        """What requests cost, against the baseline model."""
        ledger = self._books.ledger
        # Thousands of sums, under a lock that the ledger's thread holds too.
        text = await asyncio.to_thread(lambda: json.dumps(ledger.savings()))
        return web.json_response(text=text)

    async def _budgets(self, _: web.Request) -> web.Response:
        """What each budget has spent in its window, fullest first."""
        runtimes = self._runtimes()
        shown: list[dict[str, Any]] = []
        accounts = self._books.budgets.accounts
        if runtimes is not None:
            await accounts.refresh(runtimes.current.config)
            shown = accounts.shown(runtimes.current.config)
        trouble = accounts.trouble
        shared = {} if trouble is None else {"store": trouble or "ok"}
        return web.json_response({"budgets": shown, **shared})

    async def _state(self, _: web.Request) -> web.Response:
        return web.json_response(await self._now())

    async def _decision(self, request: web.Request) -> web.Response:
        """One exchange: signals, rule by rule what matched, plan, attempts, outcome, cost."""
        seen = self._books.recent.find(request.match_info["id"])
        if seen is None:
            return web.json_response({"error": "not among the last exchanges of this sidecar"}, status=404)
        made = self._books.recent.describe(seen)
        runtimes = self._runtimes()
        if seen.decided is not None and runtimes is not None:
            # The rules that judged it are gone with their configuration; today's would tell another story.
            same = runtimes.current.generation == seen.decided.generation
            made["routes"] = rules(runtimes.current, seen.decided.request, seen.decided.signals) if same else None
        return web.json_response(made)

    async def _try(self, request: web.Request) -> web.Response:
        """Where a prompt would go. Nothing is sent anywhere."""
        if request.content_type != "application/json":
            return web.json_response({"error": "content-type must be application/json"}, status=415)
        runtimes = self._runtimes()
        if runtimes is None:
            return web.json_response({"error": "starting"}, status=503)
        try:
            asked = _asked(await request.json())
            found = await tried(runtimes.current, asked, {}, time.monotonic() + TRY_SECONDS)
        except (ValueError, TypeError) as error:
            return web.json_response({"error": f"not a prompt to try: {error}"}, status=400)
        except ClientError as error:
            return web.json_response({"error": error.message}, status=error.status)
        return web.json_response(found)

    async def _feedback(self, request: web.Request) -> web.Response:
        """What somebody says of a decision. The same verdict twice counts once."""
        if request.content_type != "application/json":
            return web.json_response({"error": "content-type must be application/json"}, status=415)
        body = await request.read()
        if len(body) > MAX_FEEDBACK_BYTES:
            return web.json_response({"error": f"at most {MAX_FEEDBACK_BYTES} bytes"}, status=413)
        try:
            feedback = validate(Feedback, json.loads(body))
            new, known = self._books.feedback.take(feedback)
        except ValueError:
            return web.json_response({"error": "not JSON"}, status=400)
        except ConfigMistakes as error:
            wrong = [": ".join([*map(str, mistake.path), mistake.message]) for mistake in error.mistakes]
            return web.json_response({"error": "; ".join(wrong)}, status=400)
        return web.json_response({"decision_id": feedback.decision_id, "new": new, "known_decision": known})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: `exchange` for each one that ends, `state` every `state_seconds`."""
        recent = self._books.recent
        if recent.full:
            return web.json_response({"error": "too many watchers"}, status=503)
        response = web.StreamResponse(headers={**HEADERS, "content-type": "text/event-stream"})
        await response.prepare(request)
        with recent.watching() as queue:
            for made in reversed(recent.last()):
                await _send(response, "exchange", json.dumps(made))
            due = 0.0
            while True:
                if time.monotonic() >= due:
                    await _send(response, "state", await self._now_for_watchers())
                    due = time.monotonic() + self._state_seconds
                found = await recent.next(queue, due - time.monotonic())
                if found is END:
                    return response
                if found is not None:
                    await _send(response, "exchange", json.dumps(found))

    @property
    def _books(self) -> Books:
        assert self.books is not None
        return self.books

    def _serving(self, runtimes: Runtimes) -> dict[str, Any]:
        current = runtimes.current
        return {
            "generation": current.generation,
            "digest": current.digest,
            "source": str(current.source),
            "rejected": runtimes.rejected,
            "envoy": runtimes.envoy,
        }

    async def _now_for_watchers(self) -> str:
        """The same for all of them, as JSON: made once per interval, whoever asks first."""
        async with self._making:
            if time.monotonic() >= self._made_until:
                self._made = json.dumps(await self._now())
                self._made_until = time.monotonic() + self._state_seconds
            return self._made

    async def _now(self) -> dict[str, Any]:
        """What the page's counters and plots show."""
        books = self._books
        savings = await asyncio.to_thread(books.ledger.savings, ("model",))
        runtimes = self._runtimes()
        return {
            **(self._serving(runtimes) if runtimes is not None else {}),
            **self._facts(),
            "savings": savings,
            "bands": books.recent.bands,
            "latency": {"bounds": list(LATENCY_BOUNDS), "counts": books.recent.latency},
            "models": books.recent.models(),
            "catalogue": list(runtimes.current.config.models) if runtimes is not None else [],
            "virtual": list(runtimes.current.config.virtual_models) if runtimes is not None else [],
            "queued": books.queued(),
        }


async def _send(response: web.StreamResponse, event: str, text: str) -> None:
    # JSON has no line breaks, so one data line is enough.
    await response.write(f"event: {event}\ndata: {text}\n\n".encode())


def _asked(value: Any) -> LlmRequest:
    """A prompt to try, as a client would send it. Raises ValueError, and ClientError where a client would get one."""
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str) or not value["prompt"]:
        raise ValueError("`prompt` must be text")
    defaults = {"model": "auto", "context": "", "api": Api.CHAT_COMPLETIONS.value}
    texts = {name: value.get(name, default) for name, default in defaults.items()}
    if not all(isinstance(text, str) for text in texts.values()):
        raise ValueError("`model`, `context` and `api` must be text")
    return as_sent(prompt=value["prompt"], **texts)


def is_loopback(host: str) -> bool:
    """Whether only this machine can mean `host`."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
