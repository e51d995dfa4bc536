"""How long a regular expression can take at worst, so that no client can stall the event loop with a clever prompt."""

from __future__ import annotations

from collections.abc import Iterable

# The standard library's own parser. It is private, so whatever is not understood below counts as too slow.
from re import _constants as op  # type: ignore[attr-defined]  # no stubs for the private module
from re import _parser as parser  # type: ignore[attr-defined]  # no stubs for the private module
from typing import Any, NamedTuple

TOO_MANY = 10**12


class Work(NamedTuple):
    """Upper bounds of what an expression can take at one place of a text, each capped at 10^12: the `ways` in which it
    can be tried, and the `steps` (characters looked at) that all of these have together."""

    ways: int
    steps: int


_ONE_WAY = {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.AT, op.RANGE, op.CATEGORY}


def worst_case(expression: str, length: int) -> Work:
    """What `expression` can take at one place of a text of `length` characters.

    Sequences multiply, alternatives add up, a repetition of something that can match in w ways up to n times has
    1 + w + ... + w^n ways. Raises re.error on what is no regular expression.
    """
    return _sequence(parser.parse(expression), length)


_UNKNOWN = Work(TOO_MANY, TOO_MANY)


def _sequence(items: Iterable[tuple[Any, Any]], length: int) -> Work:
    ways, steps = 1, 0
    for code, argument in items:
        one = _one(code, argument, length)
        steps = min(TOO_MANY, steps + ways * one.steps)
        ways = min(TOO_MANY, ways * one.ways)
    return Work(ways, steps)


def _one(code: Any, argument: Any, length: int) -> Work:
    if code in _ONE_WAY:
        return Work(1, 1)
    if code is op.SUBPATTERN:
        return _sequence(argument[3], length)
    if code is op.BRANCH:
        branches = [_sequence(branch, length) for branch in argument[1]]
        return Work(*(min(TOO_MANY, sum(of)) for of in zip(*branches, strict=True)))
    if code in (op.MAX_REPEAT, op.MIN_REPEAT):
        least, most, inner = argument
        return _repeat(_sequence(inner, length), least, min(int(most), length))
    if code in (op.ASSERT, op.ASSERT_NOT):
        return _sequence(argument[1], length)
    if code is op.POSSESSIVE_REPEAT or code is op.ATOMIC_GROUP:
        return _UNKNOWN  # fast, but rare: not worth proving
    return _UNKNOWN


def _repeat(inner: Work, least: int, most: int) -> Work:
    if inner.ways == 1:
        return Work(max(1, most - least + 1), min(TOO_MANY, most * inner.steps))
    total = power = 1
    for _ in range(most):
        power *= inner.ways
        total += power
        if total >= TOO_MANY:
            return _UNKNOWN
    return Work(total, min(TOO_MANY, total * inner.steps))
