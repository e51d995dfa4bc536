"""Where and in which number type a classifier runs."""

from __future__ import annotations

import torch

from router_extproc.inference.cpus import available_cores

_MAX_THREADS = 8


def choose(device: str, threads: int | None = None) -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, or a CUDA device's name.

    For a CPU, sets how many threads PyTorch uses in this process, by default all cores up to `_MAX_THREADS`.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cpu":
        torch.set_num_threads(threads or min(available_cores(), _MAX_THREADS))
    return chosen


def batch_tokens(device: torch.device) -> int:
    """On a CPU as many tokens as its cores do in some 40 ms: beyond that a batch gets longer, not better."""
    return 16_384 if device.type == "cuda" else 256 * torch.get_num_threads()


def compute_type(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """The type wanted; by default bfloat16 where the device has units for it, else float16 (GPU) or float32 (CPU)."""
    if wanted != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}[wanted]
    if device.type == "cpu":
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if native else torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
