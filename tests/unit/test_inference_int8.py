"""The encoder's products between 8 bit integers, on CPUs that have the instructions, beside float32."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name that PyTorch's own documentation uses
from safetensors.torch import save_file

from models.synthetic.written import written
from router_extproc.inference import artifact, encoder
from router_extproc.inference.base import Prompt, UnusableModel
from router_extproc.inference.encoder.int8 import Int8Inner, Int8Linear, Steps, as_tensors, read_steps, supported
from router_extproc.inference.encoder.precision import compute_type
from router_extproc.testing import tiny_model_directory

SHIPPED = Path(__file__).parents[2] / "models" / "router-minilm"
TOLERANCE = 0.02
"""Of a probability, on average, between int8 and float32."""
COMPANY_TOLERANCE = 0.02
"""Of a probability, between a text alone and in a batch: attention sums up in another order there, in float32, and a
value between two steps may then fall on the other one. 0.006 at most over 120 prompts."""

with_vnni = pytest.mark.skipif(not supported(), reason="this CPU has no instructions for products of 8 bit integers")


def layer(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, Steps]:
    """Weights [48, 64], bias, and steps for inputs between -4 and 4 in which one channel is ten times as large."""
    torch.manual_seed(seed)
    smooth = torch.ones(64)
    smooth[5] = 10.0
    return torch.randn(48, 64) / 8, torch.randn(48), Steps(-4.0, 4.0, torch.zeros(48), smooth)


def rows(count: int) -> torch.Tensor:
    x = torch.randn(count, 64).clamp(-4, 4)
    x[:, 5] *= 10
    return x


@with_vnni
@pytest.mark.parametrize("count", [1, 16, 130])
def test_a_product_is_that_of_floats_but_for_the_steps(count: int) -> None:
    weight, bias, steps = layer()
    linear, x, residual = Int8Linear(weight, bias, steps), rows(count), torch.randn(count, 48)
    wanted = F.linear(x, weight, bias)
    for found, exact in ((linear(x), wanted), (linear.add(x, residual), wanted + residual)):
        assert (found - exact).std() < 0.04 * wanted.std()


def inner(apart: list[int]) -> tuple[Int8Inner, torch.Tensor, torch.Tensor]:
    """64 -> 48 -> 64 with two neurons that are a hundred times as large as the others; inputs, and what floats give."""
    up, up_bias, up_steps = layer()
    up = up / 10
    up[[7, 30]] *= 100
    torch.manual_seed(2)
    down, down_bias = torch.randn(64, 48) / 7, torch.randn(64)
    # Of GELU, of everything but the large ones.
    between = Steps(-0.17, 2.0, torch.zeros(64), apart=torch.tensor(apart, dtype=torch.int64))
    x = rows(32)
    wanted = x + F.linear(F.gelu(F.linear(x, up, up_bias)), down, down_bias)
    return Int8Inner((up, up_bias), (down, down_bias), up_steps, between), x, wanted


@with_vnni
def test_neurons_that_are_far_larger_than_the_others_stay_in_float32() -> None:
    part, x, wanted = inner([7, 30])
    assert (part(x) - wanted).std() < 0.04 * (wanted - x).std()
    part, x, wanted = inner([7])
    assert (part(x) - wanted).std() > 0.2 * (wanted - x).std(), "the other one is cut off"


@with_vnni
def test_what_lies_outside_the_range_is_cut_off_and_does_not_wrap_around() -> None:
    weight, bias, steps = layer()
    linear, edge = Int8Linear(weight, bias, steps), 4.1 * steps.smooth[None, :]
    torch.testing.assert_close(linear(25 * edge), linear(edge))
    torch.testing.assert_close(linear(-25 * edge), linear(-edge))


@with_vnni
def test_the_correction_is_added() -> None:
    weight, bias, steps = layer()
    corrected = Steps(steps.low, steps.high, torch.full((48,), 2.5), steps.smooth)
    x = rows(3)
    torch.testing.assert_close(Int8Linear(weight, bias, corrected)(x), Int8Linear(weight, bias, steps)(x) + 2.5)


def prompts() -> list[Prompt]:
    """Written ones that were not trained on, and not fitted to."""
    kept = written(training=False)
    return [Prompt(row["text"][:400]) for row in kept[:: len(kept) // 120]]


@with_vnni
def test_the_shipped_classifier_says_the_same_in_int8() -> None:
    texts = prompts()
    exact = encoder.load(SHIPPED, device="cpu", dtype="float32").run(texts)
    found = encoder.load(SHIPPED, device="cpu", dtype="int8").run(texts)
    for head in ("domain", "intent", "guard", "language"):
        pairs = [(a.heads[head], b.heads[head]) for a, b in zip(exact, found, strict=True)]
        assert sum(a.label != b.label for a, b in pairs) <= 0.03 * len(pairs), head
        apart = [abs(a.probs[label] - b.probs[label]) for a, b in pairs for label in a.probs]
        assert max(apart) < 0.25, head
        assert sum(max(abs(a.probs[k] - b.probs[k]) for k in a.probs) for a, b in pairs) < TOLERANCE * len(pairs), head
    assert [a.heads["domain"].probs for a in exact] != [b.heads["domain"].probs for b in found], "int8 was not used"


@with_vnni
def test_an_answer_does_not_depend_on_its_company() -> None:
    model, texts = encoder.load(SHIPPED, device="cpu", dtype="int8"), prompts()[:9]
    together = model.run(texts)
    for text, answer in zip(texts, together, strict=True):
        alone = model.run([text])[0]
        for head in answer.heads:
            assert alone.heads[head].probs == pytest.approx(answer.heads[head].probs, abs=COMPANY_TOLERANCE)


def with_steps(directory: Path, change: dict[str, torch.Tensor] | None = None) -> Path:
    """A tiny model with steps for one of its products."""
    width = json.loads((directory / "config.json").read_text())["hidden_size"]
    steps = Steps(-8.0, 8.0, torch.zeros(1), torch.ones(width))
    save_file(
        as_tensors({"encoder.layer.0.attention.output.dense": steps}) | (change or {}), directory / artifact.STEPS
    )
    return directory


def test_steps_are_read_as_they_were_written(tmp_path: Path) -> None:
    _, _, steps = layer()
    between = Steps(-0.17, 5.0, torch.ones(64), apart=torch.tensor([3, 40]))
    save_file(
        as_tensors({"encoder.layer.3.attention.output.dense": steps, "encoder.layer.3.output.dense": between}),
        tmp_path / artifact.STEPS,
    )
    found = read_steps(tmp_path)
    assert list(found) == ["encoder.layer.3.attention.output.dense", "encoder.layer.3.output.dense"]
    read, inside = found.values()
    assert (read.low, read.high, read.step, read.zero) == (-4.0, 4.0, 8 / 255, 128)
    torch.testing.assert_close(read.smooth, steps.smooth)
    assert inside.apart.tolist() == [3, 40]
    torch.testing.assert_close(inside.correction, between.correction)
    assert read_steps(tmp_path / "elsewhere") == {}


@pytest.mark.parametrize(
    "change",
    [
        {"encoder.layer.0.attention.output.dense.range": torch.tensor([1.0, 1.0])},
        {"encoder.layer.0.attention.output.dense.smooth": torch.zeros(32)},
        {"encoder.layer.0.output.dense.apart": torch.tensor([1])},  # without a range
        {"encoder.layer.0.output.dense.range": torch.tensor([-1.0, 1.0])},  # and without what stays in float32
    ],
)
def test_broken_steps_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(UnusableModel, match=r"int8\.safetensors|range|apart"):
        encoder.load(with_steps(tiny_model_directory(tmp_path / "tiny"), change), device="cpu")


def test_the_steps_are_a_part_of_the_digest(tmp_path: Path) -> None:
    plain = tiny_model_directory(tmp_path / "tiny")
    before, stamped = artifact.read(plain).digest, artifact.stamp(plain)
    with_steps(plain)
    assert artifact.read(plain).digest != before
    assert artifact.stamp(plain) != stamped


def test_int8_is_for_a_cpu_and_a_model_that_was_fitted_for_it(tmp_path: Path) -> None:
    with pytest.raises(UnusableModel, match="int8"):
        encoder.load(tiny_model_directory(tmp_path / "tiny"), device="cpu", dtype="int8")
    with pytest.raises(ValueError, match="int8"):
        compute_type(torch.device("cuda"), "int8", whole=True)
    shutil.copytree(SHIPPED, tmp_path / "shipped", ignore=shutil.ignore_patterns(artifact.STEPS))
    with pytest.raises(UnusableModel, match="int8"):
        encoder.load(tmp_path / "shipped", device="cpu", dtype="int8")
