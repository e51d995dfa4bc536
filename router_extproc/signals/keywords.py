"""Words or regular expressions in the text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Self

import regex
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from router_extproc.config.section import one_or_many
from router_extproc.domain import MAX_PIECES, LlmRequest, SignalValue
from router_extproc.signals.base import FALSE, TRUE, TRUTH, Heads, SignalInputs
from router_extproc.words import whole_words

REGEX_SECONDS = 0.05
"""CPU time, in seconds, that the expressions of one signal may take for one text, so that none that is slow to search
holds up the event loop. Ordinary ones take 0.1 ms, for the longest texts some milliseconds."""
WORTH_ANOTHER = REGEX_SECONDS / 10
"""Of it, what must be left to go on after `regex` has given up."""
MOST_SHARED = 3.0
"""How many threads' time `regex` may take at most for that of one."""
MOST_REPEATED = 100_000
"""Atoms of an expression with its counted repetitions written out: `(a{1000}){1000}` would take 275 MB to compile
(measured)."""

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
        description="The entries are regular expressions (of Python's `regex`, so also those of `re`), not words. "
        "Together they have 50 ms of CPU time for a text; where that was too little and nothing was found by then, the "
        "signal is absent to guards, and routes go by that.",
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
            if _written_out(entry) > MOST_REPEATED:
                raise ValueError(f"`{entry}` is too large: its counts multiply to more than {MOST_REPEATED:,}")
            try:
                regex.compile(entry)
            except regex.error as error:
                raise ValueError(f"`{entry}` is not a regular expression: {error}") from None
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
        flags = 0 if params.case_sensitive else regex.IGNORECASE

        def finders(entries: Sequence[str]) -> list[Finder]:
            if params.regex:
                return [_pattern(entry, flags) for entry in entries]
            return [_word(_folded(entry) if self._fold else entry) for entry in entries]

        self._any, self._all, self._none = finders(params.any), finders(params.all), finders(params.none)
        self._marks = [*self._any, *self._all] if params.mark else []
        self.marks = bool(self._marks)

    def evaluate(self, inputs: SignalInputs) -> SignalValue:
        """The truth. Where it could read a part of the text only, a `false` of `any` and `all` says so, a `true` of
        `none` alone, and a `true` that points at what it found. What was found stays found, whatever `none` missed."""
        whole = self._text(inputs.request)
        text = _folded(whole) if self._fold else whole
        search = _Search(text, inputs.request.unread)
        if (self._any and not any(map(search.finds, self._any))) or not all(map(search.finds, self._all)):
            return PARTLY_FALSE if search.partial else FALSE
        if any(map(search.finds, self._none)):
            return FALSE
        if not self._any and not self._all:
            return PARTLY_TRUE if search.partial else TRUE
        if not self._marks:
            return TRUE
        search = _Search(text, inputs.request.unread)
        pieces = dict.fromkeys(whole_words(whole, (place for finder in self._marks for place in finder(search))))
        more = len(pieces) > MAX_PIECES or search.partial
        return SignalValue("true", value=1.0, pieces=tuple(pieces)[:MAX_PIECES], more=more)


PARTLY_FALSE = SignalValue("false", partial=True)
PARTLY_TRUE = SignalValue("true", value=1.0, partial=True)


@dataclass(slots=True)
class _Search:
    """One text that is searched. `partial`: something of it was not read, `seconds` are left for expressions."""

    text: str
    partial: bool
    seconds: float = REGEX_SECONDS

    def finds(self, finder: Finder) -> bool:
        return next(finder(self), None) is not None


Finder = Callable[[_Search], Iterator[tuple[int, int]]]
"""Where something stands in a text: start and end."""


_TOKEN = regex.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{(\d*),?(\d*)\}|.", regex.DOTALL)


def _written_out(entry: str) -> int:
    """How many atoms a regular expression has when `(ab{3}){2}` is written as `abbbabbb`; about, and never less."""
    groups, last = [0], 0
    for found in _TOKEN.finditer(entry):
        counts = [int(count) for count in found.groups() if count]
        if found[0] == "(":
            groups.append(0)
            continue
        if found[0] == ")" and len(groups) > 1:
            last = groups.pop()
        elif counts:
            last *= max(counts) - 1
            groups[-1] += last
            continue
        else:
            last = 1
        groups[-1] += last
    return sum(groups)


def _pattern(entry: str, flags: int) -> Finder:
    finditer = regex.compile(entry, flags).finditer

    def places(search: _Search) -> Iterator[tuple[int, int]]:
        end, share = 0, 1.0
        while search.seconds > WORTH_ANOTHER:
            own, whole = time.thread_time(), time.process_time()
            try:
                for found in finditer(search.text, end, timeout=search.seconds * share):
                    end = found.end()
                    yield found.span()
                return
            except TimeoutError:
                pass
            finally:
                own = time.thread_time() - own
                search.seconds -= own
            # `regex` counts the time of all threads, those of the classifier too; but these may just have ended.
            share = min(max(1.0, (time.process_time() - whole) / max(own, 1e-4)), MOST_SHARED)
        search.partial = True

    return places


def _word(word: str) -> Finder:
    """Finds `word`, not as a part of another word."""
    before, after = _has_edge(word[0]), _has_edge(word[-1])

    def places(search: _Search) -> Iterator[tuple[int, int]]:
        text = search.text
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
    return "\n".join((*(turn.text for turn in reversed(request.context)), *reversed(request.thoughts)))


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
