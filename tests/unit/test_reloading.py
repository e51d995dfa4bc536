"""New configurations and new classifiers under load: good ones take over, others change nothing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio

from router_extproc.config.loader import load
from router_extproc.config.watcher import watch
from router_extproc.domain import LlmRequest
from router_extproc.inference import encoder
from router_extproc.inference.artifact import stamp
from router_extproc.inference.base import Prompt
from router_extproc.inference.engine import Engine
from router_extproc.reloading import Reloading
from router_extproc.router import Router
from router_extproc.runtime import Runtimes, compile_runtime
from router_extproc.selection.observed import Observed
from router_extproc.sessions import SessionKeys
from router_extproc.signals.base import SHIPPED
from router_extproc.signals.own_heads import OwnHeads, load_guest
from router_extproc.stores.affinity import MemoryAffinity
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import TINY_HEADS, tiny_model_directory

CONFIG = """
models:
  only: {url: "http://127.0.0.1:9", price: {input: 1, output: 1}}
default: only
signals:
  domain: {type: classifier, head: domain}
  team: {type: examples, labels: {greeting: [hello, hello the], proof: [prove, prove the model]}}
routes:
  - {name: law, when: 'domain.label == "law"', models: only}
"""


@dataclass
class Served:
    """What runs, and the files that it came from."""

    config: Path
    model: Path
    engine: Engine
    runtimes: Runtimes
    reloading: Reloading
    metrics: Metrics

    async def new_configuration(self, text: str) -> None:
        self.config.write_text(text)
        await self.reloading.configuration(partial(load, self.config))

    async def new_model(self) -> None:
        await self.reloading.classifier(partial(encoder.load, self.model, device="cpu", threads=1))

    def metric(self, name: str) -> int:
        lines = self.metrics.exposition().decode().splitlines()
        return int(sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name)))


@pytest_asyncio.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    model_dir = tiny_model_directory(tmp_path / "model", seed=1)
    config = tmp_path / "router.yaml"
    config.write_text(CONFIG)
    loaded = load(config)
    base = encoder.load(model_dir, device="cpu", threads=1)
    engine = Engine(base, remembered_windows=0)
    await engine.start()
    own_heads = OwnHeads(base, partial(load_guest, device="cpu"))
    await own_heads.serve(engine, loaded)
    metrics = Metrics()
    outliving = (Observed(), SessionKeys(), MemoryAffinity())
    runtimes = Runtimes(compile_runtime(loaded, {SHIPPED: engine.labels}, {SHIPPED: engine}, 1, *outliving))
    reloading = Reloading(loaded, runtimes, engine, own_heads, Recorder(metrics), outliving)
    yield Served(config, model_dir, engine, runtimes, reloading, metrics)
    metrics.close()
    await engine.aclose()


def soon() -> float:
    return time.monotonic() + 30


async def test_a_new_model_takes_over_under_load_without_a_failed_request(served: Served) -> None:
    stop = asyncio.Event()

    async def client(name: int) -> set[str]:
        versions = set()
        while not stop.is_set():
            answer = await served.engine.classify(Prompt(f"hello the model {name}"), soon())
            # Own heads are there all the time, fitted on whichever model answers.
            assert len(answer.heads) == len(TINY_HEADS) + 2
            versions.add(answer.version)
        return versions

    async with asyncio.TaskGroup() as group:
        clients = [group.create_task(client(i)) for i in range(4)]
        versions = [served.engine.version]
        for seed in (2, 3):
            tiny_model_directory(served.model, seed=seed)
            await served.new_model()
            versions.append(served.engine.version)
        stop.set()
    assert len(set(versions)) == 3
    assert set().union(*(task.result() for task in clients)) <= set(versions)
    assert served.runtimes.rejected is None
    assert served.runtimes.current.generation == 3
    assert served.engine.stats().failed == 0


async def test_a_broken_model_is_refused_and_the_old_one_serves(served: Served) -> None:
    version = served.engine.version
    for name in ("heads.json", "model.safetensors"):
        (served.model / name).write_bytes(b"rubbish")
        await served.new_model()
        assert served.runtimes.rejected is not None
        assert str(served.model) in served.runtimes.rejected
    assert served.engine.version == version
    assert (await served.engine.classify(Prompt("hello"), soon())).version == version
    assert served.runtimes.current.generation == 1
    tiny_model_directory(served.model, seed=2)
    await served.new_model()
    assert served.runtimes.rejected is None
    assert served.engine.version != version


async def test_a_model_without_what_the_policy_reads_is_refused(served: Served) -> None:
    version = served.engine.version
    heads = {name: head for name, head in TINY_HEADS.items() if name != "domain"}
    tiny_model_directory(served.model, heads=heads, seed=2)
    await served.new_model()
    assert served.runtimes.rejected is not None
    assert "has no head `domain`" in served.runtimes.rejected
    assert served.engine.version == version
    # With the policy that does not need it, it is taken.
    await served.new_configuration(CONFIG.split("signals:")[0])
    assert served.engine.version != version
    assert served.runtimes.rejected is None
    assert served.runtimes.current.generation == 3


async def test_a_configuration_that_reads_what_a_new_model_brings_is_taken_with_it(served: Served) -> None:
    await served.new_configuration(CONFIG.replace("head: domain", "head: topic"))
    assert "has no head `topic`" in str(served.runtimes.rejected)
    tiny_model_directory(served.model, heads=TINY_HEADS | {"topic": TINY_HEADS["domain"]}, seed=2)
    await served.new_model()
    assert served.runtimes.rejected is None
    assert served.runtimes.current.config.signals["domain"].params == {"head": "topic"}


@pytest.mark.parametrize("model_first", [True, False])
async def test_a_pair_that_changes_together_is_taken_together(served: Served, model_first: bool) -> None:
    heads = {"topic" if name == "domain" else name: head for name, head in TINY_HEADS.items()}
    tiny_model_directory(served.model, heads=heads, seed=2)
    new = CONFIG.replace("head: domain", "head: topic").replace("prove the model", "the model")
    stream = served.runtimes.current.router
    if model_first:
        await served.new_model()
        assert "has no head `domain`" in str(served.runtimes.rejected)
        await served.new_configuration(new)
    else:
        await served.new_configuration(new)
        assert "has no head `topic`" in str(served.runtimes.rejected)
        await served.new_model()
    assert served.runtimes.rejected is None
    assert served.runtimes.current.generation == 2
    for router in (stream, served.runtimes.current.router):
        assert (await signals(router))["team"]
    # Neither is tried again when the next one changes.
    await served.new_configuration(new + "limits: {deadline_ms: 100}\n")
    assert served.runtimes.current.generation == 3


async def signals(router: Router) -> dict[str, str]:
    """What a stream of this generation finds, by signal."""
    request = LlmRequest("chat_completions", "auto", None, "hello")
    found = router.signals(request, {}, await router.classify(Prompt("hello"), soon()))
    return {name: value.label for name, value in found.values.items()}


async def test_a_stream_keeps_the_own_heads_of_the_generation_that_it_began_with(served: Served) -> None:
    heads = len(served.engine.labels)
    stream = served.runtimes.current.router
    for other in ("prove the", "the model"):
        await served.new_configuration(CONFIG.replace("prove the model", other))
        await served.reloading.let_go()
        assert (await signals(stream)).keys() == {"domain", "team"}
        assert (await signals(served.runtimes.current.router)).keys() == {"domain", "team"}
    assert len(served.engine.labels) == heads + 1
    del stream
    await served.reloading.let_go()
    assert len(served.engine.labels) == heads
    assert (await signals(served.runtimes.current.router)).keys() == {"domain", "team"}


async def test_a_stream_that_never_ends_keeps_them_no_longer_than_an_exchange_may_take(served: Served) -> None:
    heads = len(served.engine.labels)
    await served.new_configuration(CONFIG + "retry: {first_byte_seconds: 0.001, total_seconds: 0.01}\n")
    stream = served.runtimes.current.router
    await served.new_configuration(CONFIG.replace("prove the model", "prove the"))
    await asyncio.sleep(0.01)
    await served.reloading.let_go()
    assert (await signals(stream)).keys() == {"domain"}
    assert len(served.engine.labels) == heads


async def test_the_gauge_is_0_as_long_as_anything_is_refused(served: Served) -> None:
    gauge = partial(served.metric, "mom_config_last_reload_successful")
    await served.new_configuration("models: {}")
    assert gauge() == 0
    # What is good of the other kind mends nothing.
    tiny_model_directory(served.model, seed=2)
    await served.new_model()
    assert served.runtimes.current.generation == 2
    assert gauge() == 0
    await served.new_configuration(CONFIG)
    assert gauge() == 1
    good = (served.model / "heads.json").read_bytes()
    (served.model / "heads.json").write_bytes(b"rubbish")
    await served.new_model()
    assert gauge() == 0
    (served.model / "heads.json").write_bytes(good)
    await served.new_model()
    assert gauge() == 1
    assert served.metric("mom_config_generation") == 3


async def test_a_refusal_is_told_until_the_very_thing_is_mended(served: Served) -> None:
    await served.new_configuration("models: {}")
    tiny_model_directory(served.model, seed=2)
    await served.new_model()
    assert "models" in str(served.runtimes.rejected)
    good = {name: (served.model / name).read_bytes() for name in ("heads.json", "model.safetensors")}
    (served.model / "heads.json").write_bytes(b"rubbish")
    await served.new_model()
    assert str(served.model) in str(served.runtimes.rejected)
    await served.new_configuration(CONFIG)
    assert "models:" not in str(served.runtimes.rejected)
    (served.model / "heads.json").write_bytes(good["heads.json"])
    await served.new_model()
    assert served.runtimes.rejected is None


async def test_the_same_model_again_changes_nothing(served: Served) -> None:
    version = served.engine.version
    os.utime(served.model / "heads.json")
    await served.new_model()
    assert served.engine.version == version
    assert served.runtimes.current.generation == 1


async def test_a_bug_while_loading_is_a_refusal_and_not_the_end_of_reloading(served: Served) -> None:
    def broken() -> encoder.BertClassifier:
        raise ZeroDivisionError("a bug")

    await served.reloading.classifier(broken)
    assert served.runtimes.rejected == "a bug"
    await served.new_configuration(CONFIG.replace("law]", "law]") + "limits: {deadline_ms: 100}\n")
    assert served.runtimes.current.config.limits.deadline_ms == 100


async def test_conversations_outlive_new_configurations_and_new_models(served: Served) -> None:
    _, keys, affinity = served.reloading._outliving
    await served.new_configuration(CONFIG + "limits: {deadline_ms: 100}\n")
    tiny_model_directory(served.model, seed=2)
    await served.new_model()
    router = served.runtimes.current.router
    assert served.runtimes.current.generation == 3
    assert router._keys is keys
    assert router._affinity is affinity


async def test_a_new_store_section_is_said_to_count_after_a_restart(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    await served.new_configuration(CONFIG + "limits: {deadline_ms: 100}\n")
    assert not [record for record in caplog.records if "after a restart" in record.message]
    await served.new_configuration(CONFIG + "store: {url: 'redis://h'}\n")
    assert [record for record in caplog.records if "after a restart" in record.message]
    assert served.runtimes.current.generation == 3


async def test_what_envoy_has_to_be_told_is_said_until_the_restart(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def told() -> list[str]:
        return [record.message for record in caplog.records if "restart Envoy" in record.message]

    await served.new_configuration(CONFIG + "bands: {recommended: 0.8}\n")
    await served.new_configuration(CONFIG.replace("input: 1", "input: 2"))
    assert told() == []
    assert served.runtimes.envoy is None
    await served.new_configuration(CONFIG + "retry: {first_byte_seconds: 5}\n")  # the sidecar tells it per request
    assert told() == []
    await served.new_configuration(CONFIG + "retry: {answer_seconds: 99}\n")
    assert len(told()) == 1
    assert "`router-extproc envoy`" in told()[0]
    assert "generation 5" in told()[0]
    # What Envoy runs is not known here, so a harmless change takes nothing back.
    await served.new_configuration(CONFIG + "retry: {answer_seconds: 99}\nbands: {recommended: 0.8}\n")
    assert len(told()) == 1
    assert served.runtimes.envoy == told()[0]


async def test_nothing_has_to_be_told_when_a_change_is_taken_back(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for url in ("http://127.0.0.1:8", "http://127.0.0.1:7"):
        await served.new_configuration(CONFIG.replace("http://127.0.0.1:9", url))
        assert served.runtimes.envoy is not None
    assert "generation 3" in (served.runtimes.envoy or "")
    await served.new_configuration(CONFIG.replace("input: 1", "input: 2"))
    assert served.runtimes.envoy is None
    assert any("generation 4 is for Envoy what this process began with" in each for each in caplog.messages)
    await served.new_configuration(CONFIG.replace("http://127.0.0.1:9", "http://127.0.0.1:8"))
    assert "generation 5" in str(served.runtimes.envoy)


async def test_a_bad_configuration_is_refused(served: Served) -> None:
    await served.new_configuration(CONFIG.replace("default: only", "default: nobody"))
    assert served.runtimes.rejected is not None
    assert "nobody" in served.runtimes.rejected
    assert served.runtimes.current.generation == 1


async def test_a_folder_that_is_being_copied_is_left_alone_until_it_rests(tmp_path: Path) -> None:
    directory = tiny_model_directory(tmp_path / "model", seed=1)
    looks = 0
    stamps = [stamp(directory), "a", "b", "c", "c", "c"]
    changed: list[int] = []

    def look(_: Path) -> str:
        nonlocal looks
        looks += 1
        return stamps[min(looks, len(stamps) - 1)]

    seen = asyncio.Event()

    async def on_change() -> None:
        changed.append(looks)
        seen.set()

    task = asyncio.create_task(watch(directory, on_change, interval=0.001, since=stamps[0], digest=look, settle=True))
    await asyncio.wait_for(seen.wait(), 20)
    assert changed == [4]
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def test_a_stamp_tells_writes_and_moved_links_apart(tmp_path: Path) -> None:
    one, two = (tiny_model_directory(tmp_path / str(seed), seed=seed) for seed in (1, 2))
    link = tmp_path / "current"
    link.symlink_to(one)
    stamps = [stamp(link), stamp(one)]
    assert stamps[0] == stamps[1] != ""
    link.unlink()
    link.symlink_to(two)
    assert stamp(link) != stamps[0]
    described = json.loads((one / "heads.json").read_text())
    (one / "heads.json").write_text(json.dumps(described) + " ")
    assert stamp(one) != stamps[0]
    shutil.rmtree(one)
    assert stamp(one) == ""
