"""The number type in which a device multiplies fastest: timed, since what a CPU says of itself does not tell."""

from __future__ import annotations

import logging
import time
from functools import cache

import torch

from router_extproc.inference.encoder.bert import Linear

log = logging.getLogger(__name__)

TOKENS, WIDTH, INNER = 128, 384, 1536
"""Shape of the layer that is timed: the widest of the shipped encoder."""
ROUNDS = 12
WORTH = 0.95
"""float32 must take less than this part of bfloat16's time to be preferred: bfloat16 needs half the memory."""


def compute_type(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The type wanted. By default bfloat16 where a GPU has it, else float16; on a CPU whichever of bfloat16 and float32
    is faster: Intel's AVX-512 instructions for bfloat16 without AMX are not, AMD's are.

    Takes some 20 ms, once per process: two models of one process never differ by what else the cores did meanwhile.
    """
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type != "cpu":
        # Without `including_emulation=False` the answer is yes for GPUs that have no such units and are slow at it.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return _fastest_on_this_cpu()


@cache
def _fastest_on_this_cpu() -> torch.dtype:
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.float32
    half, full = layer_seconds(torch.bfloat16), layer_seconds(torch.float32)
    log.info("a layer takes %.2f ms in bfloat16 and %.2f ms in float32", half * 1e3, full * 1e3)
    return torch.float32 if full < WORTH * half else torch.bfloat16


def layer_seconds(dtype: torch.dtype) -> float:
    """The least of some passes through one linear layer on the CPU, packed as the encoder packs it."""
    layer = Linear(torch.randn(INNER, WIDTH).to(dtype), torch.zeros(INNER, dtype=dtype))
    x = torch.randn(TOKENS, WIDTH).to(dtype)
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            layer.gelu(x)
            times.append(time.perf_counter() - began)
    return min(times)
