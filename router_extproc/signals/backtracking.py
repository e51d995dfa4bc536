"""How long a regular expression can take at worst, so that no client can stall the event loop with a clever prompt."""

from __future__ import annotations

from collections.abc import Iterable

# The standard library's own parser. It is private, so whatever is not understood below counts as too slow.
from re import _constants as op  # type: ignore[attr-defined]  # no stubs for the private module
from re import _parser as parser  # type: ignore[attr-defined]  # no stubs for the private module
from typing import Any

TOO_MANY = 10**12

_ONE_WAY = {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN, op.AT, op.RANGE, op.CATEGORY}


def worst_case(expression: str, length: int) -> int:
    """Upper bound of the ways in which `expression` can be tried at one place of a text of `length` characters.

    Sequences multiply, alternatives add up, a repetition of something that can match in w ways up to n times has
    1 + w + ... + w^n ways. Capped at 10^12. Raises re.error on what is no regular expression.
    """
    return _sequence(parser.parse(expression), length)


def _sequence(items: Iterable[tuple[Any, Any]], length: int) -> int:
    ways = 1
    for code, argument in items:
        ways = min(TOO_MANY, ways * _one(code, argument, length))
    return ways


def _one(code: Any, argument: Any, length: int) -> int:
    if code in _ONE_WAY:
        return 1
    if code is op.SUBPATTERN:
        return _sequence(argument[3], length)
    if code is op.BRANCH:
        return min(TOO_MANY, sum(_sequence(branch, length) for branch in argument[1]))
    if code in (op.MAX_REPEAT, op.MIN_REPEAT):
        least, most, inner = argument
        return _repeat(_sequence(inner, length), least, min(int(most), length))
    if code in (op.ASSERT, op.ASSERT_NOT):
        return _sequence(argument[1], length)
    if code is op.POSSESSIVE_REPEAT or code is op.ATOMIC_GROUP:
        return TOO_MANY  # fast, but rare: not worth proving
    return TOO_MANY


def _repeat(ways: int, least: int, most: int) -> int:
    if ways == 1:
        return max(1, most - least + 1)
    total = power = 1
    for _ in range(most):
        power *= ways
        total += power
        if total >= TOO_MANY:
            return TOO_MANY
    return total
