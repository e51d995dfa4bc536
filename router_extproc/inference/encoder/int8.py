"""A linear layer whose products are in 8 bit integers, for CPUs that multiply these several times as fast.

x86 CPUs with VNNI instructions, and without AMX, multiply 8 bit integers about four times as fast as float32 and as
bfloat16. Inputs are rounded in fixed steps that were fitted to the model's own activations (`models/quantize.py`), so
that a row's answer hardly depends on its company. What is not a product stays in float32.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from safetensors.torch import load_file
from torch import Tensor

from router_extproc.inference.artifact import STEPS

log = logging.getLogger(__name__)

LEVELS = 255

Weights = tuple[Tensor, Tensor]
"""Of a linear layer: weight [out, in] and bias [out]."""


def _ones() -> Tensor:
    return torch.ones(1)


def _none() -> Tensor:
    return torch.empty(0, dtype=torch.int64)


@dataclass(frozen=True, slots=True)
class Steps:
    """How the inputs of one product are rounded: divided by `smooth` [in], then between `low` and `high` (<= 0 <= high)
    in 255 steps. `correction` [out] takes back what rounding adds to the outputs on average.

    Inputs have some channels that are far larger than the others; dividing these, and multiplying the weights by as
    much, shares the trouble between the two (Xiao et al. 2022, arXiv 2211.10438). Between the two products of a layer's
    inner part, a handful of neurons are ten times as large as all others: these, `apart` [some], stay in float32
    (Dettmers et al. 2022, arXiv 2208.07339).
    """

    low: float
    high: float
    correction: Tensor
    smooth: Tensor = field(default_factory=_ones)
    apart: Tensor = field(default_factory=_none)

    @property
    def step(self) -> float:
        """The size of one step."""
        return (self.high - self.low) / LEVELS

    @property
    def zero(self) -> int:
        """The integer that stands for 0."""
        return round(-self.low / self.step)


def read_steps(directory: Path) -> dict[str, Steps]:
    """Steps by product (`encoder.layer.0.attention.self`, ...); a product without any stays in float32.

    Empty where the folder has no such file. Raises OSError, SafetensorError, KeyError or ValueError for a broken one.
    """
    path = directory / STEPS
    if not path.exists():
        return {}
    tensors = load_file(path, backend="pread")
    steps: dict[str, Steps] = {}
    for name in sorted({key.rpartition(".")[0] for key in tensors}):
        low, high = tensors[f"{name}.range"].tolist()
        smooth, apart = (_ones(), tensors[f"{name}.apart"]) if inner(name) else (tensors[f"{name}.smooth"], _none())
        if not low <= 0 <= high or low == high or not (smooth > 0).all():
            raise ValueError(f"{path}: the steps of {name} do not go from below zero to above it")
        steps[name] = Steps(low, high, tensors[f"{name}.correction"], smooth, apart)
    return steps


def inner(product: str) -> bool:
    """Whether it is the product whose inputs the one before rounds as it puts them out: it has no `smooth`."""
    return product.endswith("output.dense") and not product.endswith("attention.output.dense")


def as_tensors(steps: Mapping[str, Steps]) -> dict[str, Tensor]:
    """What the file holds, for `read_steps` to read again."""
    found: dict[str, Tensor] = {}
    for name, each in steps.items():
        found[f"{name}.range"] = torch.tensor([each.low, each.high])
        found[f"{name}.correction"] = each.correction.float().contiguous()
        if inner(name):
            found[f"{name}.apart"] = each.apart
        else:
            found[f"{name}.smooth"] = each.smooth.float().contiguous()
    return found


def rounded_weight(weight: Tensor) -> tuple[Tensor, Tensor]:
    """`weight` [out, in] as int8 and the size of a step per row [out]."""
    steps = (weight.abs().amax(1) / 127).clamp(min=1e-8)
    return (weight / steps[:, None]).round().to(torch.int8), steps


class Int8Linear:
    """`x @ weight.T + bias` like `bert.Linear`, of float32 to float32, with the product between integers."""

    def __init__(self, weight: Tensor, bias: Tensor, steps: Steps) -> None:
        whole, self._weight_steps = rounded_weight(weight * steps.smooth)
        self._weight = torch.ops.onednn.qlinear_prepack(whole, [512, weight.shape[1]])
        self._weight_zeros = torch.zeros(len(bias), dtype=torch.int64)
        self._bias = bias + steps.correction
        self._step, self._zero = steps.step, steps.zero
        self._factor = (1 / (steps.smooth * steps.step)).expand(weight.shape[1]).contiguous()
        self._half_up = torch.full_like(self._factor, steps.zero + 0.5)

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, in] -> [tokens, out]."""
        return self._product(self._rounded(x), "none", 1.0, 0, torch.float32)

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Plus `residual`."""
        return self.add_rounded(self._rounded(x), residual)

    def gelu_rounded(self, x: Tensor, steps: Steps) -> Tensor:
        """Followed by the exact GELU, and rounded in `steps`, as uint8."""
        return self._product(self._rounded(x), "gelu", steps.step, steps.zero, torch.uint8)

    def add_rounded(self, x: Tensor, residual: Tensor) -> Tensor:
        """Like `add`, of inputs that are rounded: uint8 [tokens, in]."""
        found: Tensor = torch.ops.onednn.qlinear_pointwise.binary(
            x, self._step, self._zero, self._weight, self._weight_steps, self._weight_zeros,
            residual, self._bias, 1.0, 0, torch.float32, 1.0, 0, "add", 1.0, "none", [], "",
        )  # fmt: skip
        return found

    def _product(self, x: Tensor, then: str, step: float, zero: int, dtype: torch.dtype) -> Tensor:
        found: Tensor = torch.ops.onednn.qlinear_pointwise(
            x, self._step, self._zero, self._weight, self._weight_steps, self._weight_zeros,
            self._bias, step, zero, dtype, then, [], "none",
        )  # fmt: skip
        return found

    def _rounded(self, x: Tensor) -> Tensor:
        # Positive after the clamp, so cutting off rounds down, and half a step was added before. By way of int16: from
        # float32 straight to uint8 PyTorch converts number by number, which takes twice as long.
        return torch.addcmul(self._half_up, x, self._factor).clamp_(0, LEVELS).to(torch.int16).to(torch.uint8)


class Int8Inner:
    """`x + down(gelu(up(x)))` like `bert.Inner`, with both products between integers, and integers in between."""

    def __init__(self, up: Weights, down: Weights, up_steps: Steps, down_steps: Steps) -> None:
        apart, self._between = down_steps.apart, down_steps
        self._up = Int8Linear(*up, up_steps)
        self._up_apart, self._up_apart_bias = up[0][apart], up[1][apart]
        self._down_apart = down[0][:, apart].T.contiguous()
        self._down = Int8Linear(down[0].index_fill(1, apart, 0.0), down[1], down_steps)

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, width] -> [tokens, width]."""
        apart = F.gelu(F.linear(x, self._up_apart, self._up_apart_bias))
        return self._down.add_rounded(self._up.gelu_rounded(x, self._between), torch.addmm(x, apart, self._down_apart))


def supported() -> bool:
    """Whether this CPU has the instructions, and this build of PyTorch the operators.

    These are its compiler's; they may go or change.
    """
    if not torch.cpu._is_vnni_supported():
        return False
    try:
        linear = Int8Linear(torch.eye(16), torch.ones(16), Steps(-1.0, 1.0, torch.zeros(16)))
        x, after = torch.linspace(-1, 1, 32).view(2, 16), Steps(-0.2, 2.0, torch.zeros(16))
        whole = (linear.gelu_rounded(x, after).float() - after.zero) * after.step
        pairs = ((linear(x), x + 1), (linear.add(x, x), 2 * x + 1), (whole, F.gelu(x + 1)))
        return all(torch.allclose(found, wanted, atol=0.02) for found, wanted in pairs)
    except (AttributeError, RuntimeError, TypeError):
        log.info("no products between 8 bit integers: this build of PyTorch cannot")
        return False
