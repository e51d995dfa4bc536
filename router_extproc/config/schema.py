"""The shape of router.yaml. One source for validation, JSON Schema and the configuration reference.

Only the structure is checked here. Names across sections (a route's models, a rule's signals, a classifier's labels)
and the parameters of plugins (signals, selections) are checked when the file is compiled into a `runtime.Runtime`.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from router_extproc.config.clock import Timezone, Window
from router_extproc.patterns import (
    API_VERSION,
    CEL_NAME,
    ENVIRONMENT_VARIABLE,
    FILE_BESIDE,
    HEADER,
    MODEL_URL,
    NAME,
    PATH,
    STORE_PREFIX,
    STORE_URL,
)
from router_extproc.validation import shown

Name = Annotated[str, Field(pattern=NAME)]
SignalName = Annotated[str, Field(pattern=CEL_NAME)]


def _without_user(instead: str) -> BeforeValidator:
    """Refuses a url with a user or password in it."""

    def checked(value: Any) -> Any:
        if isinstance(value, str) and "@" in value:
            # The value itself must not reach a message.
            raise ValueError(f"holds no user or password here: {instead}")
        return value

    return BeforeValidator(checked)


def one_or_many(value: Any) -> Any:
    """`models: small` is short for `models: [small]`."""
    return [value] if isinstance(value, str) else value


Names = Annotated[
    list[str],
    BeforeValidator(one_or_many),
    Field(min_length=1),
    WithJsonSchema(
        {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]},
        mode="validation",
    ),
]


def _candidate(value: Any) -> Any:
    labelled = isinstance(value, dict) and value and all(isinstance(label, str) for label in value.values())
    if isinstance(value, str) or labelled:
        return value
    raise ValueError("expected a model's name, or labels such as `{tier: light}`")


def _some_candidates(value: Any) -> Any:
    """`models: {tier: light}` is short for a list of one."""
    return [value] if isinstance(value, str | dict) else value


_LABELLED: dict[str, Any] = {"type": "object", "additionalProperties": {"type": "string"}, "minProperties": 1}
_CANDIDATE: dict[str, Any] = {"anyOf": [{"type": "string"}, _LABELLED]}

Candidates = Annotated[
    list[Annotated[Any, BeforeValidator(_candidate)]],
    BeforeValidator(_some_candidates),
    Field(min_length=1),
    WithJsonSchema({"anyOf": [*_CANDIDATE["anyOf"], {"type": "array", "items": _CANDIDATE, "minItems": 1}]}),
]
"""Models by name (str) or by labels (dict): `{tier: light}` stands for all models with that label, as catalogued."""


class Section(BaseModel):
    """Base of every section: unknown keys are errors, values never change after loading."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Api(StrEnum):
    """The client APIs. A request only goes to models that list its API: nothing is translated."""

    CHAT_COMPLETIONS = "chat_completions"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"


class Provider(StrEnum):
    """Who serves the model: sets the defaults of `apis`, of the paths and of how the key is sent."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    AZURE_OPENAI = "azure_openai"
    VLLM = "vllm"


def _known_provider(value: Any) -> Any:
    known = ", ".join(Provider)
    if isinstance(value, str) and value not in list(Provider):
        raise ValueError(
            f"`{shown(value)}` is not one of {known}: `openai` or `vllm` for any server that speaks OpenAI's API"
        )
    return value


SPOKEN: dict[Provider, tuple[Api, ...]] = {
    Provider.OPENAI: (Api.CHAT_COMPLETIONS, Api.COMPLETIONS, Api.RESPONSES, Api.EMBEDDINGS),
    Provider.ANTHROPIC: (Api.MESSAGES,),
    Provider.AZURE_OPENAI: (Api.CHAT_COMPLETIONS, Api.COMPLETIONS, Api.RESPONSES, Api.EMBEDDINGS),
    Provider.VLLM: (Api.CHAT_COMPLETIONS, Api.COMPLETIONS, Api.RESPONSES, Api.EMBEDDINGS),
}
"""The APIs of a model that lists none."""


class Modality(StrEnum):
    """Kinds of input that a model reads."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"
    FILE = "file"


_MODALITY: dict[str, Any] = {"enum": list(Modality)}

Modalities = Annotated[
    frozenset[Modality],
    BeforeValidator(one_or_many),
    WithJsonSchema({"anyOf": [_MODALITY, {"type": "array", "items": _MODALITY, "uniqueItems": True}]}),
]


class Auth(Section):
    """Where the provider's key comes from. It is read by Envoy itself and never appears in a config, log or metric."""

    env: str | None = Field(
        None,
        pattern=ENVIRONMENT_VARIABLE,
        description="Environment variable of the Envoy process that holds the key: its name, not the key.",
    )
    file: str | None = Field(None, description="File that holds the key, for instance a mounted Kubernetes secret.")
    header: str | None = Field(
        None,
        pattern=HEADER,
        description="Header that carries the key. Default by provider: `authorization`, `x-api-key` or `api-key`.",
    )
    prefix: str | None = Field(None, description="Text before the key, for instance `Bearer `. Default by provider.")
    passthrough: bool = Field(False, description="Send the client's own credential headers instead of a key of ours.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum((self.env is not None, self.file is not None, self.passthrough)) != 1:
            raise ValueError("give exactly one of env, file, passthrough: true")
        return self


class PriceWindow(Window):
    """A window of the week with other prices."""

    timezone: Timezone = Field("UTC", description="IANA name such as Europe/Paris.")
    input: Decimal | None = Field(None, ge=0, description="USD per million input tokens. Default: as always.")
    output: Decimal | None = Field(None, ge=0, description="USD per million output tokens. Default: as always.")
    cached_input: Decimal | None = Field(None, ge=0, description="USD per million cached tokens. Default: as always.")
    cache_write: Decimal | None = Field(None, ge=0, description="USD per million cache writes. Default: as always.")
    per_request: Decimal | None = Field(None, ge=0, description="USD per answered request. Default: as always.")


class Price(Section):
    """USD per million tokens."""

    input: Decimal = Field(ge=0, description="USD per million input tokens.")
    output: Decimal = Field(ge=0, description="USD per million output tokens.")
    cached_input: Decimal | None = Field(
        None,
        ge=0,
        description="USD per million input tokens that the provider's prompt cache served. Default: `input`.",
    )
    cache_write: Decimal | None = Field(
        None,
        ge=0,
        description="USD per million input tokens that were put into the provider's prompt cache. Default: `input`.",
    )
    per_request: Decimal = Field(Decimal(0), ge=0, description="USD per answered request, beside the tokens.")
    windows: list[PriceWindow] = Field(
        default_factory=list, description="Other prices at some hours; the first window that holds counts."
    )


class Model(Section):
    """A logical LLM: one Envoy cluster, one name upstream, one price."""

    url: Annotated[str, _without_user("the key goes into `auth`")] = Field(
        pattern=MODEL_URL,
        description="Where the provider answers: scheme, host, port and, where needed, a path prefix that replaces "
        "`/v1` (for instance https://api.openai.com/v1).",
    )
    provider: Annotated[Provider, BeforeValidator(_known_provider)] = Field(
        Provider.OPENAI, description="Sets defaults for apis, paths and auth header."
    )
    upstream_model: str | None = Field(
        None, min_length=1, max_length=256, description="The provider's name of the model. Default: our name."
    )
    cluster: Name | None = Field(None, description="Envoy cluster, one per model, never shared. Default: our name.")
    apis: list[Api] | None = Field(None, min_length=1, description="APIs that it speaks. Default by provider.")
    paths: dict[Api, Annotated[str, Field(pattern=PATH)]] = Field(
        default_factory=dict, description="Upstream path per API where it differs from the provider's usual one."
    )
    api_version: str | None = Field(
        None,
        pattern=API_VERSION,
        description="Azure OpenAI: the `api-version` query parameter. Anthropic: the `anthropic-version` header to "
        "send when the client sent none.",
    )
    auth: Auth | None = Field(None, description="The provider's key. Absent: no credential is sent at all.")
    price: Price = Field(description="What a token costs; routing by cost and the savings ledger rest on it.")
    context_window: int = Field(128_000, ge=1, description="Tokens of input and output together that it can hold.")
    modalities: Modalities = Field(frozenset({Modality.TEXT}), description="Kinds of input that it reads.")
    tools: bool = Field(True, description="Whether it can call tools.")
    json_mode: bool = Field(True, description="Whether it can be held to JSON output.")
    fallback: Names | None = Field(
        None,
        description="Models tried when this one fails and a client had named it. Default: the file's `default`, for "
        "embeddings none.",
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Free labels, for instance `tier: premium`.")
    quality: float | None = Field(
        None, ge=0, le=1, description="Share of requests that it answers well, by your own measure. Selections use it."
    )
    like: str | None = Field(
        None,
        description="The reference model (a label of the classifier's `win` head) that it resembles most: where a "
        "signal of that head is configured, quality is predicted for each prompt.",
    )

    @property
    def speaks(self) -> tuple[Api, ...]:
        """The APIs that may be sent to it."""
        return tuple(self.apis) if self.apis else SPOKEN[self.provider]


class SignalSpec(BaseModel):
    """A signal: its plugin type and that plugin's own parameters beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str = Field(description="Which plugin computes it.")

    @property
    def params(self) -> dict[str, Any]:
        """The plugin's parameters as written in the file."""
        return dict(self.model_extra or {})


class SelectionSpec(BaseModel):
    """How one of several candidates is chosen: the name of a selection, or `type` and its parameters beside it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    type: str

    @property
    def params(self) -> dict[str, Any]:
        """The selection's parameters as written in the file."""
        return dict(self.model_extra or {})

    @property
    def key(self) -> str:
        """Says the same for the same type and parameters: `best_within(price=0.01)`."""
        inside = ", ".join(f"{name}={value}" for name, value in sorted(self.params.items()))
        return f"{self.type}({inside})" if inside else self.type


def _named_selection(value: Any) -> Any:
    """`selection: cheapest` is short for `selection: {type: cheapest}`."""
    return {"type": value} if isinstance(value, str) else value


class Bands(Section):
    """Confidence thresholds, in [0, 1]. Above `recommended`: the route's models; above `fallback`: its fallback."""

    recommended: float = Field(0.9, ge=0, le=1)
    fallback: float = Field(0.7, ge=0, le=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.fallback > self.recommended:
            raise ValueError("fallback must not be above recommended")
        return self


class Route(Section):
    """One policy rule. The first whose `when` is true wins; its confidence then picks the band."""

    name: Name
    when: str = Field(min_length=1, max_length=4096, description="CEL expression over the signals and `request`.")
    models: Candidates = Field(description="Candidates in the recommended band, best first, by name or by label.")
    fallback: Candidates | None = Field(
        None, description="Candidates in the safe-fallback band, and further fallbacks of the plan."
    )
    require: dict[str, str] = Field(
        default_factory=dict,
        description="Labels that every model of the plan must have, fallbacks and default models too.",
    )
    bands: Bands | None = Field(None, description="Thresholds of this route. Default: the file's `bands`.")
    confidence: SignalName | None = Field(
        None,
        description="The signal whose confidence picks the band. Default: the least certain of the classifier signals "
        "that `when` reads; a rule that holds without any is certain.",
    )
    second_opinion: SignalName | None = Field(
        None,
        description="A signal that is asked when the confidence is not above `bands.recommended`. If it has the same "
        "label as the deciding signal, its confidence counts where it is higher; if it is sure of another label, the "
        "route is not taken.",
    )
    selection: Annotated[SelectionSpec, BeforeValidator(_named_selection)] = Field(
        SelectionSpec(type="first"), description="How one of several candidates is chosen."
    )
    sticky: bool = Field(
        False,
        description="A conversation (`sessions`) stays on the model that it is on while that is a candidate and the "
        "band is no worse than when it came there: prompt caches stay warm. Guards, preferences and filters go first.",
    )


class Prefer(StrEnum):
    """What matters most among the models that the policy allows: cost, quality, or time to the first byte."""

    CHEAP = "cheap"
    BEST = "best"
    FAST = "fast"


class Preference(Section):
    """What somebody wants, and what they may have."""

    prefer: Prefer | None = Field(
        None,
        description="What matters most: the band's candidates and their fallbacks are taken in this order instead of "
        "the route's `selection`.",
    )
    favourite: Candidates | None = Field(None, description="Models that go first where they are candidates.")
    only: Candidates | None = Field(None, description="No other models, for named ones and fallbacks too.")
    forbidden: Candidates | None = Field(None, description="Never these models.")


class Preferences(Section):
    """Who wants what. A request's own wish counts before its user's, and that before everyone's; what is allowed is
    what `everyone` and the user's entry both allow."""

    header: str | None = Field(
        None,
        pattern=HEADER,
        description="Request header that names the user or tenant. Set or strip it in front of the router: a client "
        "could name another one.",
    )
    users: dict[str, Preference] = Field(default_factory=dict, description="Preferences by that header's value.")
    users_file: str | None = Field(
        None,
        pattern=FILE_BESIDE,
        description="A file beside this one (another key of the same ConfigMap) with more `users`, so that others can "
        "keep them. It is watched too.",
    )
    everyone: Preference = Field(default_factory=Preference, description="Preferences, and the ceiling, of all.")
    client_header: bool = Field(True, description="Whether clients may ask with `x-mom-prefer: cheap | best | fast`.")


class UserTable(Section):
    """What stands in `preferences.users_file`."""

    users: dict[str, Preference] = Field(description="Preferences by the value of `preferences.header`.")


class GuardAction(StrEnum):
    """What a guard does when its rule holds."""

    BLOCK = "block"
    REROUTE = "reroute"
    MASK = "mask"
    TAG = "tag"


class OnError(StrEnum):
    """What a guard does when a signal that it needs is absent."""

    ALLOW = "allow"
    BLOCK = "block"


class Guard(Section):
    """A rule that stands before all routes and holds for named models too."""

    name: Name
    when: str = Field(min_length=1, max_length=4096, description="CEL expression, as in a route.")
    action: GuardAction = Field(
        description="`block`: refuse the request. `reroute`: only `models` may take it. `mask`: put asterisks over "
        "what the rule's signals point at (the `pii` head, keywords with `mark`) before the request leaves. `tag`: "
        "only say so."
    )
    on_error: OnError = Field(
        OnError.ALLOW,
        description="When a signal is absent. `allow`: as if the rule did not hold. `block`: a `reroute` or `tag` "
        "acts, a `block` or `mask` refuses the request.",
    )
    models: Candidates | None = Field(None, description="For `reroute`: the models that may take it.")
    status: Literal[400, 403] = Field(403, description="For `block`: the HTTP status.")
    message: str = Field(
        "This request is not allowed here.",
        min_length=1,
        max_length=500,
        description="For `block`: what the client reads.",
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.action is GuardAction.REROUTE) != (self.models is not None):
            raise ValueError("`models` belongs to the action reroute, and that needs it")
        return self


class Schedule(Window):
    """A window of the week in which some models are preferred, or expected to be used more or less."""

    name: Name
    timezone: Timezone = Field("UTC", description="IANA name such as Europe/Paris.")
    favourite: Candidates | None = Field(None, description="Models that go first where they are candidates.")
    scale: dict[str, Annotated[float, Field(ge=0, le=1000)]] = Field(
        default_factory=dict,
        description="Factor per model for whatever scales its replicas; exported as the gauge `mom.model.scale`, 1 "
        "outside of all windows.",
    )


class VirtualModel(Section):
    """A model name that clients send and that asks for routing."""

    prefer: Prefer | None = Field(None, description="What matters most to those who ask for this name.")

    routes: list[str] | None = Field(
        None, description="Names of the routes that apply, in the file's order. Default: all."
    )
    default: Names | None = Field(None, description="Default models under this name. Default: the file's `default`.")


class Limits(Section):
    """Bounds. Everything that a client can make grow has one."""

    max_body_bytes: int = Field(32 * 1024 * 1024, ge=1024, le=1024**3, description="Larger bodies get a 413.")
    deadline_ms: int = Field(
        250, ge=1, le=60_000, description="Milliseconds for all signals after the last byte of the body."
    )
    read_windows: int = Field(
        32,
        ge=1,
        le=512,
        description="Windows, of about 1,000 characters each, of texts beside the prompt that signals with `reads` "
        "read, newest first. What was read for an earlier request costs nothing.",
    )
    max_attempts: int = Field(3, ge=1, le=8, description="Models tried for one request, the pick included.")


class Retry(Section):
    """When an attempt counts as failed and the plan's next model is tried."""

    statuses: list[Annotated[int, Field(ge=400, le=599)]] = Field(
        [429], description="Upstream statuses that move on, besides every 5xx."
    )
    per_try_seconds: float | None = Field(
        None, gt=0, le=3600, description="Time for one attempt's response to complete. Default: no limit."
    )
    first_byte_seconds: float = Field(
        60, gt=0, le=3600, description="Time to an attempt's first byte; then the next model is tried."
    )
    total_seconds: float = Field(
        600, gt=0, le=86_400, description="Time for the whole exchange; above `first_byte_seconds`."
    )

    @model_validator(mode="after")
    def _time_for_the_next(self) -> Self:
        if self.total_seconds <= self.first_byte_seconds:
            raise ValueError(
                f"total_seconds ({self.total_seconds:g}) must be above first_byte_seconds "
                f"({self.first_byte_seconds:g}): else no other model is tried when one hangs"
            )
        return self


class Ledger(Section):
    """What the savings are counted against, and who they are counted for."""

    baseline: Name | None = Field(
        None,
        description="The model that would have answered everything. Default: the first of the file's `default`. The "
        "same number of tokens is assumed.",
    )
    router_per_query: Decimal = Field(
        Decimal(0), ge=0, description="USD that the router itself costs per query; taken off the savings."
    )
    tenant_header: str | None = Field(
        None,
        pattern=HEADER,
        description="Request header that names the tenant. Set or strip it in front of the router: a client could "
        "name another one.",
    )


class Sessions(Section):
    """What makes requests one conversation. The decision log has a hash of it, under a secret of the sidecar's, and
    sticky routes go by it."""

    headers: list[Annotated[str, Field(pattern=HEADER)]] = Field(
        ["x-session-id"], max_length=8, description="Request headers with an id of the conversation; the first counts."
    )
    conversation: bool = Field(
        True,
        description="Where no such header is sent: the user that the body names, the beginning of the system text and "
        "of the first human turn make up the conversation.",
    )
    sticky_seconds: float = Field(
        3600, gt=0, le=7 * 86_400, description="How long a conversation that does not go on keeps its model."
    )


class BudgetScope(StrEnum):
    """What has a budget of its own."""

    TENANT = "tenant"
    USER = "user"
    ROUTE = "route"
    TOTAL = "total"


class BudgetWindow(StrEnum):
    """When a budget begins anew. In UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class WhenSpent(StrEnum):
    """What happens to a request that no longer fits."""

    CHEAPEST = "cheapest"
    REFUSE = "refuse"


class Budget(Section):
    """A limit in US dollars or tokens. Estimated when a request is admitted, settled when it has ended."""

    name: Name
    per: BudgetScope = Field(
        BudgetScope.TOTAL,
        description="What has such a budget of its own: each tenant (`ledger.tenant_header`), each user (as the body "
        "names them: clients can make that up), each route, or all requests together.",
    )
    only: Names | None = Field(None, description="Tenants, users or routes that it holds for. Default: all.")
    window: BudgetWindow = Field(BudgetWindow.DAY, description="When it begins anew (UTC).")
    usd: Decimal | None = Field(None, gt=0, description="US dollars per window.")
    tokens: int | None = Field(None, gt=0, description="Input and output tokens per window.")
    cheaper_at: Decimal = Field(
        Decimal("0.8"), ge=0, le=1, description="From this part on the models of a plan are tried cheapest first."
    )
    when_spent: WhenSpent = Field(
        WhenSpent.CHEAPEST,
        description="`cheapest`: the plan's cheapest model alone goes on; `refuse`: 429 with Retry-After.",
    )

    @property
    def limit(self) -> Decimal:
        """Dollars or tokens per window."""
        return self.usd if self.usd is not None else Decimal(self.tokens or 1)

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.usd is None) == (self.tokens is None):
            raise ValueError("give either usd or tokens")
        return self


class Store(Section):
    """A Redis or Valkey server in which replicas share what budgets have spent and what the classifier has read. Read
    when the process starts: a change needs a restart."""

    url: Annotated[str, _without_user("give username, and password_env or password_file")] | None = Field(
        None,
        pattern=STORE_URL,
        description="`redis://host:6379/0`, or `rediss://` for TLS. `memory:` is a store inside the process, to try "
        "things out. Default: none, each replica keeps its own.",
    )
    username: str | None = Field(None, min_length=1, description="User name, where the server has users.")
    password_env: str | None = Field(
        None, pattern=ENVIRONMENT_VARIABLE, description="Environment variable that holds the password."
    )
    password_file: str | None = Field(
        None, min_length=1, description="File that holds the password; read for each connection, so that it can change."
    )
    ca_file: str | None = Field(
        None, min_length=1, description="Certificates that the server's must lead to. Default: the system's."
    )
    prefix: str = Field(
        "mom",
        pattern=STORE_PREFIX,
        description="Beginning of all keys, as `{mom}:`. Replicas that share have the same one.",
    )
    wait_ms: int = Field(
        10,
        ge=0,
        le=500,
        description="Milliseconds that a decision waits for the shared budgets, at most. 0: it never waits, and counts "
        "what other replicas admit a moment later.",
    )
    timeout_ms: int = Field(
        250, ge=10, le=10_000, description="Milliseconds without an answer after which the server counts as down."
    )
    budgets: bool = Field(True, description="Whether replicas share what budgets have spent.")
    classifications: bool = Field(
        True, description="Whether replicas share what the classifier said of texts, under hashes of these."
    )
    classification_seconds: int = Field(
        86_400, ge=1, le=2_592_000, description="How long the store keeps what the classifier said."
    )

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.password_env is not None and self.password_file is not None:
            raise ValueError("give either password_env or password_file")
        if self.ca_file is not None and not (self.url or "").startswith("rediss:"):
            raise ValueError("ca_file belongs to a rediss:// url")
        return self


class RouterConfig(Section):
    """The whole of router.yaml."""

    version: int = Field(1, ge=1, le=1, description="Version of this format.")
    models: dict[Name, Model] = Field(min_length=1, description="The catalogue.")
    signals: dict[SignalName, SignalSpec] = Field(default_factory=dict, description="Facts that rules can use.")
    routes: list[Route] = Field(default_factory=list, description="The policy; first match wins.")
    default: Names = Field(description="The premium default and its fallbacks: used when no route is certain enough.")
    bands: Bands = Field(default_factory=Bands, description="Confidence thresholds of all routes.")
    guards: list[Guard] = Field(default_factory=list, description="Rules before all routes, also for named models.")
    preferences: Preferences = Field(default_factory=Preferences)
    schedules: list[Schedule] = Field(default_factory=list, description="Preferred models by time.")
    virtual_models: dict[str, VirtualModel] = Field(
        default_factory=lambda: {"auto": VirtualModel()}, description="Model names that ask for routing."
    )
    limits: Limits = Field(default_factory=Limits)
    retry: Retry = Field(default_factory=Retry)
    ledger: Ledger = Field(default_factory=Ledger)
    sessions: Sessions = Field(default_factory=Sessions)
    budgets: list[Budget] = Field(default_factory=list, description="Limits on what requests may cost.")
    store: Store = Field(default_factory=Store)
    passthrough: bool = Field(
        False,
        description="Whether paths that are no LLM API go on to the host of the first default model, with the "
        "client's own headers and without a key of ours. No guard, budget or preference holds there, and a model's "
        "server may generate text at such a path. `false`: they get a 404.",
    )
