"""How well win probabilities route: RouteLLM's APGR and CPT, and cost against quality over many models.

Definitions: Ong et al. 2024 (arXiv 2406.18665), section 3 and the code of its evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
COST_TOKENS = (300, 200)
"""Assumed tokens in and out of one question, for costs: with real traffic the ledger counts real ones."""


def curve(score: Floats, strong: Floats, weak: Floats, seed: int = 0) -> tuple[Floats, Floats]:
    """Share sent to the strong model and mean accuracy, at the 11 decile thresholds of `score` (high = strong)."""
    jitter = np.random.default_rng(seed).normal(0, 1e-9, len(score))
    jittered = score + jitter
    edges = np.quantile(jittered, np.linspace(0, 1, 11))
    share, accuracy = [], []
    for i, edge in enumerate(edges):
        chosen = jittered > edge if i == len(edges) - 1 else jittered >= edge
        share.append(chosen.mean())
        accuracy.append(np.where(chosen, strong, weak).mean())
    order = np.argsort(share, kind="stable")
    return np.asarray(share)[order], np.asarray(accuracy)[order]


def route_metrics(score: Floats, strong: Floats, weak: Floats, seed: int = 0) -> dict[str, float]:
    """APGR; CPT(50 %) and CPT(80 %) in percent of calls to the strong model, on the curve made monotone."""
    share, accuracy = curve(score, strong, weak, seed)
    low, high = weak.mean(), strong.mean()
    gap = high - low
    area = float(np.trapezoid(accuracy, share))
    rising = np.maximum.accumulate(accuracy)

    def cpt(x: float) -> float:
        return float(100 * np.interp(low + x * gap, rising, share))

    return {"apgr": (area - low) / gap if gap else float("nan"), "cpt50": cpt(0.5), "cpt80": cpt(0.8)}


def with_intervals(score: Floats, strong: Floats, weak: Floats, resamples: int = 300) -> dict[str, Any]:
    """`route_metrics` with 95 % bootstrap intervals over rows."""
    found: dict[str, Any] = dict(route_metrics(score, strong, weak))
    rng = np.random.default_rng(1)
    drawn = []
    for _ in range(resamples):
        rows = rng.integers(0, len(score), len(score))
        drawn.append(route_metrics(score[rows], strong[rows], weak[rows]))
    for key in ("apgr", "cpt50", "cpt80"):
        low, high = np.nanquantile([d[key] for d in drawn], [0.025, 0.975])
        found[f"{key}_95"] = [float(low), float(high)]
    return found


def group_mean_score(groups: Sequence[str], gain: Floats) -> Floats:
    """Mean gain of each row's group, from the other half of the rows (2-fold)."""
    fold = np.random.default_rng(2).permutation(len(groups)) % 2
    names = np.asarray([str(g) for g in groups])
    score = np.zeros(len(groups))
    for side in (0, 1):
        fit = fold != side
        overall = gain[fit].mean() if fit.any() else 0.0
        means = {name: gain[fit & (names == name)].mean() for name in set(names[fit])}
        score[fold == side] = [means.get(name, overall) for name in names[fold == side]]
    return score


def compare_routers(
    score: Floats, strong: Floats, weak: Floats, texts: Sequence[str], groups: Sequence[str] | None
) -> dict[str, Any]:
    """The router beside random (mean of 10), prompt length, the group's mean gain, and an oracle."""
    random = [route_metrics(np.random.default_rng(s).random(len(score)), strong, weak) for s in range(10)]
    found: dict[str, Any] = {
        "n": len(score),
        "strong_accuracy": float(strong.mean()),
        "weak_accuracy": float(weak.mean()),
        "router": with_intervals(score, strong, weak),
        "random": {key: float(np.mean([r[key] for r in random])) for key in random[0]},
        "length": with_intervals(np.asarray([len(t) for t in texts], float), strong, weak),
        "oracle": route_metrics(strong - weak, strong, weak),
    }
    if groups is not None and len(set(groups)) > 1:
        found["subject_mean"] = with_intervals(group_mean_score(groups, strong - weak), strong, weak)
    return found


def costs(prices: Sequence[tuple[float, float]]) -> Floats:
    """USD per thousand questions from prices per million tokens in and out."""
    tokens_in, tokens_out = COST_TOKENS
    return np.asarray([(i * tokens_in + o * tokens_out) / 1000 for i, o in prices])


def cost_quality(
    probs: Floats, right: Floats, price: Floats, category: Sequence[str], fit: npt.NDArray[np.bool_]
) -> dict[str, Any]:
    """Accuracy and USD per thousand questions of routing by `probs` over `right` [rows, models], nan = not graded.

    Rows with `fit` true (training rows, if any) give the category means; figures are over the others.
    """
    rows = ~fit
    known = ~np.isnan(right)
    answered = np.where(known, right, np.nan)
    best, cheapest = int(np.nanargmax(np.nanmean(answered[rows], 0))), int(np.argmin(price))
    reference = fit if fit.any() else rows

    def category_probs() -> Floats:
        names = np.asarray([str(c) for c in category])
        means = np.tile(np.nanmean(answered[reference], 0), (len(names), 1))
        for name in set(names):
            inside = reference & (names == name)
            if inside.any():
                means[names == name] = np.nanmean(answered[inside], 0)
        return np.asarray(means)

    def at(pick: npt.NDArray[np.int64]) -> dict[str, float]:
        chosen = answered[np.arange(len(pick)), pick][rows]
        return {"accuracy": float(np.nanmean(chosen)), "usd_per_1k": float(price[pick][rows].mean())}

    def sweep(scores: Floats) -> list[dict[str, float]]:
        weights = [0.0, *np.geomspace(1e-3, 10, 17)]
        return [at(np.asarray((scores - w * price[None, :]).argmax(1))) for w in weights]

    oracle = np.where(np.nan_to_num(answered) > 0, -price[None, :], -np.inf)
    # Where nobody is right the cheapest wrong answer is as good as any.
    oracle_pick = np.where(np.isinf(oracle.max(1)), cheapest, oracle.argmax(1))
    constant: Callable[[int], npt.NDArray[np.int64]] = lambda i: np.full(len(right), i)  # noqa: E731
    return {
        "n": int(rows.sum()),
        "always_best": at(constant(best)),
        "always_cheapest": at(constant(cheapest)),
        "oracle": at(oracle_pick),
        "win_head": sweep(probs),
        "category_only": sweep(category_probs()),
    }
