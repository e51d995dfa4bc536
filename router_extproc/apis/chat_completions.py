"""OpenAI Chat Completions, which most self-hosted servers speak too."""

from __future__ import annotations

from typing import Any

from router_extproc.apis.content import read_result
from router_extproc.apis.error_body import openai_error
from router_extproc.apis.reader import MessagesReader
from router_extproc.config.model import Api


class ChatCompletionsReader(MessagesReader):
    """Reads `messages` with roles system, developer, user, assistant, tool, function.

    `documents`, which vLLM puts into the prompt, counts as input.
    """

    api = Api.CHAT_COMPLETIONS
    input_fields = frozenset({"messages", "documents", "response_format", "safety_identifier"})

    def _input_member(self, key: str, value: Any) -> None:
        match key:
            case "response_format":
                self._set_format(value)
            case "safety_identifier":
                self._set_user(value)
            case _:
                super()._input_member(key, value)

    def _input_elements(self, key: str, values: list[Any]) -> None:
        if key == "messages":
            super()._input_elements(key, values)
        elif key == "documents":
            for value in values:
                self._conversation.add_documents(read_result(value, key))


class ChatCompletions:
    """`POST /v1/chat/completions`."""

    name = Api.CHAT_COMPLETIONS.value
    path = "/v1/chat/completions"

    def reader(self) -> ChatCompletionsReader:
        """A reader for one body."""
        return ChatCompletionsReader()

    def error(self, status: int, code: str, message: str, param: str | None, request_id: str) -> bytes:
        """OpenAI's shape; it has no place for the request id."""
        return openai_error(status, code, message, param)
