"""A few steps of real training on a handful of rows: what is written loads, serves, and resumes."""

from __future__ import annotations

import contextlib
import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from models import train
from models.evaluate import Evaluation, plain, table
from models.network import load
from router_extproc.inference.encoder.int8 import read_steps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two files, three labels."""
    where = tmp_path_factory.mktemp("data")
    intents = [
        {"text": f"{text} {i}", "label": label, "source": "s", "split": "test" if i == 0 else "train"}
        for i in range(4)
        for text, label in (("hello there", "small_talk"), ("add 2 and 3", "math_reasoning"))
    ]
    guards = [
        {"text": f"{text} {i}", "label": label, "attack": label != "benign", "source": "g", "split": "train"}
        for i in range(4)
        for text, label in (("bake bread", "benign"), ("rob a bank", "harmful"))
    ]
    for name, rows in (("intent", intents), ("jailbreak", guards)):
        with gzip.open(where / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    return where


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model after two steps."""
    out = tmp_path_factory.mktemp("model") / "tiny"
    train.train(
        train.parse(
            ["--data", str(folder), "--out", str(out), "--steps", "2", "--token-budget", "512", "--threads", "1"]
        )
    )
    return out


@pytest.mark.filterwarnings("ignore")
def test_what_is_written_loads(trained: Path) -> None:
    network, tokenizer, described, tables = load(trained)
    assert set(described["heads"]) == {"intent", "guard"}
    assert described["max_tokens"] == 256
    assert described["complexity"] == {}
    assert tables == {}
    batch = tokenizer(["hello"], return_tensors="pt")
    with torch.no_grad():
        hidden = network.hidden(batch)
        logits = network.heads["guard"](hidden, batch["attention_mask"])
    assert logits.shape == (1, 2)
    assert not list(trained.parent.glob("*.checkpoint.pt"))


@pytest.mark.filterwarnings("ignore")
def test_padding_changes_nothing(trained: Path) -> None:
    network, tokenizer, _, _ = load(trained)
    alone = tokenizer(["rob a bank"], return_tensors="pt")
    padded = tokenizer(
        ["rob a bank", "a much longer prompt about baking bread at home"], padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        for head in network.heads.values():
            one = head(network.hidden(alone), alone["attention_mask"])
            two = head(network.hidden(padded), padded["attention_mask"])[:1]
            torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_evaluation_reads_some_files_and_writes_predictions(folder: Path, trained: Path, tmp_path: Path) -> None:
    evaluation = Evaluation(trained, folder, "auto", tmp_path / "pred")
    result = evaluation.run()
    assert set(result["tasks"]) == {"intent", "guard"}
    assert result["tasks"]["intent"]["overall"]["n"] == 2
    assert result["tasks"]["intent"]["by_source"]["s"]["n"] == 2
    json.dumps(plain(result), allow_nan=False)
    assert "intent" in table(result["tasks"])
    lines = [json.loads(line) for line in (tmp_path / "pred" / "intent.jsonl").read_text().splitlines()]
    assert len(lines) == 8
    assert set(lines[0]) == {"pred", "confidence", "probs"}
    assert sum(lines[0]["probs"].values()) == pytest.approx(1, abs=0.01)


@pytest.mark.filterwarnings("ignore")
def test_every_row_gets_a_prediction_and_those_with_labels_count(trained: Path, tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "hello there", "label": "small_talk", "source": "s", "note": 1},
        {"text": "no label", "source": "s"},
        {"text": "", "label": None, "source": "s"},
        {"text": "add 2 and 3", "label": "a label that the head does not know"},
        {"label": "small_talk"},
    ]
    with gzip.open(tmp_path / "intent.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    overall = Evaluation(trained, tmp_path, "auto", tmp_path / "pred").run()["tasks"]["intent"]["overall"]
    assert overall["n"] == 3
    assert overall["accuracy"] <= 2 / 3
    assert len((tmp_path / "pred" / "intent.jsonl").read_text().splitlines()) == len(rows)
    assert Evaluation(trained, tmp_path, "auto", None).run()["tasks"]["intent"]["overall"]["n"] == 3


@pytest.mark.filterwarnings("ignore")
def test_training_that_was_killed_goes_on_from_its_checkpoint(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "not there yet" / "m"
    arguments = ["--data", str(folder), "--out", str(out), "--token-budget", "16384", "--threads", "1"]
    checkpoint = out.with_name("m.checkpoint.pt")
    command = [sys.executable, "-m", "models.train", *arguments, "--steps", "100000", "--checkpoint-every", "1"]
    training = subprocess.Popen(command, cwd=Path(train.__file__).parents[1], stderr=subprocess.DEVNULL)
    while not checkpoint.exists():
        with contextlib.suppress(subprocess.TimeoutExpired):
            pytest.fail(f"training ended with {training.wait(0.05)}")
    training.kill()
    training.wait()
    reached = torch.load(checkpoint, weights_only=True)["step"]
    assert reached >= 1
    train.train(train.parse([*arguments, "--steps", str(reached + 1), "--resume"]))
    assert (out / "heads.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_the_command_does_it_all(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "m"
    trial = ["--steps", "1", "--token-budget", "512", "--threads", "1", "--refit-synthetic", "0.01"]
    train.main(["--data", str(folder), "--out", str(out), *trial])
    described = json.loads((out / "heads.json").read_text())
    assert set(described["heads"]) == {"intent", "guard"}
    assert described["heads"]["intent"]["calibration"]["temperature"] > 0
    steps = read_steps(out)
    assert {name.split(".")[2] for name in steps} == set("012345"), "every layer has products between integers"
