import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.config.schema import Model
from router_extproc.domain import LlmRequest, SignalSet
from router_extproc.selection.table import SELECTIONS
from router_extproc.validation import validate


def model(price_in: float, price_out: float) -> Model:
    return validate(Model, {"url": "http://h", "price": {"input": price_in, "output": price_out}})


MODELS = {"a": model(3, 15), "b": model(0.1, 0.4), "c": model(0.05, 30), "d": model(0.1, 0.4)}
NO_SIGNALS = SignalSet({})


def request(tokens: int, limit: int | None = None) -> LlmRequest:
    return LlmRequest("chat_completions", "auto", None, "", tokens=tokens, max_output_tokens=limit)


def test_first_keeps_the_order_of_the_file() -> None:
    assert list(SELECTIONS["first"](MODELS).order(["c", "a", "b"], request(10), NO_SIGNALS)) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (request(100), ["b", "d", "a", "c"]),
        (request(1_000_000, 1), ["c", "b", "d", "a"]),  # nearly all input: the cheap input of `c` wins
        (request(10, 100_000), ["b", "d", "a", "c"]),  # a generous limit says little of what will be used
    ],
)
def test_cheapest_reckons_with_the_request(asked: LlmRequest, expected: list[str]) -> None:
    assert list(SELECTIONS["cheapest"](MODELS).order(["a", "b", "c", "d"], asked, NO_SIGNALS)) == expected


@pytest.mark.parametrize("name", sorted(SELECTIONS))
@given(st.lists(st.sampled_from(sorted(MODELS)), min_size=1, unique=True), st.integers(0, 10**6))
def test_no_selection_adds_or_loses_candidates(name: str, candidates: list[str], tokens: int) -> None:
    ordered = SELECTIONS[name](MODELS).order(candidates, request(tokens), NO_SIGNALS)
    assert sorted(ordered) == sorted(candidates)
