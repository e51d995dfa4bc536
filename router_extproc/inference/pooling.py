"""One answer from the windows of a text: the worst window speaks for guards, the average for everything else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import sqrt

from router_extproc.inference.base import Classified, HeadResult, Span

BENIGN = "benign"
"""A head with this label looks for what must not be overlooked in any window: every other label is unwelcome."""

NO_SPAN = "none"
"""The label of a token head that found nothing."""


def combine(parts: Sequence[tuple[int, Classified]], *, coverage: float = 1.0) -> Classified:
    """Pools windows, each with the character offset of its text in the whole. Needs at least one.

    Label and multi_label heads take the mean of the probabilities weighted by the tokens of the window, guards the
    maximum of each unwelcome label (and the minimum of `benign`), token heads the union of their spans, the embedding
    the weighted mean brought to unit length.
    """
    if len(parts) == 1 and coverage == 1.0 and parts[0][0] == 0:
        return parts[0][1]
    results = [part for _, part in parts]
    total = sum(result.tokens for result in results) or 1
    weights = [result.tokens / total for result in results]
    heads: dict[str, HeadResult] = {}
    for name, first in results[0].heads.items():
        answers = [result.heads[name] for result in results]
        if BENIGN in first.probs:
            heads[name] = _worst(answers)
        elif _is_token_head(answers):
            heads[name] = _united(parts, answers)
        else:
            heads[name] = _mean(answers, weights)
    return Classified(
        heads=heads,
        tokens=sum(result.tokens for result in results),
        version=results[0].version,
        queue_ms=max(result.queue_ms for result in results),
        run_ms=sum(result.run_ms for result in results),
        batch_size=max(result.batch_size for result in results),
        embedding=_mean_embedding([result.embedding for result in results], weights),
        windows=sum(result.windows for result in results),
        coverage=coverage,
    )


def watches(labels: Sequence[str] | None) -> bool:
    """Whether a head of the shipped format looks for what must not be overlooked anywhere: guards, personal data."""
    return points(labels) or (labels is not None and BENIGN in labels)


def points(labels: Sequence[str] | None) -> bool:
    """Whether a head of the shipped format points at parts of the text: its token heads alone have the label `none`."""
    return labels is not None and NO_SPAN in labels


def strictest(answers: Sequence[HeadResult]) -> HeadResult:
    """One answer of a head that `watches`, from its answers on several texts (at least one): the worst speaks for all.

    It has no spans: each of them belongs to a text of its own.
    """
    if len(answers) > 1 and BENIGN in answers[0].probs:
        return _worst(answers)
    if BENIGN in answers[0].probs:
        return answers[0]
    found = [span for answer in answers for span in answer.spans]
    return replace(spans_result(found, certainty=min(answer.confidence for answer in answers)), spans=())


def harmless(answer: HeadResult) -> bool:
    """Whether a head that `watches` found nothing."""
    return answer.label in (BENIGN, NO_SPAN)


def spans_result(spans: Sequence[Span], *, certainty: float) -> HeadResult:
    """The answer of a token head. `certainty` is the probability that there is nothing, used when `spans` is empty."""
    if not spans:
        return HeadResult(NO_SPAN, certainty, {})
    best: dict[str, float] = {}
    for span in spans:
        best[span.label] = max(span.confidence, best.get(span.label, 0.0))
    label = max(best, key=best.__getitem__)
    return HeadResult(label, best[label], best, spans=tuple(spans))


def united(spans: Sequence[Span]) -> list[Span]:
    """Spans in order of their start; where those of one label overlap, as windows do, they are one."""
    merged: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.label, span.start, span.end)):
        last = merged[-1] if merged else None
        if last is not None and last.label == span.label and span.start < last.end:
            merged[-1] = Span(last.start, max(last.end, span.end), span.label, max(last.confidence, span.confidence))
        else:
            merged.append(span)
    return sorted(merged, key=lambda span: (span.start, span.end))


def _is_token_head(answers: Sequence[HeadResult]) -> bool:
    return any(answer.spans for answer in answers) or not answers[0].probs


def _united(parts: Sequence[tuple[int, Classified]], answers: Sequence[HeadResult]) -> HeadResult:
    spans = [_moved(span, at) for (at, _), answer in zip(parts, answers, strict=True) for span in answer.spans]
    return spans_result(united(spans), certainty=min(answer.confidence for answer in answers))


def _moved(span: Span, offset: int) -> Span:
    return Span(span.start + offset, span.end + offset, span.label, span.confidence)


def _answer(probs: Mapping[str, float], value: float) -> HeadResult:
    label = max(probs, key=probs.__getitem__)
    return HeadResult(label, probs[label], probs, value)


def _worst(answers: Sequence[HeadResult]) -> HeadResult:
    probs = {label: max(answer.probs[label] for answer in answers) for label in answers[0].probs}
    probs[BENIGN] = min(answer.probs[BENIGN] for answer in answers)
    return _answer(probs, max(answer.value for answer in answers))


def _mean(answers: Sequence[HeadResult], weights: Sequence[float]) -> HeadResult:
    probs = {
        label: sum(weight * answer.probs[label] for weight, answer in zip(weights, answers, strict=True))
        for label in answers[0].probs
    }
    return _answer(probs, sum(weight * answer.value for weight, answer in zip(weights, answers, strict=True)))


def _mean_embedding(vectors: Sequence[Sequence[float]], weights: Sequence[float]) -> Sequence[float]:
    if not all(len(vector) for vector in vectors):
        return ()
    mean = [sum(w * x for w, x in zip(weights, column, strict=True)) for column in zip(*vectors, strict=True)]
    norm = sqrt(sum(x * x for x in mean)) or 1.0
    return [x / norm for x in mean]
