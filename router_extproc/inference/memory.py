"""Answers for windows that were read lately, so that what is known is not computed again. Used on the event loop.

Texts are the same when the model cannot tell them apart. To every model that is so of the very same text; to one that
`folds`, also of texts that differ in the case of ASCII letters or in runs of blanks and line ends. What points into the
text (the spans of personal data) is right for the text as it stands, so an answer with spans is kept for that alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Protocol

from router_extproc.inference.base import Classified, Prompt
from router_extproc.inference.folding import folded

Labels = Mapping[str, tuple[str, ...]]

KEY_BYTES = 16


def keys_of(version: str, window: Prompt, *, folds: bool) -> tuple[bytes, ...]:
    """Under which keys an answer may be remembered, the last for the text as it stands. No text can be got back."""
    exact = _hashed(b"=", version, window.text, window.context)
    if not folds:
        return (exact,)
    return _hashed(b"~", version, folded(window.text), folded(window.context)), exact


def key_for(answer: Classified, keys: Sequence[bytes]) -> bytes:
    """The one of `keys_of` under which `answer` is kept."""
    return keys[-1] if any(head.spans for head in answer.heads.values()) else keys[0]


def _hashed(kind: bytes, version: str, text: str, context: str) -> bytes:
    digest = blake2b(kind, digest_size=KEY_BYTES)
    for part in (version, text, context):
        # JSON can carry lone surrogates.
        content = part.encode("utf-8", "surrogatepass")
        digest.update(b"%d:" % len(content))
        digest.update(content)
    return digest.digest()


class WindowMemory:
    """The answers for the `size` windows last used, by key. `size` 0 remembers nothing."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._answers: OrderedDict[bytes, Classified] = OrderedDict()

    def __len__(self) -> int:
        return len(self._answers)

    def recall(self, keys: Sequence[bytes]) -> Classified | None:
        """What is known under any of `keys`; None when that is nothing (any more)."""
        for key in keys:
            found = self._answers.get(key)
            if found is not None:
                self._answers.move_to_end(key)
                return found
        return None

    def keep(self, key: bytes, answer: Classified) -> None:
        """Remembers an answer; the one not used for longest makes room. Its times are dropped: it will cost nothing."""
        self._answers[key] = replace(answer, queue_ms=0.0, run_ms=0.0, batch_size=0)
        self._answers.move_to_end(key)
        while len(self._answers) > self._size:
            self._answers.popitem(last=False)


class Elsewhere(Protocol):
    """What other replicas remember. Used on the event loop; nothing here raises or holds anybody up."""

    async def recall(self, keys: Sequence[Sequence[bytes]], version: str, labels: Labels) -> list[Classified | None]:
        """For each window, what the model of this version and labels said of it under any of its keys."""

    def keep(self, key: bytes, answer: Classified, labels: Labels) -> None:
        """Tells the others, some time later."""
