"""Finds in a conversation, message by message, what to classify: the newest human turn, and the turns before it."""

from __future__ import annotations

from collections import deque
from typing import Final

from router_extproc.apis.agent_text import strip_agent_text
from router_extproc.apis.content import Content
from router_extproc.apis.long_string import LEFT_OUT
from router_extproc.domain import Turn

PROMPT_CHARACTERS: Final = 64 * 1024
"""Longest prompt kept: three quarters from its beginning, the rest from its end."""

CONTEXT_TURNS: Final = 8
"""Turns kept before the prompt."""

CONTEXT_CHARACTERS: Final = 8 * 1024
"""Characters kept of each of them, and of the system prompt."""


def clip(text: str, limit: int) -> str:
    """The text, or its head and tail when it is longer than `limit` characters."""
    if len(text) <= limit:
        return text
    head = limit * 3 // 4
    return text[:head] + LEFT_OUT + text[len(text) - (limit - head - len(LEFT_OUT)) :]


class Conversation:
    """Takes messages oldest first. Holds a bounded number of characters, however long the conversation."""

    def __init__(self) -> None:
        self.human_turns = 0
        self.newest_is_human = False
        self.modalities = {"text"}
        self.media = 0
        self.media_characters = 0
        self.context: tuple[Turn, ...] = ()
        self._prompt = ""
        self._raw = ""
        self._system = ""
        self._turns: deque[Turn] = deque(maxlen=CONTEXT_TURNS)

    @property
    def prompt(self) -> str:
        """The newest turn in which a human says something; if there is none, the newest user turn as it stands."""
        return self._prompt or self._raw

    @property
    def system(self) -> str:
        """All instructions that are not a turn."""
        return clip(self._system, CONTEXT_CHARACTERS)

    def add_system(self, content: Content) -> None:
        """A system or developer message, or the API's field for it."""
        self._count(content)
        if content.texts and len(self._system) <= CONTEXT_CHARACTERS:
            self._system = (self._system + "\n\n" + content.text).strip()[: 2 * CONTEXT_CHARACTERS]

    def add_user(self, content: Content) -> None:
        """A user message. Without text of a human (tool results, reminders of an agent) it is no human turn."""
        self._count(content)
        text = "\n\n".join(filter(None, map(strip_agent_text, content.texts)))
        self.newest_is_human = bool(text)
        if not text:
            self._raw = clip(content.text, PROMPT_CHARACTERS) if content.texts else self._raw
            return
        self.human_turns += 1
        self.context = tuple(self._turns)
        self._prompt = clip(text, PROMPT_CHARACTERS)
        self._turns.append(Turn("user", clip(text, CONTEXT_CHARACTERS)))

    def add_assistant(self, content: Content) -> None:
        """What the model said. Its tool calls are not text."""
        self._count(content)
        self.newest_is_human = False
        if text := content.text.strip():
            self._turns.append(Turn("assistant", clip(text, CONTEXT_CHARACTERS)))

    def add_tool(self, content: Content) -> None:
        """What a tool returned: only its images matter here."""
        self._count(content)
        self.newest_is_human = False

    def growing(self, content: Content) -> str:
        """The text of a user message of which the last part is still arriving."""
        if not content.texts:
            return ""
        *complete, last = content.texts
        texts = [*map(strip_agent_text, complete), strip_agent_text(last, growing=True)]
        # The last character may be half of an emoji, which is not what will be there in the end.
        return "\n\n".join(filter(None, texts))[: PROMPT_CHARACTERS * 3 // 4].rstrip("\ufffd")

    def _count(self, content: Content) -> None:
        self.modalities |= content.modalities
        self.media += content.media
        self.media_characters += content.media_characters
