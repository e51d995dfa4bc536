"""Where a classifier runs, and in batches of which size."""

from __future__ import annotations

import torch

from router_extproc.inference.base import UnusableModel
from router_extproc.inference.cpus import available_cores

_MAX_THREADS = 8


def choose(device: str, threads: int | None = None) -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, or a CUDA device's name.

    Sets how many threads PyTorch uses on the CPU in this process, by default all cores up to `_MAX_THREADS`, and one
    beside a GPU: what is left to do then is less than waking a second. Raises UnusableModel for a GPU that is not here.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnusableModel(f"--device {device}: PyTorch finds no such GPU here")
    torch.set_num_threads(threads or (min(available_cores(), _MAX_THREADS) if chosen.type == "cpu" else 1))
    return chosen


def batch_tokens(device: torch.device) -> int:
    """On a CPU as many tokens as its cores do in some 40 ms: beyond that a batch gets longer, not better."""
    return 16_384 if device.type == "cuda" else 256 * torch.get_num_threads()
