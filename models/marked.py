"""The part of a page that a program writes: what stands between two marks."""

from __future__ import annotations


def marked(page: str, begin: str, end: str, text: str) -> str:
    """The page with `text` between the marks. Raises ValueError where one of them is missing."""
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"the marks {begin} and {end} are missing")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"
