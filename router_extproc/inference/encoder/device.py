"""Where a classifier runs, and in batches of which size."""

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
