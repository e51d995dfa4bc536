"""Fits the steps in which a CPU without AMX rounds the encoder's inputs to 8 bit integers: `int8.safetensors`.

Per product: how far the inputs' large channels are scaled down at the expense of the weights, or which few stay in
float32, and where the range of the steps ends, by the error of its own outputs on prompts of `train` and written ones.

    python -m models.quantize --data ../shared/data --model models/router-minilm
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Mapping
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from models.data import LABEL_FILES, read_rows
from models.files import replace_tensors
from models.network import RouterNetwork, first_tokens, load
from models.synthetic.written import written
from router_extproc.inference.artifact import STEPS
from router_extproc.inference.encoder.int8 import LEVELS, Steps, as_tensors, inner, rounded_weight

TEXTS = 160
"""Prompts of each labelled file, and written ones."""
ROWS = 2
"""Tokens of each prompt that the fit looks at; ranges are those of all."""
SMOOTHING = (0.7, 0.8, 0.9)
APART = 16
"""Neurons between the two inner products of a layer that stay in float32. With four the error is up to a third larger,
with none 8 to 25 times as large in the four lower layers (measured)."""
CUTS = (1.0, 0.9, 0.8, 0.6, 0.45, 0.3)
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


@dataclass(slots=True)
class Inputs:
    """What reaches one product: some rows [tokens, in], and each channel's ends over all tokens [in]."""

    rows: list[Tensor]
    low: Tensor
    high: Tensor


def inputs(
    network: RouterNetwork, windows: list[list[int]], names: Mapping[str, tuple[str, ...]], seed: int
) -> dict[str, Inputs]:
    """The inputs of each product, for all tokens of all windows; no padding, for each runs alone."""
    seen = {name: Inputs([], torch.zeros(()), torch.zeros(())) for name in names}
    modules = dict(network.encoder.named_modules())
    generator = torch.Generator().manual_seed(seed)

    def watch(name: str) -> Any:
        def look(_: Any, given: tuple[Tensor]) -> None:
            x = given[0].detach().flatten(0, -2)
            each = seen[name]
            each.rows.append(x[torch.randint(len(x), (ROWS,), generator=generator)])
            each.low, each.high = torch.minimum(each.low, x.amin(0)), torch.maximum(each.high, x.amax(0))

        return modules[names[name][0]].register_forward_pre_hook(look)

    hooks = [watch(name) for name in names]
    with torch.inference_mode():
        for window in tqdm(windows, desc="int8", mininterval=10):
            ids = torch.tensor([window])
            network.hidden(
                {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
            )
    for hook in hooks:
        hook.remove()
    return seen


def fit_steps(name: str, weight: Tensor, seen: Inputs) -> tuple[float, Steps]:
    """The steps with the least error of the outputs, and that error, as a part of their variance."""
    rows, largest = torch.cat(seen.rows), torch.maximum(-seen.low, seen.high).clamp(min=1e-4)
    wanted = rows @ weight.T
    spread = float(wanted.var())
    if inner(name):
        apart = largest.topk(min(APART, len(largest) // 2)).indices.sort().values
        smooths = [torch.ones(1)]
    else:
        apart = torch.empty(0, dtype=torch.int64)
        smooths = [
            (largest**share / weight.abs().amax(0).clamp(min=1e-4) ** (1 - share)).clamp(min=1e-3)
            for share in SMOOTHING
        ]
    tried: list[tuple[float, Steps]] = []
    for smooth in smooths:
        whole, weight_steps = rounded_weight((weight * smooth).index_fill(1, apart, 0.0))
        product = (whole.float() * weight_steps[:, None]).T
        low = min(0.0, float((seen.low / smooth).index_fill(0, apart, 0.0).min()))
        high = max(0.0, float((seen.high / smooth).index_fill(0, apart, 0.0).max()))
        for cut in CUTS:
            # A range that hardly goes below zero is that of GELU: it ends there.
            end = low * cut if -low > 0.1 * high else low
            steps = Steps(end, high * cut, torch.zeros(len(weight)), smooth, apart)
            found = (rows / smooth / steps.step + steps.zero + 0.5).floor().clamp(0, LEVELS) - steps.zero
            error = found * steps.step @ product + rows[:, apart] @ weight[:, apart].T - wanted
            tried.append(
                (
                    float(error.var(0, correction=0).mean()) / spread,
                    Steps(steps.low, steps.high, -error.mean(0), smooth, apart),
                )
            )
    return min(tried, key=itemgetter(0))


def quantize(data: Path, model: Path, seed: int = 17) -> dict[str, float]:
    """Writes the file into the folder `model`; returns the error of each product."""
    network, tokenizer, described, _ = load(model)
    rng = random.Random(seed)
    texts: list[str] = []
    for file in LABEL_FILES.values():
        rows = [row["text"] for row in read_rows(data, file) if row["split"] == "train"]
        texts += rng.sample(rows, min(TEXTS, len(rows)))
    texts += [row["text"] for row in rng.sample(written(), min(TEXTS, len(written())))]
    windows = first_tokens(tokenizer, texts, int(described["max_tokens"]))
    encoder: Any = network.encoder
    names = products(encoder.config.num_hidden_layers)
    seen = inputs(network, windows, names, seed)
    state = encoder.state_dict()
    fitted: dict[str, Steps] = {}
    errors: dict[str, float] = {}
    for name, parts in names.items():
        weight = torch.cat([state[f"{part}.weight"] for part in parts]).float()
        errors[name], fitted[name] = fit_steps(name, weight, seen[name])
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
