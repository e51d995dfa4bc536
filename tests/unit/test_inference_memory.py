"""When two texts are one to the classifier, and what replicas tell each other about it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_extproc.inference.answers import packed, unpacked
from router_extproc.inference.base import Classified, DeadlineExceeded, HeadResult, Prompt, Span
from router_extproc.inference.encoder import load
from router_extproc.inference.engine import Engine
from router_extproc.inference.folding import folded
from router_extproc.inference.memory import WindowMemory, key_for, keys_of
from router_extproc.shared_answers import MAX_LOOKUPS, MAX_WAITING, SharedAnswers
from router_extproc.stores.base import Store, StoreError
from router_extproc.stores.memory import MemoryStore
from router_extproc.testing import FakeModel, tiny_model_directory
from tests.engines import GatedModel, queued, serving, soon

LABELS = {"intent": ("chat", "code"), "pii": ("none", "EMAIL")}
INTENT = {"intent": ("chat", "code")}
FOUND = HeadResult("EMAIL", 0.97, {"EMAIL": 0.97}, spans=(Span(3, 9, "EMAIL", 0.97),))
NOTHING = HeadResult("none", 0.99, {})


def answer(pii: HeadResult = NOTHING, version: str = "v1") -> Classified:
    return Classified(
        {"intent": HeadResult("code", 0.75, {"chat": 0.25, "code": 0.75}), "pii": pii}, 12, version, 3.0, 4.0, 5, [0.1]
    )


def same(one: str, other: str, *, folds: bool = True) -> bool:
    keys = [keys_of("v1", Prompt(text), folds=folds) for text in (one, other)]
    return bool(set(keys[0]) & set(keys[1]))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("Hello  World", "hello world", True),
        ("def f():\n\treturn 1\r\n", "def f():  return 1", True),
        (" padded ", "padded", True),
        ("Straße", "straße", True),
        ("ÄPFEL", "äpfel", False),  # beyond ASCII lower case has rules of its own
        ("a b", "ab", False),
        ("a\u00a0b", "a b", False),
        ("a\x1cb", "a b", False),  # a control character, which the tokenizer drops
        ("caf\u00e9", "cafe\u0301", False),
        ("Is it?", "Is it", False),
    ],
)
def test_what_folding_makes_alike(one: str, other: str, alike: bool) -> None:
    assert same(one, other) is alike
    assert not same(one, other, folds=False)


def test_version_text_and_context_are_told_apart() -> None:
    prompts = [Prompt("a", "b"), Prompt("ab", ""), Prompt("", "ab"), Prompt("b", "a"), Prompt("a:b")]
    keys = {key for prompt in prompts for version in ("v1", "v2") for key in keys_of(version, prompt, folds=True)}
    assert len(keys) == len(prompts) * 2 * 2
    assert keys_of("v1", Prompt("\ud800"), folds=True) != keys_of("v1", Prompt("\ud801"), folds=True)


@given(st.text(max_size=60))
@example("ΣΑΣ\nİ  x")
def test_folding_twice_changes_nothing(text: str) -> None:
    assert folded(folded(text)) == folded(text)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_directory(tmp_path_factory.mktemp("models") / "tiny")


@given(text=st.text(alphabet="aB \t\r\n.é{S\u0301\u00a0Ω", max_size=40))
def test_a_model_that_folds_gives_texts_that_are_one_the_same_tokens(tiny: Path, text: str) -> None:
    from router_extproc.inference.tokens import TokenWindows

    tokens = TokenWindows(tiny / "tokenizer.json", 32)
    assert tokens.folds
    assert [row.ids for row in tokens.encode([Prompt(text)])] == [
        row.ids for row in tokens.encode([Prompt(folded(text))])
    ]


def test_the_shipped_kind_of_model_folds_and_gives_the_same_answer(tiny: Path) -> None:
    model = load(tiny, device="cpu")
    assert model.folds
    one, other = model.run([Prompt("Prove  THE model", "Hello"), Prompt("prove the\nmodel", "hello ")])
    for name, head in one.heads.items():
        assert head.label == other.heads[name].label
        assert head.probs == pytest.approx(other.heads[name].probs, abs=1e-3)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (Prompt("hello" + " " * 500 + "prove the models"), Prompt("hello prove the models")),
        (Prompt("a", "hello prove" + "\n" * 2000 + "models"), Prompt("a", "hello prove models")),
    ],
    ids=["blanks in the text", "blanks in the context"],
)
def test_texts_that_share_an_answer_would_each_get_the_same(tiny: Path, one: Prompt, other: Prompt) -> None:
    model = load(tiny, device="cpu", dtype="float32")
    assert keys_of("v1", one, folds=model.folds)[0] == keys_of("v1", other, folds=model.folds)[0]
    first, second = model.run([one, other])
    assert first.tokens == second.tokens
    for name, head in first.heads.items():
        assert head.probs == pytest.approx(second.heads[name].probs, abs=1e-5)


@pytest.mark.parametrize("token", ["[MASK]", "[SEP]", "[CLS]", "[PAD]"])
def test_a_special_token_in_a_prompt_is_plain_text(token: str) -> None:
    from router_extproc.inference.tokens import TokenWindows

    tokens = TokenWindows(Path(__file__).parents[2] / "models" / "router-minilm" / "tokenizer.json", 32)
    assert tokens.folds
    one, other = tokens.encode([Prompt(f"say {token}"), Prompt(f"say {token.lower()}")])
    assert one.ids == other.ids


def test_a_model_with_tokens_of_its_own_does_not_fold(tiny: Path, tmp_path: Path) -> None:
    from router_extproc.inference.tokens import TokenWindows

    described = json.loads((tiny / "tokenizer.json").read_text())
    own = {"id": 0, "content": "NVDA", "special": False, "normalized": False}
    own |= dict.fromkeys(("single_word", "lstrip", "rstrip"), False)
    described["model"]["vocab"]["NVDA"] = own["id"] = len(described["model"]["vocab"])
    described["added_tokens"] = [*described.get("added_tokens", []), own]
    (tmp_path / "tokenizer.json").write_text(json.dumps(described))
    tokens = TokenWindows(tmp_path / "tokenizer.json", 32)
    one, other = tokens.encode([Prompt("buy NVDA"), Prompt("buy nvda")])
    assert one.ids != other.ids
    assert not tokens.folds


def test_spans_are_remembered_for_the_text_as_it_stands_alone() -> None:
    memory = WindowMemory(10)
    keys = keys_of("v1", Prompt("to A@b.de"), folds=True)
    memory.keep(key_for(answer(FOUND), keys), answer(FOUND))
    assert memory.recall(keys) is not None
    assert memory.recall(keys_of("v1", Prompt("to  a@b.de"), folds=True)) is None
    memory.keep(key_for(answer(), keys), answer())
    assert memory.recall(keys_of("v1", Prompt("to  a@b.de"), folds=True)) is not None


def test_an_answer_survives_being_packed() -> None:
    for found in (answer(), answer(FOUND)):
        content = packed(found, LABELS)
        assert unpacked(content, "v1", LABELS) == replace(found, queue_ms=0, run_ms=0, batch_size=0, embedding=())
        assert len(content) < 200


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"null", b"[1]", b"[2,1,{}]", b"[1,1,{}]", b"\xff", b"[" * 5000]
    + [
        json.dumps([1, 1, {"intent": intent, "pii": [0, 0.9, 0, {}, []]}]).encode()
        for intent in (
            None,
            [7, 0.5, 0, [0.5, 0.5], []],
            [0, 0.5, 0, [0.5], []],
            [0, "x", 0, [0.5, 0.5], []],
            [0, 1, 0, 5, 5],
        )
    ],
)
def test_what_is_no_answer_of_this_model_is_nothing(content: bytes) -> None:
    assert unpacked(content, "v1", LABELS) is None


class Talkative(MemoryStore):
    """Tells what it was asked, and waits or fails as a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.down = False
        self.gate: asyncio.Event | None = None
        self.asked: list[str] = []

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self.asked += keys
        if self.gate is not None:
            await self.gate.wait()
        if self.down:
            raise StoreError("down", "no connection")
        return await super().get(keys)

    async def put(self, values: Mapping[str, bytes], seconds: int) -> None:
        if self.down:
            raise StoreError("down", "no connection")
        await super().put(values, seconds)


@asynccontextmanager
async def sharing(store: Store) -> AsyncIterator[SharedAnswers]:
    shared = SharedAnswers(store, 60)
    shared.start()
    try:
        yield shared
    finally:
        await shared.aclose()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.001)


async def test_what_one_replica_has_read_the_other_need_not() -> None:
    store = Talkative()
    first = FakeModel({"secret text": {"intent": "code"}}, INTENT)
    async with sharing(store) as shared, serving(Engine(first, elsewhere=shared)) as engine:
        read = await engine.classify(Prompt("secret text", "before"), soon())
        await until(lambda: bool(store._values))
    kept = repr(store._values) + repr(store.asked)
    assert "secret" not in kept
    assert "before" not in kept
    second = GatedModel(version="fake-1")
    async with sharing(store) as shared, serving(Engine(second, elsewhere=shared)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await second.busy()
        # The classifier is held up: only the store can have answered. The job has left the queue.
        known = await engine.classify(Prompt("secret text", "before"), soon())
        assert known.heads["intent"].label == read.heads["intent"].label == "code"
        assert known.heads["intent"].probs == pytest.approx(read.heads["intent"].probs, abs=1e-6)
        assert (known.version, known.embedding) == (read.version, ())
        assert engine.stats().queued == 0
        await engine.classify(Prompt("secret text", "before"), soon())
        stats = engine.stats()
        assert (stats.shared, stats.remembered) == (1, 1)
        second.gate.set()
        await running
        await until(lambda: engine.stats().unshared == 1)
    assert second.seen == ["running"]


async def test_what_the_store_says_first_counts_for_all_who_wait_for_the_window() -> None:
    store = Talkative()
    async with sharing(store) as shared, serving(Engine(FakeModel({}, INTENT), elsewhere=shared)) as engine:
        await engine.classify(Prompt("same text"), soon())
        await until(lambda: bool(store._values))
    store.gate = asyncio.Event()
    store.asked.clear()
    second = GatedModel(version="fake-1")
    async with sharing(store) as shared, serving(Engine(second, elsewhere=shared)) as engine:
        first = asyncio.create_task(engine.classify(Prompt("same text"), soon()))
        await second.busy()
        # It runs, and is waited for; the store is asked once.
        others = [asyncio.create_task(engine.classify(Prompt("same text"), soon())) for _ in range(3)]
        await until(lambda: engine.stats().texts == 4)
        first.cancel()
        store.gate.set()
        # The classifier is still held up: only the store can have answered, though who asked it has gone.
        assert {(await other).heads["intent"].label for other in others} == {"chat"}
        assert len(store.asked) == 1
        assert engine._asked == {}
        second.gate.set()
        await until(lambda: engine.stats().windows == 1)
        assert (engine.stats().shared, engine.stats().failed) == (1, 0)
    assert isinstance((await asyncio.gather(first, return_exceptions=True))[0], asyncio.CancelledError)


async def test_a_pass_that_fails_after_the_store_has_answered_is_nobodys_trouble() -> None:
    store = Talkative()
    async with sharing(store) as shared, serving(Engine(FakeModel({}, INTENT), elsewhere=shared)) as engine:
        await engine.classify(Prompt("poison"), soon())
        await until(lambda: bool(store._values))
    second = GatedModel(version="fake-1", poison="poison")
    store.gate = asyncio.Event()
    async with sharing(store) as shared, serving(Engine(second, elsewhere=shared)) as engine:
        first = asyncio.create_task(engine.classify(Prompt("poison"), soon()))
        await second.busy()
        other = asyncio.create_task(engine.classify(Prompt("poison"), soon()))
        await until(lambda: engine.stats().texts == 2)
        store.gate.set()
        assert [(await each).heads["intent"].label for each in (first, other)] == ["chat", "chat"]
        second.gate.set()
    assert engine.stats().failed == 0


async def test_the_classifier_does_not_wait_for_the_store() -> None:
    store = Talkative()
    store.gate = asyncio.Event()
    async with sharing(store) as shared, serving(Engine(FakeModel({}, LABELS), elsewhere=shared)) as engine:
        for number in range(2 * MAX_LOOKUPS):
            await engine.classify(Prompt(f"text {number}"), soon())
        assert len(store.asked) == MAX_LOOKUPS
        store.gate.set()
        await until(lambda: engine.stats().unshared == 2 * MAX_LOOKUPS)
        assert (await engine.classify(Prompt("text 0"), soon())).heads["intent"].label == "chat"


async def test_a_store_that_is_down_makes_no_difference() -> None:
    store, states = Talkative(), list[bool]()
    store.down = True
    shared = SharedAnswers(store, 60, states.append)
    shared.start()
    async with serving(Engine(FakeModel({}, LABELS), elsewhere=shared)) as engine:
        for number in range(5):
            await engine.classify(Prompt(f"text {number}"), soon())
        await until(lambda: shared.dropped == 5)
        assert states == [False]
        store.down = False
        await engine.classify(Prompt("another"), soon())
        await until(lambda: states == [False, True])
        assert engine.stats().shared == 0
    await shared.aclose()


async def test_answers_that_wait_to_be_written_are_bounded() -> None:
    shared = SharedAnswers(MemoryStore(), 60)
    for number in range(MAX_WAITING + 5):
        shared.keep(b"%d" % number, answer(), LABELS)
    assert shared.dropped == 5


async def test_long_texts_take_from_the_store_what_it_has() -> None:
    store = MemoryStore()
    text = " ".join(f"sentence number {number}." for number in range(400))
    model = FakeModel({}, INTENT)
    async with sharing(store) as shared, serving(Engine(model, elsewhere=shared)) as engine:
        whole = await engine.classify(Prompt(text), soon())
        await until(lambda: len(store._values) == whole.windows)
    second = GatedModel(version="fake-1")
    gone = next(iter(store._values))
    del store._values[gone]
    async with sharing(store) as shared, serving(Engine(second, elsewhere=shared)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await second.busy()
        again = asyncio.create_task(engine.classify(Prompt(text), soon()))
        await until(lambda: engine.stats().shared == whole.windows - 1)
        await queued(engine, 1)
        second.gate.set()
        assert (await again).windows == whole.windows
        await running
    assert len(second.seen) == 2


async def test_a_caller_that_has_gone_or_is_late_is_no_trouble() -> None:
    store, model = Talkative(), GatedModel(version="fake-1")
    store.gate = asyncio.Event()
    async with sharing(store) as shared, serving(Engine(model, elsewhere=shared)) as engine:
        running = asyncio.create_task(engine.classify(Prompt("running"), soon()))
        await model.busy()
        gone = asyncio.create_task(engine.classify(Prompt("gone"), soon()))
        await queued(engine, 1)
        gone.cancel()
        with pytest.raises(DeadlineExceeded):
            await engine.classify(Prompt("late"), soon(0.01))
        store.gate.set()
        model.gate.set()
        await running
        await until(lambda: engine.stats().unshared == 3)
    assert isinstance((await asyncio.gather(gone, return_exceptions=True))[0], asyncio.CancelledError)


async def test_another_version_knows_nothing_of_it() -> None:
    store = MemoryStore()
    async with sharing(store) as shared:
        async with serving(Engine(FakeModel({}, LABELS, version="v1"), elsewhere=shared)) as engine:
            await engine.classify(Prompt("text"), soon())
            await until(lambda: bool(store._values))
        async with serving(Engine(FakeModel({}, LABELS, version="v2"), elsewhere=shared)) as engine:
            await engine.classify(Prompt("text"), soon())
            await until(lambda: engine.stats().unshared == 1)
