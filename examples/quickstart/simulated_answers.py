"""The answers of a simulated model, in the shape of each API: whole, and as the events of a stream."""

from __future__ import annotations

import base64
import itertools
import json
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any

_ids = itertools.count(1)
Event = tuple[str | None, dict[str, Any] | str]
"""Name of a server-sent event (None: the API sends none) and its data."""


def encode(event: Event) -> bytes:
    """A server-sent event as bytes."""
    name, data = event
    text = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {text}\n\n".encode()


def words_of(text: str) -> list[str]:
    """The pieces in which a text is streamed."""
    return [word if i == 0 else " " + word for i, word in enumerate(text.split(" "))]


def chat(model: str, text: str, tokens: int) -> dict[str, Any]:
    """`/v1/chat/completions`."""
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
    return _head("chatcmpl", "chat.completion", model) | {"choices": [choice], "usage": _usage(text, tokens)}


def chat_stream(model: str, text: str, tokens: int, include_usage: bool) -> Iterator[Event]:
    """The same, streamed. Usage comes only when the client asked for it, as at OpenAI."""
    head = _head("chatcmpl", "chat.completion.chunk", model)

    def choice(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        found = head | {"choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}
        return found | {"usage": None} if include_usage else found

    yield None, choice({"role": "assistant", "content": ""})
    for word in words_of(text):
        yield None, choice({"content": word})
    yield None, choice({}, "stop")
    if include_usage:
        yield None, head | {"choices": [], "usage": _usage(text, tokens)}
    yield None, "[DONE]"


def completion(model: str, text: str, tokens: int) -> dict[str, Any]:
    """`/v1/completions`."""
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": "stop"}
    return _head("cmpl", "text_completion", model) | {"choices": [choice], "usage": _usage(text, tokens)}


def completion_stream(model: str, text: str, tokens: int, include_usage: bool) -> Iterator[Event]:
    """The same, streamed."""
    head = _head("cmpl", "text_completion", model)
    for word in words_of(text):
        yield None, head | {"choices": [{"index": 0, "text": word, "logprobs": None, "finish_reason": None}]}
    yield None, head | {"choices": [{"index": 0, "text": "", "logprobs": None, "finish_reason": "stop"}]}
    if include_usage:
        yield None, head | {"choices": [], "usage": _usage(text, tokens)}
    yield None, "[DONE]"


def embeddings(model: str, inputs: list[Any], encoding: str, tokens: int) -> dict[str, Any]:
    """`/v1/embeddings`: eight numbers per input."""
    data = []
    for index, _ in enumerate(inputs):
        vector = [(index + 1) / (place + 1) for place in range(8)]
        packed = base64.b64encode(struct.pack("<8f", *vector)).decode()
        data.append({"object": "embedding", "index": index, "embedding": packed if encoding == "base64" else vector})
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": model, "data": data, "usage": usage}


def response(model: str, text: str, tokens: int) -> dict[str, Any]:
    """`/v1/responses`."""
    return _response(f"resp_{next(_ids)}", model, "completed", [_output(text)], _response_usage(text, tokens))


def response_stream(model: str, text: str, tokens: int) -> Iterator[Event]:
    """The same, streamed."""
    number = itertools.count()
    name = f"resp_{next(_ids)}"

    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, "sequence_number": next(number), **fields}

    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    yield event("response.created", response=_response(name, model, "in_progress", [], None))
    started = {"id": "msg_1", "type": "message", "role": "assistant", "status": "in_progress", "content": []}
    yield event("response.output_item.added", output_index=0, item=started)
    part = {"type": "output_text", "text": "", "annotations": []}
    yield event("response.content_part.added", **place, part=part)
    for word in words_of(text):
        yield event("response.output_text.delta", **place, delta=word, logprobs=[])
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    yield event("response.content_part.done", **place, part=part | {"text": text})
    yield event("response.output_item.done", output_index=0, item=_output(text))
    done = _response(name, model, "completed", [_output(text)], _response_usage(text, tokens))
    yield event("response.completed", response=done)


def message(model: str, text: str, tokens: int, cache: Mapping[str, int]) -> dict[str, Any]:
    """Anthropic's `/v1/messages`. `cache` counts tokens that the prompt cache gave or took, beside the others."""
    usage = {"input_tokens": tokens, **cache, "output_tokens": len(words_of(text))}
    return _message(model, [{"type": "text", "text": text}], "end_turn", usage)


def message_stream(model: str, text: str, tokens: int, cache: Mapping[str, int]) -> Iterator[Event]:
    """The same, streamed."""

    def event(kind: str, **fields: Any) -> Event:
        return kind, {"type": kind, **fields}

    usage = {"input_tokens": tokens, **cache, "output_tokens": 1}
    yield event("message_start", message=_message(model, [], None, usage))
    yield event("content_block_start", index=0, content_block={"type": "text", "text": ""})
    for word in words_of(text):
        yield event("content_block_delta", index=0, delta={"type": "text_delta", "text": word})
    yield event("content_block_stop", index=0)
    usage = {"output_tokens": len(words_of(text))}
    yield event("message_delta", delta={"stop_reason": "end_turn", "stop_sequence": None}, usage=usage)
    yield event("message_stop")


def error(api: str, status: int, code: str, text: str) -> dict[str, Any]:
    """An error in the shape of the API."""
    if api == "messages":
        return {"type": "error", "error": {"type": code, "message": text}, "request_id": f"req_{next(_ids)}"}
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": text, "type": kind, "param": None, "code": code}}


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": f"{prefix}-{next(_ids)}", "object": kind, "created": int(time.time()), "model": model}


def _usage(text: str, tokens: int) -> dict[str, Any]:
    output = len(words_of(text))
    return {"prompt_tokens": tokens, "completion_tokens": output, "total_tokens": tokens + output}


def _output(text: str) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}


def _response_usage(text: str, tokens: int) -> dict[str, Any]:
    output = len(words_of(text))
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": tokens + output,
    }


def _response(name: str, model: str, status: str, output: list[Any], usage: dict[str, Any] | None) -> dict[str, Any]:
    found = {"id": name, "object": "response", "created_at": int(time.time()), "model": model, "status": status}
    found |= {"output": output, "usage": usage, "error": None, "incomplete_details": None, "instructions": None}
    return found | {"metadata": {}, "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}


def _message(model: str, content: list[Any], stop: str | None, usage: dict[str, Any]) -> dict[str, Any]:
    found = {"id": f"msg_{next(_ids)}", "type": "message", "role": "assistant", "model": model, "content": content}
    return found | {"stop_reason": stop, "stop_sequence": None, "usage": usage}
