"""The values that travel through a decision. All frozen: only `exchange.Exchange` changes while a request lives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, NamedTuple

Role = Literal["system", "user", "assistant", "tool"]

NOTHING: Mapping[str, float] = {}

MAX_PIECES = 1000
"""Different texts that one signal points at."""

MAX_CONSIDERED = 32
"""Models of which a decision says why they stand where they stand. A route by labels may have hundreds."""

BROKE_OFF = frozenset({"UC", "UR", "UPE", "LR", "UT", "UMSDR", "SI"})
"""Envoy's response flags of an answer that ended before its end: the model's server closed, reset or garbled it, or it
took too long. All else is known before an answer begins, or is the client's doing, or ours."""


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, as text. `text` holds what a person wrote or read: no JSON, no images."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class LlmRequest:
    """What a client asked for, read from the body without changing it.

    `prompt` is the newest human turn without what a coding agent injected, `context` the turns before it, oldest
    first. `tokens` is a cheap upper-side estimate of the whole input (about 4 characters each), `max_output_tokens`
    the client's own limit or None. `model_span` is the byte range of the model's JSON value (quotes included) in the
    body, or None when the body names no model. `model` is None then. `turns` counts the turns of a human, at least 1.
    `longest` estimates the tokens of the longest input where one request brings several that each have a context of
    their own, else it is None. `stateful` says that a part of the input is held by the provider that the conversation
    is with: a response, an item, a prompt or a file named by its id, or reasoning that it alone can read. `opening` is
    the beginning of the first human turn. `written` are texts that people, tools and documents brought beside the
    prompt, newest first, a bounded part of a long conversation; the first `fresh` of them came since the model last
    spoke. `thoughts` are what models thought in the turns before, oldest first. `unread` says that a part of the input
    is no text: token ids, or what a model made of a text. `client_session` is the session that a client names beside
    its user, of at most `account_names.MAX_ACCOUNT_NAME` characters.
    """

    api: str
    model: str | None
    model_span: tuple[int, int] | None
    prompt: str
    context: tuple[Turn, ...] = ()
    system: str = ""
    tokens: int = 0
    max_output_tokens: int | None = None
    stream: bool = False
    modalities: frozenset[str] = frozenset({"text"})
    has_tools: bool = False
    json_mode: bool = False
    turns: int = 1
    user: str | None = None
    stateful: bool = False
    longest: int | None = None
    opening: str = ""
    written: tuple[str, ...] = ()
    fresh: int = 0
    thoughts: tuple[str, ...] = ()
    unread: bool = False
    client_session: str = ""

    @property
    def context_tokens(self) -> int:
        """What has to fit a context window, the output apart."""
        return self.tokens if self.longest is None else self.longest


@dataclass(frozen=True, slots=True)
class SignalValue:
    """One named fact about a request.

    `label` is what the signal says ("code_generation", "urgent", "true"), `confidence` in [0, 1] is how sure it is
    (1.0 for facts such as keywords or headers), `value` a number where the signal is one (tokens, complexity in
    [0, 1]), `scores` the probability of every label of a classifier. `pieces` are the texts in the request that
    it points at (names, words): never to be logged. `partial` says that it did not find what it looks for, in the part
    of a text that it could read: to guards, such a signal is absent. `more` says that it found something, and that
    `pieces` may lack others: a part could not be read, or they are more than `MAX_PIECES`.
    """

    label: str
    confidence: float = 1.0
    value: float = 0.0
    scores: Mapping[str, float] = field(default_factory=lambda: NOTHING)
    pieces: tuple[str, ...] = field(default=(), repr=False)
    partial: bool = False
    more: bool = False


@dataclass(frozen=True, slots=True)
class SignalSet:
    """The signals that were ready at the deadline, and for the others why they are absent (late, overloaded...)."""

    values: Mapping[str, SignalValue]
    absent: Mapping[str, str] = field(default_factory=dict)


class Band(StrEnum):
    """Confidence range of a decision. `NAMED`: the client named a model, so nothing was classified for the choice."""

    RECOMMENDED = "recommended"
    FALLBACK = "fallback"
    DEFAULT = "default"
    NAMED = "named"


class Considered(NamedTuple):
    """What became of one model that a decision could have taken.

    `by` names what gave a candidate its place ("cost", "quality", "latency", "trial", "weighted"; "" for the order of
    the file) and `score` is that figure. The figures that the selection looked at: `quality` in [0, 1], `cost` in USD
    for this request, `latency` in seconds, `load` in recent picks. `out` says why a model was left out, "" if it was
    not.
    """

    model: str
    by: str = ""
    score: float | None = None
    quality: float | None = None
    cost: float | None = None
    latency: float | None = None
    load: float | None = None
    out: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """Which route matched, in which band, and the candidate models in order of preference (never empty).

    `fallbacks` come after the candidates in the plan, before the default models. `selection` names the way in which
    one of several candidates is chosen. Where `allowed` is a set, the plan holds no other models. Candidates that are
    `favourites` go before the others. `guards` are those that acted. `considered` are the candidates, best first, then
    the models that were left out, `MAX_CONSIDERED` at most. `sticky` routes keep a conversation on its model;
    `affinity` says what came of that: "new", "kept", "moved" or "away" (for this turn alone). `masked` are the texts
    that must not leave. Where `stand_ins` is false, as for embeddings, only models that the operator put beside its own
    may take their place. Where `ends` is true, no default models follow them in the plan.
    """

    route: str
    band: Band
    confidence: float
    candidates: tuple[str, ...]
    reason: str
    fallbacks: tuple[str, ...] = ()
    selection: str = "first"
    allowed: frozenset[str] | None = None
    favourites: frozenset[str] = frozenset()
    guards: tuple[str, ...] = ()
    considered: tuple[Considered, ...] = ()
    sticky: bool = False
    affinity: str = ""
    masked: tuple[str, ...] = field(default=(), repr=False)
    stand_ins: bool = True
    ends: bool = False


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a sender asked for beside the body, and who it is to the policy: nothing but words of the configuration, a
    time and a hash, so that it may be recorded.

    `prefer` is the client's `x-mom-prefer`, `member` the entry of `preferences.users` ("*" for somebody without one,
    None where no header tells), `user` a keyed hash of the user that the body names, `deadline` the client's
    `x-mom-deadline`. Empty where there is none.
    """

    prefer: str = ""
    member: str | None = None
    user: str = ""
    deadline: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """The models that Envoy shall try, in order: the pick first, then its fallbacks. Never empty, no duplicates."""

    models: tuple[str, ...]

    @property
    def pick(self) -> str:
        """The model of the first attempt."""
        return self.models[0]


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them. `cached` is the part of `input` that was served from its prompt cache,
    `cache_write` the part that was put there.

    `estimated` marks tokens that we reckoned ourselves because the provider sent no count, or not the whole of it.
    """

    input: int
    output: int
    cached: int = 0
    model: str = ""
    estimated: bool = False
    cache_write: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an exchange, from Envoy's access log.

    `status` is 0 when the client left before an answer. `model` is the catalogue model that answered (None when no
    upstream was reached), `attempts` counts upstream tries, times are seconds, `first_byte_seconds` is the time to
    the first byte of the answer, `flags` are Envoy's response flags ("DC", "UF", ...). `request_id` is Envoy's, which
    names an exchange that the sidecar never saw. `stream` says whether the answer streamed. `held` is what the request
    held of shared budgets, as admission wrote it. `plan` are the models of its plan, whoever
    made it; empty without one.
    """

    decision_id: str
    api: str
    status: int
    model: str | None
    attempts: int
    duration_seconds: float
    first_byte_seconds: float | None
    usage: Usage | None
    flags: str = ""
    route: str = ""
    band: str = ""
    details: str = ""
    request_id: str = ""
    tenant: str = ""
    stream: bool = False
    held: str = ""
    plan: tuple[str, ...] = ()

    @property
    def broken(self) -> bool:
        """Whether an answer had begun well and broke off, by no fault of the client's."""
        return 0 < self.status < 400 and not BROKE_OFF.isdisjoint(self.flags.split(","))

    @property
    def failed(self) -> bool:
        """Whether the model that was tried last is to blame, or too busy."""
        return self.status >= 500 or self.status == 429 or self.broken
