"""The one form of all texts that a model which folds cannot tell apart."""

from __future__ import annotations

import re
from string import ascii_lowercase, ascii_uppercase

_BLANKS = re.compile(r"[ \t\r\n]{2,}|[\t\r\n]")
_LOWER = str.maketrans(ascii_uppercase, ascii_lowercase)


def folded(text: str) -> str:
    """ASCII letters in lower case, each run of blanks and line ends one space, none at either end.

    Who cuts a text by characters cuts this form of it: else how many blanks there are decides what is read.
    """
    if any(blank in text for blank in ("  ", "\n", "\t", "\r")):  # looking is far cheaper than the expression
        text = _BLANKS.sub(" ", text)
    # ASCII alone: beyond it lower case depends on the place in the word, and on whose tables are asked.
    return text.strip(" ").translate(_LOWER)
