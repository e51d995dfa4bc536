from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.inference.base import Classified, HeadResult, Span
from router_extproc.inference.pooling import combine, spans_result, united


def label(probs: dict[str, float], value: float = 0.0) -> HeadResult:
    best = max(probs, key=probs.__getitem__)
    return HeadResult(best, probs[best], probs, value)


def window(tokens: int = 10, *, embedding: tuple[float, ...] = (), **heads: HeadResult) -> Classified:
    return Classified(heads, tokens, "v1", queue_ms=tokens, run_ms=tokens, batch_size=tokens, embedding=embedding)


def test_one_window_is_its_own_answer() -> None:
    only = window(domain=label({"law": 1.0}))
    assert combine([(0, only)]) is only


def test_the_mean_is_weighted_by_tokens() -> None:
    pooled = combine(
        [
            (0, window(30, domain=label({"law": 0.9, "math": 0.1}, 0.2))),
            (99, window(10, domain=label({"law": 0.1, "math": 0.9}, 0.6))),
        ]
    )
    assert pooled.heads["domain"].label == "law"
    assert pooled.heads["domain"].probs == pytest.approx({"law": 0.7, "math": 0.3})
    assert pooled.heads["domain"].confidence == pytest.approx(0.7)
    assert pooled.heads["domain"].value == pytest.approx(0.3)
    assert (pooled.tokens, pooled.windows, pooled.queue_ms, pooled.run_ms, pooled.batch_size) == (40, 2, 30, 40, 30)


def test_one_bad_window_among_many_decides_a_guard() -> None:
    harmless = window(250, guard=label({"benign": 0.99, "jailbreak": 0.01}))
    bad = window(20, guard=label({"benign": 0.04, "jailbreak": 0.96}))
    guard = combine([(0, harmless), (900, harmless), (1800, bad)]).heads["guard"]
    assert (guard.label, guard.confidence) == ("jailbreak", 0.96)
    assert guard.probs == {"benign": 0.04, "jailbreak": 0.96}


def test_spans_are_moved_to_the_whole_text_and_united() -> None:
    first = window(pii=spans_result([Span(5, 9, "EMAIL", 0.8), Span(95, 100, "PERSON", 0.6)], certainty=0.1))
    second = window(pii=spans_result([Span(5, 13, "PERSON", 0.9)], certainty=0.1))
    pii = combine([(0, first), (90, second)]).heads["pii"]
    assert pii.spans == (Span(5, 9, "EMAIL", 0.8), Span(95, 103, "PERSON", 0.9))
    assert (pii.label, pii.confidence) == ("PERSON", 0.9)


def test_no_span_anywhere_is_as_sure_as_the_least_sure_window() -> None:
    pii = combine([(0, window(pii=spans_result([], certainty=0.9))), (9, window(pii=spans_result([], certainty=0.7)))])
    assert (pii.heads["pii"].label, pii.heads["pii"].confidence) == ("none", 0.7)


def test_the_embedding_has_unit_length() -> None:
    pooled = combine([(0, window(10, embedding=(1.0, 0.0))), (9, window(10, embedding=(0.0, 1.0)))])
    assert list(pooled.embedding) == pytest.approx([0.5**0.5, 0.5**0.5])


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 10), st.sampled_from("AB"), st.floats(0, 1)), max_size=12))
def test_united_spans_cover_the_same_characters_and_do_not_overlap(raw: list[tuple[int, int, str, float]]) -> None:
    spans = [Span(start, start + length, name, confidence) for start, length, name, confidence in raw]
    result = united(spans)

    def covered(of: list[Span]) -> set[tuple[str, int]]:
        return {(span.label, at) for span in of for at in range(span.start, span.end)}

    assert covered(result) == covered(spans)
    assert sum(span.end - span.start for span in result) == len(covered(result))
