"""Conversations: which requests are one, what the log knows of it, and sticky routes."""

import asyncio
import math
import stat
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from router_extproc.admission import Admission
from router_extproc.apis.table import for_path
from router_extproc.budget_accounts import Accounts
from router_extproc.budgets import Budgets
from router_extproc.config.loader import parse
from router_extproc.config.sessions import Sessions
from router_extproc.domain import LlmRequest
from router_extproc.errors import ConfigError
from router_extproc.inference.base import Classified, HeadResult
from router_extproc.preferences import DEADLINE_HEADER
from router_extproc.router import Routed
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.sessions import SECRET_FILE, SessionKeys, session_secret
from router_extproc.stores.affinity import Kept, MemoryAffinity

REQUEST = LlmRequest("chat_completions", "auto", None, "and in Rust?", opening="Write a sort", system="Be brief")
HEADERS = {"x-session-id": "s-1"}


def key(request: LlmRequest = REQUEST, headers: dict[str, str] | None = None, tenant: str = "", **more: Any) -> str:
    return SessionKeys(b"secret").key(Sessions(**more), request, headers or {}, tenant)


def test_a_key_tells_conversations_apart_and_nothing_else() -> None:
    assert key() == key(replace(REQUEST, prompt="another turn", tokens=9000))
    others = [
        key(headers=HEADERS),
        key(headers={"x-session-id": "s-2"}),
        key(tenant="acme"),
        key(replace(REQUEST, opening="Write a poem")),
        key(replace(REQUEST, system="Be long")),
        key(replace(REQUEST, user="anna")),
        SessionKeys(b"another").key(Sessions(), REQUEST, {}, ""),
        SessionKeys().key(Sessions(), REQUEST, {}, ""),
    ]
    assert len({key(), *others}) == len(others) + 1
    assert all(len(found) == 24 and int(found, 16) for found in others)


def test_sessions_that_a_client_names_are_conversations_of_their_own() -> None:
    named = [replace(REQUEST, client_session=session) for session in ("", "d2e70091", "ffff0000")]
    assert len(set(map(key, named))) == 3


def test_a_header_counts_before_the_conversation_and_both_can_be_changed() -> None:
    assert key(headers=HEADERS) == key(replace(REQUEST, opening="x"), HEADERS)
    assert key(REQUEST, {"x-thread": "s-1"}) == key()
    assert SessionKeys(b"secret").key(Sessions(headers=["x-thread"]), REQUEST, {"x-thread": "s-1"}, "") == key(
        headers=HEADERS
    )
    assert key(conversation=False) == ""
    assert key(replace(REQUEST, opening="")) == ""


def test_a_line_that_a_client_writes_anew_for_each_request_does_not_count() -> None:
    first, second = (f"x-anthropic-billing-header: cc_version=2; cch={n};\nYou are an agent." for n in ("1a", "2b"))
    assert key(replace(REQUEST, system=first)) == key(replace(REQUEST, system=second))


def test_readers_tell_how_a_conversation_began() -> None:
    api = for_path("/v1/chat/completions")
    assert api is not None
    reader = api.reader()
    turns = ['{"role":"user","content":"<system-reminder>x</system-reminder>"}', '{"role":"user","content":"first"}']
    turns += ['{"role":"assistant","content":"a"},{"role":"user","content":"more"}'] * 20
    reader.feed(f'{{"model":"auto","messages":[{",".join(turns)}]}}'.encode())
    assert (reader.finish().opening, reader.finish().prompt) == ("first", "more")


def test_the_secret_is_made_once_and_kept_for_its_owner_alone(tmp_path: Path) -> None:
    made = session_secret(None, tmp_path / "state")
    assert made == session_secret(None, tmp_path / "state")
    assert made is not None
    assert len(made) == 32
    assert stat.S_IMODE((tmp_path / "state" / SECRET_FILE).stat().st_mode) == 0o600
    assert session_secret(None, None) is None
    given = tmp_path / "given"
    given.write_text("a secret of the operator\n", encoding="utf-8")
    assert session_secret(given, tmp_path / "state") != made
    given.write_text("short\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="at least 16 bytes"):
        session_secret(given, None)


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_map_of_conversations_forgets_by_time_and_by_number() -> None:
    async def story() -> None:
        clock = Clock()
        kept = MemoryAffinity(2, clock)
        for name in ("a", "b", "c"):
            kept.keep(name, Kept("m", "recommended"), 60)
        assert len(kept) == 2
        assert await kept.recall("a") is None
        assert await kept.recall("c") == Kept("m", "recommended")
        kept.keep("b", Kept("n", "fallback"), 60)
        kept.keep("d", Kept("m", "recommended"), 60)
        assert await kept.recall("b") == Kept("n", "fallback")
        assert await kept.recall("c") is None
        clock.now += 61
        assert await kept.recall("b") is None
        assert len(kept) == 1

    asyncio.run(story())


CONFIG = """
models:
  cheap: {url: "http://h:1", price: {input: 1, output: 1}, tools: false}
  good: {url: "http://h:2", price: {input: 3, output: 3}}
  other: {url: "http://h:3", price: {input: 2, output: 2}}
  premium: {url: "http://h:4", price: {input: 9, output: 9}}
signals:
  intent: {type: classifier, head: intent}
  talk: {type: keywords, any: [hello]}
routes:
  - name: code
    when: intent.label == "code"
    models: [cheap, good]
    fallback: other
    selection: cheapest
    sticky: true
  - {name: talk, when: 'talk.label == "true"', models: [other, good], STICKY}
  - {name: rest, when: "true", models: [other, good]}
default: premium
"""


class Sure:
    """Says `label` with `confidence`, whatever it reads."""

    labels: ClassVar = {"intent": ("chat", "code")}
    version = "1"
    label, confidence = "code", 0.97

    async def classify(self, prompt: object, deadline: float, patience: float = math.inf) -> Classified:
        probs = {"chat": 1 - self.confidence, "code": self.confidence}
        return Classified({"intent": HeadResult(self.label, self.confidence, probs)}, 3, "1")


def compiled(said: Sure, affinity: MemoryAffinity, sticky: bool = True, more: str = "") -> Runtime:
    text = (
        (CONFIG + more)
        .replace("STICKY", f"sticky: {str(sticky).lower()}")
        .replace("sticky: true", f"sticky: {str(sticky).lower()}")
    )
    heads = {"shipped": Sure.labels}
    loaded = parse(text.encode(), Path("router.yaml"))
    return compile_runtime(loaded, heads, {"shipped": said}, affinity=affinity, keys=SessionKeys(b"s"))


def turn(runtime: Runtime, **changes: Any) -> Routed:
    request = replace(REQUEST, tokens=100, **changes)
    routed = asyncio.run(runtime.router.route(request, HEADERS, time.monotonic() + 5))
    runtime.router.keep(routed)
    return routed


def test_a_conversation_stays_on_the_model_that_it_is_on() -> None:
    said, affinity = Sure(), MemoryAffinity()
    runtime = compiled(said, affinity)
    first = turn(runtime, has_tools=True)
    assert (first.plan.models, first.decision.affinity) == (("good", "other", "premium"), "new")
    second = turn(runtime)
    assert (second.plan.models, second.decision.affinity) == (("good", "cheap", "other"), "kept")
    assert second.decision.reason.endswith("; the conversation stays")
    # The next generation goes on where this one was.
    assert turn(compiled(said, affinity)).plan.pick == "good"
    # On another sticky route too, while it is a candidate there.
    said.label = "chat"
    assert turn(runtime, prompt="hello").plan.pick == "good"
    # A route that is not sticky knows nothing of it.
    assert turn(runtime).plan.pick == "other"
    assert turn(compiled(Sure(), affinity, sticky=False)).plan.pick == "cheap"
    assert turn(compiled(Sure(), MemoryAffinity())).plan.pick == "cheap"


def test_an_unsure_turn_goes_elsewhere_and_the_conversation_comes_back() -> None:
    said, affinity = Sure(), MemoryAffinity()
    runtime = compiled(said, affinity)
    turn(runtime, has_tools=True)
    said.confidence = 0.8
    unsure = turn(runtime)
    assert (unsure.plan.pick, unsure.decision.affinity) == ("other", "away")
    said.confidence = 0.97
    assert turn(runtime).plan.pick == "good"


def test_a_conversation_moves_when_its_model_cannot_go_on() -> None:
    runtime = compiled(Sure(), MemoryAffinity())
    assert turn(runtime).plan.pick == "cheap"
    moved = turn(runtime, has_tools=True)
    assert (moved.plan.pick, moved.decision.affinity) == ("good", "moved")
    assert turn(runtime).plan.pick == "good"


def test_a_turn_that_can_wait_goes_where_it_is_cheap_and_the_conversation_comes_back() -> None:
    runtime = compiled(Sure(), MemoryAffinity())

    def admitted(**headers: str) -> tuple[str, str]:
        request, sent = replace(REQUEST, tokens=100), {**HEADERS, **headers}
        routed = asyncio.run(runtime.router.route(request, sent, time.monotonic() + 5))
        routed = asyncio.run(Admission(Budgets(Accounts())).admit("a", routed, sent, "", runtime.config))
        runtime.router.keep(routed)
        return routed.plan.pick, routed.decision.affinity

    turn(runtime, has_tools=True)
    assert admitted() == ("good", "kept")
    assert admitted(**{DEADLINE_HEADER: "12h"}) == ("cheap", "away")
    assert admitted() == ("good", "kept")


def test_a_conversation_that_begins_with_a_turn_that_can_wait_goes_on_where_it_belongs() -> None:
    runtime = compiled(Sure(), MemoryAffinity())
    request = replace(REQUEST, tokens=100, has_tools=True)
    routed = asyncio.run(runtime.router.route(request, HEADERS, time.monotonic() + 5))
    assert (routed.plan.pick, routed.decision.affinity) == ("good", "new")
    headers = {**HEADERS, DEADLINE_HEADER: "12h"}
    routed = asyncio.run(Admission(Budgets(Accounts())).admit("a", routed, headers, "", runtime.config))
    assert (routed.plan.pick, routed.decision.affinity) == ("other", "away")
    runtime.router.keep(routed)
    assert turn(runtime).plan.pick == "good"


def test_a_conversation_that_a_budget_puts_elsewhere_has_moved() -> None:
    runtime = compiled(Sure(), MemoryAffinity(), more="budgets: [{name: day, usd: 1, cheaper_at: 0}]\n")
    turn(runtime, has_tools=True)
    routed = asyncio.run(runtime.router.route(replace(REQUEST, tokens=100), HEADERS, time.monotonic() + 5))
    assert (routed.plan.pick, routed.decision.affinity) == ("good", "kept")
    routed = asyncio.run(Admission(Budgets(Accounts())).admit("a", routed, HEADERS, "", runtime.config))
    assert (routed.plan.pick, routed.decision.affinity) == ("cheap", "moved")
    runtime.router.keep(routed)
    assert turn(runtime).plan.pick == "cheap"


def test_a_conversation_that_nobody_can_tell_is_not_kept() -> None:
    runtime = compiled(Sure(), MemoryAffinity())
    request = replace(REQUEST, opening="", tokens=100)
    for _ in range(2):
        routed = asyncio.run(runtime.router.route(request, {}, time.monotonic() + 5))
        runtime.router.keep(routed)
        assert (routed.session, routed.decision.affinity) == ("", "new")


STATE = """
models:
  small: {url: "http://vllm:1/v1", provider: vllm, price: {input: 1, output: 1}, tools: false}
  large: {url: "http://vllm:1/v1", provider: vllm, price: {input: 2, output: 2}}
  gpt: {url: "https://api.openai.com/v1", price: {input: 9, output: 9}}
  mini: {url: "https://api.openai.com/v1", price: {input: 3, output: 3}}
signals:
  talk: {type: keywords, any: [hello]}
  secret: {type: keywords, any: [secret]}
  sure: {type: keywords, any: [prove]}
routes:
  - {name: talk, when: 'talk.label == "true" && !request.stateful', models: [small, mini]}
  - {name: same, when: 'talk.label == "true"', models: [small, mini, large]}
  - {name: hard, when: 'sure.label == "true"', models: [gpt, small]}
guards:
  - {name: inside, when: 'secret.label == "true"', action: reroute, models: [large]}
default: [gpt, small, mini]
limits: {max_attempts: 8}
"""


def follow(runtime: Runtime, headers: dict[str, str] = HEADERS, **changes: Any) -> Routed:
    request = replace(REQUEST, api="responses", tokens=100, **changes)
    routed = asyncio.run(runtime.router.route(request, headers, time.monotonic() + 5))
    runtime.router.keep(routed)
    return routed


def test_a_request_goes_to_the_provider_that_holds_a_part_of_it() -> None:
    runtime = compile_runtime(parse(STATE.encode(), Path("router.yaml")), {}, {}, keys=SessionKeys(b"s"))
    # Nobody knows who holds it: a default model, and others of that provider.
    unknown = follow(runtime, prompt="hello", stateful=True)
    assert unknown.plan.models == ("gpt", "mini")
    assert unknown.decision.route == "same"
    assert unknown.decision.reason.endswith("a part of it lies with a provider")
    assert {row.model: row.out for row in unknown.decision.considered}["large"] == "another provider"
    # Where the conversation is known it goes on there, whatever its turn is about.
    assert follow(runtime, prompt="hello").plan.pick == "small"
    assert follow(runtime, prompt="prove it", stateful=True).plan.models == ("small",)
    assert follow(runtime, prompt="hello", stateful=True).plan.models == ("small", "large")
    assert follow(runtime, {"x-session-id": "s-2"}, prompt="hello", stateful=True).plan.pick == "gpt"
    # Another model of the provider where the one that answered cannot go on.
    assert follow(runtime, prompt="hello", stateful=True, has_tools=True).plan.models == ("large",)
    assert follow(runtime, prompt="hello", stateful=True).plan.models == ("large", "small")
    # What a client names and what a guard demands count first.
    assert follow(runtime, model="mini", stateful=True).plan.models == ("mini", "gpt")
    assert follow(runtime, prompt="secret", stateful=True).plan.models == ("large",)
    # A request that says all there is to say is routed as ever.
    assert follow(runtime, prompt="prove it").plan.models == ("gpt", "small", "mini")
