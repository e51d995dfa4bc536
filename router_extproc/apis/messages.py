"""Anthropic Messages."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from router_extproc.apis.content import read_content
from router_extproc.apis.error_body import anthropic_error
from router_extproc.apis.reader import MessagesReader
from router_extproc.config.model import Api

_AGENTS_USER: Final = re.compile(r"(user_[^_]+_account_[^_]*)_session_.+", re.DOTALL)
"""What Claude Code called its user before it wrote a JSON object."""


class AnthropicMessagesReader(MessagesReader):
    """Reads `system` (a string or blocks) and `messages`, where tool results are blocks of user messages."""

    api = Api.MESSAGES
    input_fields = frozenset({"messages", "system", "metadata", "output_format", "output_config", "container"})

    def _input_member(self, key: str, value: Any) -> None:
        match key:
            case "system":
                self._conversation.add_system(read_content(value, key))
            case "metadata":
                if isinstance(value, dict):
                    self._set_user(_lasting(value.get("user_id")))
            case "container":
                # An id, or an object that has one where the container is of an earlier answer.
                held = bool(value.get("id") if isinstance(value, dict) else value)
                self._stateful = self._stateful or held
            case "output_format":
                self._set_format(value)
            case "output_config":
                self._set_format(value.get("format") if isinstance(value, dict) else None)
            case _:
                super()._input_member(key, value)

    def _input_elements(self, key: str, values: list[Any]) -> None:
        match key:
            case "messages":
                super()._input_elements(key, values)
            case "system":
                self._conversation.add_system(read_content(values, key))


def _lasting(user: Any) -> Any:
    """The name of a user without the session that Claude Code writes into it: each would have a budget of its own."""
    if not isinstance(user, str):
        return user
    if found := _AGENTS_USER.fullmatch(user):
        return found[1]
    if not user.startswith("{"):
        return user
    try:
        told = json.loads(user)
    except (ValueError, RecursionError):
        return user
    if "session_id" not in told:
        return user
    given = (told.get("account_uuid"), told.get("device_id"))
    return next((name for name in given if isinstance(name, str) and name), user)


class Messages:
    """`POST /v1/messages`."""

    name = Api.MESSAGES.value
    path = "/v1/messages"

    def reader(self) -> AnthropicMessagesReader:
        """A reader for one body."""
        return AnthropicMessagesReader()

    def error(self, status: int, code: str, message: str, param: str | None, request_id: str) -> bytes:
        """Anthropic's shape; `code` and `param` have no place in it."""
        return anthropic_error(status, message, request_id)
