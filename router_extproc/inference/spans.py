"""Entity spans from per-token probabilities (BIO labels), as the artefact's format says. Pure numpy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from router_extproc.inference.base import Span

OUTSIDE = "O"

_IN_BIO = {"B-": "B-", "I-": "I-", "S-": "B-", "U-": "B-", "E-": "I-", "L-": "I-", "M-": "I-"}
"""Prefixes of BIO, BIOES, BILOU and BMES. That an entity ends, or has one token, is told by what follows it, too."""


def as_bio(labels: Sequence[str]) -> tuple[str, ...]:
    """A token classifier's labels in BIO form; where none has B- or I-, one span is meant per run of a label."""
    if any(label.startswith(("B-", "I-")) for label in labels):
        return tuple(_IN_BIO.get(label[:2], label[:2]) + label[2:] for label in labels)
    return tuple(label if label == OUTSIDE else f"I-{label}" for label in labels)


def entity_types(labels: Sequence[str]) -> tuple[str, ...]:
    """The types that labels in BIO form name, in order. Any other label begins nothing and goes on with nothing."""
    return tuple(dict.fromkeys(label[2:] for label in labels if label[:2] in ("B-", "I-")))


class Bio:
    """The labels of one token head, prepared: which type each label has and whether it begins one."""

    def __init__(self, labels: Sequence[str]) -> None:
        types = [label[2:] if label[:2] in ("B-", "I-") else "" for label in labels]
        self.outside = labels.index(OUTSIDE) if OUTSIDE in labels else -1
        self._names = types
        self._begins = [label.startswith("B-") for label in labels]
        self._columns = {name: [i for i, t in enumerate(types) if t == name] for name in dict.fromkeys(types) if name}

    def decode(self, probs: npt.NDArray[np.float32], offsets: Sequence[tuple[int, int]], text: str) -> list[Span]:
        """Spans of one window. `probs` is [tokens, labels], `offsets` the tokens' character ranges in `text`.

        A span begins at `B-X`, or at `I-X` after a token that is not of type X, and goes on over the following `I-X`.
        Neighbours of one type with at most one character between them that is no white space, comma or line end are
        one span. Confidence is the mean over the tokens of P(B-X) + P(I-X).
        """
        best = probs.argmax(axis=1)
        found: list[tuple[int, int, str]] = []  # first token, end token, type
        for token in np.flatnonzero(best != self.outside).tolist():
            label = int(best[token])
            name = self._names[label]
            if not name:
                continue
            last = found[-1] if found else None
            if last is not None and last[1] == token and last[2] == name and not self._begins[label]:
                found[-1] = (last[0], token + 1, name)
            else:
                found.append((token, token + 1, name))
        joined: list[tuple[int, int, str]] = []
        for first, end, name in found:
            last = joined[-1] if joined else None
            if last is not None and last[2] == name and _touch(text, offsets[last[1] - 1][1], offsets[first][0]):
                joined[-1] = (last[0], end, name)
            else:
                joined.append((first, end, name))
        return [
            Span(
                offsets[first][0],
                offsets[end - 1][1],
                name,
                float(probs[first:end, self._columns[name]].sum(axis=1).mean()),
            )
            for first, end, name in joined
        ]


def _touch(text: str, end: int, start: int) -> bool:
    between = text[end:start]
    return len(between) <= 1 and not between.isspace() and between != ","
