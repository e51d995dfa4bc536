"""Finds in a conversation, message by message, what to classify: the newest human turn, and the turns before it."""

from __future__ import annotations

from collections import deque
from dataclasses import replace
from typing import Final

from router_extproc.apis.agent_text import strip_agent_text
from router_extproc.apis.content import Content
from router_extproc.apis.long_string import LEFT_OUT
from router_extproc.domain import Turn

PROMPT_CHARACTERS: Final = 64 * 1024
"""Longest prompt kept: its beginning and its end."""

PROMPT_TAIL: Final = 2_000
"""Characters of a longer prompt's end. What stands before them is classified while the body arrives; these have to wait
for the last byte, so they are few."""

CONTEXT_TURNS: Final = 8
"""Turns kept before the prompt."""

CONTEXT_CHARACTERS: Final = 8 * 1024
"""Characters kept of each of them, and of the system prompt."""


WRITTEN_CHARACTERS: Final = 64 * 1024
"""Characters kept of what people, tools and documents brought beside the prompt: of the newest, with the last of them
whole."""

WRITTEN_TEXTS: Final = 256
"""And how many texts."""

OPENING_CHARACTERS: Final = 1_000
"""Characters kept of the first human turn."""


def clip(text: str, limit: int, tail: int | None = None) -> str:
    """The text, or its head and its last `tail` characters (default: a quarter) when it is longer than `limit`."""
    if len(text) <= limit:
        return text
    kept = limit // 4 if tail is None else tail
    return text[: limit - kept - len(LEFT_OUT)] + LEFT_OUT + text[len(text) - kept :]


class Conversation:
    """Takes messages oldest first. Holds a bounded number of characters, however long the conversation."""

    def __init__(self) -> None:
        self.human_turns = 0
        self.newest_is_human = False
        self.modalities = {"text"}
        self.kept_elsewhere = False
        self.unread = False
        self.media = 0
        self.media_characters = 0
        self.context: tuple[Turn, ...] = ()
        self.thoughts: tuple[str, ...] = ()
        self.opening = ""
        self._prompt = ""
        self._raw = ""
        self._system = ""
        self._turns: deque[Turn] = deque(maxlen=CONTEXT_TURNS)
        self._thoughts: deque[str] = deque(maxlen=CONTEXT_TURNS)
        self._written: deque[tuple[int, str]] = deque(maxlen=WRITTEN_TEXTS)  # with how often the model had spoken
        self._characters = 0
        self._spoken = 0
        self._documents: list[str] = []
        self._room = WRITTEN_CHARACTERS  # for more of them
        self._variables = ""

    @property
    def prompt(self) -> str:
        """The newest turn in which a human says something; if there is none, the newest user turn as it stands, or
        else what `add_variables` was given."""
        return self._prompt or self._raw or self._variables

    @property
    def system(self) -> str:
        """All instructions that are not a turn."""
        return clip(self._system, CONTEXT_CHARACTERS)

    @property
    def written(self) -> tuple[tuple[str, ...], int]:
        """What people, tools and documents brought beside the prompt, newest first, and how many of these texts came
        since the model last spoke."""
        prompt, spoken = self.prompt, self._spoken
        fresh = [text for at, text in reversed(self._written) if at == spoken and text != prompt]
        earlier = [text for at, text in reversed(self._written) if at != spoken and text != prompt]
        documents = [text for text in self._documents if text != prompt]
        return (*documents, *fresh, *earlier), len(documents) + len(fresh)

    def add_documents(self, content: Content) -> None:
        """Documents that stand beside the conversation."""
        self._count(content)
        for text in content.brought:
            if self._room <= 0 or len(self._documents) == WRITTEN_TEXTS:
                return
            self._documents.append(clip(text, PROMPT_CHARACTERS, PROMPT_TAIL))
            self._room -= len(self._documents[-1])

    def add_variables(self, content: Content) -> None:
        """What is put into a prompt that the provider keeps, or behind one: the prompt where there is no other, else
        beside it."""
        self._variables = clip(content.text, PROMPT_CHARACTERS, PROMPT_TAIL)
        self.add_documents(replace(content, brought=[*content.texts, *content.brought]))

    def add_system(self, content: Content) -> None:
        """A system or developer message, or the API's field for it."""
        self._count(content)
        if content.texts and len(self._system) <= CONTEXT_CHARACTERS:
            self._system = (self._system + "\n\n" + content.text).strip()[: 2 * CONTEXT_CHARACTERS]

    def add_user(self, content: Content) -> None:
        """A user message. Without text of a human (tool results, reminders of an agent) it is no human turn."""
        self._count(content)
        self._bring(content.brought)
        said = [strip_agent_text(part) for part in content.texts]
        # What an agent put into the turn is not the human's, but somebody wrote it.
        self._bring([raw for raw, own in zip(content.texts, said, strict=True) if own != raw.strip()])
        text = "\n\n".join(filter(None, said))
        self.newest_is_human = bool(text)
        if not text:
            self._raw = clip(content.text, PROMPT_CHARACTERS, PROMPT_TAIL) if content.texts else self._raw
            return
        self.human_turns += 1
        self.opening = self.opening or text[:OPENING_CHARACTERS]
        self.context = tuple(self._turns)
        self.thoughts = tuple(self._thoughts)
        self._prompt = clip(text, PROMPT_CHARACTERS, PROMPT_TAIL)
        self._bring([self._prompt])
        self._turns.append(Turn("user", clip(text, CONTEXT_CHARACTERS)))

    def add_assistant(self, content: Content) -> None:
        """What the model said. Its tool calls are not text, and what it thought is no turn: it is long."""
        self._count(content)
        self._bring(content.brought)
        self.has_spoken()
        if text := content.text.strip():
            self._turns.append(Turn("assistant", clip(text, CONTEXT_CHARACTERS)))
        if content.thoughts:
            self._thoughts.append(clip("\n\n".join(content.thoughts), CONTEXT_CHARACTERS))

    def add_tool(self, content: Content) -> None:
        """What a tool returned."""
        self._count(content)
        self._bring([*content.texts, *content.brought])
        self.newest_is_human = False

    def has_spoken(self) -> None:
        """The model's turn is over: what came before it is no longer fresh."""
        self._spoken += 1
        self.newest_is_human = False

    def _bring(self, texts: list[str]) -> None:
        for text in texts:
            if not text or text.isspace():
                continue
            kept = clip(text, PROMPT_CHARACTERS, PROMPT_TAIL)
            if len(self._written) == WRITTEN_TEXTS:
                self._characters -= len(self._written[0][1])
            self._written.append((self._spoken, kept))
            self._characters += len(kept)
            while self._characters > WRITTEN_CHARACTERS and len(self._written) > 1:
                self._characters -= len(self._written.popleft()[1])

    def growing(self, content: Content) -> str:
        """The text of a user message of which the last part is still arriving."""
        if not content.texts:
            return ""
        *complete, last = content.texts
        texts = [*map(strip_agent_text, complete), strip_agent_text(last, growing=True)]
        # The last character may be half of an emoji, which is not what will be there in the end.
        head = PROMPT_CHARACTERS - PROMPT_TAIL - len(LEFT_OUT)
        return "\n\n".join(filter(None, texts))[:head].rstrip("\ufffd")

    @property
    def so_far(self) -> tuple[Turn, ...]:
        """The turns that are complete: the context of one that is still arriving."""
        return tuple(self._turns)

    def _count(self, content: Content) -> None:
        self.modalities |= content.modalities
        self.kept_elsewhere |= content.kept_elsewhere
        self.unread |= content.unread
        self.media += content.media
        self.media_characters += content.media_characters
