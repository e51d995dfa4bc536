"""Where a classifier runs, on how many cores, and in batches of which size."""

from __future__ import annotations

import torch

from router_extproc.inference.base import UnusableModel
from router_extproc.inference.cpus import available_cores

_MAX_THREADS = 8
INT8_TOKENS = 128
"""Tokens of a pass in 8 bit integers for each of its threads. A further one is worth waking for half as many."""


def choose(device: str) -> torch.device:
    """`auto` (a GPU where there is one), `cpu`, or a CUDA device's name.

    Raises UnusableModel for a GPU that is not here.
    """
    chosen = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device)
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UnusableModel(f"--device {device}: PyTorch finds no such GPU here")
    return chosen


def most_threads(device: torch.device) -> int:
    """Threads that a pass may take: all cores up to `_MAX_THREADS`, and one beside a GPU, where what is left to do is
    less than waking a second."""
    return min(available_cores(), _MAX_THREADS) if device.type == "cpu" else 1


def threads_for(tokens: int, dtype: torch.dtype, most: int) -> int:
    """Threads of a pass over so many tokens: `most`, but in int8 one per `INT8_TOKENS`, rounded.

    A product between 8 bit integers is over sooner than a second thread is awake: beside Envoy, on two cores, one
    thread answers a short prompt sooner than two do, and needs half the CPU time (ADR 8).
    """
    return min(most, max(1, (tokens + INT8_TOKENS // 2) // INT8_TOKENS)) if dtype is torch.int8 else most


def use_threads(count: int) -> None:
    """For what the calling thread computes from now on: PyTorch keeps the number per thread."""
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def batch_tokens(device: torch.device, threads: int) -> int:
    """On a CPU as many tokens as its cores do in some 40 ms: beyond that a batch gets longer, not better."""
    return 16_384 if device.type == "cuda" else 256 * threads
