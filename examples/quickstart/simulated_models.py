"""Simulated model servers: small, strict, and able to fail on demand.

Strict, so that a wrong rewrite on the way shows: an unknown model is a 404, a wrong path a 404, a wrong or missing
key a 401, a malformed body, another provider's key or an internal header a 400. To make one fail:

    curl 127.0.0.1:8101/_simulate -d '{"do": "status", "status": 503, "times": 3}'

`do` is `status`, `reset` (connection reset before an answer), `hang` (`seconds` of silence before the first byte) or
`cut` (the connection breaks after `chunks` events of a stream). `times` is how many requests it hits (default 1).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import simulated_answers as answers
from aiohttp import web

from router_extproc.config.providers import endpoint_of, key_header, upstream_name, upstream_path
from router_extproc.config.schema import RouterConfig

_CREDENTIALS = {"authorization", "x-api-key", "api-key", "x-goog-api-key", "cookie", "openai-organization"}
_INTERNAL = ("x-mom-", "x-envoy-", "x-forwarded-")
_MAX_BODY = 80 * 1024 * 1024
_KEPT_BODY = 64 * 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """A request as it arrived. `body` is cut at 64 KiB, `size` and `sha1` are of all of it."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    size: int
    sha1: str


@dataclass(slots=True)
class Failure:
    """What to do to the next `times` requests instead of answering."""

    do: str
    times: int = 1
    status: int = 503
    seconds: float = 60.0
    chunks: int = 3


class Refused(Exception):
    """A request that a real provider would not take."""

    def __init__(self, status: int, code: str, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


@dataclass
class SimulatedModel:
    """One model behind one port.

    `model` is its upstream name, `paths` says where it answers which API. `key` is the whole value of `key_header`,
    None for a server without authentication. `chunk_seconds` is the pause between a stream's events, `cache` what
    Anthropic's usage says of its prompt cache, `seen` holds the last requests, oldest first.
    """

    model: str
    paths: Mapping[str, str]
    key: str | None
    key_header: str = "authorization"
    host: str = "127.0.0.1"
    port: int = 0
    tls: ssl.SSLContext | None = None
    chunk_seconds: float = 0.03
    cache: Mapping[str, int] = field(default_factory=dict)
    failures: deque[Failure] = field(default_factory=deque)
    seen: deque[Seen] = field(default_factory=lambda: deque(maxlen=20_000))
    _runner: web.AppRunner | None = None
    _site: web.TCPSite | None = None

    async def start(self) -> None:
        """Listens; a port of 0 becomes a free one and stays the same from then on."""
        app = web.Application(client_max_size=_MAX_BODY)
        app.router.add_post("/_simulate", self._simulate)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2, handler_cancellation=True)
        await self._runner.setup()
        self._site = web.TCPSite(self._runner, self.host, self.port, reuse_address=True, ssl_context=self.tls)
        await self._site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening and drops all connections: the next connect is refused."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def fail(self, do: str, times: int = 1, **how: Any) -> None:
        """Makes the next `times` requests fail; see the module's docstring."""
        self.failures.append(Failure(do, times, **how))

    async def _simulate(self, request: web.Request) -> web.Response:
        try:
            found = await request.json()
            if "chunk_seconds" in found:
                self.chunk_seconds = float(found.pop("chunk_seconds"))
            if found:
                self.failures.append(Failure(**found))
        except (ValueError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"ok": True})

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        headers = {key.lower(): value for key, value in request.headers.items()}
        digest = hashlib.sha1(body, usedforsecurity=False).hexdigest()
        self.seen.append(Seen(request.method, request.raw_path, headers, body[:_KEPT_BODY], len(body), digest))
        if request.path == "/v1/models":
            return web.json_response({"object": "list", "data": [{"id": self.model, "object": "model"}]})
        if request.path.startswith("/echo"):
            return web.json_response(
                {"method": request.method, "path": request.raw_path, "headers": headers, "sha1": digest}
            )
        api = self.paths.get(request.path, "")
        failure = self._next_failure()
        try:
            if failure is not None and failure.do == "status":
                raise Refused(failure.status, "simulated_failure", "told to fail")
            document = self._check(request, headers, api, body)
        except Refused as refused:
            found = answers.error(api, refused.status, refused.code, refused.text)
            return web.json_response(found, status=refused.status)
        if failure is not None and failure.do == "reset" and request.transport is not None:
            request.transport.abort()
            raise ConnectionResetError
        if failure is not None and failure.do == "hang":
            await asyncio.sleep(failure.seconds)
        return await self._answer(request, api, document, failure)

    def _next_failure(self) -> Failure | None:
        if not self.failures:
            return None
        failure = self.failures[0]
        failure.times -= 1
        if failure.times <= 0:
            self.failures.popleft()
        return failure

    def _check(self, request: web.Request, headers: Mapping[str, str], api: str, body: bytes) -> dict[str, Any]:
        if not api or request.method != "POST":
            raise Refused(404, "not_found", f"no {request.method} {request.path} here")
        for header in headers:
            if header in _CREDENTIALS and (self.key is None or header != self.key_header):
                raise Refused(400, "foreign_credential", f"{header} is not for this provider")
            if header.startswith(_INTERNAL):
                raise Refused(400, "internal_header", f"{header} must not leave the gateway")
        if headers.get("host") != f"{self.host}:{self.port}":
            raise Refused(400, "wrong_host", f"host {headers.get('host')} is not this one")
        if self.key is not None and headers.get(self.key_header) != self.key:
            raise Refused(401, "invalid_api_key", "wrong or missing key")
        try:
            document = json.loads(body)
        except ValueError as error:
            raise Refused(400, "malformed_body", f"not JSON: {error}") from error
        if not isinstance(document, dict) or not isinstance(document.get("model"), str):
            raise Refused(400, "malformed_body", "no model")
        if document["model"] != self.model:
            raise Refused(404, "model_not_found", f"unknown model {document['model']}")
        wanted = {"embeddings": "input", "responses": "input", "completions": "prompt"}.get(api, "messages")
        if not document.get(wanted):
            raise Refused(400, "malformed_body", f"no {wanted}")
        if api == "messages" and ("anthropic-version" not in headers or "max_tokens" not in document):
            raise Refused(400, "invalid_request_error", "anthropic-version and max_tokens are required")
        return document

    async def _answer(
        self, request: web.Request, api: str, document: dict[str, Any], failure: Failure | None
    ) -> web.StreamResponse:
        tokens = max(1, (request.content_length or 0) // 4) if request.content_length else 10
        text = f"This is {self.model}, simulated. Here is some text that arrives word by word."
        name = self.model
        if api == "embeddings":
            inputs = document["input"] if isinstance(document["input"], list) else [document["input"]]
            encoding = document.get("encoding_format", "float")
            return web.json_response(answers.embeddings(name, inputs, encoding, tokens))
        if not document.get("stream"):
            if api == "messages":
                return web.json_response(answers.message(name, text, tokens, self.cache))
            whole = {
                "chat_completions": answers.chat,
                "completions": answers.completion,
                "responses": answers.response,
            }
            return web.json_response(whole[api](name, text, tokens))
        include_usage = bool((document.get("stream_options") or {}).get("include_usage"))
        if api == "chat_completions":
            events = answers.chat_stream(name, text, tokens, include_usage)
        elif api == "completions":
            events = answers.completion_stream(name, text, tokens, include_usage)
        elif api == "responses":
            events = answers.response_stream(name, text, tokens)
        else:
            events = answers.message_stream(name, text, tokens, self.cache)
        return await self._stream(request, events, failure)

    async def _stream(
        self, request: web.Request, events: Iterable[answers.Event], failure: Failure | None
    ) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"content-type": "text/event-stream", "cache-control": "no-cache"})
        await stream.prepare(request)
        waiting = b""
        for count, event in enumerate(events):
            if failure is not None and failure.do == "cut" and count >= failure.chunks:
                if request.transport is not None:
                    request.transport.abort()
                raise ConnectionResetError
            if waiting:
                await stream.write(waiting)
                await asyncio.sleep(self.chunk_seconds)
            waiting = answers.encode(event)
        # The end comes with the last event, or a client that hangs up after `[DONE]` would look like one that left.
        await stream.write_eof(waiting)
        return stream


def servers_for(config: RouterConfig, keys: Mapping[str, str]) -> dict[str, SimulatedModel]:
    """A server for every model of a router.yaml, at the address and paths that the file gives.

    `keys` are the environment variables that Envoy reads the keys from.
    """
    servers = {}
    for name, model in config.models.items():
        endpoint = endpoint_of(model)
        header, prefix = key_header(model)
        servers[name] = SimulatedModel(
            model=upstream_name(name, model),
            paths={upstream_path(name, model, api).partition("?")[0]: api.value for api in model.speaks},
            key=prefix + keys[model.auth.env] if model.auth is not None and model.auth.env is not None else None,
            key_header=header,
            host=endpoint.host,
            port=endpoint.port,
        )
    return servers
