"""One lean BERT pass.

Rows of different length are laid end to end, so that the linear layers, nine tenths of the work, see no padding; only
attention sees rows padded to the longest of the batch. Weights are kept in the layout that the CPU's matrix kernels
want.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from torch import Tensor

from router_extproc.inference.artifact import EncoderSpec
from router_extproc.inference.encoder.int8 import Int8Inner, Int8Linear, Steps, Weights

log = logging.getLogger(__name__)

PACKED_FOR = 512
"""Tokens of the pass that weights are packed for. The layout serves any number; chosen for none in particular it is 10
to 30 % slower from 16 to 256 tokens (measured)."""
ROUND = 16
"""Batches, and in attention rows, are filled up to a multiple of this many tokens: matrix kernels are built and kept
per shape, and attention over 110 tokens takes twice as long as over 112, of which two are masked (measured)."""


class Row(Protocol):
    """Tokens of one row; those from `second` on are segment B's."""

    @property
    def ids(self) -> list[int]:
        """All tokens, with the special ones."""

    @property
    def second(self) -> int:
        """Where segment B begins, `len(ids)` where there is none."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows end to end. `pad` [rows * longest] gathers tokens into padded rows and `unpad` [tokens] undoes it.

    `longest` is a multiple of `ROUND`. `aligned` rows are padded rows already, and need neither; `full` ones have no
    padding that attention must not see.
    """

    ids: Tensor
    positions: Tensor
    types: Tensor
    rows: int
    longest: int
    lengths: Tensor
    pad: Tensor
    unpad: Tensor
    mask: Tensor
    aligned: bool
    full: bool


def assemble(rows: Sequence[Row], device: torch.device) -> Batch:
    """Lays rows end to end and works out how attention finds them."""
    lengths = np.array([len(row.ids) for row in rows])
    longest = -(-int(lengths.max()) // ROUND) * ROUND
    real = int(lengths.sum())
    total = -(-real // ROUND) * ROUND
    starts = np.cumsum(lengths) - lengths
    ids = np.zeros(total, dtype=np.int64)
    types = np.zeros(total, dtype=np.int64)
    ids[:real] = np.concatenate([row.ids for row in rows])
    for start, length, row in zip(starts, lengths, rows, strict=True):
        types[start + row.second : start + length] = 1
    column = np.arange(longest)
    mask = column[None, :] < lengths[:, None]
    pad = np.where(mask, starts[:, None] + column[None, :], 0)
    positions = np.zeros(total, dtype=np.int64)
    positions[:real] = np.broadcast_to(column, mask.shape)[mask]
    unpad = np.zeros(total, dtype=np.int64)
    unpad[:real] = np.flatnonzero(mask)

    def put(values: npt.NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(values)
        return tensor if device.type == "cpu" else tensor.pin_memory().to(device, non_blocking=True)

    return Batch(
        ids=put(ids),
        positions=put(positions),
        types=put(types),
        rows=len(rows),
        longest=longest,
        lengths=put(lengths),
        pad=put(pad.reshape(-1)),
        unpad=put(unpad),
        mask=put(mask),
        aligned=len(rows) == 1 or len(rows) * longest == real,
        full=len(rows) * longest == real,
    )


class Linear:
    """`x @ weight.T + bias`, with what follows it fused in where the CPU's kernels can."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._bias = bias
        self._weight = weight.contiguous()
        self._packed = weight.device.type == "cpu" and _packs(self._weight, bias)
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, PACKED_FOR)

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, in] -> [tokens, out]."""
        if self._packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "none")
            return found
        return F.linear(x, self._weight, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """Followed by the exact GELU."""
        if self._packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "gelu", [], "none")
            return found
        return F.gelu(F.linear(x, self._weight, self._bias))

    def add(self, x: Tensor, residual: Tensor) -> Tensor:
        """Plus `residual`."""
        if self._packed:
            found: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, residual, self._weight, self._bias, "add")
            return found
        return F.linear(x, self._weight, self._bias) + residual


def _packs(weight: Tensor, bias: Tensor) -> bool:
    """Whether this build of PyTorch packs such weights. The operators are its compiler's; they may go or change."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight[:16, :16].contiguous(), 0)
        x = torch.ones(2, 16, dtype=weight.dtype)
        got = torch.ops.mkldnn._linear_pointwise(x, packed, bias[:16], "none", [], "none")
        return torch.allclose(got, F.linear(x, weight[:16, :16], bias[:16]), atol=0.1, rtol=0.1)
    except (AttributeError, RuntimeError, TypeError):
        log.info("weights are not packed for the CPU: this build of PyTorch cannot")
        return False


class Inner:
    """`x + down(gelu(up(x)))`: the part of a layer that sees every token for itself."""

    def __init__(self, up: Weights, down: Weights) -> None:
        self._up, self._down = Linear(*up), Linear(*down)

    def __call__(self, x: Tensor) -> Tensor:
        """[tokens, width] -> [tokens, width]."""
        return self._down.add(self._up.gelu(x), x)


class _Layer:
    def __init__(self, tensors: Mapping[str, Tensor], steps: Mapping[str, Steps], prefix: str) -> None:
        def weights(*names: str) -> Weights:
            weight = torch.cat([tensors[f"{prefix}.{name}.weight"] for name in names])
            return weight, torch.cat([tensors[f"{prefix}.{name}.bias"] for name in names])

        def linear(product: str, *parts: str) -> Linear | Int8Linear:
            found, (weight, bias) = steps.get(f"{prefix}.{product}"), weights(*parts or (product,))
            return Linear(weight, bias) if found is None else Int8Linear(weight, bias, found)

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return tensors[f"{prefix}.{name}.weight"], tensors[f"{prefix}.{name}.bias"]

        self.qkv = linear("attention.self", *(f"attention.self.{part}" for part in ("query", "key", "value")))
        self.attended = linear("attention.output.dense")
        self.attended_norm = norm("attention.output.LayerNorm")
        up, down = weights("intermediate.dense"), weights("output.dense")
        up_steps, down_steps = steps.get(f"{prefix}.intermediate.dense"), steps.get(f"{prefix}.output.dense")
        self.inner = (
            Inner(up, down) if up_steps is None or down_steps is None else Int8Inner(up, down, up_steps, down_steps)
        )
        self.norm = norm("output.LayerNorm")


class Encoder:
    """BERT without its pooler: `Batch` -> last hidden states [tokens, width] in the compute type (int8: float32)."""

    def __init__(
        self,
        spec: EncoderSpec,
        tensors: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
        steps: Mapping[str, Steps],
    ) -> None:
        """`dtype` int8 means: the products that have `steps` between integers, all else in float32."""
        whole = dtype is torch.int8
        moved = {name: tensor.to(device, torch.float32 if whole else dtype) for name, tensor in tensors.items()}
        steps = steps if whole else {}
        self._width, self._norm_epsilon = spec.width, spec.norm_epsilon
        self._attention_heads = spec.attention_heads
        self._words = moved["embeddings.word_embeddings.weight"]
        self._positions = moved["embeddings.position_embeddings.weight"]
        self._types = moved["embeddings.token_type_embeddings.weight"]
        self._norm = moved["embeddings.LayerNorm.weight"], moved["embeddings.LayerNorm.bias"]
        self._layers = [_Layer(moved, steps, f"encoder.layer.{i}") for i in range(spec.layers)]

    def __call__(self, batch: Batch) -> Tensor:
        """Last hidden states [tokens, width] of the rows laid end to end; rows of the filling are of no use."""
        mask = None if batch.full else batch.mask[:, None, None, :]
        x = (
            F.embedding(batch.ids, self._words)
            + F.embedding(batch.positions, self._positions)
            + F.embedding(batch.types, self._types)
        )
        x = self._normalised(x, self._norm)
        for layer in self._layers:
            qkv = layer.qkv(x)
            if not batch.aligned:
                qkv = qkv.index_select(0, batch.pad)
            query, key, value = (
                qkv.view(batch.rows, batch.longest, 3, self._attention_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
            )
            seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
            seen = seen.transpose(1, 2).reshape(batch.rows * batch.longest, self._width)
            if not batch.aligned:
                seen = seen.index_select(0, batch.unpad)
            x = self._normalised(layer.attended.add(seen, x), layer.attended_norm)
            x = self._normalised(layer.inner(x), layer.norm)
        return x

    def _normalised(self, x: Tensor, norm: tuple[Tensor, Tensor]) -> Tensor:
        return F.layer_norm(x, (self._width,), *norm, self._norm_epsilon)
