"""`models` of router.yaml: what a model is, who serves it, what it can take and how it is called."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from router_extproc.config.price import Price
from router_extproc.config.section import Name, Names, Section, one_or_many, without_user
from router_extproc.patterns import API_VERSION, ENVIRONMENT_VARIABLE, HEADER, MODEL_URL, PATH
from router_extproc.validation import shown


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
    passthrough: bool = Field(
        False,
        description="Send the client's own credential headers (`authorization`, `x-api-key`, `api-key`, "
        "`openai-organization`, `openai-project`) instead of a key of ours. Without `header` and `prefix`.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum((self.env is not None, self.file is not None, self.passthrough)) != 1:
            raise ValueError("give exactly one of env, file, passthrough: true")
        if self.passthrough and (self.header is not None or self.prefix is not None):
            raise ValueError("header and prefix are for a key of ours: with passthrough the client's go on as they are")
        return self


class Model(Section):
    """A logical LLM: one Envoy cluster, one name upstream, one price."""

    url: Annotated[str, without_user("the key goes into `auth`")] = Field(
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
        description="Models tried when this one fails and a client had named it, and no others. Default: the file's "
        "`default`, for embeddings none.",
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
