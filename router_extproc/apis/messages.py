"""Anthropic Messages."""

from __future__ import annotations

import json
import re
from typing import Any, Final

from router_extproc.account_names import account_name
from router_extproc.apis.content import printable, read_content
from router_extproc.apis.error_body import anthropic_error
from router_extproc.apis.reader import MessagesReader
from router_extproc.config.model import Api

_AGENTS_USER: Final = re.compile(r"(user_[^_]+_account_[^_]*)_session_(.+)", re.DOTALL)
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
                    user, session = _user_and_session(value.get("user_id"))
                    self._set_user(user)
                    self._client_session = account_name(printable(session))
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


def _user_and_session(user: Any) -> tuple[Any, str]:
    """What Claude Code writes into one name taken apart: each session would have a budget of its own, and all sessions
    of a user that begin alike would be one conversation. Of any other name there is no session."""
    if not isinstance(user, str):
        return user, ""
    if found := _AGENTS_USER.fullmatch(user):
        return found[1], found[2]
    if not user.startswith("{"):
        return user, ""
    try:
        told = json.loads(user)
    except (ValueError, RecursionError):
        return user, ""
    given = (told.get("account_uuid"), told.get("device_id"))
    name: str = next((name for name in given if isinstance(name, str) and name), "")
    return (name, str(told["session_id"])) if name and "session_id" in told else (user, "")


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
