import pytest
from google.protobuf.json_format import MessageToDict

from router_extproc import wire
from router_extproc.pb import ext_proc_pb2 as pb
from router_extproc.wire import BodyMode, RequestBody, RequestHeaders, RequestTrailers, Unexpected


def headers_message(mode: int, *, held: bool, end: bool = False) -> pb.ProcessingRequest:
    return pb.ProcessingRequest(
        request_headers=pb.HttpHeaders(
            headers=pb.HeaderMap(
                headers=[
                    pb.HeaderValue(key=":method", raw_value=b"POST"),
                    pb.HeaderValue(key=":path", raw_value=b"/v1/chat/completions?x=1"),
                    pb.HeaderValue(key="x-odd", raw_value=b"caf\xe9"),
                    pb.HeaderValue(key="x-old", value="text"),
                ]
            ),
            end_of_stream=end,
        ),
        protocol_config=pb.ProtocolConfiguration(
            request_body_mode=mode,  # type: ignore[arg-type] # enums are plain ints on the wire
            send_body_without_waiting_for_header_response=held,
        ),
    )


@pytest.mark.parametrize(
    ("mode", "held", "expected"),
    [
        (pb.STREAMED, True, True),
        (pb.STREAMED, False, False),
        (pb.FULL_DUPLEX_STREAMED, False, True),
        (pb.BUFFERED, False, False),
        (pb.NONE, False, False),
        # The flag is for STREAMED alone.
        (pb.BUFFERED, True, False),
        (pb.BUFFERED_PARTIAL, True, False),
        (pb.NONE, True, False),
    ],
)
def test_the_first_message_says_whether_the_headers_are_held(mode: int, held: bool, expected: bool) -> None:
    message = wire.decode(headers_message(mode, held=held))
    assert isinstance(message, RequestHeaders)
    assert message.mode.value == mode
    assert message.held is expected
    assert (message.method, message.path) == ("POST", "/v1/chat/completions?x=1")


def test_header_values_keep_bytes_that_are_not_utf8() -> None:
    message = wire.decode(headers_message(pb.STREAMED, held=True))
    assert isinstance(message, RequestHeaders)
    assert message.headers["x-odd"].encode("utf-8", "surrogateescape") == b"caf\xe9"
    assert message.headers["x-old"] == "text"


def test_body_trailers_and_other_phases() -> None:
    body = wire.decode(pb.ProcessingRequest(request_body=pb.HttpBody(body=b"x", end_of_stream=True)))
    assert body == RequestBody(b"x", True)
    assert wire.decode(pb.ProcessingRequest(request_trailers=pb.HttpTrailers())) == RequestTrailers()
    assert wire.decode(pb.ProcessingRequest(response_headers=pb.HttpHeaders())) == Unexpected("response_headers")
    for field in ("response_headers", "response_body", "response_trailers"):
        assert wire.proceed(Unexpected(field)).WhichOneof("response") == field


def test_an_answer_that_routes_has_a_header_mutation_and_clears_the_route_cache() -> None:
    for reply in (wire.route_in_headers({}, {}), wire.route_in_body({}, {}, None)):
        common = reply.request_headers.response if reply.HasField("request_headers") else reply.request_body.response
        assert common.HasField("header_mutation")
        assert common.clear_route_cache


def test_metadata_keeps_order_and_nesting() -> None:
    reply = wire.route_in_headers({"x-mom-cluster": "a"}, {"priority_groups": [{"name": "b"}, {"name": "a"}]})
    assert MessageToDict(reply.dynamic_metadata) == {"mom": {"priority_groups": [{"name": "b"}, {"name": "a"}]}}


def test_a_buffered_answer_sets_the_length_of_a_changed_body_only() -> None:
    changed = wire.route_in_body({"x-mom-cluster": "a"}, {}, b"12345")
    lengths = {
        option.header.key: option.header.raw_value
        for option in changed.request_body.response.header_mutation.set_headers
    }
    assert lengths == {"x-mom-cluster": b"a", "content-length": b"5"}
    assert not wire.route_in_body({}, {}, None).request_body.response.HasField("body_mutation")


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("sizes", [[], [0], [1], [65536], [65537, 3], [200_000, 0, 70_000]])
def test_a_full_duplex_body_comes_back_whole_and_ends_once(sizes: list[int], ends: bool) -> None:
    chunks = [bytes([65 + index]) * size for index, size in enumerate(sizes)]
    replies = wire.stream_body(chunks, ends=ends)
    pieces = [reply.request_body.response.body_mutation.streamed_response for reply in replies]
    assert b"".join(piece.body for piece in pieces) == b"".join(chunks)
    assert all(len(piece.body) <= wire.STREAMED_PIECE for piece in pieces)
    assert [piece.end_of_stream for piece in pieces] == [False] * (len(pieces) - 1) + [ends]


def test_an_emptied_chunk_is_cleared() -> None:
    mutation = wire.replace_chunk(b"").request_body.response.body_mutation
    assert mutation.WhichOneof("mutation") == "clear_body"
    assert wire.replace_chunk(b"x").request_body.response.body_mutation.body == b"x"


def test_an_immediate_answer_is_json() -> None:
    reply = wire.answer(413, b"{}", "mom_x").immediate_response
    assert (reply.status.code, reply.body, reply.details) == (413, b"{}", "mom_x")
    assert reply.headers.set_headers[0].header.raw_value == b"application/json"


def test_every_body_mode_of_envoy_is_known() -> None:
    assert {mode.value for mode in BodyMode} == set(pb.BodySendMode.values()) - {pb.GRPC}
