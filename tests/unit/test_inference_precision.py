"""The number type that a device is given."""

from __future__ import annotations

import torch

from router_extproc.inference.encoder.precision import WORTH, compute_type, layer_seconds

CPU = torch.device("cpu")


def test_what_is_asked_for_is_taken() -> None:
    assert compute_type(CPU, "float32") is torch.float32
    assert compute_type(CPU, "bfloat16") is torch.bfloat16
    assert compute_type(CPU, "float16") is torch.float16


def test_auto_never_takes_a_type_that_is_slower_by_far() -> None:
    taken = compute_type(CPU)
    assert taken in (torch.bfloat16, torch.float32)
    other = torch.float32 if taken is torch.bfloat16 else torch.bfloat16
    # Timed again, on a machine that may be busy with others: only a gross mistake shows.
    assert layer_seconds(taken) < 3 * layer_seconds(other) / WORTH
