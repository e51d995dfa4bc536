"""Writes YAML with comments. PyYAML drops comments, and what we print is read by people."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

_PLAIN = re.compile(r"^([A-Za-z_/][A-Za-z0-9_/.@-]*|[0-9]+(\.[0-9]+)?s|[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)$")
_WORDS = {"true", "false", "null", "yes", "no", "on", "off", "y", "n"}
_WIDTH = 110


class Alias(str):
    """A reference to a value that was written before under this anchor."""


class Anchored:
    """A value that is written once, under an anchor, and referred to by `Alias` further down."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.value = value


def dump(value: Mapping[str, Any]) -> str:
    """Block-style YAML of mappings, sequences and JSON scalars.

    A key that starts with `#` stands for a comment above the next key (its value is ignored), and so does such a
    string in a sequence. Small nested values without comments are written in flow style on one line.
    """
    return "\n".join(_mapping(value, "")) + "\n"


def _mapping(value: Mapping[str, Any], indent: str) -> list[str]:
    lines: list[str] = []
    for key, item in value.items():
        if key.startswith("#"):
            lines += _comment(key, indent)
        else:
            lines += _entry(f"{indent}{_scalar(key)}:", item, indent + "  ")
    return lines


def _sequence(value: Sequence[Any], indent: str) -> list[str]:
    lines: list[str] = []
    for item in value:
        if isinstance(item, str) and item.startswith("#"):
            lines += _comment(item, indent)
            continue
        flow = _flow(item)
        if flow is not None and len(indent) + 2 + len(flow) <= _WIDTH:
            lines.append(f"{indent}- {flow}")
            continue
        if isinstance(item, Anchored):
            lines += _entry(f"{indent}-", item, indent + "  ")
            continue
        if isinstance(item, Mapping):
            item = dict(item)
            while (first := next(iter(item))).startswith("#"):
                lines += _comment(first, indent)
                del item[first]
            block = _mapping(item, indent + "  ")
        else:
            block = _sequence(item, indent + "  ")
        lines.append(f"{indent}- {block[0].lstrip()}")
        lines += block[1:]
    return lines


def _entry(head: str, item: Any, indent: str) -> list[str]:
    if isinstance(item, Anchored):
        head, item = f"{head} &{item.name}", item.value
    elif (flow := _flow(item)) is not None and len(head) + 1 + len(flow) <= _WIDTH:
        return [f"{head} {flow}"]
    if isinstance(item, Mapping):
        return [head, *_mapping(item, indent)]
    if isinstance(item, str):
        if "\n" in item:
            return [f"{head} |", *(indent + line if line else "" for line in item.rstrip("\n").split("\n"))]
        return [f"{head} {_scalar(item)}"]
    return [head, *_sequence(item, indent)]


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text.lstrip("# "),
        _WIDTH,
        initial_indent=indent + "# ",
        subsequent_indent=indent + "# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _flow(item: Any) -> str | None:
    """One line in flow style, or None where a block is needed."""
    if isinstance(item, Alias):
        return f"*{item}"
    if isinstance(item, Anchored):
        return None
    if isinstance(item, Mapping):
        parts = []
        for key, inner in item.items():
            flow = _flow(inner)
            if key.startswith("#") or flow is None:
                return None
            parts.append(f"{_scalar(key)}: {flow}")
        return "{" + ", ".join(parts) + "}"
    if isinstance(item, str):
        return None if "\n" in item or item.startswith("#") else _scalar(item)
    if isinstance(item, Sequence):
        flows = [_flow(inner) for inner in item]
        return None if any(flow is None for flow in flows) else "[" + ", ".join(map(str, flows)) + "]"
    return json.dumps(item)


def _scalar(text: str) -> str:
    plain = _PLAIN.match(text) and text.lower() not in _WORDS
    return text if plain else json.dumps(text)
