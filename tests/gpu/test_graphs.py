from __future__ import annotations

from pathlib import Path

import pytest
import torch

from router_extproc.inference import encoder
from router_extproc.inference.base import Prompt
from router_extproc.testing import tiny_model_directory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]


def test_recorded_and_eager_passes_on_the_gpu_equal_the_cpus(tmp_path: Path) -> None:
    directory = tiny_model_directory(tmp_path)
    on_cpu = encoder.load(directory, device="cpu", dtype="float32")
    eager = encoder.load(directory, device="cuda", dtype="float32")
    recorded = encoder.load(directory, device="cuda", dtype="float32")
    recorded.warm_up()
    assert recorded._graphs is not None
    assert recorded._graphs._graphs
    prompts = [Prompt("hello the models"), Prompt("prove", "hello"), Prompt("a b c " * 30)]
    for count in (1, 2, 3):
        wanted = on_cpu.run(prompts[:count])
        for model in (eager, recorded, recorded):
            for got, want in zip(model.run(prompts[:count]), wanted, strict=True):
                for name in ("domain", "intent", "guard", "language", "win"):
                    assert dict(got.heads[name].probs) == pytest.approx(dict(want.heads[name].probs), abs=1e-3)
