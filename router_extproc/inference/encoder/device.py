"""Where a classifier runs, on how many cores, and in batches of which size."""

from __future__ import annotations

import torch

from router_extproc.inference.base import UnusableModel
from router_extproc.inference.cpus import available_cores

_MAX_THREADS = 8


def choose(device: str) -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, or a CUDA device's name.

    Raises UnusableModel for a GPU that is not here.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnusableModel(f"--device {device}: PyTorch finds no such GPU here")
    return chosen


def threads_for(device: torch.device, dtype: torch.dtype) -> int:
    """Threads of a pass: all cores up to `_MAX_THREADS`, half of these for int8, and one beside a GPU.

    A product between 8 bit integers is over sooner than a second thread is awake (ADR 8): beside Envoy, on two cores,
    one thread answers a prompt sooner than two, and needs half the CPU time. Beside a GPU what is left to do is less
    than waking a second.
    """
    if device.type != "cpu":
        return 1
    cores = min(available_cores(), _MAX_THREADS)
    return max(1, cores // 2) if dtype is torch.int8 else cores


def use_threads(count: int) -> None:
    """For what the calling thread computes from now on: PyTorch keeps the number per thread."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def batch_tokens(device: torch.device, threads: int) -> int:
    """On a CPU as many tokens as its cores do in some 40 ms: beyond that a batch gets longer, not better."""
    return 16_384 if device.type == "cuda" else 256 * threads
