"""OpenAI Responses."""

from __future__ import annotations

from typing import Any, Final

from router_extproc.apis.content import PICTURES, Content, read_content, read_result
from router_extproc.apis.error_body import openai_error
from router_extproc.apis.reader import MessagesReader, names
from router_extproc.config.model import Api
from router_extproc.errors import MalformedBody

TOOL_OUTPUTS: Final = frozenset(
    {
        "function_call_output",
        "custom_tool_call_output",
        "computer_call_output",
        "local_shell_call_output",
        "mcp_approval_response",
        "program_output",
    }
)
"""Items by which the client answers the model's calls. Items of other types are the model's own."""

REFERENCE: Final = "item_reference"

_HOLDS: Final = {PICTURES: "result", "reasoning": "content"}
"""Types of items which may be nothing but an id -> where the rest would stand."""

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
                if value is None:
                    return
                self._elsewhere = self._stateful = True
                if key == "previous_response_id" and not isinstance(value, str):
                    raise MalformedBody(f"'{key}' must be a string.", param=key)
                if key == "prompt" and isinstance(value, dict):
                    self._variables(value.get("variables"))
            case _:
                super()._input_member(key, value)

    def _input_elements(self, key: str, values: list[Any]) -> None:
        if key == "input":
            super()._input_elements(key, values)

    def _variables(self, variables: Any) -> None:
        if not isinstance(variables, dict):
            return
        param = "prompt.variables"
        self._conversation.add_variables(
            read_content([value for value in variables.values() if isinstance(value, str | dict)], param)
        )

    def _message(self, message: dict[str, Any], param: str) -> None:
        kind = _kind(message)
        if not isinstance(kind, str):
            raise MalformedBody(f"'{param}.type' must be a string.", param=f"{param}.type")
        self._stateful = self._stateful or bool(message.get("encrypted_content")) or _by_id(kind, message)
        if kind == "message":
            super()._message(message, param)
        elif kind == "reasoning":
            thoughts = read_result([message.get("summary"), message.get("content")], param).brought
            self._conversation.add_assistant(Content(thoughts=thoughts))
        else:
            # What the provider's own tools found stands in their calls. Calls may alternate with what the client's
            # tools returned, all for one answer of the model, so only its reasoning tells that it spoke again.
            content = read_result(message, param)
            self._conversation.add_tool(content if kind in TOOL_OUTPUTS else Content(brought=content.brought))

    def _human_content(self, key: str, value: Any) -> Content | None:
        if key == "input" and isinstance(value, str):
            return read_content(value, key)
        if isinstance(value, dict) and _kind(value) != "message":
            return None
        return super()._human_content(key, value)

    def _check(self) -> None:
        if not self._elsewhere:
            super()._check()


def _kind(item: dict[str, Any]) -> Any:
    """The type of an item. Messages may do without one, and so may references, which are nothing but an id."""
    kind = item.get("type")
    if kind is not None:
        return kind
    return REFERENCE if item.keys() - {"type"} == {"id"} else "message"


def _by_id(kind: str, item: dict[str, Any]) -> bool:
    """Whether what the model shall see of an item lies with the provider, which knows it by the item's id; or the
    container in which its code or its commands ran does."""
    if kind == REFERENCE or names(item, "container_id") or names(item.get("environment"), "container_id"):
        return True
    holds = _HOLDS.get(kind)
    return holds is not None and bool(item.get("id")) and not item.get(holds)


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
