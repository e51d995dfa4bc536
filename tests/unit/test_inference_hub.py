"""Classifiers from a hub, through the real client library and a hub on loopback."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from pydantic import ValidationError

from router_extproc.config.loader import load
from router_extproc.errors import ConfigError, ConfigMistakes
from router_extproc.inference.base import Prompt, UnusableModel
from router_extproc.inference.encoder import load_hugging_face
from router_extproc.inference.engine import Engine
from router_extproc.inference.hub import Hub, HubModel
from router_extproc.signals.hugging_face import HuggingFaceParams, HuggingFaceSignal
from router_extproc.signals.own_heads import OwnHeads, load_guest
from router_extproc.testing import FakeModel, tiny_model_directory
from tests.fake_hub import FakeHub, serving
from tests.tiny_hugging_face import ARCHITECTURES, sequence_classifier

NAME = "acme/toxicity"
CONFIG = """
models:
  only: {{url: "http://127.0.0.1:9", price: {{input: 1, output: 1}}}}
default: only
signals:
  toxicity: {{type: hugging_face, hub: {name}, benign: SAFE, cache: {cache}{more}}}
"""


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        # This one the library reads when it is imported, which other tests may have done before.
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        yield running


def params(tmp_path: Path, **more: Any) -> HuggingFaceParams:
    return HuggingFaceParams(hub=NAME, cache=str(tmp_path / "cache"), **more)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_model_of_the_hub_answers_as_its_folder_does(hub: FakeHub, tmp_path: Path, architecture: str) -> None:
    directory = sequence_classifier(tmp_path / "model", architecture)
    hub.publish(NAME, directory)
    wanted = params(tmp_path, benign="SAFE")
    guest = load_guest(wanted, device="cpu")
    assert HuggingFaceSignal(wanted, {}).labels == ("benign", "TOXIC", "SPAM")
    (got,), (local,) = (
        model.run([Prompt("hello the models")])
        for model in (guest, load_hugging_face(directory, device="cpu", benign="SAFE"))
    )
    assert got.heads["label"].probs == pytest.approx(local.heads["label"].probs)


def test_only_what_is_read_is_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    more = {"modeling_own.py": b"raise SystemExit", "pytorch_model.bin": b"pickle", "onnx/model.safetensors": b"no"}
    hub.publish(NAME, sequence_classifier(tmp_path / "model"), extra={**more, "README.md": b"#"})
    directory = Hub().fetch(HubModel(NAME, cache=tmp_path / "cache"))
    assert {path.name for path in directory.iterdir()} == {
        *("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    }
    assert not any(name in request for request in hub.asked for name in more)


def test_a_pinned_commit_needs_the_hub_once(hub: FakeHub, tmp_path: Path) -> None:
    old = hub.publish(NAME, sequence_classifier(tmp_path / "old", seed=1))
    hub.publish(NAME, sequence_classifier(tmp_path / "new", seed=2))
    pinned = HubModel(NAME, old, tmp_path / "cache")
    directory = Hub().fetch(pinned)
    assert directory.name == old
    assert (directory / "model.safetensors").read_bytes() == (tmp_path / "old" / "model.safetensors").read_bytes()
    before = len(hub.asked)
    # Another one has no memory, as after a restart.
    assert Hub().fetch(pinned) == directory
    assert len(hub.asked) == before


def test_a_branch_stands_for_one_commit_as_long_as_the_process_lives(hub: FakeHub, tmp_path: Path) -> None:
    model = HubModel(NAME, "stable", tmp_path / "cache")
    first = hub.publish(NAME, sequence_classifier(tmp_path / "old", seed=1), revision="stable")
    ours = Hub()
    assert ours.fetch(model).name == first
    second = hub.publish(NAME, sequence_classifier(tmp_path / "new", seed=2), revision="stable")
    assert ours.fetch(model).name == first != second
    assert Hub().fetch(model).name == second


def test_a_pinned_digest_is_checked(hub: FakeHub, tmp_path: Path) -> None:
    directory = sequence_classifier(tmp_path / "model")
    hub.publish(NAME, directory)
    digest = load_hugging_face(directory, device="cpu").digest
    assert load_guest(params(tmp_path, digest=digest), device="cpu").version.endswith(digest[:8])
    with pytest.raises(UnusableModel, match=f"digest is {digest}"):
        load_guest(params(tmp_path, digest="0" * 64), device="cpu")


def test_pickled_weights_are_not_even_downloaded(hub: FakeHub, tmp_path: Path) -> None:
    directory = sequence_classifier(tmp_path / "model")
    (directory / "model.safetensors").rename(directory / "pytorch_model.bin")
    hub.publish(NAME, directory)
    with pytest.raises(UnusableModel, match="pickled"):
        load_guest(params(tmp_path), device="cpu")
    assert not any("pytorch_model.bin" in request for request in hub.asked)


def test_weights_that_are_far_too_large_are_refused_before_they_come(hub: FakeHub, tmp_path: Path) -> None:
    hub.publish(NAME, sequence_classifier(tmp_path / "model"))
    with pytest.raises(UnusableModel, match="GB"):
        Hub(most_bytes=1000).fetch(HubModel(NAME, cache=tmp_path / "cache"))
    assert not any(request.startswith("GET") and "resolve" in request for request in hub.asked)


@pytest.mark.parametrize(
    ("name", "revision", "message"),
    [("acme/nothing", None, "HF_TOKEN"), (NAME, "v9", "no revision `v9`"), ("a--b/c..d", None, "Cannot have")],
)
def test_what_the_hub_does_not_have_is_said(
    hub: FakeHub, tmp_path: Path, name: str, revision: str | None, message: str
) -> None:
    hub.publish(NAME, sequence_classifier(tmp_path / "model"))
    with pytest.raises(UnusableModel, match=message):
        Hub().fetch(HubModel(name, revision, tmp_path / "cache"))


def test_without_the_hub_what_was_downloaded_serves_else_it_is_said_what_to_do(
    hub: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.publish(NAME, sequence_classifier(tmp_path / "model"))
    known = Hub().fetch(HubModel(NAME, cache=tmp_path / "cache"))
    # Nobody listens on port 9 of loopback.
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert Hub().fetch(HubModel(NAME, cache=tmp_path / "cache")) == known
    with pytest.raises(UnusableModel, match=r"hf download acme/toxicity --local-dir .*`path`"):
        Hub().fetch(HubModel(NAME, cache=tmp_path / "empty"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UnusableModel, match="HF_HUB_OFFLINE forbids"):
        Hub().fetch(HubModel(NAME, cache=tmp_path / "empty"))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"path": "/models/x", "hub": NAME},
        {"path": "/models/x", "revision": "main"},
        {"hub": "no-organisation"},
        {"hub": "../etc/passwd"},
        {"hub": NAME, "revision": "a b"},
    ],
)
def test_a_model_comes_from_one_place(fields: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        HuggingFaceParams.model_validate(fields)


def test_a_hub_that_fails_is_a_mistake_of_the_signal(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ConfigMistakes) as caught:
        HuggingFaceSignal(params(tmp_path), {})
    assert caught.value.mistakes[0].path == ("hub",)


async def test_a_reload_downloads_beside_what_serves_and_a_failed_one_changes_nothing(
    hub: FakeHub, tmp_path: Path
) -> None:
    hub.publish(NAME, sequence_classifier(tmp_path / "model"))
    engine = Engine(FakeModel({}, {"intent": ("chat",)}))
    await engine.start()
    heads = OwnHeads(FakeModel({}, {"intent": ("chat",)}), load_guest)
    path = tmp_path / "router.yaml"

    async def reload(name: str, more: str = "") -> None:
        path.write_text(CONFIG.format(name=name, cache=tmp_path / "cache", more=more))
        await heads.serve(engine, load(path))

    hub.gate.clear()
    loading = asyncio.create_task(reload(NAME))
    await asyncio.to_thread(hub.waiting.wait, 60)
    # The download stands still: the loop does not, and the old model serves.
    for number in range(20):
        answer = await engine.classify(Prompt(f"text {number}"), time.monotonic() + 30)
        assert set(answer.heads) == {"intent"}
    assert not loading.done()
    hub.gate.set()
    await loading
    served = engine.version
    for name, more in (("acme/nothing", ""), (NAME, f", digest: {'0' * 64}"), (NAME, ", revision: gone")):
        with pytest.raises(ConfigError, match="signals"):
            await reload(name, more)
        assert engine.version == served
    hub.down = True
    with pytest.raises(ConfigError, match="hf download"):
        await reload("acme/other")
    answer = await engine.classify(Prompt("after"), time.monotonic() + 30)
    assert len(answer.heads) == 2
    await engine.aclose()


def test_check_loads_it_in_a_process_of_its_own_and_prints_the_digest(hub: FakeHub, tmp_path: Path) -> None:
    directory = sequence_classifier(tmp_path / "model")
    hub.publish(NAME, directory)
    path = tmp_path / "router.yaml"
    path.write_text(CONFIG.format(name=NAME, cache=tmp_path / "cache", more=""))
    command = [sys.executable, "-m", "router_extproc", "check", str(path), "--model-dir"]
    done = subprocess.run(
        [*command, str(tiny_model_directory(tmp_path / "shipped"))],
        env={**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0"},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    assert f"signal toxicity: {NAME}@main, digest {load_hugging_face(directory, device='cpu').digest}" in done.stdout
