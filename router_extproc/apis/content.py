"""Content of a message in any API: a string, or a list of typed parts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from router_extproc.errors import MalformedBody

TEXT_PARTS: Final = frozenset({"text", "input_text", "output_text"})

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
}
"""Type of a part -> modality it needs. A `document` of plain text needs none."""

BROUGHT_KEYS: Final = frozenset(
    {"title", "text", "content", "contents", "output", "outputs", "stdout", "stderr", "results", "logs"}
)
"""Where results of tools and documents keep their texts."""

MEDIA_TOKENS: Final = 1_000
"""Flat estimate for an image, a sound, a file: what it really takes depends on pixels, seconds and pages."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")


@dataclass(slots=True)
class Content:
    """What the content of a message holds. `media_characters` counts the base64 and URLs that are not text.

    `brought` are texts that stand in it and are not its author's: results of tools, documents.
    """

    texts: list[str] = field(default_factory=list)
    brought: list[str] = field(default_factory=list)
    modalities: set[str] = field(default_factory=set)
    media: int = 0
    media_characters: int = 0

    @property
    def text(self) -> str:
        """All text, parts set off by an empty line."""
        return "\n\n".join(self.texts)


def read_content(value: Any, param: str) -> Content:
    """Reads the content of a message; None is empty. Raises MalformedBody naming `param` for other types.

    Parts of unknown types hold nothing that routing needs, and pass.
    """
    content = Content()
    if isinstance(value, str):
        content.texts.append(printable(value))
    elif isinstance(value, list):
        for index, part in enumerate(value):
            _read_part(part, f"{param}[{index}]", content)
    elif value is not None:
        raise MalformedBody(f"'{param}' must be a string or an array of content parts.", param=param)
    return content


def _read_part(part: Any, param: str, content: Content) -> None:
    if isinstance(part, str):
        content.texts.append(printable(part))
        return
    if not isinstance(part, dict):
        raise MalformedBody(f"'{param}' must be an object.", param=param)
    kind = part.get("type", "text" if "text" in part else None)
    if not isinstance(kind, str):
        raise MalformedBody(f"'{param}.type' must be a string.", param=f"{param}.type")
    if kind in TEXT_PARTS:
        text = part.get("text")
        if not isinstance(text, str):
            raise MalformedBody(f"'{param}.text' must be a string.", param=f"{param}.text")
        content.texts.append(printable(text))
    elif kind in MEDIA_PARTS:
        source = part.get("source")
        if isinstance(source, dict) and source.get("type") in ("text", "content"):
            # A document that is text: the model needs no eyes for it.
            content.brought += texts_in([part.get("title"), part.get("context"), source.get("data"), source])
            return
        content.modalities.add(MEDIA_PARTS[kind])
        content.media += 1
        content.media_characters += _characters(part, 3)
    elif isinstance(part.get("content"), list):  # a tool result: its text is not the human's, its images count
        content.brought += texts_in(part["content"])
        nested = read_content([item for item in part["content"] if isinstance(item, dict)], f"{param}.content")
        content.modalities |= nested.modalities
        content.media += nested.media
        content.media_characters += nested.media_characters
    elif isinstance(part.get("content"), str):
        content.brought += texts_in(part["content"])


def texts_in(value: Any) -> list[str]:
    """The texts of what a tool returned or a document holds, whatever its shape. Never raises."""
    found: list[str] = []
    _gather(value, 6, found)
    return found


def _gather(value: Any, levels: int, found: list[str]) -> None:
    if isinstance(value, str):
        if value and not value.isspace():
            found.append(printable(value))
    elif not levels:
        return
    elif isinstance(value, list):
        for item in value:
            _gather(item, levels - 1, found)
    elif isinstance(value, dict):
        for key, item in value.items():
            if key in BROUGHT_KEYS:
                _gather(item, levels - 1, found)


def _characters(value: Any, levels: int) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict) and levels:
        return sum(_characters(item, levels - 1) for item in value.values())
    return 0


def printable(text: str) -> str:
    """The text with lone surrogates replaced: JSON can spell them, but neither UTF-8 nor a tokeniser takes them."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)
