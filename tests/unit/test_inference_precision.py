"""The number type that a device is given."""

from __future__ import annotations

import threading
from pathlib import Path

import torch

from router_extproc.inference import encoder
from router_extproc.inference.base import Prompt
from router_extproc.inference.cpus import available_cores
from router_extproc.inference.encoder import int8
from router_extproc.inference.encoder.device import most_threads, threads_for
from router_extproc.inference.encoder.precision import WORTH, WORTH_INT8, compute_type, layer_seconds
from router_extproc.testing import tiny_model_directory

CPU = torch.device("cpu")


def test_what_is_asked_for_is_taken() -> None:
    assert compute_type(CPU, "float32") is torch.float32
    assert compute_type(CPU, "bfloat16") is torch.bfloat16
    assert compute_type(CPU, "float16") is torch.float16
    assert compute_type(CPU, "int8", whole=True) is torch.int8


def test_auto_never_takes_a_type_that_is_slower_by_far() -> None:
    taken = compute_type(CPU)
    assert taken in (torch.bfloat16, torch.float32)
    other = torch.float32 if taken is torch.bfloat16 else torch.bfloat16
    # Timed again, on a machine that may be busy with others: only a gross mistake shows.
    assert layer_seconds(taken) < 3 * layer_seconds(other) / WORTH


def test_auto_takes_int8_only_where_it_pays() -> None:
    taken, other = compute_type(CPU, whole=True), compute_type(CPU)
    if taken is not torch.int8:
        assert taken is other
    else:
        assert int8.supported()
        # Timed again, as above.
        assert layer_seconds(torch.int8) < 3 * WORTH_INT8 * layer_seconds(other)


def test_a_pass_in_int8_takes_a_thread_for_what_is_worth_waking_it() -> None:
    assert most_threads(CPU) == min(8, available_cores())
    assert most_threads(torch.device("cuda")) == 1
    assert [threads_for(tokens, torch.float32, 4) for tokens in (16, 4096)] == [4, 4]
    assert [threads_for(tokens, torch.int8, 4) for tokens in (16, 191, 192, 319, 320, 4096)] == [1, 1, 2, 2, 3, 4]


def test_each_model_runs_on_its_own_number_of_threads(tmp_path: Path) -> None:
    directory = tiny_model_directory(tmp_path / "tiny")
    models = {count: encoder.load(directory, device="cpu", dtype="float32", threads=count) for count in (2, 1)}
    found: list[tuple[int, int]] = []

    def run() -> None:
        for count in (1, 2, 1):
            models[count].run([Prompt("a")])
            found.append((count, torch.get_num_threads()))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [(1, 1), (2, 2), (1, 1)]
