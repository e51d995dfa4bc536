"""Words or regular expressions in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router_extproc.config.section import one_or_many
from router_extproc.domain import LlmRequest, SignalValue
from router_extproc.signals.backtracking import worst_case
from router_extproc.signals.base import FALSE, TRUE, TRUTH, Heads, SignalInputs

WORD_CHARS = 16_384
"""How much of the text words are sought in: its beginning. 200 words take about 2 ms there."""
REGEX_CHARS = 2_048
"""The same for regular expressions, which may go over the text many times."""
MAX_MARKS = 1000
"""Different texts that one signal points at."""
MAX_STEPS = REGEX_CHARS
"""Most ways in which a regular expression may be tried at one place of the text: those of one `*`. The worst text for
the worst expression then takes some 50 ms."""

Texts = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=256)]],
    BeforeValidator(one_or_many),
    Field(max_length=200),
]


class Where(StrEnum):
    """Which text of the request is searched."""

    PROMPT = "prompt"
    CONTEXT = "context"
    SYSTEM = "system"
    ALL = "all"
    UNTRUSTED = "untrusted"
    CONVERSATION = "conversation"


class KeywordsParams(BaseModel):
    """What to look for, and where."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    any: Texts = Field([], description="True when one of these is there.")
    all: Texts = Field([], description="True when all of these are there.")
    none: Texts = Field([], description="True when none of these is there.")
    regex: bool = Field(
        False,
        description="The entries are regular expressions (Python's `re`) and see the first 2,048 characters, not words "
        "in the first 16,384. Expressions that could take very long are refused.",
    )
    case_sensitive: bool = Field(False, description="Whether upper and lower case differ.")
    mark: bool = Field(False, description="Point at what `any` and `all` find, so that a `mask` guard can cover it.")
    where: Where = Field(
        Where.PROMPT,
        description="The newest human turn, the turns before it, the system text, or all of these. `untrusted`: the "
        "newest human turn and what tools and documents brought since the model last spoke; `conversation`: everything "
        "that people and tools wrote.",
    )

    @model_validator(mode="after")
    def _usable(self) -> Self:
        entries = [*self.any, *self.all, *self.none]
        if not entries:
            raise ValueError("give at least one of any, all, none")
        for entry in entries if self.regex else ():
            try:
                worst = worst_case(entry, REGEX_CHARS)
            except re.error as error:
                raise ValueError(f"`{entry}` is not a regular expression: {error}") from None
            if worst > MAX_STEPS:
                raise ValueError(
                    f"`{entry}` could take very long on some texts: do not nest or chain `*` and `+`, write {{0,20}}"
                )
        return self


class KeywordsSignal:
    """Whether words or regular expressions stand in the text: `true` when `any`, `all` and `none` all hold. Words match
    whole words, in any case unless told otherwise."""

    Params = KeywordsParams
    classifier = None
    labels = TRUTH

    def __init__(self, params: KeywordsParams, heads: Heads) -> None:
        self._text = _TEXTS[params.where]
        self._fold = not params.regex and not params.case_sensitive
        self._limit = REGEX_CHARS if params.regex else WORD_CHARS
        flags = re.NOFLAG if params.case_sensitive else re.IGNORECASE

        def finders(entries: Sequence[str]) -> list[Finder]:
            return [_pattern(entry, flags) if params.regex else _word(entry, self._fold) for entry in entries]

        self._any = finders(params.any)
        self._all = finders(params.all)
        self._none = finders(params.none)
        marked = (*params.any, *params.all) if params.mark else ()
        self._marks = [re.compile(entry if params.regex else _whole(entry), flags) for entry in marked]
        self.marks = bool(marked)

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The truth."""
        whole = self._text(inputs.request)[: self._limit]
        text = whole.lower() if self._fold else whole
        if self._any and not any(found(text) for found in self._any):
            return FALSE
        if not all(found(text) for found in self._all):
            return FALSE
        if any(found(text) for found in self._none):
            return FALSE
        if not self._marks:
            return TRUE
        found_texts = dict.fromkeys(found.group() for mark in self._marks for found in mark.finditer(whole))
        return SignalValue("true", value=1.0, pieces=tuple(found_texts)[:MAX_MARKS])


Finder = Callable[[str], bool]


def _pattern(entry: str, flags: re.RegexFlag) -> Finder:
    search = re.compile(entry, flags).search
    return lambda text: search(text) is not None


def _word(entry: str, fold: bool) -> Finder:
    word = entry.lower() if fold else entry
    search = re.compile(_whole(word)).search
    # `in` is some ten times faster than the search and nearly always says no.
    return lambda text: word in text and search(text) is not None


def _whole(word: str) -> str:
    """An expression for `word`, not as a part of another word."""
    before, after = "(?<!\\w)" if _has_edge(word[0]) else "", "(?!\\w)" if _has_edge(word[-1]) else ""
    return before + re.escape(word) + after


def _has_edge(char: str) -> bool:
    """Whether words that begin or end with `char` are set apart by spaces or punctuation: not so in the scripts from
    Thai to Burmese, Khmer, and the Chinese, Japanese and Korean ones."""
    code = ord(char)
    glued = 0x0E00 <= code < 0x10A0 or 0x1780 <= code < 0x1800 or 0x2E80 <= code < 0xD800 or 0xF900 <= code < 0xFB00
    return (char.isalnum() or char == "_") and not glued and code < 0x20000


def _all_text(request: LlmRequest) -> str:
    return "\n".join((request.prompt, request.system, _context(request)))


def _context(request: LlmRequest) -> str:
    return "\n".join(turn.text for turn in reversed(request.context))


def _untrusted(request: LlmRequest) -> str:
    return "\n".join((request.prompt, *request.written[: request.fresh]))


_TEXTS: dict[Where, Callable[[LlmRequest], str]] = {
    Where.PROMPT: lambda request: request.prompt,
    Where.CONTEXT: _context,
    Where.SYSTEM: lambda request: request.system,
    Where.ALL: _all_text,
    Where.UNTRUSTED: _untrusted,
    Where.CONVERSATION: lambda request: "\n".join((request.prompt, *request.written)),
}
