"""The recorded pass on a real device; skipped where there is none. tests/unit runs the same blocks on a CPU."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from router_extproc.inference import encoder
from router_extproc.inference.base import Classified, Prompt
from router_extproc.inference.encoder import BertClassifier
from router_extproc.inference.engine import Engine
from router_extproc.testing import tiny_model_directory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]

SHIPPED = Path(__file__).parents[2] / "models" / "router-minilm"
HEADS = ("domain", "intent", "guard", "language", "win")
FLOAT32_TOLERANCE = 1e-3
"""Of a probability: a GPU adds in another order."""
BFLOAT16_TOLERANCE = 0.04


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_directory(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def recorded(directory: Path) -> BertClassifier:
    model = encoder.load(directory, device="cuda", dtype="float32")
    model.warm_up()
    assert model._graphs is not None
    assert model._graphs.recorded
    return model


@pytest.fixture
def no_other_wait() -> Iterator[None]:
    """Raises on every call that waits for the device by the way, such as `.cpu()`."""
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


def assert_alike(got: list[Classified], wanted: list[Classified], tolerance: float = FLOAT32_TOLERANCE) -> None:
    for one, other in zip(got, wanted, strict=True):
        for name in HEADS:
            assert dict(one.heads[name].probs) == pytest.approx(dict(other.heads[name].probs), abs=tolerance)


def test_recorded_and_eager_passes_on_the_gpu_equal_the_cpus(directory: Path, recorded: BertClassifier) -> None:
    on_cpu = encoder.load(directory, device="cpu", dtype="float32")
    eager = encoder.load(directory, device="cuda", dtype="float32")
    prompts = [Prompt("hello the models"), Prompt("prove", "hello"), Prompt("a b c " * 30), Prompt("")]
    for count in (4, 1, 2, 3, 4):
        wanted = on_cpu.run(prompts[:count])
        for model in (eager, recorded, recorded):
            assert_alike(model.run(prompts[:count]), wanted)


def test_every_recorded_shape_gives_what_the_eager_pass_gives(directory: Path, recorded: BertClassifier) -> None:
    eager = encoder.load(directory, device="cuda", dtype="float32")
    assert recorded._graphs is not None
    for rows, length in recorded._graphs._recordings:
        prompts = [Prompt("a " * (length - 2 - i % 5)) for i in range(rows)]
        assert_alike(recorded.run(prompts), eager.run(prompts))


def test_a_pass_waits_once_at_its_end(recorded: BertClassifier, no_other_wait: None) -> None:
    assert len(recorded.run([Prompt("hello"), Prompt("prove the models")])) == 2


def test_what_an_earlier_batch_left_does_not_show(recorded: BertClassifier) -> None:
    alone = recorded.run([Prompt("hello")])
    for crowd in (7, 63, 2):
        recorded.run([Prompt(f"prove {i} models x y z") for i in range(crowd)])
        assert_alike(recorded.run([Prompt("hello")]), alone, 1e-6)


def test_many_threads_get_their_own_answers(recorded: BertClassifier) -> None:
    wanted = {text: recorded.run([Prompt(text)]) for text in ("hello", "prove the models", "a b c d e f")}

    def ask(text: str) -> None:
        for _ in range(50):
            assert_alike(recorded.run([Prompt(text)]), wanted[text], 1e-6)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(ask, wanted))


async def test_recording_a_new_model_does_not_disturb_the_one_that_serves(tmp_path: Path, directory: Path) -> None:
    engine = Engine(encoder.load(directory, device="cuda"), remembered_windows=0)
    await engine.start()
    stop = asyncio.Event()

    async def client(name: int) -> int:
        done = 0
        while not stop.is_set():
            await engine.classify(Prompt(f"hello {name} {done}"), time.monotonic() + 30)
            done += 1
        return done

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(i)) for i in range(8)]
        for seed in (1, 2):
            new = encoder.load(tiny_model_directory(tmp_path / str(seed), seed=seed), device="cuda")
            await engine.swap(new)
            assert new._graphs is not None
            assert new._graphs.recorded
        stop.set()
    assert min(task.result() for task in clients) > 0
    assert engine.stats().failed == 0
    await engine.aclose()


def test_the_shipped_classifier_in_the_devices_own_type_agrees_with_the_cpu() -> None:
    model = encoder.load(SHIPPED, device="cuda")
    model.warm_up()
    prompts = [Prompt("Write a Python function that reverses a linked list."), Prompt("Where is my parcel? " * 30)]
    wanted = encoder.load(SHIPPED, device="cpu", dtype="float32").run(prompts)
    assert_alike(model.run(prompts), wanted, BFLOAT16_TOLERANCE)
