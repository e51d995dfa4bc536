"""The gRPC server: ext_proc, the access log service and health on one port.

Health has three names: `liveness` (the process runs), `readiness` (model loaded, configuration valid, not draining) and
the empty one, which is the same as `readiness` and is what Envoy asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from router_extproc import wire
from router_extproc.outcomes import outcome_of
from router_extproc.pb import access_log_pb2, access_log_pb2_grpc, ext_proc_pb2, ext_proc_pb2_grpc
from router_extproc.processor import Processor
from router_extproc.telemetry.recorder import Recorder
from router_extproc.tls import TlsFiles, server_credentials

log = logging.getLogger(__name__)

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
READY_SERVICES = ("", "readiness", "envoy.service.ext_proc.v3.ExternalProcessor")

OPTIONS = (
    # A chunk is at most Envoy's buffer limit, and the whole body in BUFFERED mode: the body cap bounds it, not gRPC.
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # Two processes on one port would share connections unevenly: one HTTP/2 connection per Envoy worker and endpoint.
    ("grpc.so_reuseport", 0),
    # Envoy's connections live for days; let it ping as often as it is set to.
    ("grpc.http2.min_ping_interval_without_data_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
)


class _ExternalProcessor(ext_proc_pb2_grpc.ExternalProcessorServicer):
    def __init__(self, processor: Processor) -> None:
        self._processor = processor

    async def Process(  # noqa: N802 - the name is the protocol's
        self, request_iterator: AsyncIterator[ext_proc_pb2.ProcessingRequest], context: Any
    ) -> AsyncIterator[ext_proc_pb2.ProcessingResponse]:
        # Without aclosing, a cancelled stream would leave the processor's cleanup to the garbage collector.
        async with contextlib.aclosing(self._processor.run(_Messages(request_iterator))) as replies:
            async for reply in replies:
                yield reply


class _Messages:
    """What Envoy says, decoded. No generator: one that is left before its end, as here once the request is routed,
    costs a task that closes it."""

    def __init__(self, requests: AsyncIterator[ext_proc_pb2.ProcessingRequest]) -> None:
        self._requests = requests

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> wire.Message:
        return wire.decode(await anext(self._requests))


class _AccessLog(access_log_pb2_grpc.AccessLogServiceServicer):
    def __init__(self, recorder: Recorder, models_by_cluster: Callable[[], Mapping[str, str]]) -> None:
        self._recorder = recorder
        self._models_by_cluster = models_by_cluster

    async def StreamAccessLogs(  # noqa: N802 - the name is the protocol's
        self, request_iterator: AsyncIterator[access_log_pb2.StreamAccessLogsMessage], context: Any
    ) -> access_log_pb2.StreamAccessLogsResponse:
        async for message in request_iterator:
            for entry in message.http_logs.log_entry:
                # One odd entry must not lose those behind it, nor end Envoy's log stream.
                try:
                    outcome = outcome_of(entry, self._models_by_cluster)
                    if outcome is not None:
                        self._recorder.outcome(outcome)
                except Exception:
                    log.exception("an access log entry could not be read")
        return access_log_pb2.StreamAccessLogsResponse()


class Server:
    """The sidecar's one public port. `address` is HOST:PORT or unix:/PATH; port 0 picks a free one."""

    def __init__(
        self,
        address: str,
        processor: Processor,
        recorder: Recorder,
        models_by_cluster: Callable[[], Mapping[str, str]],
        max_streams: int = 8192,
        tls: TlsFiles | None = None,
    ) -> None:
        """More than `max_streams` at once are refused with RESOURCE_EXHAUSTED: Envoy then fails open at once.

        Without `tls` the port is plaintext. Raises ConfigError when the certificate cannot be used, OSError when the
        address cannot.
        """
        self._server = grpc.aio.server(options=list(OPTIONS), maximum_concurrent_rpcs=max_streams)
        self._health = HealthServicer()
        ext_proc_pb2_grpc.add_ExternalProcessorServicer_to_server(_ExternalProcessor(processor), self._server)
        access_log_pb2_grpc.add_AccessLogServiceServicer_to_server(
            _AccessLog(recorder, models_by_cluster), self._server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        try:
            self.port = (
                self._server.add_insecure_port(address)
                if tls is None
                else self._server.add_secure_port(address, server_credentials(tls))
            )
        except RuntimeError:
            # gRPC itself has logged which of these it is.
            why = "it is taken, not an address of this machine, or a name that does not resolve"
            raise OSError(f"cannot listen on {address}: {why}") from None

    async def start(self) -> Self:
        """Listens; not ready yet."""
        await self._set_ready(False)
        await self._health.set("liveness", SERVING)
        await self._server.start()
        return self

    async def ready(self) -> None:
        """Tells Envoy to send requests."""
        await self._set_ready(True)

    async def drain(self, notice: float, grace: float) -> None:
        """Stops without losing a request.

        Health says NOT_SERVING first, and we go on serving for `notice` seconds, longer than Envoy's health check
        interval: stopping at once would cost the requests that Envoy sends until its next check. Then new streams are
        refused, and those in flight get `grace` seconds.
        """
        await self._set_ready(False)
        await asyncio.sleep(notice)
        await self._server.stop(grace)

    async def _set_ready(self, ready: bool) -> None:
        for service in READY_SERVICES:
            await self._health.set(service, SERVING if ready else NOT_SERVING)
