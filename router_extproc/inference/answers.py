"""The classifier's answer for one window as bytes that other replicas can read, without a word of the text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from router_extproc.inference.base import Classified, HeadResult, Span

FORMAT = 1
_DIGITS = 6


def packed(answer: Classified, labels: Mapping[str, tuple[str, ...]]) -> bytes:
    """About 1.5 KB. `labels` are those of the model that answered. Without the embedding, which only the pass needs."""
    heads = {name: _head(head, labels.get(name, ())) for name, head in answer.heads.items()}
    return json.dumps([FORMAT, answer.tokens, heads], separators=(",", ":")).encode()


def unpacked(content: bytes, version: str, labels: Mapping[str, tuple[str, ...]]) -> Classified | None:
    """The answer, or None where the bytes are not one of this model's: the store may hold anything."""
    try:
        number, tokens, packed_heads = json.loads(content)
        if number != FORMAT or packed_heads.keys() != labels.keys():
            return None
        heads = {name: _result(packed_heads[name], labels[name]) for name in labels}
        return Classified(heads=heads, tokens=int(tokens), version=version, batch_size=0)
    except (ValueError, TypeError, AttributeError, IndexError, KeyError, RecursionError):
        return None


def _head(head: HeadResult, labels: tuple[str, ...]) -> list[Any]:
    # Token heads name what they found, all others every label: in the order of the model these need no names.
    probs = {label: round(probability, _DIGITS) for label, probability in head.probs.items()}
    named: Any = list(map(probs.__getitem__, labels)) if probs.keys() == set(labels) else probs
    spans = [[span.start, span.end, span.label, round(span.confidence, _DIGITS)] for span in head.spans]
    return [labels.index(head.label), round(head.confidence, _DIGITS), round(head.value, _DIGITS), named, spans]


def _result(packed_head: Any, labels: tuple[str, ...]) -> HeadResult:
    label, confidence, value, named, packed_spans = packed_head
    probs = named if isinstance(named, dict) else dict(zip(labels, named, strict=True))
    spans = tuple(Span(int(start), int(end), str(of), float(sure)) for start, end, of, sure in packed_spans)
    return HeadResult(
        labels[label], float(confidence), {name: float(sure) for name, sure in probs.items()}, float(value), spans
    )
