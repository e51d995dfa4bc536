"""Texts to token windows, as the artefact's format says: `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Encoding, Tokenizer

from router_extproc.inference.base import Prompt, UnusableModel
from router_extproc.inference.folding import folded
from router_extproc.inference.windows import spread

CONTEXT_TOKENS = 96
"""Tokens of segment B at most, from its end: what the classifier was trained with."""

_CONTEXT_CHARS = 1200
_MAX_TOKEN_WINDOWS = 64


@dataclass(frozen=True, slots=True)
class TokenWindow:
    """One row for the encoder. `prompt` is its index in the batch, `ids` all tokens with the special ones.

    `first` and `count` say which tokens of `encoding` (segment A of the whole text) it holds; in `ids` they follow the
    `[CLS]`. Ids from `second` on are segment B's.
    """

    prompt: int
    ids: list[int]
    second: int
    encoding: Encoding
    first: int
    count: int

    def text(self, prompt: Prompt) -> str:
        """The part of the prompt's text that this window holds."""
        if self.count == len(self.encoding):
            return prompt.text
        offsets = self.encoding.offsets
        return prompt.text[offsets[self.first][0] : offsets[self.first + self.count - 1][1]]


def well_formed(text: str) -> str:
    """The text without lone surrogates, which JSON can carry and tokenizers refuse; every offset stays as it was."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class TokenWindows:
    """Cuts prompts into rows of at most `max_tokens`. Used on one thread; `encode_batch` releases the GIL."""

    def __init__(self, path: Path, max_tokens: int) -> None:
        try:
            self._tokenizer: Tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # the binding raises bare Exception
            raise UnusableModel(f"{path}: {error}") from error
        described = json.loads(self._tokenizer.to_str())
        normalizer, splitter = described.get("normalizer") or {}, described.get("pre_tokenizer") or {}
        self.folds = (
            normalizer.get("type") == "BertNormalizer"
            and normalizer.get("lowercase") is True
            and splitter.get("type") == "BertPreTokenizer"
            # What else is added is looked for in the text as it stands.
            and all(token["special"] for token in described.get("added_tokens") or [])
        )
        """Whether neither case nor runs of blanks reach the tokens."""
        # "[SEP]" in a prompt is what somebody wrote, as "[sep]" is, and no end of a segment.
        self._tokenizer.encode_special_tokens = True
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._cls, self._sep = self._special("[CLS]"), self._special("[SEP]")
        self._max_tokens = max_tokens
        if max_tokens < 8:
            raise UnusableModel(f"{path}: windows of {max_tokens} tokens are too short")

    def encode(self, prompts: Sequence[Prompt]) -> list[TokenWindow]:
        """Rows of all prompts, in order. A text over the window gives several of about equal length."""
        contexts = {prompt.context: [] for prompt in prompts if prompt.context}  # type: dict[str, list[int]]
        texts = [prompt.text for prompt in prompts] + [self._context(context) for context in contexts]
        texts = [well_formed(text) for text in texts]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        allowed = min(CONTEXT_TOKENS, self._max_tokens // 2 - 3)
        for context, encoding in zip(contexts, encodings[len(prompts) :], strict=True):
            contexts[context] = encoding.ids[-allowed:]
        rows: list[TokenWindow] = []
        for index, prompt in enumerate(prompts):
            rows += self._rows(index, encodings[index], contexts.get(prompt.context, []))
        return rows

    def _rows(self, index: int, encoding: Encoding, context: list[int]) -> list[TokenWindow]:
        ids: list[int] = encoding.ids
        room = self._max_tokens - (2 if not context else 3 + len(context))
        tail = [*context, self._sep] if context else []
        windows = max(1, -(-len(ids) // room))
        rows: list[TokenWindow] = []
        for window in spread(windows, _MAX_TOKEN_WINDOWS):
            first, end = window * len(ids) // windows, (window + 1) * len(ids) // windows
            row = [self._cls, *ids[first:end], self._sep, *tail]
            rows.append(TokenWindow(index, row, end - first + 2, encoding, first, end - first))
        return rows

    def _context(self, context: str) -> str:
        """Its end: all that can reach segment B, of texts that are one to the model the same."""
        return (folded(context) if self.folds else context)[-_CONTEXT_CHARS:]

    def _special(self, token: str) -> int:
        found = self._tokenizer.token_to_id(token)
        if found is None:
            raise UnusableModel(f"the tokenizer has no {token}")
        return int(found)
