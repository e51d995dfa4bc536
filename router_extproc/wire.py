"""The only code that knows ext_proc's protobufs: messages from Envoy into plain values, answers into protobufs.

Protocol rules that are easy to break, each found on a real Envoy 1.40:

- An answer that changes the route must carry a `header_mutation`, or the cleared route cache is ignored in silence.
- STREAMED wants one answer for the headers and exactly one per body chunk, the empty last one included.
- FULL_DUPLEX_STREAMED wants the headers answer first, then the body as `streamed_response` pieces of which the last
  has `end_of_stream`.
- In both, a body whose end is trailers goes in the headers answer, as a whole: answered in pieces it reaches the model
  twice where the route has retries. STREAMED tells of no trailers while it waits for the headers answer.
- BUFFERED wants the headers answer at once; the body, then the routing, comes in the body answer. The body is whole,
  though `end_of_stream` is off where trailers follow.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

from google.protobuf.duration_pb2 import Duration

from router_extproc.pb import ext_proc_pb2 as pb

METADATA_NAMESPACE = "mom"
CLIENT_SECONDS = 3600
"""The most that Envoy lets a sidecar ask for, and that `max_message_timeout` allows."""

STREAMED_PIECE = 64 * 1024
"""Bytes per FULL_DUPLEX_STREAMED answer, the size that Envoy's documentation recommends."""

Reply: TypeAlias = pb.ProcessingResponse


class BodyMode(Enum):
    """How the filter sends the request body; the first message of a stream says it."""

    NONE = pb.NONE
    STREAMED = pb.STREAMED
    BUFFERED = pb.BUFFERED
    BUFFERED_PARTIAL = pb.BUFFERED_PARTIAL
    FULL_DUPLEX = pb.FULL_DUPLEX_STREAMED


@dataclass(frozen=True, slots=True)
class RequestHeaders:
    """The first message. `held` is true when Envoy sends the body without waiting for the headers answer."""

    headers: Mapping[str, str]
    end_of_stream: bool
    mode: BodyMode
    held: bool

    @property
    def method(self) -> str:
        """HTTP method."""
        return self.headers.get(":method", "")

    @property
    def path(self) -> str:
        """Path with query string."""
        return self.headers.get(":path", "")


@dataclass(frozen=True, slots=True)
class RequestBody:
    """A chunk of the body, in order; may be empty."""

    chunk: bytes
    end_of_stream: bool


@dataclass(frozen=True, slots=True)
class RequestTrailers:
    """The client sent trailers: the body is complete."""


@dataclass(frozen=True, slots=True)
class Unexpected:
    """A phase that our filter configuration leaves off; it gets the answer that changes nothing."""

    field: str


Message: TypeAlias = RequestHeaders | RequestBody | RequestTrailers | Unexpected


def decode(request: pb.ProcessingRequest) -> Message:
    """One message of the stream. A header that is not UTF-8 keeps its bytes as surrogate escapes."""
    match request.WhichOneof("request"):
        case "request_body":
            return RequestBody(request.request_body.body, request.request_body.end_of_stream)
        case "request_headers":
            config = request.protocol_config
            message = request.request_headers
            headers = {
                header.key: header.raw_value.decode("utf-8", "surrogateescape") if header.raw_value else header.value
                for header in message.headers.headers
            }
            mode = BodyMode(config.request_body_mode) if config.request_body_mode != pb.GRPC else BodyMode.NONE
            # The flag has no effect in other modes: there Envoy waits for the headers answer.
            streamed = mode is BodyMode.STREAMED and config.send_body_without_waiting_for_header_response
            return RequestHeaders(headers, message.end_of_stream, mode, streamed or mode is BodyMode.FULL_DUPLEX)
        case "request_trailers":
            return RequestTrailers()
        case other:
            return Unexpected(other or "")


def await_client() -> Reply:
    """No answer yet, for the client is slow or masking takes long: `message_timeout` begins anew with the next chunk.
    Envoy takes one for each message of its own. The listener's idle timeout ends a request that never goes on."""
    return pb.ProcessingResponse(override_message_timeout=Duration(seconds=CLIENT_SECONDS))


def proceed(message: Message) -> Reply:
    """The answer that changes nothing."""
    match message:
        case RequestHeaders():
            return pb.ProcessingResponse(request_headers=pb.HeadersResponse())
        case RequestBody():
            return pb.ProcessingResponse(request_body=pb.BodyResponse())
        case RequestTrailers():
            return pb.ProcessingResponse(request_trailers=pb.TrailersResponse())
        case Unexpected(field="response_headers"):
            return pb.ProcessingResponse(response_headers=pb.HeadersResponse())
        case Unexpected(field="response_body"):
            return pb.ProcessingResponse(response_body=pb.BodyResponse())
        case _:
            return pb.ProcessingResponse(response_trailers=pb.TrailersResponse())


# Answers are filled in place: a message that is handed to another one's constructor is copied, at every level.


def _set(mutation: pb.HeaderMutation, headers: Mapping[str, str]) -> None:
    for key, value in headers.items():
        option = mutation.set_headers.add(append_action=pb.HeaderValueOption.OVERWRITE_IF_EXISTS_OR_ADD)
        option.header.key = key
        option.header.raw_value = value.encode("utf-8", "surrogateescape")


def _route(reply: Reply, response: pb.CommonResponse, headers: Mapping[str, str], metadata: Mapping[str, Any]) -> None:
    """Fills `response`, a part of `reply`."""
    response.clear_route_cache = True
    response.header_mutation.SetInParent()
    _set(response.header_mutation, headers)
    reply.dynamic_metadata.update({METADATA_NAMESPACE: dict(metadata)})


def route_in_headers(set_headers: Mapping[str, str], metadata: Mapping[str, Any]) -> Reply:
    """The headers answer that re-routes: for STREAMED (held) and FULL_DUPLEX, and for requests without a body."""
    reply = pb.ProcessingResponse()
    _route(reply, reply.request_headers.response, set_headers, metadata)
    return reply


def route_with_body(set_headers: Mapping[str, str], metadata: Mapping[str, Any], body: bytes) -> Reply:
    """The headers answer that re-routes and brings the whole body: for one whose end is trailers.

    It is the last answer: Envoy then sends no more of the request, and takes none of what the client still sends.
    """
    reply = route_in_headers(set_headers, metadata)
    reply.request_headers.response.status = pb.CommonResponse.CONTINUE_AND_REPLACE
    reply.request_headers.response.body_mutation.body = body
    return reply


def route_in_body(set_headers: Mapping[str, str], metadata: Mapping[str, Any], body: bytes | None) -> Reply:
    """The body answer that re-routes, for BUFFERED. `body` replaces the whole body; its length is set with it.

    BUFFERED keeps the client's content-length and answers a body of another length with a 500.
    """
    headers = dict(set_headers)
    if body is not None:
        headers["content-length"] = str(len(body))
    reply = pb.ProcessingResponse()
    _route(reply, reply.request_body.response, headers, metadata)
    if body is not None:
        reply.request_body.response.body_mutation.body = body
    return reply


def replace_chunk(chunk: bytes) -> Reply:
    """A STREAMED body answer that sends `chunk` on in place of the chunk received."""
    mutation = pb.BodyMutation(body=chunk) if chunk else pb.BodyMutation(clear_body=True)
    return pb.ProcessingResponse(request_body=pb.BodyResponse(response=pb.CommonResponse(body_mutation=mutation)))


def keep_chunk() -> Reply:
    """A STREAMED body answer that sends the chunk received on as it was."""
    return pb.ProcessingResponse(request_body=pb.BodyResponse())


def stream_body(chunks: Sequence[bytes], *, ends: bool) -> list[Reply]:
    """A body, or a part, as FULL_DUPLEX_STREAMED answers. `ends` is false when more follows."""
    pieces = [
        chunk[start : start + STREAMED_PIECE] for chunk in chunks for start in range(0, len(chunk), STREAMED_PIECE)
    ] or [b""]
    last = len(pieces) - 1
    return [
        pb.ProcessingResponse(
            request_body=pb.BodyResponse(
                response=pb.CommonResponse(
                    body_mutation=pb.BodyMutation(
                        streamed_response=pb.StreamedBodyResponse(body=piece, end_of_stream=ends and index == last)
                    )
                )
            )
        )
        for index, piece in enumerate(pieces)
    ]


def details(code: str) -> str:
    """What Envoy's access log says of an error of ours, as its response code details; no answer of a model has them."""
    return f"mom_{code}"


def answer(status: int, body: bytes, details: str, headers: Mapping[str, str] | None = None) -> Reply:
    """An answer to the client without any upstream. `details` shows up in Envoy's access log; no spaces."""
    reply = pb.ProcessingResponse()
    said = reply.immediate_response
    said.status.code, said.body, said.details = status, body, details
    _set(said.headers, {"content-type": "application/json", **(headers or {})})
    return reply
