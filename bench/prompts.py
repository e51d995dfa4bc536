"""The requests that the benchmarks send: chat completions for `auto` of three lengths, each prompt said only once.

Lengths are in WordPiece tokens, about: short 20, medium 110, long 600. A running number in the text, in the long one in
every paragraph, makes every prompt and every window of it new: no cache of any kind can answer for the classifier.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

SIZES = ("short", "medium", "long")
MIXED = "mixed"
_NUMBER = "@@NUMBER@@"
_DIGITS = 10

_SHORT = (
    f"Write a Python function that merges two sorted lists of order numbers such as {_NUMBER}.",
    f"Where is my parcel {_NUMBER}? It should have been here on Monday.",
    f"What is the capital of Portugal, and how many people lived there in the census of file {_NUMBER}?",
)

_MEDIUM = (
    f"I rented a flat under contract {_NUMBER} three years ago and gave notice in March, in writing and three months "
    "ahead as the contract asks for. The landlord now keeps my deposit because of scratches in the wooden floor of the "
    "living room, which were there on the day I moved in; the protocol of that day only says that the floor was used. "
    "Neighbours could witness it. Can he keep the money, what does the law say about ordinary wear, and which steps "
    "should I take, in which order, before I go to court over it?",
    f"The service below (build {_NUMBER}) answers every request correctly in our tests, but under load some clients "
    "get the answer of another client. It keeps the current request in a module-level variable, sets it when a handler "
    "starts, and reads it again after awaiting the database. Explain step by step why this goes wrong with coroutines "
    "on a single thread, name two ways to repair it without a lock, and show the smaller one of the two as a patch "
    "with a test that fails before and passes after.",
)

_PARAGRAPHS = (
    "Our bakery has four shops and one kitchen. Bread is baked from two in the morning and driven out at five; what is "
    "not sold by six in the evening goes to a food bank, and each shop's manager writes the leftovers on a sheet of "
    "paper. Last year about nine percent of all loaves and seventeen percent of the pastries came back.",
    "We tried to order less, but then the shop at the station ran out before nine on Mondays, and regular customers "
    "told us so. Weather matters, and so do school holidays, the market on Thursdays and the football ground near the "
    "northern shop; how much each of them matters nobody can say, because the sheets are in a drawer and the tills "
    "count only what was sold, not what was asked for and missing.",
    "The tills write one line per sale into a file at midnight: shop, minute, article, price, discount. We have these "
    "files for six years, with two gaps of some weeks when a till was replaced. Articles changed their numbers twice, "
    "and there is a table that maps old numbers to new ones, which is probably not complete.",
    "My brother suggests a forecasting product that costs as much as half a baker. My own idea is a spreadsheet with "
    "the average of the last four same weekdays, and a manager's correction that is written down with its reason, so "
    "that after half a year we see whose corrections helped. The kitchen needs the numbers at eight in the evening and "
    "cannot bake less than twelve of anything.",
    "Returns are only half of it. Customers who find an empty shelf at four do not come back at five, and two cafés "
    "that used to buy thirty rolls each have left us since spring because we could not promise them an amount the "
    "evening before. What they would have paid I can say to the cent; what the empty shelf costs I can only guess, and "
    "my guess decides whether we should bake more or less.",
    "Please compare both ways and a third one of your choice. Say what data each needs, how to handle the gaps and the "
    "changed article numbers, how to treat days on which something sold out, how to measure after three months whether "
    "it was worth it, and what could make all of this worse than what we do today. End with a plan for the next four "
    "weeks, one line a day, that a person without any training in statistics can follow.",
)

_LONG = (" ".join(f"Note {_NUMBER}. {paragraph}" for paragraph in _PARAGRAPHS),)

_TEXTS = {"short": _SHORT, "medium": _MEDIUM, "long": _LONG}


@dataclass(frozen=True, slots=True)
class Template:
    """A request body with gaps for its number."""

    size: str
    parts: tuple[bytes, ...]

    def body(self, number: int) -> bytes:
        """The body for `number`, of the same length for every number."""
        return (b"%0*d" % (_DIGITS, number % 10**_DIGITS)).join(self.parts)


def templates(prompts: str) -> list[Template]:
    """The bodies of one length, or of all three in equal parts for `mixed`. Raises KeyError for another name."""
    if prompts == MIXED:
        most = max(len(texts) for texts in _TEXTS.values())
        return [_template(size, _TEXTS[size][index % len(_TEXTS[size])]) for index in range(most) for size in SIZES]
    return [_template(prompts, text) for text in _TEXTS[prompts]]


def texts(size: str) -> tuple[str, ...]:
    """The prompts of one length, with zero as their number."""
    return tuple(text.replace(_NUMBER, "0" * _DIGITS) for text in _TEXTS[size])


def _template(size: str, text: str) -> Template:
    document = {"model": "auto", "messages": [{"role": "user", "content": text}], "max_tokens": 16}
    return Template(size, tuple(part.encode() for part in json.dumps(document).split(_NUMBER)))
