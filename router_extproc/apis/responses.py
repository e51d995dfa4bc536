"""OpenAI Responses."""

from __future__ import annotations

from typing import Any, Final

from router_extproc.apis.content import Content, read_content, texts_in
from router_extproc.apis.error_body import openai_error
from router_extproc.apis.reader import MessagesReader
from router_extproc.config.schema import Api
from router_extproc.errors import MalformedBody

TOOL_OUTPUTS: Final = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "computer_call_output",
        "local_shell_call_output",
        "mcp_approval_response",
    }
)
"""Items by which the client answers the model's calls. Items of other types are the model's own."""

INPUT_ELSEWHERE: Final = ("prompt", "previous_response_id", "conversation")
"""Fields that refer to an input which the provider holds, so that `input` may be absent."""


class ResponsesReader(MessagesReader):
    """Reads `instructions` and `input`: a string, or items of which some are messages."""

    api = Api.RESPONSES
    messages_field = "input"
    input_fields = frozenset({"input", "instructions", "text", "safety_identifier", *INPUT_ELSEWHERE})

    def __init__(self) -> None:
        super().__init__()
        self._elsewhere = False

    def _input_member(self, key: str, value: Any) -> None:
        match key:
            case "input" if isinstance(value, str):
                self._count += 1
                self._conversation.add_user(read_content(value, key))
            case "instructions":
                self._conversation.add_system(read_content(value, key))
            case "text":
                self._set_format(value.get("format") if isinstance(value, dict) else None)
            case "safety_identifier":
                self._set_user(value)
            case "prompt" | "previous_response_id" | "conversation":
                self._elsewhere = self._elsewhere or value is not None
                if key == "previous_response_id" and value is not None:
                    if not isinstance(value, str):
                        raise MalformedBody(f"'{key}' must be a string.", param=key)
                    self._previous_response_id = value[:256]
            case _:
                super()._input_member(key, value)

    def _input_elements(self, key: str, values: list[Any]) -> None:
        if key == "input":
            super()._input_elements(key, values)

    def _message(self, message: dict[str, Any], param: str) -> None:
        kind = message.get("type", "message")
        if kind == "message":
            super()._message(message, param)
        elif kind in TOOL_OUTPUTS:
            output = message.get("output")
            parts = output if isinstance(output, list) else [output] if isinstance(output, dict) else None
            content = read_content(parts, f"{param}.output")
            content.texts, content.brought = [], texts_in(output)
            self._conversation.add_tool(content)
        else:
            # What the provider's own tools found stands in their calls. Calls may alternate with what the client's
            # tools returned, all for one answer of the model, so only its reasoning tells that it spoke again.
            reasoning = kind == "reasoning"
            self._conversation.add_tool(Content(brought=[] if reasoning else texts_in(message)))
            if reasoning:
                self._conversation.has_spoken()

    def _human_content(self, key: str, value: Any) -> Content | None:
        if key == "input" and isinstance(value, str):
            return read_content(value, key)
        if isinstance(value, dict) and value.get("type", "message") != "message":
            return None
        return super()._human_content(key, value)

    def _check(self) -> None:
        if not self._elsewhere:
            super()._check()


class Responses:
    """`POST /v1/responses`."""

    name = Api.RESPONSES.value
    path = "/v1/responses"

    def reader(self) -> ResponsesReader:
        """A reader for one body."""
        return ResponsesReader()

    def error(self, status: int, code: str, message: str, param: str | None, request_id: str) -> bytes:
        """OpenAI's shape; it has no place for the request id."""
        return openai_error(status, code, message, param)
