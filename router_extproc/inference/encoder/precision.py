"""The number type in which a device multiplies fastest: timed, since what a CPU says of itself does not tell."""

from __future__ import annotations

import logging
import time
from functools import cache

import torch

from router_extproc.inference.artifact import STEPS
from router_extproc.inference.encoder import int8
from router_extproc.inference.encoder.bert import Inner
from router_extproc.inference.encoder.device import use_threads

log = logging.getLogger(__name__)

TOKENS, WIDTH, INNER = 128, 384, 1536
"""Shape of the part that is timed: most of a layer of the shipped encoder."""
ROUNDS = 8
WORTH = 0.95
"""float32 must take less than this part of bfloat16's time to be preferred: bfloat16 needs half the memory."""
WORTH_INT8 = 0.7
"""int8 must take less than this part of the other's time: it changes a label in a hundred texts, bfloat16 in 500."""


def compute_type(device: torch.device, wanted: str = "auto", *, whole: bool = False) -> torch.dtype:
    """The type wanted. By default bfloat16 where a GPU has it, else float16; on a CPU whichever is fastest. That is
    bfloat16 with AMX and on AMD's, float32 with Intel's AVX-512 alone, whose bfloat16 instructions are no faster, or
    int8, which only the encoder's products are in, for a model that is fitted for it (`whole`) on a CPU with VNNI.

    Takes some 30 ms of one core, once per process: two models of one process never differ by what else the cores did.
    Raises ValueError for int8 where that cannot be.
    """
    if wanted == "int8" and not (whole and device.type == "cpu"):
        raise ValueError(f"int8 needs a CPU and a model with {STEPS}")
    if wanted != "auto":
        return {
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
            "float16": torch.float16,
            "int8": torch.int8,
        }[wanted]
    if device.type != "cpu":
        # Without `including_emulation=False` the answer is yes for GPUs that have no such units and are slow at it.
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return _fastest_on_this_cpu(whole)


@cache
def _fastest_on_this_cpu(whole: bool) -> torch.dtype:
    if whole and int8.supported():
        other = _fastest_on_this_cpu(False)
        eight, rest = layer_seconds(torch.int8), layer_seconds(other)
        log.info("a layer takes %.2f ms in int8 and %.2f ms in %s", eight * 1e3, rest * 1e3, other)
        return torch.int8 if eight < WORTH_INT8 * rest else other
    if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
        return torch.float32
    half, full = layer_seconds(torch.bfloat16), layer_seconds(torch.float32)
    log.info("a layer takes %.2f ms in bfloat16 and %.2f ms in float32", half * 1e3, full * 1e3)
    return torch.float32 if full < WORTH * half else torch.bfloat16


def layer_seconds(dtype: torch.dtype) -> float:
    """The least of some passes through the inner part of a layer on one core of the CPU, as the encoder packs it."""
    threads = torch.get_num_threads()
    use_threads(1)
    up, down = ((torch.randn(out, width), torch.zeros(out)) for out, width in ((INNER, WIDTH), (WIDTH, INNER)))
    part: Inner | int8.Int8Inner
    if dtype is torch.int8:
        part = int8.Int8Inner(up, down, int8.Steps(-4.0, 4.0, up[1]), int8.Steps(-4.0, 4.0, down[1]))
    else:
        part = Inner(*((weight.to(dtype), bias.to(dtype)) for weight, bias in (up, down)))
    x = torch.randn(TOKENS, WIDTH).to(torch.float32 if dtype is torch.int8 else dtype)
    times = []
    with torch.inference_mode():
        for _ in range(ROUNDS):
            began = time.perf_counter()
            part(x)
            times.append(time.perf_counter() - began)
    use_threads(threads)
    return min(times)
