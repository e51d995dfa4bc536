"""Content of a message in any API: a string, or a list of typed parts."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from router_extproc.errors import MalformedBody

TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})

OWN_KEYS: Final = ("refusal", "thinking")
"""Keys of a part's text that are called like its type. Some servers read such a part in any message."""

THOUGHT_KEYS: Final = ("reasoning", "reasoning_content")
"""Keys beside a model's content that hold what the model thought: some servers put it back into the prompt."""

EMBEDDED: Final = "prompt_embeds"
"""A part, or a field, that brings what the model makes of a text instead of the text."""

MEDIA_PARTS: Final[Mapping[str, str]] = {
    "image": "image",
    "image_url": "image",
    "input_image": "image",
    "computer_screenshot": "image",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
    "video": "video",
    "video_url": "video",
    "input_video": "video",
    "document": "file",
    "file": "file",
    "input_file": "file",
    "container_upload": "file",
}
"""Type of a part, or the key of one without a type -> modality it needs. A `document` of plain text needs none."""

BROUGHT_KEYS: Final = frozenset(
    {"title", "context", "text", "content", "contents", "output", "outputs", "stdout", "stderr", "result", "results"}
    | {"lines", "logs", *OWN_KEYS}
)
"""Where results of tools and documents keep their texts. `mask` covers the same, but for what a provider has signed."""

BROUGHT_LEVELS: Final = 8
"""How deep in them: a fetched document in a result takes seven."""

PICTURES: Final = "image_generation_call"
"""Its `result` is an image in base64."""

MAX_PARTS: Final = 10_000
"""Parts of one message, with all that stands in them. Each takes a microsecond; agents send some hundred."""

MEDIA_TOKENS: Final = 1_000
"""Flat estimate for an image, a sound, a file: what it really takes depends on pixels, seconds and pages."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Content:
    """What the content of a message holds. `media_characters` counts the base64 and URLs that are not text.

    `brought` are texts that stand in it and are not its author's: results of tools, documents. `parts` counts the
    values that were looked at. `kept_elsewhere`: a file is named by the id that the provider which holds it gave it.
    `thoughts` are what the model thought, where it is the author. `unread`: a part of the text is there as numbers.
    """

    texts: list[str] = field(default_factory=list)
    brought: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    modalities: set[str] = field(default_factory=set)
    media: int = 0
    media_characters: int = 0
    parts: int = 0
    kept_elsewhere: bool = False
    unread: bool = False

    def count(self, values: Collection[Any], param: str) -> None:
        """Counts what is about to be looked at. Raises MalformedBody when it is too much."""
        self.parts += len(values)
        if self.parts > MAX_PARTS:
            raise MalformedBody(f"'{param}' has more than {MAX_PARTS} parts.", param=param)

    @property
    def text(self) -> str:
        """All text, parts set off by an empty line."""
        return "\n\n".join(self.texts)


def read_content(value: Any, param: str, *, of_model: bool = False) -> Content:
    """Reads the content of a message; None is empty. Raises MalformedBody naming `param` for other types, and for more
    than `MAX_PARTS` parts.

    Parts of unknown types hold nothing that routing needs, and pass. What the model thought is set apart in a message
    `of_model`; in any other, parts that say so are as good as text.
    """
    content = Content()
    if isinstance(value, str):
        content.texts.append(printable(value))
    elif isinstance(value, list):
        content.count(value, param)
        for index, part in enumerate(value):
            _read_part(part, f"{param}[{index}]", content, content.thoughts if of_model else content.texts)
    elif value is not None:
        raise MalformedBody(f"'{param}' must be a string or an array of content parts.", param=param)
    return content


def read_thoughts(message: dict[str, Any]) -> list[str]:
    """What stands beside the content of a model's message under `THOUGHT_KEYS`. Some clients send it under both."""
    values = [message.get(key) for key in THOUGHT_KEYS]
    return list(dict.fromkeys(printable(value) for value in values if isinstance(value, str) and value))


def read_result(value: Any, param: str) -> Content:
    """What a tool returned or a document holds, whatever its shape: texts as `brought`, and what is no text.

    Raises MalformedBody for more than `MAX_PARTS` values, and for nothing else.
    """
    content = Content()
    _gather(value, BROUGHT_LEVELS, param, content)
    return content


def _read_part(part: Any, param: str, content: Content, thoughts: list[str]) -> None:
    if isinstance(part, str):
        content.texts.append(printable(part))
        return
    if not isinstance(part, dict):
        raise MalformedBody(f"'{param}' must be an object.", param=param)
    kind = part.get("type")
    if kind is None:  # some servers go by the key that is there, as in {"image_url": "https://..."}
        kind = next((key for key in part if key in TEXT_PARTS or key in MEDIA_PARTS or key in OWN_KEYS), "")
    if not isinstance(kind, str):
        raise MalformedBody(f"'{param}.type' must be a string.", param=f"{param}.type")
    if kind in TEXT_PARTS:
        text = part.get("text")
        if not isinstance(text, str):
            raise MalformedBody(f"'{param}.text' must be a string.", param=f"{param}.text")
        content.texts.append(printable(text))
    elif kind in MEDIA_PARTS or "content" in part:  # a tool result's text is not the human's, its images count
        _gather_object(part, kind, BROUGHT_LEVELS, param, content)
        if kind not in OWN_KEYS:
            return
    content.unread |= kind == EMBEDDED or EMBEDDED in part
    for key, texts in zip(OWN_KEYS, (content.texts, thoughts), strict=True):
        own = part.get(key)
        if isinstance(own, str) and own:
            texts.append(printable(own))


def _gather(value: Any, levels: int, param: str, content: Content) -> None:
    if isinstance(value, str):
        if value and not value.isspace():
            content.brought.append(printable(value))
    elif not levels:
        return
    elif isinstance(value, list):
        content.count(value, param)
        for item in value:
            _gather(item, levels - 1, param, content)
    elif isinstance(value, dict):
        kind = value.get("type")
        _gather_object(value, kind if isinstance(kind, str) else "", levels, param, content)


def _gather_object(value: dict[str, Any], kind: str, levels: int, param: str, content: Content) -> None:
    if kind == PICTURES:
        return
    content.count(value, param)
    content.unread |= kind == EMBEDDED or EMBEDDED in value
    source = value.get("source")
    written = isinstance(source, dict) and source.get("type") in ("text", "content")
    # A document that is text, or a tool's own object with such a `type`: the model needs no eyes for it.
    if kind in MEDIA_PARTS and not written and not any(key in value for key in ("content", "text")):
        content.modalities.add(MEDIA_PARTS[kind])
        content.media += 1
        content.media_characters += _characters(value, 3)
        holders = (value, source, value.get("file"))
        content.kept_elsewhere |= any(isinstance(holder, dict) and bool(holder.get("file_id")) for holder in holders)
    for key, item in value.items():
        if key in BROUGHT_KEYS or (key == "data" and kind == "text"):
            _gather(item, levels - 1, param, content)
        elif key == "source" and written:
            _gather(source, levels - 1, param, content)


def _characters(value: Any, levels: int) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict) and levels:
        return sum(_characters(item, levels - 1) for item in value.values())
    return 0


def printable(text: str) -> str:
    """The text with lone surrogates replaced: JSON can spell them, but neither UTF-8 nor a tokeniser takes them."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
