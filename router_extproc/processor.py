"""READ FIRST. One ext_proc stream is one HTTP request; this file tells its story from top to bottom.

Envoy sends the request's headers, then its body as it arrives, and holds everything until it is answered. While the
body still comes in, its texts are read and the newest human turn is already being classified. When the last byte is
there, the router decides before its deadline, and the answer tells Envoy the cluster and the plan. Nothing of the
response passes through here: Envoy streams it to the client, and its access log tells `outcomes` what became of it.

Whatever breaks, the client gets an answer: its own mistakes in the shape of the API that it called, ours by the
default model, or a refusal where a guard lets nothing pass unread.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from router_extproc import wire
from router_extproc.apis.error_body import openai_error
from router_extproc.apis.mask import QUICK_BYTES, mask
from router_extproc.apis.models_list import answer_models
from router_extproc.apis.rewrite import replace_span
from router_extproc.apis.table import for_path
from router_extproc.config.envoy_routes import default_models
from router_extproc.config.model import Api
from router_extproc.config.providers import UNKNOWN_PATH, UNKNOWN_PATH_CODE
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band
from router_extproc.errors import BudgetSpent, ClientError, GuardBlocked, MalformedBody, Saturated, Unjudged
from router_extproc.exchange import Exchange
from router_extproc.guards import must_judge
from router_extproc.router import Routed
from router_extproc.runtime import Runtimes
from router_extproc.telemetry.recorder import OPERATIONS, Decided, Recorder, Refused
from router_extproc.wire import BodyMode, Message, Reply, RequestBody, RequestHeaders, RequestTrailers, Unexpected

log = logging.getLogger(__name__)

UNJUDGED = "The router cannot judge this request now, and its rules let nothing pass unread. Please try again."
UNMASKED = "The router had no time to mask what its rules cover in this request. Please try again."

PATIENCE_SECONDS = 1.0
"""A client that sends nothing for so long is slow. Less than any timeout that Envoy has for us."""

MASKING_SECONDS = 1.0
"""How long after the deadline masking may end where the gateway cannot be asked for time. It waits two seconds, and in
these the body also comes here and goes back."""

Admit = Callable[[str, Routed, Mapping[str, str], str, RouterConfig], Awaitable[Routed]]
"""Decision id, plan, request headers, tenant and configuration -> the plan to follow."""


async def _as_routed(_identity: str, routed: Routed, *_: object) -> Routed:
    return routed


class _Incoming:
    """The messages of one stream. One that was waited for in vain is still taken when it comes: gRPC reads one at a
    time, and once it was stopped in that, no more."""

    def __init__(self, messages: AsyncIterator[Message]) -> None:
        self._messages = messages
        self._reading: asyncio.Future[Message | None] | None = None

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        reading, self._reading = self._reading, None
        message = await (anext(self._messages, None) if reading is None else reading)
        if message is None:
            raise StopAsyncIteration
        return message

    async def comes(self, seconds: float) -> bool:
        """Whether the next one, or the end, comes within so long."""
        if self._reading is None:
            self._reading = asyncio.ensure_future(anext(self._messages, None))
            # A stream that breaks off ends it with an error, which may be nobody's any more.
            self._reading.add_done_callback(lambda done: done.cancelled() or done.exception())
        arrived, _ = await asyncio.wait((self._reading,), timeout=seconds)
        return bool(arrived)


class ClientGone(Exception):
    """The stream ended before the body did: the client left, and nobody waits for an answer."""


class Processor:
    """Serves every ext_proc stream of this process, on the event loop."""

    def __init__(
        self,
        runtimes: Runtimes,
        recorder: Recorder,
        max_held_bytes: int = 1 << 30,
        admit: Admit = _as_routed,
    ) -> None:
        """The bodies of all streams together hold at most `max_held_bytes`; beyond that requests go unrouted.

        `admit` may change a plan, or refuse it by a ClientError.
        """
        self._admit = admit
        self._runtimes = runtimes
        self._recorder = recorder
        self._room = max_held_bytes
        self._masking = ThreadPoolExecutor(1, "masking")  # starts its thread with the first body

    async def run(self, messages: AsyncIterator[Message]) -> AsyncGenerator[Reply, None]:
        """Answers one stream. Ends after the last answer that Envoy waits for."""
        messages = _Incoming(messages)
        first = await anext(messages, None)
        if not isinstance(first, RequestHeaders):
            return
        runtime = self._runtimes.current
        models = answer_models(first.method, first.path, first.headers, runtime.model_names)
        if models is not None:
            yield wire.answer(models.status, models.body, "mom_models")
            return
        api = for_path(first.path) if first.method == "POST" else None
        if api is None and first.path.startswith("/v1/") and not runtime.config.passthrough:
            # Only below /v1: a gateway may hand over what belongs to other applications.
            yield wire.answer(404, openai_error(404, UNKNOWN_PATH_CODE, UNKNOWN_PATH, None), f"mom_{UNKNOWN_PATH_CODE}")
            return
        if api is None or not self._can_route(first):
            if api is not None and must_judge(runtime.config):
                yield self._refuse(Exchange(runtime, api, first.headers, api.reader()), Unjudged(UNJUDGED))
                return
            async for reply in _pass_on(first, messages):
                yield reply
            return

        exchange = Exchange(runtime, api, first.headers, api.reader(), body_ended=first.end_of_stream)
        try:
            exchange.check_headers()
            if not first.held and not first.end_of_stream:
                yield wire.proceed(first)
            async for reply in self._read_body(exchange, messages, first.mode):
                yield reply
            routed = await self._judge(exchange)
            if first.mode is BodyMode.STREAMED and routed.decision.masked and exchange.held > QUICK_BYTES:
                yield wire.await_client()  # Envoy's timeout would let the body go as it came
            masked = await self._masked(exchange, routed, first.mode)
            routed = await self._decide(exchange, routed)
            for reply in _answers(exchange, routed, first.mode, masked):
                yield reply
        except ClientError as error:
            yield self._refuse(exchange, error)
        except ClientGone:
            self._recorder.client_gone(exchange.api.name)
        except Exception as error:  # noqa: BLE001 - logged with its traceback; a bug must not cost the request
            reason = self._give_up(exchange, error)
            if must_judge(runtime.config):
                yield self._refuse(exchange, Unjudged(UNJUDGED))
            else:
                for reply in _default_answers(exchange, first.mode, reason):
                    yield reply
                if not exchange.body_ended:
                    async for reply in _pass_rest(first.mode, messages):
                        yield reply
        finally:
            self._room += exchange.held
            exchange.close()
        if first.mode is BodyMode.FULL_DUPLEX or exchange.trailers:
            # Closing first would end the exchange before Envoy has used the answers.
            async for message in messages:
                if isinstance(message, Unexpected):  # a filter that also sends the answer's headers waits for this
                    yield wire.proceed(message)

    def _can_route(self, first: RequestHeaders) -> bool:
        """Whether the filter's mode lets the body decide the route. STREAMED must hold the headers for that."""
        able = first.held or first.mode is BodyMode.BUFFERED
        if not able:
            self._recorder.unusable_mode(first.mode.name)
        return able

    async def _read_body(self, exchange: Exchange, messages: _Incoming, mode: BodyMode) -> AsyncGenerator[Reply, None]:
        """Reads to the end of the body, classifying ahead.

        Of a slow client Envoy is told in STREAMED alone: else it waits for no answer before the body is there. There
        too a pause may be the end: while Envoy waits for our answer it keeps trailers, and so the end, to itself.
        """
        mistake: MalformedBody | None = None
        while not exchange.body_ended:
            if mode is BodyMode.STREAMED and not await messages.comes(PATIENCE_SECONDS):
                if exchange.seems_whole(wrong=mistake is not None):
                    exchange.body_ended = exchange.trailers = True
                    break
                yield wire.await_client()
            match await anext(messages, None):
                case RequestBody(chunk, end_of_stream):
                    # BUFFERED sends the whole body in one message; where trailers follow, its flag is off.
                    exchange.body_ended = end_of_stream or mode is BodyMode.BUFFERED
                    if mistake is not None:
                        exchange.count(chunk)
                        continue
                    exchange.hold(chunk)
                    self._room -= len(chunk)
                    try:
                        exchange.reader.feed(chunk)
                    except MalformedBody as error:
                        # An HTTP/1.1 client that is still sending would see a reset instead of the answer.
                        mistake = error
                        continue
                    if self._room < 0:
                        raise Saturated(f"no room to hold {exchange.held} more bytes")
                    if not exchange.body_ended:
                        exchange.speculate()
                case RequestTrailers():
                    exchange.body_ended = exchange.trailers = True
                case _:
                    raise ClientGone
        exchange.body_done = time.monotonic()
        if mistake is not None:
            raise mistake

    async def _judge(self, exchange: Exchange) -> Routed:
        request = exchange.reader.finish()
        exchange.trace = self._recorder.sampler.context(exchange.headers, exchange.id)
        router = exchange.runtime.router
        judged = exchange.judged = await router.judge(
            request, exchange.headers, _deadline(exchange), exchange.speculated(request), exchange.ahead
        )
        return router.choose(judged, exchange.headers)

    async def _decide(self, exchange: Exchange, routed: Routed) -> Routed:
        """The last word on the plan. All else that refuses comes before: from here on a budget may hold something."""
        routed = await self._admit(exchange.id, routed, exchange.headers, exchange.tenant, exchange.runtime.config)
        exchange.runtime.router.keep(routed)
        self._recorder.decided(
            Decided(
                decision_id=exchange.id,
                request=routed.request,
                signals=routed.signals,
                decision=routed.decision,
                plan=routed.plan,
                seconds=time.monotonic() - exchange.body_done,
                generation=exchange.runtime.generation,
                stages=(("body", exchange.body_done - exchange.started), *routed.stages),
                tenant=exchange.tenant,
                at=time.time(),
                trace=exchange.trace,
                session=routed.session,
                wishes=routed.wishes,
            )
        )
        return routed

    async def _masked(self, exchange: Exchange, routed: Routed, mode: BodyMode) -> dict[int, bytes]:
        """The chunks, by index, in which a guard masks text. Raises Unjudged before a gateway would not wait any more.

        In STREAMED Envoy has been asked for time, in FULL_DUPLEX it has no timeout. BUFFERED is also for gateways that
        cannot be asked.
        """
        texts = routed.decision.masked
        if not texts:
            return {}
        if exchange.held <= QUICK_BYTES:
            return mask(exchange.chunks, texts)
        # One thread for all streams: what is left of the machine is for those that nobody masks.
        masking = asyncio.get_running_loop().run_in_executor(self._masking, mask, tuple(exchange.chunks), texts)
        left = _deadline(exchange) + MASKING_SECONDS - time.monotonic()
        try:
            async with asyncio.timeout(left if mode is BodyMode.BUFFERED else None):
                return await masking  # which is cancelled with us: if it has not begun, it never does
        except TimeoutError:
            raise Unjudged(UNMASKED) from None

    def _refuse(self, exchange: Exchange, error: ClientError) -> Reply:
        judged = exchange.judged
        refused = None
        if judged is not None:
            refused = Refused(
                decision_id=exchange.id,
                request_id=exchange.request_id,
                request=judged.request,
                signals=judged.signals,
                status=error.status,
                code=error.code,
                guards=error.guards if isinstance(error, GuardBlocked) else (),
                generation=exchange.runtime.generation,
                tenant=exchange.tenant,
                session=judged.session,
                wishes=judged.wishes,
                at=time.time(),
            )
        self._recorder.refused(exchange.api.name, error.code, refused)
        body = exchange.api.error(error.status, error.code, error.message, error.param, exchange.request_id)
        # OpenAI's SDK shows x-request-id in its errors, Anthropic's shows request-id.
        ids = dict.fromkeys(("x-request-id", "request-id"), exchange.request_id)
        if isinstance(error, BudgetSpent):
            ids["retry-after"] = str(error.retry_after)
        return wire.answer(error.status, body, wire.details(error.code), {"x-mom-decision-id": exchange.id, **ids})

    def _give_up(self, exchange: Exchange, error: Exception) -> str:
        """Ours to answer for. Returns why, in a word for the client."""
        if isinstance(error, Saturated):
            log.warning("request %s is not judged: %s", exchange.request_id, error)
        else:
            log.error("request %s is not judged", exchange.request_id, exc_info=error)
        reason = "overloaded" if isinstance(error, Saturated) else "internal error"
        self._recorder.failed(exchange.api.name, reason)
        return reason


def _deadline(exchange: Exchange) -> float:
    """By when all signals are there, or absent; in `time.monotonic()` seconds."""
    return exchange.body_done + exchange.runtime.config.limits.deadline_ms / 1000


def _answers(exchange: Exchange, routed: Routed, mode: BodyMode, masked: Mapping[int, bytes]) -> list[Reply]:
    """What Envoy waits for: the route, and the body with the picked model's name where the client's stood."""
    changed = _rewritten(exchange, routed, masked)
    grown = sum(len(chunk) - len(exchange.chunks[index]) for index, chunk in changed.items())
    headers, metadata = _route(exchange, routed, exchange.held + grown)
    chunks = [changed.get(index, chunk) for index, chunk in enumerate(exchange.chunks)]
    if mode is BodyMode.BUFFERED:
        return [wire.route_in_body(headers, metadata, b"".join(chunks) if changed else None)]
    if exchange.trailers:
        return [wire.route_with_body(headers, metadata, b"".join(chunks))]
    replies = [wire.route_in_headers(headers, metadata)]
    if mode is BodyMode.FULL_DUPLEX:
        replies += wire.stream_body(chunks, ends=True)
    else:
        replies += [
            wire.replace_chunk(changed[index]) if index in changed else wire.keep_chunk()
            for index in range(len(exchange.chunks))
        ]
    return replies


def _rewritten(exchange: Exchange, routed: Routed, masked: Mapping[int, bytes]) -> dict[int, bytes]:
    """The chunks, by index, in which the model's name changes, and the `masked` ones. All others go on as they came."""
    request = routed.request
    changed = dict(masked)
    chunks = [changed.get(index, chunk) for index, chunk in enumerate(exchange.chunks)] if changed else exchange.chunks
    upstream = exchange.runtime.upstream_names[routed.plan.pick]
    if request.model_span is not None and upstream != request.model:
        changed.update(replace_span(chunks, request.model_span, json.dumps(upstream).encode()))
    return changed


def _route(exchange: Exchange, routed: Routed, length: int) -> tuple[dict[str, str], dict[str, object]]:
    """The headers that choose Envoy's route, and the metadata that holds the plan and explains it.

    Attempt n goes to `priority_groups[n]`. Where Envoy does not know one of them yet, it tries its own models in their
    configured order instead. Where others are ruled out, each group brings its cluster along: an unknown one is an
    error then. `x-mom-plan` says so to routes that do not read the plan.

    `body` tells each attempt's own filter where the model's name stands and how JSON spells it now, so that only an
    attempt at another model has to touch the body; and how long the body is with all our changes, so that one which we
    died over half-way is not mistaken for it.
    """
    runtime, decision, request = exchange.runtime, routed.decision, routed.request
    clusters = [runtime.clusters[name] for name in routed.plan.models]
    headers = {"x-mom-cluster": clusters[0], "x-mom-model": routed.plan.pick}
    # Nobody else may, or can, take these: another provider does not have the conversation, another model not the space.
    closed = decision.allowed is not None or request.stateful or request.api == "embeddings"
    if len(clusters) == 1:
        headers["x-mom-plan"] = "single"
    elif closed:
        headers["x-mom-plan"] = "closed"
    if request.stream and len(clusters) > 1:  # a plan's only model may take the time of the whole exchange
        headers["x-envoy-upstream-rq-per-try-timeout-ms"] = str(runtime.config.retry.first_byte_ms)
    if exchange.trace is not None:
        headers["traceparent"] = exchange.trace.traceparent
    metadata: dict[str, object] = {
        **_asked(exchange),
        "route": decision.route,
        "band": str(decision.band),
        "confidence": f"{decision.confidence:.2f}",
        "reason": decision.reason,
        "model": routed.plan.pick,
        "priority_groups": [
            {"name": cluster, **({"clusters": [{"cluster_name": cluster, "weight": 1}]} if closed else {})}
            for cluster in clusters
        ],
    }
    if routed.held:
        metadata["held"] = routed.held
    if request.model_span is not None:
        metadata["body"] = {
            "offset": request.model_span[0],
            "name": json.dumps(runtime.upstream_names[routed.plan.pick])[1:-1],
            "length": length,
        }
    return headers, metadata


def _asked(exchange: Exchange) -> dict[str, object]:
    """What the metadata tells of every request: who asked, by which API, and what `outcomes` needs to estimate tokens.

    Of a body that was not read to its end these are the tokens so far; whether the answer streams may be unknown then.
    """
    tokens, stream = exchange.reader.estimate()
    if stream is None and exchange.body_ended:
        stream = False
    api = exchange.api.name
    return {
        "decision_id": exchange.id,
        "api": api,
        "operation": OPERATIONS.get(api, api),
        "tenant": exchange.tenant,
        "tokens": tokens,
        **({} if stream is None else {"stream": stream}),
    }


def _default_answers(exchange: Exchange, mode: BodyMode, reason: str) -> list[Reply]:
    """Something of ours broke: Envoy's configured order, default model first, serves the request as it came.

    Gateways that name their clusters themselves have the first model of that order alone: `outcomes` needs its name.
    """
    metadata = {
        **_asked(exchange),
        "route": "default",
        "band": str(Band.DEFAULT),
        "confidence": "0.00",
        "reason": reason,
    }
    serves = default_models(exchange.runtime.config, Api(exchange.api.name))
    if serves:
        metadata["model"] = serves[0]
    if mode is BodyMode.BUFFERED and exchange.chunks:
        return [wire.route_in_body({}, metadata, None)]
    if exchange.trailers:
        return [wire.route_with_body({}, metadata, b"".join(exchange.chunks))]
    replies = [wire.route_in_headers({}, metadata)]
    if mode is BodyMode.FULL_DUPLEX:
        if exchange.chunks:
            replies += wire.stream_body(exchange.chunks, ends=exchange.body_ended)
    else:
        replies += [wire.keep_chunk() for _ in exchange.chunks]
    return replies


async def _pass_on(first: RequestHeaders, messages: AsyncIterator[Message]) -> AsyncIterator[Reply]:
    """Not ours: every message is answered with the answer that changes nothing."""
    yield wire.proceed(first)
    if not first.end_of_stream:
        async for reply in _pass_rest(first.mode, messages):
            yield reply


async def _pass_rest(mode: BodyMode, messages: AsyncIterator[Message]) -> AsyncIterator[Reply]:
    """Answers what is still to come of a body that nobody reads."""
    async for message in messages:
        if mode is BodyMode.FULL_DUPLEX and isinstance(message, RequestBody):
            for reply in wire.stream_body([message.chunk], ends=message.end_of_stream):
                yield reply
        else:
            yield wire.proceed(message)
