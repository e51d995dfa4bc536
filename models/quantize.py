"""Fits the steps in which a CPU without AMX rounds the encoder's inputs to 8 bit integers: `int8.safetensors`.

Per product: how far the inputs' large channels are scaled down at the expense of the weights, and where the range of
the steps ends, by the error of its own outputs on prompts of `train` and written ones.

    python -m models.quantize --data ../shared/data --model models/router-minilm
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from models.data import LABEL_FILES, read_rows
from models.files import replace_tensors
from models.predict import Predictor
from models.synthetic.written import written
from router_extproc.inference.artifact import STEPS
from router_extproc.inference.encoder.int8 import LEVELS, Steps, as_tensors, rounded_weight

TEXTS = 160
"""Prompts of each labelled file, and written ones."""
ROWS = 1024
"""Tokens that the fit looks at, drawn from all; ranges are those of all."""
SMOOTHING = (0.7, 0.8, 0.9)
CUTS = (1.0, 0.9, 0.8, 0.6)
"""Parts of the range to try: what lies outside is cut off."""
MOST_ERROR = 5e-4
"""A product with a larger error, as a part of its outputs' variance, stays in float32."""


def products(layers: int) -> dict[str, tuple[str, ...]]:
    """The linear layers of the encoder that become one product each."""
    found: dict[str, tuple[str, ...]] = {}
    for i in range(layers):
        layer = f"encoder.layer.{i}"
        found[f"{layer}.attention.self"] = tuple(f"{layer}.attention.self.{p}" for p in ("query", "key", "value"))
        found[f"{layer}.attention.output.dense"] = (f"{layer}.attention.output.dense",)
        found[f"{layer}.intermediate.dense"] = (f"{layer}.intermediate.dense",)
        found[f"{layer}.output.dense"] = (f"{layer}.output.dense",)
    return found


def inputs(predictor: Predictor, texts: list[str], names: Mapping[str, tuple[str, ...]]) -> dict[str, Tensor]:
    """Input rows [tokens, in] of each product, all tokens of all texts; no padding, for each text runs alone."""
    seen: dict[str, list[Tensor]] = {name: [] for name in names}
    modules = dict(predictor.network.encoder.named_modules())

    def watch(name: str) -> Any:
        return modules[names[name][0]].register_forward_pre_hook(
            lambda _, given: seen[name].append(given[0].detach().flatten(0, -2).half())
        )

    hooks = [watch(name) for name in names]
    for row in tqdm(predictor.first_window(texts), desc="int8", mininterval=10):
        predictor.passes([row], lambda *_: None)
    for hook in hooks:
        hook.remove()
    return {name: torch.cat(rows) for name, rows in seen.items()}


def fit_steps(weight: Tensor, x: Tensor, seed: int) -> tuple[float, Steps]:
    """The steps with the least error on `x` [tokens, in], and that error, as a part of the outputs' variance."""
    generator = torch.Generator().manual_seed(seed)
    rows = x[torch.randperm(len(x), generator=generator)[:ROWS]].float()
    wanted = rows @ weight.T
    largest = x.abs().amax(0).float().clamp(min=1e-4)
    best: tuple[float, Steps] | None = None
    for share in SMOOTHING:
        smooth = (largest**share / weight.abs().amax(0).clamp(min=1e-4) ** (1 - share)).clamp(min=1e-3)
        whole, weight_steps = rounded_weight(weight * smooth)
        product = (whole.float() * weight_steps[:, None]).T
        low = min(0.0, float((x.amin(0).float() / smooth).min()))
        high = max(0.0, float((x.amax(0).float() / smooth).max()))
        for cut in CUTS:
            # A range that hardly goes below zero is that of GELU: it ends there.
            steps = Steps(smooth, low * cut if -low > 0.1 * high else low, high * cut, torch.zeros(len(weight)))
            found = (rows / smooth / steps.step + steps.zero + 0.5).floor().clamp(0, LEVELS) - steps.zero
            error = found * steps.step @ product - wanted
            spread = float(error.var(0, correction=0).mean() / wanted.var())
            if best is None or spread < best[0]:
                best = spread, Steps(smooth, steps.low, steps.high, -error.mean(0))
    assert best is not None
    return best


def quantize(data: Path, model: Path, seed: int = 17) -> dict[str, float]:
    """Writes the file into the folder `model`; returns the error of each product."""
    predictor = Predictor(model)
    predictor.dtype = torch.float32
    rng = random.Random(seed)
    texts: list[str] = []
    for file in LABEL_FILES.values():
        rows = [row["text"] for row in read_rows(data, file) if row["split"] == "train"]
        texts += rng.sample(rows, min(TEXTS, len(rows)))
    texts += [row["text"] for row in rng.sample(written(), min(TEXTS, len(written())))]
    encoder: Any = predictor.network.encoder
    names = products(encoder.config.num_hidden_layers)
    seen = inputs(predictor, texts, names)
    state = encoder.state_dict()
    fitted: dict[str, Steps] = {}
    errors: dict[str, float] = {}
    for name, parts in names.items():
        weight = torch.cat([state[f"{part}.weight"] for part in parts]).float()
        errors[name], fitted[name] = fit_steps(weight, seen[name], seed)
    kept = {name: steps for name, steps in fitted.items() if errors[name] <= MOST_ERROR}
    replace_tensors(model / STEPS, as_tensors(kept))
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    args = parser.parse_args()
    for name, error in quantize(args.data, args.model).items():
        print(f"{name}: {error:.5f}")
