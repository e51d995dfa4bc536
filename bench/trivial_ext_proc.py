"""The least that an ext_proc server in Python can do: `python -m bench.trivial_ext_proc 127.0.0.1:PORT`.

It holds the request until its body is complete, as a server that looks at bodies must, and then changes nothing. What
it costs is what Envoy, gRPC and Python cost together, whatever a server does in between.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from router_extproc.pb import ext_proc_pb2 as pb
from router_extproc.pb import ext_proc_pb2_grpc

HEADERS = pb.ProcessingResponse(request_headers=pb.HeadersResponse())
BODY = pb.ProcessingResponse(request_body=pb.BodyResponse())


class Trivial(ext_proc_pb2_grpc.ExternalProcessorServicer):
    """Answers STREAMED with `send_body_without_waiting_for_header_response`."""

    async def Process(  # noqa: N802 - the name is the protocol's
        self, request_iterator: AsyncIterator[pb.ProcessingRequest], context: Any
    ) -> AsyncIterator[pb.ProcessingResponse]:
        chunks = 0
        async for message in request_iterator:
            if message.HasField("request_body"):
                chunks += 1
                if message.request_body.end_of_stream:
                    break
            elif message.request_headers.end_of_stream:
                break
        yield HEADERS
        for _ in range(chunks):
            yield BODY


async def serve(address: str) -> None:
    """Serves until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    server = grpc.aio.server()
    health = HealthServicer()
    ext_proc_pb2_grpc.add_ExternalProcessorServicer_to_server(Trivial(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    await health.set("", health_pb2.HealthCheckResponse.SERVING)
    server.add_insecure_port(address)
    await server.start()
    await stop.wait()
    await server.stop(0)


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
