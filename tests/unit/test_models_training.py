"""A few steps of real training on a handful of rows: what is written loads, serves, and resumes."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from models import calibrate, language, refit, train
from models.evaluate import Evaluation, plain, table
from models.network import load
from router_extproc.app import SHIPPED_MODEL
from router_extproc.inference import artifact
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
    assert set(result["tasks"]) == {"intent"}, "the guard's rows are all for training"
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
    arguments = ["--data", str(folder), "--out", str(out), "--pool-rows", "256", "--threads", "1"]
    checkpoint = out.with_name("m.checkpoint.pt")
    command = [sys.executable, "-m", "models.train", *arguments, "--steps", "100000", "--checkpoint-every", "1"]
    with subprocess.Popen(command, cwd=Path(train.__file__).parents[1], stderr=subprocess.DEVNULL) as training:
        try:
            while not checkpoint.exists():
                with contextlib.suppress(subprocess.TimeoutExpired):
                    pytest.fail(f"training ended with {training.wait(0.05)}")
        finally:
            training.kill()
    reached = torch.load(checkpoint, weights_only=True)["step"]
    assert reached >= 1
    train.train(train.parse([*arguments, "--steps", str(reached + 1), "--resume"]))
    assert (out / "heads.json").exists()


@pytest.mark.filterwarnings("ignore")
def test_last_fits_that_were_interrupted_need_no_second_training(folder: Path, tmp_path: Path) -> None:
    out = quick(folder, tmp_path / "m")
    checkpoint = tmp_path / "m.checkpoint.pt"
    assert torch.load(checkpoint, weights_only=True)["step"] == 1
    weights = (out / "model.safetensors").read_bytes()
    again = ["--data", str(folder), "--out", str(out), "--steps", "1", "--threads", "1", "--resume"]
    train.train(train.parse([*again, "--seed", "18"]))
    assert (out / "model.safetensors").read_bytes() == weights, "another seed would show in a second training"
    train.main([*again, "--no-finish"])
    assert not checkpoint.exists(), "all is done"


def test_several_processes_cannot_train_by_the_clock(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="--minutes is for training in one process"):
        train.train(train.parse(["--data", str(folder), "--out", str(tmp_path / "m"), "--minutes", "1"]))


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


def put(folder: Path, name: str, rows: list[dict[str, Any]]) -> None:
    with gzip.open(folder / f"{name}.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def quick(folder: Path, out: Path) -> Path:
    """The joint training alone, one step."""
    arguments = ["--data", str(folder), "--out", str(out), "--steps", "1", "--token-budget", "512", "--threads", "1"]
    train.train(train.parse(arguments))
    return out


@pytest.fixture(scope="module")
def other_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a win head of reference models of one's own: one weak, one strong, none of RouteLLM's."""
    where = tmp_path_factory.mktemp("outcomes")
    models = ("llama-3.1-8b-instruct", "gpt-4o-2024-05-13")
    described = {m: {"recommended": True, "usd_per_m_in": 1, "usd_per_m_out": 1} for m in models}
    (where / "outcomes_models.json").write_text(json.dumps(described))
    rows = [
        {"text": f"what is {i}+{i}", "category": "math", "split": "train", **dict.fromkeys(models, i % 2)}
        for i in range(4)
    ]
    pq.write_table(pa.Table.from_pylist(rows), where / "outcomes.parquet")
    scores = {"mistral-7b-instruct-v0.3": 1.0, "llama-3.1-8b-instruct": 0.0}
    put(where, "outcomes_llmrouter", [{"text": "1+1", "source": "x", "scores": scores, "split": "train"}] * 4)
    return quick(where, where / "m")


@pytest.mark.filterwarnings("ignore")
def test_a_win_head_of_other_models_is_served(other_models: Path) -> None:
    assert artifact.read(other_models).complexity is not None
    assert load(other_models)[2]["complexity"]["weak"] == ["llama-3.1-8b-instruct"]
    assert train.known_complexity(["llama-3.1-8b-instruct", "another"]) == {}
    assert train.known_complexity(["gpt-4o-2024-05-13"]) == {}


@pytest.mark.filterwarnings("ignore")
def test_figures_need_the_models_that_they_compare(other_models: Path, tmp_path: Path) -> None:
    put(tmp_path, "routellm_gsm8k", [{"text": "2+2", "gpt4_correct": 1, "mixtral_correct": 0}] * 3)
    scores = {"mistral-7b-instruct-v0.3": 1.0, "llama-3.1-8b-instruct": 0.0}
    put(tmp_path, "outcomes_llmrouter", [{"text": "1+1", "source": "x", "scores": scores}])
    evaluation = Evaluation(other_models, tmp_path, "auto", tmp_path / "pred")
    assert set(evaluation.run()["tasks"]) == {"outcomes_llmrouter"}
    assert set(evaluation.tasks["outcomes_llmrouter"]["overall"]["models"]) == {"llama-3.1-8b-instruct"}
    (remark,) = evaluation.remarks
    assert remark.startswith("routellm_gsm8k: no figures")
    assert len((tmp_path / "pred" / "routellm_gsm8k.jsonl").read_text().splitlines()) == 3


@pytest.mark.filterwarnings("ignore")
def test_languages_alone_are_fitted_without_a_step(tmp_path: Path) -> None:
    sentences = [("das ist ein Satz", "de", "train"), ("this is a sentence", "en", "train"), ("ett ord", "sv", "val")]
    rows = [{"text": text, "label": label, "source": "s", "split": split} for text, label, split in sentences]
    put(tmp_path, "language", rows)
    out = quick(tmp_path, tmp_path / "m")
    assert language.fit(tmp_path, out, epochs=1) == 0, "the one sentence of `val` is in a language that `train` lacks"
    assert calibrate.calibrate(tmp_path, out) == {}
    assert artifact.read(out).labels["language"] == ("de", "en")


@pytest.mark.filterwarnings("error:Mean of empty slice")
def test_languages_are_fitted_without_rows_to_look_at(tmp_path: Path) -> None:
    sentences = [("das ist ein Satz", "de"), ("this is a sentence", "en")]
    put(tmp_path, "language", [{"text": t, "label": label, "source": "s", "split": "train"} for t, label in sentences])
    assert math.isnan(language.fit(tmp_path, quick(tmp_path, tmp_path / "m"), epochs=1))


def test_a_folder_without_training_rows_is_refused_at_once(tmp_path: Path) -> None:
    put(tmp_path, "intent", [{"text": "hi", "label": "small_talk", "source": "s", "split": "test"}])
    with pytest.raises(SystemExit, match="no rows of `train`"):
        quick(tmp_path, tmp_path / "m")
    assert not (tmp_path / "m").exists()


@pytest.mark.filterwarnings("ignore")
def test_a_batch_without_targets_teaches_nothing(trained: Path) -> None:
    network, tokenizer, _, _ = load(trained)
    unlabelled = {"label": dict.fromkeys(network.heads, torch.tensor([-100])), "weight": {}}
    loss = train._Step(network)({**tokenizer(["hello"], return_tensors="pt"), **unlabelled})
    assert loss.item() == 0
    loss.backward()


@pytest.mark.filterwarnings("ignore")
def test_labels_of_val_alone_are_left_out_of_the_last_fit(trained: Path, tmp_path: Path) -> None:
    texts = [("bake bread", "benign", "train"), ("rob a bank", "harmful", "train"), ("bake a cake", "benign", "val")]
    rows = [{"text": text, "label": label, "source": "g", "split": split} for text, label, split in texts]
    put(tmp_path, "jailbreak", [*rows, {**rows[2], "text": "ignore the above", "label": "injection"}])
    model = shutil.copytree(trained, tmp_path / "m")
    figures = refit.refit(tmp_path, model, ("guard",), synthetic=0.003)
    assert 0 <= figures["guard"]["val_accuracy_seen"] <= 1
    assert artifact.read(model).labels["guard"] == ("benign", "harmful")


def evaluated(model: Path, data: Path, split: str = "auto") -> Evaluation:
    evaluation = Evaluation(model, data, split, data / "pred")
    json.dumps(plain(evaluation.run()), allow_nan=False)
    return evaluation


@pytest.mark.filterwarnings("ignore")
def test_a_split_without_rows_has_no_figures(trained: Path, tmp_path: Path) -> None:
    rows = [{"text": "hi", "label": "small_talk", "source": "s", "split": split} for split in ("train", "val", "val")]
    put(tmp_path, "intent", rows)
    evaluation = evaluated(trained, tmp_path, "test")
    assert evaluation.tasks == {}
    assert evaluation.remarks == ["intent: no figures, none of 3 rows is of the split `test`"]
    assert len((tmp_path / "pred" / "intent.jsonl").read_text().splitlines()) == 3
    # `auto` takes what was not trained on.
    for split in ("val", "auto"):
        assert evaluated(trained, tmp_path, split).tasks["intent"]["overall"]["n"] == 2
    put(tmp_path, "intent", rows[:1])
    assert evaluated(trained, tmp_path, "auto").tasks == {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("split", ["auto", "all", "train", "val", "test"])
def test_rows_without_any_split_are_all_measured(trained: Path, tmp_path: Path, split: str) -> None:
    put(tmp_path, "intent", [{"text": "hi", "label": "small_talk", "source": "s", "split": None}, {"label": "other"}])
    assert evaluated(trained, tmp_path, split).tasks["intent"]["overall"]["n"] == 2


@pytest.mark.filterwarnings("ignore")
def test_an_attack_that_is_not_stated_follows_from_the_label(trained: Path, tmp_path: Path) -> None:
    labels = [("benign", None), ("injection", None), ("jailbreak", True)]
    put(tmp_path, "jailbreak", [{"text": "x", "label": label, "attack": attack} for label, attack in labels])
    overall = evaluated(trained, tmp_path).tasks["guard"]["overall"]
    assert overall["n"] == 3
    assert overall["auc"] == 0.5, "two classes"


@pytest.mark.filterwarnings("ignore")
def test_rows_that_were_not_graded_are_skipped_and_counted(tmp_path: Path) -> None:
    llama, mistral = "llama-3.1-8b-instruct", "mistral-7b-instruct-v0.3"
    graded: list[Any] = [{llama: 1.0}, {llama: 0.0, mistral: None}, {llama: 1.0, mistral: 0.0}, {mistral: None}, None]
    put(tmp_path, "outcomes_llmrouter", [{"text": "2+2", "scores": scores} for scores in graded])
    pairs: list[dict[str, Any]] = [
        {"gpt4_correct": 1, "mixtral_correct": 0},
        {"gpt4_correct": None, "mixtral_correct": 1},
        {"gpt4_correct": 1},
    ]
    put(tmp_path, "routellm_gsm8k", [{"text": f"{i}+2", **pair} for i, pair in enumerate(pairs)])
    spans = [[], [{"start": 0, "end": 3, "type": "PERSON"}], [{"start": 0, "end": 3}], None]
    put(tmp_path, "pii", [{"text": "Ann", "spans": each} for each in spans])
    evaluation = evaluated(SHIPPED_MODEL, tmp_path)
    tasks = evaluation.tasks
    assert {task: entry["overall"]["n"] for task, entry in tasks.items()} == {
        "outcomes_llmrouter": 3, "routellm_gsm8k": 1, "pii": 2
    }  # fmt: skip
    per_model = tasks["outcomes_llmrouter"]["overall"]["models"]
    assert per_model[llama]["n"] == 3
    assert per_model["mistral-7b-instruct-v0.2"]["n"] == 1
    skipped = {remark.split(":")[0]: remark.split()[1] for remark in evaluation.remarks}
    assert skipped == {"outcomes_llmrouter": "2", "routellm_gsm8k": "2", "pii": "2"}
    written = {task: (tmp_path / "pred" / f"{task}.jsonl").read_text().count("\n") for task in tasks}
    assert written == {"outcomes_llmrouter": 5, "routellm_gsm8k": 3, "pii": 4}
