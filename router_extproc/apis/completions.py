"""OpenAI Completions, the API before chat. Fill-in-the-middle clients and evaluation harnesses still use it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from router_extproc.apis.content import Content, printable
from router_extproc.apis.conversation import PROMPT_CHARACTERS
from router_extproc.apis.error_body import openai_error
from router_extproc.apis.long_string import LEFT_OUT
from router_extproc.apis.reader import Reader
from router_extproc.config.model import Api
from router_extproc.domain import LlmRequest
from router_extproc.errors import MalformedBody


class TextReader(Reader):
    """A reader whose input is a string, an array of strings, or token ids, which nobody here can read."""

    text_field: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._given = False
        self._texts = Content()
        self._characters = 0
        self._ids = 0  # token ids that are one input
        self._largest = 0  # tokens of the largest of several
        self._shortened = False

    def _input_member(self, key: str, value: Any) -> None:
        if key != self.text_field or value is None:
            return
        if not isinstance(value, str):
            raise MalformedBody(f"'{key}' must be a string or an array.", param=key)
        self._given = True
        self._conversation.add_user(Content([printable(value)]))

    def _input_elements(self, key: str, values: list[Any]) -> None:
        if key != self.text_field:
            return
        self._given = True
        kinds = set(map(type, values))
        if not kinds <= {str, int, list}:
            raise MalformedBody(f"'{key}' must hold strings, token ids or arrays of token ids.", param=key)
        self._unread = self._unread or not kinds <= {str}
        for value in values:
            if isinstance(value, str):
                self._take(value)
            elif isinstance(value, list):
                self._largest = max(self._largest, len(value))
            else:
                self._ids += 1
        if not values:
            self._conversation.add_user(self._texts)
            self._longest = None if self._shortened else max(self._largest, self._ids)

    def _take(self, text: str) -> None:
        size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
        self._largest = max(self._largest, (size + 3) // 4)
        self._shortened = self._shortened or LEFT_OUT in text
        if self._characters <= PROMPT_CHARACTERS:  # the first of a batch tell what it is about
            self._texts.texts.append(printable(text))
            self._characters += len(text) + len("\n\n")

    def _human_content(self, key: str, value: Any) -> Content | None:
        return Content([printable(value)]) if key == self.text_field and isinstance(value, str) else None

    def _check(self) -> None:
        if not self._given:
            raise MalformedBody(f"You must provide '{self.text_field}'.", param=self.text_field)


class CompletionsReader(TextReader):
    """Reads `prompt`. vLLM takes `prompt_embeds` in its place. `suffix`, which stands behind each prompt, is as much a
    text of people."""

    api = Api.COMPLETIONS
    text_field = "prompt"
    input_fields = frozenset({"prompt", "suffix", "prompt_embeds", "response_format"})

    def __init__(self) -> None:
        super().__init__()
        self._suffixed = False

    def _input_member(self, key: str, value: Any) -> None:
        match key:
            case "prompt_embeds" if value is not None:
                self._given = self._unread = True
            case "response_format":
                self._set_format(value)
            case "suffix":
                self._suffixed = bool(value)
                if isinstance(value, str):
                    self._conversation.add_variables(Content([printable(value)]))
            case _:
                super()._input_member(key, value)

    def _request(self) -> LlmRequest:
        request = super()._request()
        return replace(request, longest=None) if self._suffixed else request

    def _input_elements(self, key: str, values: list[Any]) -> None:
        if key == "prompt_embeds":
            self._given = True
            self._unread = self._unread or bool(values)
        else:
            super()._input_elements(key, values)


class Completions:
    """`POST /v1/completions`."""

    name = Api.COMPLETIONS.value
    path = "/v1/completions"

    def reader(self) -> CompletionsReader:
        """A reader for one body."""
        return CompletionsReader()

    def error(self, status: int, code: str, message: str, param: str | None, request_id: str) -> bytes:
        """OpenAI's shape; it has no place for the request id."""
        return openai_error(status, code, message, param)
