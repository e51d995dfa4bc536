"""The one mutable object per stream: what is known of an exchange so far. Only `processor` changes it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from router_extproc.account_names import account_name
from router_extproc.apis.base import BodyReader, ClientApi
from router_extproc.domain import LlmRequest
from router_extproc.errors import BodyTooLarge, UnsupportedEncoding
from router_extproc.inference.base import Prompt
from router_extproc.inference.windows import settled
from router_extproc.router import Early, Judged, classifier_prompt
from router_extproc.runtime import Runtime
from router_extproc.signals.base import Reads
from router_extproc.telemetry.context import TraceContext

SPECULATION_PAUSE = 0.002
"""Seconds without a further chunk after which classifying what is there is worth a guess. It doubles with every guess:
a conversation that trickles in costs a few passes and not one per turn."""

AHEAD_BYTES = 16 * 1024
"""Bytes of a body after which texts beside the prompt that have arrived are worth reading, where all of them are."""

MAX_AHEAD = 64
"""Texts beside the prompt that are read before the body is complete."""

SPECULATION_SECONDS = 30.0
"""How long an early classification may wait in the queue: the body may take its time to arrive."""


@dataclass(slots=True)
class Speculation:
    """A classification that was started before the body was complete."""

    prompt: Prompt
    task: Early


@dataclass(slots=True)
class Exchange:
    """One request on its way. Pins the configuration generation that it started with."""

    runtime: Runtime
    api: ClientApi
    headers: Mapping[str, str]
    reader: BodyReader
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    chunks: list[bytes] = field(default_factory=list)
    size: int = 0
    held: int = 0
    body_ended: bool = False
    trailers: bool = False  # they are its end, or seem to be
    started: float = field(default_factory=time.monotonic)
    body_done: float = 0.0
    speculation: Speculation | None = None
    trace: TraceContext | None = None
    judged: Judged | None = None
    ahead: dict[str, Early] = field(default_factory=dict)
    _pause: asyncio.TimerHandle | None = None
    _guesses: int = 0
    _growing: str = ""
    _settled: int = 0
    _grown: int = 0
    _read_at: int = 0

    @property
    def request_id(self) -> str:
        """Envoy's request id, which joins our logs with its access log; ours where Envoy set none."""
        return self.headers.get("x-request-id", self.id)

    @property
    def tenant(self) -> str:
        """Who the request is counted for, by the header that `ledger.tenant_header` names; empty without one."""
        header = self.runtime.config.ledger.tenant_header
        value = self.headers.get(header, "") if header is not None else ""
        return "".join(char if char.isprintable() else "?" for char in account_name(value))

    @property
    def announced(self) -> int | None:
        """The body's length by its content-length, None without one."""
        length = self.headers.get("content-length", "")
        return int(length) if length.isdecimal() else None

    def check_headers(self) -> None:
        """Refuses by headers alone, before a byte of the body was read.

        Raises BodyTooLarge by content-length, UnsupportedEncoding for a compressed body: it could not be routed.
        """
        encoding = self.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise UnsupportedEncoding(f"a request body with content-encoding {encoding} cannot be routed")
        if self.announced is not None and self.announced > self.runtime.config.limits.max_body_bytes:
            raise self._too_large()

    def seems_whole(self, *, wrong: bool) -> bool:
        """Whether a body that pauses has ended: at its content-length, or else where its JSON ends or is `wrong`."""
        if self.announced is not None:
            return self.size == self.announced
        return wrong or self.reader.complete()

    def hold(self, chunk: bytes) -> None:
        """Keeps a chunk of the body. Raises BodyTooLarge."""
        self.count(chunk)
        self.chunks.append(chunk)
        self.held += len(chunk)

    def count(self, chunk: bytes) -> None:
        """Counts a chunk against the limit without keeping it. Raises BodyTooLarge."""
        self.size += len(chunk)
        if self.size > self.runtime.config.limits.max_body_bytes:
            raise self._too_large()

    def speculate(self) -> None:
        """Classifies ahead while the body is still arriving.

        A long turn is classified as it grows, one pass at a time and only as far as its windows will stay as they are:
        the engine remembers what it has read, so that at the end only the last window is left, and none was read in
        vain. A complete turn is classified if the rest keeps us waiting.
        """
        if not self.runtime.router.classifies:
            return
        if self._pause is not None:
            self._pause.cancel()
        if self.runtime.router.reads is Reads.CONVERSATION and self.size - self._read_at >= AHEAD_BYTES:
            self._read_ahead()
        if self.speculation is None or self.speculation.task.done():
            growing = self.reader.growing()
            if growing is not self._growing:
                self._growing, self._settled = growing, settled(growing)
            if self._settled > self._grown:
                self._grown = self._settled
                self._guess(self.reader.arriving(), self._grown)
                return
        wait = SPECULATION_PAUSE * 2**self._guesses
        self._pause = asyncio.get_running_loop().call_later(wait, self._guess_complete)

    def _guess_complete(self) -> None:
        self._guesses += 1
        self._guess(self.reader.partial())
        self._read_ahead()

    def _read_ahead(self) -> None:
        """Classifies the texts beside the prompt that are there, for the engine to remember or `judge` to wait for."""
        self._read_at = self.size
        router = self.runtime.router
        if router.reads is Reads.PROMPT:
            return
        for text in router.beside(*self.reader.written()):
            if text not in self.ahead and len(self.ahead) < MAX_AHEAD:
                until = time.monotonic() + SPECULATION_SECONDS
                self.ahead[text] = asyncio.create_task(router.classify(Prompt(text), until))

    def _guess(self, request: LlmRequest | None, length: int | None = None) -> None:
        if request is None:
            return
        prompt = classifier_prompt(request)
        prompt = Prompt(prompt.text[:length], prompt.context)
        if self.speculation is not None:
            if self.speculation.prompt == prompt:
                return
            self.speculation.task.cancel()
        self.speculation = Speculation(
            prompt, asyncio.create_task(self.runtime.router.classify(prompt, time.monotonic() + SPECULATION_SECONDS))
        )

    def speculated(self, request: LlmRequest) -> Early | None:
        """The early classification, if it turned out to be of the right text; a wrong one is cancelled."""
        if self._pause is not None:
            self._pause.cancel()
        if self.speculation is None:
            return None
        if self.speculation.prompt == classifier_prompt(request):
            return self.speculation.task
        self.speculation.task.cancel()
        return None

    def close(self) -> None:
        """Drops what is still running. Safe to call at any time, more than once."""
        if self._pause is not None:
            self._pause.cancel()
        if self.speculation is not None:
            self.speculation.task.cancel()
        for task in self.ahead.values():
            task.cancel()
        self.chunks.clear()

    def _too_large(self) -> BodyTooLarge:
        limit = self.runtime.config.limits.max_body_bytes
        return BodyTooLarge(f"the request body is larger than the limit of {limit} bytes")
