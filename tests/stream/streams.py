"""Builders for ext_proc streams: messages as Envoy sends them, and what its answers add up to."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.json_format import MessageToDict

from router_extproc.pb import ext_proc_pb2 as pb

STREAMED, BUFFERED, FULL_DUPLEX = pb.STREAMED, pb.BUFFERED, pb.FULL_DUPLEX_STREAMED


def chat(prompt: str, model: str = "auto", **extra: Any) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": prompt}], **extra}).encode()


def headers(
    *,
    path: str = "/v1/chat/completions",
    method: str = "POST",
    mode: int = STREAMED,
    held: bool = True,
    end: bool = False,
    **extra: str,
) -> pb.ProcessingRequest:
    values = {":method": method, ":path": path, "content-type": "application/json"}
    values |= {name.replace("_", "-"): value for name, value in extra.items()}
    return pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(
            headers=pb.HeaderMap(headers=[pb.HeaderValue(key=k, raw_value=v.encode()) for k, v in values.items()]),
            end_of_stream=end,
        ),
        protocol_config=pb.ProtocolConfiguration(
            request_body_mode=mode,  # type: ignore[arg-type] # enums are plain ints on the wire
            send_body_without_waiting_for_header_response=held and mode == STREAMED,
        ),
    )


def body(chunk: bytes, *, end: bool) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_body=pb.HttpBody(body=chunk, end_of_stream=end))


def trailers() -> pb.ProcessingRequest:
    return pb.ProcessingRequest(request_trailers=pb.HttpTrailers())


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def request(
    content: bytes, *, size: int = 1 << 20, with_trailers: bool = False, **kwargs: Any
) -> list[pb.ProcessingRequest]:
    """All messages of one request: headers, the body in pieces of `size`, an empty last piece or trailers."""
    pieces = [body(piece, end=False) for piece in cut(content, size)]
    last = trailers() if with_trailers else body(b"", end=True)
    return [headers(**kwargs), *pieces, last]


@dataclass
class Answers:
    """What Envoy would make of the answers to one request."""

    replies: list[pb.ProcessingResponse]
    sent: list[bytes] = field(default_factory=list)

    @property
    def kinds(self) -> list[str]:
        return [reply.WhichOneof("response") or "" for reply in self.replies]

    @property
    def routing(self) -> pb.ProcessingResponse:
        """The one answer that routes."""
        routing = [reply for reply in self.replies if reply.HasField("dynamic_metadata")]
        assert len(routing) == 1, self.replies
        return routing[0]

    @property
    def replaces(self) -> bool:
        """Whether the one answer is to the headers and brings the body."""
        common = self.replies[0].request_headers.response
        return len(self.replies) == 1 and common.status == pb.CommonResponse.CONTINUE_AND_REPLACE

    @property
    def headers(self) -> dict[str, str]:
        """Headers that are set on the request."""
        reply = self.routing
        common = reply.request_headers.response if reply.HasField("request_headers") else reply.request_body.response
        assert common.clear_route_cache
        assert common.HasField("header_mutation")
        return {o.header.key: o.header.raw_value.decode() for o in common.header_mutation.set_headers}

    @property
    def metadata(self) -> dict[str, Any]:
        metadata: dict[str, Any] = MessageToDict(self.routing.dynamic_metadata)["mom"]
        return metadata

    @property
    def plan(self) -> list[str]:
        return [group["name"] for group in self.metadata["priority_groups"]]

    @property
    def error(self) -> tuple[int, dict[str, Any]]:
        assert self.kinds[-1] == "immediate_response", self.kinds
        reply = self.replies[-1].immediate_response
        document: dict[str, Any] = json.loads(reply.body)
        return reply.status.code, document

    def upstream_body(self) -> bytes:
        """The body that the upstream would get: the whole new one, or mutations applied to the chunks sent, 1:1."""
        if self.replaces:
            return self.routing.request_headers.response.body_mutation.body
        answers = [reply.request_body.response for reply in self.replies if reply.HasField("request_body")]
        streamed = [a for a in answers if a.body_mutation.HasField("streamed_response")]
        if streamed:
            return b"".join(a.body_mutation.streamed_response.body for a in streamed)
        assert len(answers) == len(self.sent)
        whole = b""
        for answer, chunk in zip(answers, self.sent, strict=True):
            match answer.body_mutation.WhichOneof("mutation"):
                case None:
                    whole += chunk
                case "body":
                    whole += answer.body_mutation.body
                case "clear_body":
                    pass
        return whole


def chunks_of(messages: Iterable[pb.ProcessingRequest]) -> list[bytes]:
    return [message.request_body.body for message in messages if message.HasField("request_body")]
