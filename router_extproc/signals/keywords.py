"""Words or regular expressions in the text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router_extproc.config.section import one_or_many
from router_extproc.domain import MAX_PIECES, LlmRequest, SignalValue
from router_extproc.signals.backtracking import worst_case
from router_extproc.signals.base import FALSE, TRUE, TRUTH, Heads, SignalInputs

REGEX_CHARS = 2_048
"""How much of the text the slowest regular expressions see: its beginning."""
MAX_STEPS = REGEX_CHARS
"""Most ways in which a regular expression may be tried at one place of the text: those of one `*`. The worst text for
the worst expression then takes some 50 ms."""
MOST_STEPS = REGEX_CHARS * MAX_STEPS
"""Characters that one expression may look at, again and again. One that takes few steps at each place sees more text,
nearly always all of it."""
LONGEST_TEXT = 1_000_000
"""Characters, more than readers keep of a request (`apis.conversation`): some 300,000. Words are sought in all of them,
which takes some 0.2 ms a word."""

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
        description="The entries are regular expressions (Python's `re`), not words. One with `*`, `+` or many "
        "alternatives may see the beginning of a long text only, 2,048 characters at least; finding nothing there, the "
        "signal is `false` to routes and absent to guards. Expressions that could take very long are refused.",
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
                worst = worst_case(entry, REGEX_CHARS).ways
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
        flags = re.NOFLAG if params.case_sensitive else re.IGNORECASE
        self._reach = LONGEST_TEXT

        def finders(entries: Sequence[str]) -> list[Finder]:
            if not params.regex:
                return [_word(_folded(entry) if self._fold else entry) for entry in entries]
            reaches = [_reach(entry) for entry in entries]
            self._reach = min([self._reach, *reaches])
            return [_pattern(entry, flags, reach) for entry, reach in zip(entries, reaches, strict=True)]

        self._any = finders(params.any)
        self._all = finders(params.all)
        self._marks = [*self._any, *self._all] if params.mark else []
        self._marks_reach = self._reach  # before `none`, which points at nothing, may make it shorter
        self._none = finders(params.none)
        self.marks = bool(self._marks)

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The truth; where it could read a part of the text only, a `false` says so, and a `true` that points at what
        it found."""
        whole = self._text(inputs.request)
        text = _folded(whole) if self._fold else whole
        if (self._any and not any(_stands(found, text) for found in self._any)) or not all(
            _stands(found, text) for found in self._all
        ):
            return PARTLY_FALSE if len(text) > self._reach else FALSE
        if any(_stands(found, text) for found in self._none):
            return FALSE
        if not self._marks:
            return TRUE
        found_texts = dict.fromkeys(whole[start:end] for found in self._marks for start, end in found(text))
        more = len(found_texts) > MAX_PIECES or len(text) > self._marks_reach
        return SignalValue("true", value=1.0, pieces=tuple(found_texts)[:MAX_PIECES], more=more)


PARTLY_FALSE = SignalValue("false", partial=True)

Finder = Callable[[str], Iterator[tuple[int, int]]]
"""Where something stands in a text: start and end."""


def _stands(finder: Finder, text: str) -> bool:
    return next(finder(text), None) is not None


def _reach(entry: str) -> int:
    """How much of the text a regular expression sees, in characters."""
    return max(REGEX_CHARS, MOST_STEPS // max(1, worst_case(entry, LONGEST_TEXT).steps))


def _pattern(entry: str, flags: re.RegexFlag, reach: int) -> Finder:
    finditer = re.compile(entry, flags).finditer
    return lambda text: (found.span() for found in finditer(text, 0, reach))


def _word(word: str) -> Finder:
    """Finds `word`, not as a part of another word."""
    before, after = _has_edge(word[0]), _has_edge(word[-1])

    def places(text: str) -> Iterator[tuple[int, int]]:
        # Many times faster than a regular expression, and nearly always there is nothing.
        start = text.find(word)
        while start >= 0:
            end = start + len(word)
            inside = (before and _in_word(text[start - 1 : start])) or (after and _in_word(text[end : end + 1]))
            if not inside:
                yield start, end
            start = text.find(word, start + 1)

    return places


def _in_word(char: str) -> bool:
    """Whether `char`, "" at the end of the text, is of those that words are made of: `\\w` of an expression."""
    return char.isalnum() or char == "_"


def _folded(text: str) -> str:
    """The text in lower case, each character in its place: \u0130 alone would become two."""
    return text.replace("\u0130", "i").lower()


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
