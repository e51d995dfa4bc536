"""Figures of merit on cases whose answer is known."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # models/ is no installed package

import random

import numpy as np
import pytest
import torch

from models.calibrate import fit_platt, fit_temperature, source_weights
from models.metrics import detection_metrics, ece, label_metrics, span_metrics, wilson
from models.network import Head, HeadSpec
from models.refit import fit_head, logits, root_sample
from models.routing import compare_routers, cost_quality, costs, route_metrics


def test_wilson_contains_the_share() -> None:
    low, high = wilson(9, 10)
    assert 0.55 < low < 0.9 < high < 1
    assert wilson(0, 0) == (0.0, 1.0)


def test_ece_is_zero_for_a_calibrated_model() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.uniform(0.5, 1, 20000)
    right = (rng.uniform(size=20000) < confidence).astype(float)
    assert ece(confidence, right) < 0.02
    assert ece(np.ones(10), np.zeros(10)) == pytest.approx(1.0)


def test_temperature_undoes_overconfidence() -> None:
    rng = np.random.default_rng(1)
    logits = rng.normal(size=(4000, 5)) * 2
    probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wanted = np.asarray([rng.choice(5, p=p) for p in probs])
    assert fit_temperature(logits * 3, wanted, np.ones(4000)) == pytest.approx(3, rel=0.1)


def test_platt_recovers_scale_and_offset() -> None:
    rng = np.random.default_rng(2)
    logits = rng.normal(size=20000)
    wanted = (rng.uniform(size=20000) < 1 / (1 + np.exp(-(2 * logits - 1)))).astype(float)
    scale, offset = fit_platt(logits, wanted)
    assert scale == pytest.approx(2, rel=0.1)
    assert offset == pytest.approx(-1, rel=0.1)


def test_a_big_source_does_not_drown_a_small_one() -> None:
    weights = source_weights(["a"] * 90 + ["b"] * 10)
    assert weights.mean() == pytest.approx(1)
    assert weights[-1] > weights[0]


def test_label_and_detection_metrics() -> None:
    found = label_metrics(["x", "y", "y"], np.asarray([0.9, 0.8, 0.7]), ["x", "y", "x"])
    assert found["n"] == 3
    assert found["accuracy"] == pytest.approx(2 / 3)
    perfect = detection_metrics(np.asarray([0.1, 0.2, 0.8, 0.9]), np.asarray([0, 0, 1, 1]))
    assert perfect["auc"] == 1.0
    assert perfect["recall_at_1pct_false_alarms"] == 1.0
    assert detection_metrics(np.asarray([0.1]), np.asarray([0])) == {}


def test_spans() -> None:
    found = span_metrics([[(0, 3, "P")], []], [[(0, 3, "P"), (5, 9, "Q")], []])
    assert found["precision"] == 1.0
    assert found["recall"] == 0.5
    assert found["clean_rows_with_spans"] == 0


def test_routing_controls() -> None:
    rng = np.random.default_rng(3)
    weak = (rng.uniform(size=4000) < 0.6).astype(float)
    strong = np.maximum(weak, (rng.uniform(size=4000) < 0.5).astype(float))
    oracle = route_metrics(strong - weak, strong, weak)
    assert oracle["apgr"] > 0.85
    compared = compare_routers(rng.random(4000), strong, weak, ["x" * int(n) for n in rng.integers(1, 90, 4000)], None)
    assert compared["router"]["apgr"] == pytest.approx(0.5, abs=0.06)
    assert compared["random"]["cpt50"] == pytest.approx(50, abs=4)
    low, high = compared["router"]["apgr_95"]
    assert low < compared["router"]["apgr"] < high


def test_cost_quality_has_sane_ends() -> None:
    right = np.asarray([[1, 1], [0, 1], [0, 1], [1, 1]], float)
    price = costs([(0.1, 0.1), (10, 10)])
    found = cost_quality(right * 0.9 + 0.05, right, price, ["a", "b", "a", "b"], np.zeros(4, bool))
    assert found["always_best"]["accuracy"] == 1.0
    assert found["always_cheapest"]["accuracy"] == 0.5
    assert found["oracle"]["accuracy"] == 1.0
    assert found["oracle"]["usd_per_1k"] < found["always_best"]["usd_per_1k"]


def test_a_refitted_head_separates_what_can_be_separated() -> None:
    torch.manual_seed(0)
    wanted = torch.arange(3).repeat(800)
    features = torch.nn.functional.one_hot(wanted, 16).float() * 3 + torch.randn(2400, 16) * 0.3
    head = Head(HeadSpec("h", "label", ("a", "b", "c"), dense=16), 16)
    fitted = fit_head(head, features, wanted, torch.ones(2400), 0)
    assert (logits(fitted, features).argmax(1) == wanted.numpy()).mean() > 0.95


def test_root_sample_flattens_sources() -> None:
    rows = [{"source": "big", "label": "x"}] * 900 + [{"source": "small", "label": "x"}] * 100
    picked = root_sample(rows, 200, random.Random(0))
    assert len(picked) == 200
    assert 30 < sum(r["source"] == "small" for r in picked) < 80
