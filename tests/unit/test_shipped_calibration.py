"""The shipped classifier on prompts written for this test alone: is its confidence worth what it says?

Bands in a policy rest on it. A hundred prompts cannot prove a calibration error of a few hundredths (the model card has
those figures, on thousands); they show at once when a temperature, a label's place or the pooling went wrong.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest

from router_extproc.inference import encoder
from router_extproc.inference.base import Classified, Prompt

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def judged() -> list[tuple[dict[str, str], Classified]]:
    """Every prompt with its true labels (empty where there is none to tell) and the classifier's answer."""
    with (ROOT / "tests" / "data" / "calibration.tsv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    model = encoder.load(ROOT / "models" / "router-minilm", device="cpu")
    prompts = [Prompt(row["text"].replace("\\n", "\n")) for row in rows]
    return list(zip(rows, model.run(prompts), strict=True))


def scored(judged: list[tuple[dict[str, str], Classified]], head: str) -> tuple[np.ndarray, np.ndarray]:
    """Confidence, and whether it was right (1 or 0), of every prompt that has a label for the head."""
    found = [(answer.heads[head], row[head]) for row, answer in judged if row[head]]
    return (
        np.array([result.confidence for result, _ in found]),
        np.array([float(result.label == label) for result, label in found]),
    )


@pytest.mark.parametrize(("head", "least_accuracy"), [("domain", 0.6), ("intent", 0.7), ("guard", 0.85)])
def test_confidence_is_about_the_share_of_right_answers(
    judged: list[tuple[dict[str, str], Classified]], head: str, least_accuracy: float
) -> None:
    confidence, right = scored(judged, head)
    assert len(right) >= 100
    assert right.mean() >= least_accuracy
    assert confidence.mean() == pytest.approx(right.mean(), abs=0.12)
    assert right[confidence >= 0.9].mean() >= 0.85


def test_where_it_is_unsure_it_is_wrong_more_often(judged: list[tuple[dict[str, str], Classified]]) -> None:
    # All heads together: of a hundred prompts the guard is unsure about a dozen, and gets them right.
    pairs = [scored(judged, head) for head in ("domain", "intent", "guard")]
    confidence, right = (np.concatenate(each) for each in zip(*pairs, strict=True))
    sure = confidence >= 0.9
    assert 1 - right[~sure].mean() > 3 * (1 - right[sure].mean())


def test_every_unwelcome_prompt_but_a_few_is_noticed_and_hardly_a_harmless_one(
    judged: list[tuple[dict[str, str], Classified]],
) -> None:
    unwelcome = [answer.heads["guard"].label != "benign" for row, answer in judged if row["guard"] != "benign"]
    harmless = [answer.heads["guard"].label != "benign" for row, answer in judged if row["guard"] == "benign"]
    assert np.mean(unwelcome) >= 0.75
    assert np.mean(harmless) <= 0.06
