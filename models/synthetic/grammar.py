"""A tiny template language: `{name}` stands for one of the alternatives of `name`, recursively."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence

Grammar = Mapping[str, Sequence[str]]
_SLOT = re.compile(r"\{([a-z_0-9]+)\}")


def expand(template: str, grammar: Grammar, rng: random.Random, depth: int = 6) -> str:
    """Fill every slot of `template`. Unknown slots stay as they are; `{number}` is a random number."""

    def fill(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "number":
            return str(rng.choice((rng.randint(2, 20), rng.randint(20, 990), rng.randint(1, 90) * 100)))
        if name == "order":
            digits = "".join(rng.choice("0123456789") for _ in range(rng.randint(5, 9)))
            return rng.choice(("#", "no. ", "", "A-", "number ")) + digits
        choices = grammar.get(name)
        if choices is None or depth == 0:
            return match.group(0)
        return expand(rng.choice(choices), grammar, rng, depth - 1)

    return _SLOT.sub(fill, template)
