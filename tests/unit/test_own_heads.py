"""Heads from examples and users' classifiers, from the file's text to the answer."""

from __future__ import annotations

import json
import shutil
import time
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from router_extproc.config.loader import load
from router_extproc.config.policy import SignalSpec
from router_extproc.domain import LlmRequest
from router_extproc.errors import ConfigError, ConfigMistakes
from router_extproc.inference import encoder
from router_extproc.inference.base import Model, Prompt, UnusableModel
from router_extproc.inference.engine import Engine
from router_extproc.inference.examples import fit
from router_extproc.signals.base import SHIPPED, SignalInputs, marks
from router_extproc.signals.examples import ExamplesSignal
from router_extproc.signals.hugging_face import HuggingFaceParams, HuggingFaceSignal
from router_extproc.signals.own_heads import OwnHeads, describe, load_guest, review
from router_extproc.testing import FakeModel, tiny_model_directory
from tests.tiny_hugging_face import sequence_classifier

SHIPPED_MODEL = Path(__file__).parents[2] / "models" / "router-minilm"

TEAMS = {
    "syntax": [
        "Why do I get a SyntaxError on this line?",
        "unexpected token } in my javascript, what is wrong",
        "Fix the indentation error in this Python snippet",
        "my rust code says expected semicolon, why",
        "missing parenthesis in print, please correct it",
        "The compiler complains about a stray character in this C file",
    ],
    "architecture": [
        "Should we split the monolith into services?",
        "Compare event sourcing with a plain relational design for orders",
        "How would you lay out a multi region database?",
        "Which message broker suits our billing platform?",
        "Design a caching layer for a news site with ten million readers",
        "Is a service mesh worth it for twelve microservices?",
    ],
    "documentation": [
        "Write a README for this library",
        "Turn these notes into a user guide",
        "Add docstrings to the functions below",
        "Draft the changelog for version 2.1",
        "Explain this endpoint for our API reference",
        "Write release notes that customers understand",
    ],
}


def spec(**fields: Any) -> SignalSpec:
    return SignalSpec.model_validate(fields)


def load_nothing(params: HuggingFaceParams) -> Model:
    raise UnusableModel(f"{params.path} is broken")


def inputs(model: Model, text: str) -> SignalInputs:
    (answer,) = model.run([Prompt(text)])
    request = LlmRequest(api="chat_completions", model="auto", model_span=None, prompt=text)
    return SignalInputs(request, {}, datetime.now(UTC), classified={SHIPPED: answer})


def test_labels_from_a_few_examples_route_new_prompts() -> None:
    base = encoder.load(SHIPPED_MODEL, device="cpu", threads=1)
    model, notes = OwnHeads(base, load_nothing).extend({"team": spec(type="examples", labels=TEAMS)})
    signal = ExamplesSignal(ExamplesSignal.Params(labels=TEAMS), {})
    assert set(signal.labels) == set(TEAMS)
    for text, label in (
        ("I get 'invalid syntax' near the colon, help", "syntax"),
        ("Would you choose Kafka or plain queues for our payment platform?", "architecture"),
        ("Please write the README of my command line tool", "documentation"),
    ):
        value = signal.evaluate(inputs(model, text))
        assert value is not None
        assert value.label == label
        assert set(value.scores) == set(TEAMS)
    assert len(notes) == 1
    assert "signal team:" in notes[0]
    assert "of 18 examples" in notes[0]


def test_what_the_base_says_stays(tmp_path: Path) -> None:
    base = encoder.load(tiny_model_directory(tmp_path), device="cpu", threads=1)
    examples = {"a": ["hello the", "hello"], "b": ["prove models", "prove"]}
    model, _ = OwnHeads(base, load_nothing).extend({"x": spec(type="examples", labels=examples)})
    model.warm_up()
    (plain,), (more,) = base.run([Prompt("hello")]), model.run([Prompt("hello")])
    assert {name: more.heads[name] for name in plain.heads} == plain.heads
    assert set(more.heads) == set(model.labels) > set(base.labels)
    assert more.version == model.version != base.version
    assert model.batch_tokens == base.batch_tokens


def test_without_such_signals_the_base_model_serves_itself() -> None:
    base = FakeModel({}, {"domain": ("law",)})
    assert OwnHeads(base, load_nothing).extend({"d": spec(type="classifier", head="domain")}) == (base, [])


def test_other_examples_are_another_head() -> None:
    one = ExamplesSignal.Params(labels={"a": ["x", "y"], "b": ["z", "w"]})
    other = ExamplesSignal.Params(labels={"a": ["x", "y"], "b": ["z", "v"]})
    assert one.head == ExamplesSignal.Params(labels={"a": ["x", "y"], "b": ["z", "w"]}).head != other.head


def test_a_users_classifier_answers_under_its_signal(tmp_path: Path) -> None:
    described = {"architectures": ["XForSequenceClassification"], "id2label": {"0": "SAFE", "1": "TOXIC"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    base = FakeModel({}, {"domain": ("law",)})
    guest = FakeModel({"bad": {"label": "TOXIC"}}, {"label": ("benign", "TOXIC")})
    params = {"path": str(tmp_path), "benign": "SAFE"}
    model, _ = OwnHeads(base, lambda _: guest).extend({"toxicity": spec(type="hugging_face", **params)})
    signal = HuggingFaceSignal(HuggingFaceSignal.Params(**params), {})
    assert signal.labels == ("benign", "TOXIC")
    for text, label in (("bad", "TOXIC"), ("fine", "benign")):
        value = signal.evaluate(inputs(model, text))
        assert value is not None
        assert value.label == label


@pytest.mark.parametrize(("kind", "points"), [("Token", True), ("Sequence", False)])
def test_a_users_token_classifier_points_at_what_can_be_masked(kind: str, points: bool, tmp_path: Path) -> None:
    described = {"architectures": [f"XFor{kind}Classification"], "id2label": {"0": "O", "1": "B-NAME"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert marks(HuggingFaceSignal(HuggingFaceSignal.Params(path=str(tmp_path)), {})) is points


def test_a_label_named_none_makes_no_token_classifier_of_it(tmp_path: Path) -> None:
    described = {"architectures": ["XForSequenceClassification"], "id2label": {"0": "none", "1": "injection"}}
    (tmp_path / "config.json").write_text(json.dumps(described))
    own = partial(HuggingFaceSignal.Params, path=str(tmp_path))
    signal = HuggingFaceSignal(own(), {})
    assert signal.labels == ("none", "injection")
    assert not marks(signal)
    with pytest.raises(ConfigMistakes, match="overlooked"):
        HuggingFaceSignal(own(reads="conversation"), {})
    guard = HuggingFaceSignal(own(reads="conversation", benign="none"), {})
    assert guard.labels == ("benign", "injection")
    with pytest.raises(ConfigMistakes) as caught:
        HuggingFaceSignal(own(benign="SAFE"), {})
    assert caught.value.mistakes[0].path == ("benign",)


def test_labels_of_one_token_are_those_of_their_type(tmp_path: Path) -> None:
    names = dict(enumerate(("O", "B-PER", "I-PER", "E-PER", "S-PER")))
    described = {"architectures": ["XForTokenClassification"], "id2label": names}
    (tmp_path / "config.json").write_text(json.dumps(described))
    assert HuggingFaceSignal(HuggingFaceSignal.Params(path=str(tmp_path)), {}).labels == ("none", "PER")


def test_a_folder_that_was_replaced_is_loaded_again(tmp_path: Path) -> None:
    loaded: list[Model] = []

    def load_one(params: HuggingFaceParams) -> Model:
        loaded.append(load_guest(params, device="cpu"))
        return loaded[-1]

    heads = OwnHeads(FakeModel({}, {"domain": ("law",)}), load_one)
    guest = sequence_classifier(tmp_path / "guest", labels=("SAFE", "TOXIC", "SPAM"))
    plain = {"toxicity": spec(type="hugging_face", path=str(guest))}
    first, (note,) = heads.extend(plain)
    assert heads.extend(plain)[0].version == first.version
    assert len(loaded) == 1
    digest = note.rpartition(" ")[2]
    pinned = {"toxicity": spec(type="hugging_face", path=str(guest), digest=digest)}
    heads.extend(plain | {"pinned": pinned["toxicity"]})
    shutil.rmtree(guest)
    sequence_classifier(guest, labels=("SAFE", "HATE", "SPAM"))
    with pytest.raises(ConfigMistakes, match="pinned"):
        heads.extend(pinned)
    second, _ = heads.extend(plain)
    assert second.version != first.version
    head = HuggingFaceParams(path=str(guest)).head
    assert second.labels[head] == HuggingFaceSignal(HuggingFaceParams(path=str(guest)), {}).labels
    assert set(second.run([Prompt("hello")])[0].heads[head].probs) == {"SAFE", "HATE", "SPAM"}


def test_what_an_earlier_configuration_reads_is_kept_and_not_loaded_again(tmp_path: Path) -> None:
    heads = OwnHeads(FakeModel({}, {"domain": ("law",)}), partial(load_guest, device="cpu"))
    guest = sequence_classifier(tmp_path / "guest")
    plain, warm = ({"toxicity": spec(type="hugging_face", path=str(guest), temperature=t)} for t in (1.0, 2.0))
    before, _ = heads.extend(plain)
    both, notes = heads.extend(warm, [plain])
    assert len(notes) == 1
    assert set(both.run([Prompt("hello")])[0].heads) == set(both.labels) > set(before.labels)
    shutil.rmtree(guest)
    model, notes = heads.extend({}, [plain])
    assert (model.version, notes) == (before.version, [])


def test_every_mistake_is_reported_where_it_stands(tmp_path: Path) -> None:
    specs = {
        "few": spec(type="examples", labels={"a": ["only one"], "b": ["x", "y"]}),
        "blind": spec(type="examples", labels={"a": ["x", "y"], "b": ["z", "w"]}),
        "broken": spec(type="hugging_face", path="/nowhere"),
    }
    with pytest.raises(ConfigMistakes) as caught:
        OwnHeads(FakeModel({}, {"domain": ("law",)}), load_nothing).extend(specs)
    found = {mistake.path[1]: mistake.message for mistake in caught.value.mistakes}
    assert set(found) == {"few", "blind", "broken"}
    assert "embeddings" in found["blind"]
    assert "broken" in found["broken"]
    with pytest.raises(ConfigMistakes, match=r"config\.json"):
        HuggingFaceSignal(HuggingFaceSignal.Params(path=str(tmp_path)), {})


def test_check_says_how_well_the_examples_do(tmp_path: Path) -> None:
    path = tmp_path / "router.yaml"
    path.write_text(CONFIG.format(proof="models"))
    model_dir = tiny_model_directory(tmp_path / "model")
    (note,) = review(load(path), model_dir)
    assert "of 4 examples are right when left out" in note
    path.write_text(CONFIG.format(proof="models") + "  own: {type: hugging_face, path: /nowhere}\n")
    with pytest.raises(ConfigError, match="nowhere"):
        review(load(path), model_dir)


def test_check_names_the_labels_that_are_confused_worst_first() -> None:
    near, far, odd = [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]
    examples = {"billing": [near, near, far, far], "refund": [near, near, near, far], "other": [odd, odd, odd]}
    line = describe("team", fit(examples))
    assert line.startswith("signal team: ")
    assert "of 11 examples are right when left out; " in line
    assert "billing taken for refund (" in line or "refund taken for billing (" in line
    assert "other taken" not in line


CONFIG = """
models:
  only: {{url: "http://127.0.0.1:9", price: {{input: 1, output: 1}}}}
default: only
signals:
  team:
    type: examples
    labels:
      greeting: [hello, hello the]
      proof: [prove, {proof}]
"""


async def test_new_examples_are_served_after_a_reload_and_bad_ones_are_refused(tmp_path: Path) -> None:
    base = encoder.load(tiny_model_directory(tmp_path / "model"), device="cpu", threads=1)
    engine = Engine(base)
    await engine.start()
    heads = OwnHeads(base, load_guest)
    path = tmp_path / "router.yaml"

    async def reload(proof: str) -> None:
        path.write_text(CONFIG.format(proof=proof))
        await heads.serve(engine, load(path))

    versions = [engine.version]
    for proof in ("prove the model", "models", "models"):
        await reload(proof)
        versions.append(engine.version)
        result = await engine.classify(Prompt("hello"), time.monotonic() + 30)
        (name,) = set(result.heads) - set(base.labels)
        assert set(result.heads[name].probs) == {"greeting", "proof"}
    assert versions[0] != versions[1] != versions[2] == versions[3]
    path.write_text(CONFIG.format(proof="models") + "  own: {type: hugging_face, path: /nowhere}\n")
    with pytest.raises(ConfigError, match="nowhere"):
        await heads.serve(engine, load(path))
    assert engine.version == versions[3]
    await engine.aclose()
