"""OpenAI Completions, the API before chat. Fill-in-the-middle clients and evaluation harnesses still use it."""

from __future__ import annotations

from typing import Any, ClassVar

from router_extproc.apis.content import Content, printable
from router_extproc.apis.conversation import PROMPT_CHARACTERS
from router_extproc.apis.error_body import openai_error
from router_extproc.apis.reader import Reader
from router_extproc.config.schema import Api
from router_extproc.errors import MalformedBody


class TextReader(Reader):
    """A reader whose input is a string, an array of strings, or token ids (which say nothing to a classifier)."""

    text_field: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self._given = False
        self._texts = Content()
        self._characters = 0

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
        if str in kinds and self._characters <= PROMPT_CHARACTERS:  # the first of a batch tell what it is about
            texts = [printable(value) for value in values if isinstance(value, str)]
            self._texts.texts += texts
            self._characters += sum(map(len, texts))
        if not values:
            self._conversation.add_user(self._texts)

    def _human_content(self, key: str, value: Any) -> Content | None:
        return Content([printable(value)]) if key == self.text_field and isinstance(value, str) else None

    def _check(self) -> None:
        if not self._given:
            raise MalformedBody(f"You must provide '{self.text_field}'.", param=self.text_field)


class CompletionsReader(TextReader):
    """Reads `prompt`. vLLM takes `prompt_embeds` in its place. `suffix` counts as input."""

    api = Api.COMPLETIONS
    text_field = "prompt"
    input_fields = frozenset({"prompt", "suffix", "prompt_embeds", "response_format"})

    def _input_member(self, key: str, value: Any) -> None:
        match key:
            case "prompt_embeds":
                self._given = self._given or value is not None
            case "response_format":
                self._set_format(value)
            case _:
                super()._input_member(key, value)

    def _input_elements(self, key: str, values: list[Any]) -> None:
        if key == "prompt_embeds":
            self._given = True
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
