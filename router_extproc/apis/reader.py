"""What the readers of all APIs share: fields that mean the same everywhere, the estimate of tokens, the snapshot."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Final

from router_extproc.account_names import account_name
from router_extproc.apis.content import MEDIA_TOKENS, Content, printable, read_content, read_result, read_thoughts
from router_extproc.apis.conversation import Conversation
from router_extproc.apis.json_scan import Scanner
from router_extproc.config.model import Api
from router_extproc.domain import LlmRequest
from router_extproc.errors import MalformedBody

MAX_NAME: Final = 256
"""Characters of a model name."""

GROWTH: Final = 1024
"""Bytes that must arrive before a growing text is decoded again, so that tiny chunks do not cost quadratic time."""

COMMON_FIELDS: Final = frozenset(
    {"model", "stream", "tools", "functions", "user", "max_tokens", "max_completion_tokens", "max_output_tokens"}
)
_JSON_FORMATS: Final = ("json_object", "json_schema")


class Reader(ABC):
    """A BodyReader, and the scanner's sink. A subclass names its API and reads the fields that hold the input."""

    api: ClassVar[Api]
    input_fields: ClassVar[frozenset[str]]

    def __init__(self) -> None:
        self._scanner = Scanner(COMMON_FIELDS | self.input_fields, self)
        self._conversation = Conversation()
        self._model: str | None = None
        self._stream: bool | None = None
        self._limits: dict[str, int] = {}
        self._has_tools = False
        self._json_mode = False
        self._user: str | None = None
        self._client_session = ""
        self._stateful = False
        self._unread = False
        self._longest: int | None = None
        self._growing = ""
        self._looked_at = 0
        self._looked_full: int | None = None
        self._partial: LlmRequest | None = None

    def feed(self, chunk: bytes) -> None:
        """See BodyReader."""
        self._scanner.feed(chunk)

    def partial(self) -> LlmRequest | None:
        """See BodyReader. The same object as before while no further message has completed."""
        if not self._conversation.newest_is_human:
            return None
        if self._partial is None:
            self._partial = self._request()
        return self._partial

    def growing(self) -> str:
        """See BodyReader."""
        full = self._scanner.full
        if self._scanner.size - self._looked_at < GROWTH or (full is not None and full == self._looked_full):
            return self._growing
        self._looked_at, self._looked_full = self._scanner.size, full
        unfinished = self._scanner.unfinished()
        if unfinished is not None and unfinished[1] is not None:
            content = self._human_content(*unfinished)
            text = self._conversation.growing(content) if content is not None else ""
            self._growing = text if len(text) >= len(self._growing) else self._growing
        return self._growing

    def arriving(self) -> LlmRequest | None:
        """See BodyReader."""
        text = self.growing()
        return replace(self._request(), prompt=text, context=self._conversation.so_far) if text else None

    def written(self) -> tuple[tuple[str, ...], int]:
        """See BodyReader."""
        return self._conversation.written

    def estimate(self) -> tuple[int, bool | None]:
        """See BodyReader."""
        return self._tokens(), self._stream

    def complete(self) -> bool:
        """See BodyReader."""
        return self._scanner.complete

    def finish(self) -> LlmRequest:
        """See BodyReader."""
        self._scanner.finish()
        self._check()
        if self._model is None:
            raise MalformedBody("You must provide a 'model' parameter.", param="model")
        return self._request()

    # --- the scanner's sink --------------------------------------------------------------------------------------

    def member(self, key: str, value: Any) -> None:
        """Reads one top-level field."""
        self._changed()
        match key:
            case "model":
                if not isinstance(value, str) or not value:
                    raise MalformedBody("'model' must be a string that is not empty.", param=key)
                if len(value) > MAX_NAME:
                    raise MalformedBody(f"'model' is longer than {MAX_NAME} characters.", param=key)
                self._model = printable(value)
            case "stream":
                if value is not None and not isinstance(value, bool):
                    raise MalformedBody("'stream' must be a boolean.", param=key)
                self._stream = bool(value)
            case "max_tokens" | "max_completion_tokens" | "max_output_tokens":
                self._limit(key, value)
            case "tools" | "functions":
                if value is not None:
                    raise MalformedBody(f"'{key}' must be an array.", param=key)
            case "user":
                self._set_user(value)
            case _:
                self._input_member(key, value)

    def elements(self, key: str, values: list[Any]) -> None:
        """Reads the next elements of one top-level array."""
        self._changed()
        match key:
            case "tools" | "functions":
                self._has_tools = self._has_tools or bool(values)
                self._stateful = self._stateful or any(map(_works_on_kept_files, values))
            case _ if key in self.input_fields:
                self._input_elements(key, values)
            case _:
                raise MalformedBody(f"'{key}' must not be an array.", param=key)

    @abstractmethod
    def _input_member(self, key: str, value: Any) -> None:
        """Reads one of `input_fields` that is not an array."""

    @abstractmethod
    def _input_elements(self, key: str, values: list[Any]) -> None:
        """Reads the next elements of one of `input_fields`; none are left when `values` is empty."""

    @abstractmethod
    def _human_content(self, key: str, value: Any) -> Content | None:
        """The content, if a human's, of an element (or field) that is cut off somewhere."""

    @abstractmethod
    def _check(self) -> None:
        """Raises MalformedBody for a complete body without what this API requires."""

    # --- for subclasses ------------------------------------------------------------------------------------------

    def _set_user(self, value: Any) -> None:
        if isinstance(value, str) and value:
            self._user = account_name(printable(value))

    def _set_format(self, value: Any) -> None:
        """`{"type": "json_schema", ...}` asks for JSON."""
        if isinstance(value, dict) and value.get("type") in _JSON_FORMATS:
            self._json_mode = True

    def _limit(self, key: str, value: Any) -> None:
        if value is None:
            return
        whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
        if not whole or isinstance(value, bool) or value < 0:
            raise MalformedBody(f"'{key}' must be a whole number that is not negative.", param=key)
        self._limits[key] = int(value)

    # --- the snapshot --------------------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._partial = None
        self._growing = ""

    def _request(self) -> LlmRequest:
        conversation = self._conversation
        written, fresh = conversation.written
        return LlmRequest(
            api=self.api.value,
            model=self._model,
            model_span=self._scanner.model_span,
            prompt=conversation.prompt,
            context=conversation.context,
            thoughts=conversation.thoughts,
            system=conversation.system,
            tokens=self._tokens(),
            longest=self._longest,
            max_output_tokens=min(self._limits.values(), default=None),
            stream=bool(self._stream),
            modalities=frozenset(conversation.modalities),
            has_tools=self._has_tools,
            json_mode=self._json_mode,
            turns=max(1, conversation.human_turns),
            user=self._user,
            client_session=self._client_session,
            stateful=self._stateful or conversation.kept_elsewhere,
            unread=self._unread or conversation.unread,
            opening=conversation.opening,
            written=written,
            fresh=fresh,
        )

    def _tokens(self) -> int:
        """4 bytes of the body each, media and long values of fields that are no input apart.

        The JSON around the texts stands for what a chat template adds, and it makes the estimate an upper one. An
        escape such as \\u00e9 counts as the bytes that it is in UTF-8.
        """
        scanner, conversation = self._scanner, self._conversation
        text = scanner.size - scanner.ignored - scanner.opaque - conversation.media_characters - scanner.escaped
        return max(0, text + 3) // 4 + MEDIA_TOKENS * conversation.media


def _works_on_kept_files(tool: Any) -> bool:
    """Whether a tool works on what lies with a provider: files, stores of them, the container of an earlier answer."""
    if not isinstance(tool, dict):
        return False
    container, environment = tool.get("container"), tool.get("environment")
    return (
        isinstance(container, str)
        or names(container, "file_ids")
        or names(environment, "container_id")
        or names(environment, "file_ids")
        or names(tool.get("input_image_mask"), "file_id")
        or names(tool, "vector_store_ids")
    )


def names(value: Any, key: str) -> bool:
    """Whether an object names something by an id."""
    return isinstance(value, dict) and bool(value.get(key))


class MessagesReader(Reader):
    """A reader whose input is an array of messages with roles."""

    messages_field: ClassVar[str] = "messages"

    def __init__(self) -> None:
        super().__init__()
        self._count = 0
        self._calls_tools = False

    def _input_member(self, key: str, value: Any) -> None:
        if key == self.messages_field and value is not None:
            raise MalformedBody(f"'{key}' must be an array.", param=key)

    def _input_elements(self, key: str, values: list[Any]) -> None:
        for message in values:
            param = f"{key}[{self._count}]"
            self._count += 1
            if not isinstance(message, dict):
                raise MalformedBody(f"'{param}' must be an object.", param=param)
            self._message(message, param)

    def _message(self, message: dict[str, Any], param: str) -> None:
        """Reads one message. A role that nobody knows is taken for a human's, so that no guard is bypassed."""
        role = message.get("role")
        if not isinstance(role, str):
            raise MalformedBody(f"'{param}.role' must be a string.", param=f"{param}.role")
        param = f"{param}.content"
        if role in ("tool", "function"):
            self._conversation.add_tool(read_result(message.get("content"), param))
            return
        of_model = role in ("assistant", "model")
        content = read_content(message.get("content"), param, of_model=of_model)
        match role:
            case "system" | "developer":
                self._conversation.add_system(content)
            case _ if of_model:
                # What the model said aloud is sent back by its id.
                self._stateful = self._stateful or names(message.get("audio"), "id")
                content.thoughts += read_thoughts(message)
                self._conversation.add_assistant(content)
            case _:
                self._conversation.add_user(content)

    def _human_content(self, key: str, value: Any) -> Content | None:
        if key != self.messages_field or not isinstance(value, dict) or value.get("role", "user") != "user":
            return None
        try:
            return read_content(value.get("content"), key)
        except MalformedBody:  # cut off before the part's type was read; whether it is well formed shows later
            return None

    def _check(self) -> None:
        if self._count == 0:
            field = self.messages_field
            raise MalformedBody(f"You must provide '{field}': an array with at least one message.", param=field)
