"""What each provider expects on the wire: which APIs, at which path, with which key header."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote, urlsplit

from router_extproc.config.model import Api, Model, Provider

API_PATHS: dict[Api, str] = {
    Api.CHAT_COMPLETIONS: "/v1/chat/completions",
    Api.COMPLETIONS: "/v1/completions",
    Api.RESPONSES: "/v1/responses",
    Api.EMBEDDINGS: "/v1/embeddings",
    Api.MESSAGES: "/v1/messages",
}
"""Where clients call each API."""

UNKNOWN_PATH = "no LLM API at this path and method; `passthrough: true` in router.yaml passes such requests on"
UNKNOWN_PATH_CODE = "unknown_url"
"""What a client reads at any other path, and the error's code, which is OpenAI's own."""

_KEY_HEADERS: dict[Provider, str] = {
    Provider.OPENAI: "authorization",
    Provider.ANTHROPIC: "x-api-key",
    Provider.AZURE_OPENAI: "api-key",
    Provider.VLLM: "authorization",
}

GEN_AI_PROVIDERS: dict[Provider, str] = {
    Provider.OPENAI: "openai",
    Provider.ANTHROPIC: "anthropic",
    Provider.AZURE_OPENAI: "azure.ai.openai",
    Provider.VLLM: "vllm",
}
"""OpenTelemetry's `gen_ai.provider.name`. It has none for vLLM."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a model answers. `address` says whether `host` is an IP address or a name that Envoy has to resolve."""

    host: str
    port: int
    tls: bool
    address: Literal["ip", "name"]

    @property
    def authority(self) -> str:
        """The Host header: without the scheme's usual port, IPv6 in brackets."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


def cluster_of(name: str, model: Model) -> str:
    """The Envoy cluster of a catalogue model."""
    return model.cluster or name


def upstream_name(name: str, model: Model) -> str:
    """What the provider calls the model."""
    return model.upstream_model or name


def endpoint_of(model: Model) -> Endpoint:
    """Host and port of a model. Raises ValueError when its url has no usable host or port."""
    try:
        url = urlsplit(model.url)
    except ValueError:
        raise ValueError(f"`{model.url}` has no usable host: IPv6 stands in brackets, `http://[::1]:8000`") from None
    if not url.hostname:
        raise ValueError(f"`{model.url}` has no host")
    tls = url.scheme == "https"
    try:
        port = url.port if url.port is not None else 443 if tls else 80
    except ValueError:
        port = 0
    if not port:
        raise ValueError(f"`{model.url}` has no usable port: it is a number from 1 to 65535")
    try:
        ipaddress.ip_address(url.hostname)
    except ValueError:
        return Endpoint(url.hostname, port, tls, "name")
    return Endpoint(url.hostname, port, tls, "ip")


def upstream_path(name: str, model: Model, api: Api) -> str:
    """Path of an API at the provider, with the query parameters that the provider needs.

    Azure OpenAI names the deployment in the path where an `api_version` is given, and takes OpenAI's own paths below
    `/openai/v1` where none is (https://learn.microsoft.com/azure/ai-foundry/openai/api-version-lifecycle).
    """
    if api in model.paths:
        return model.paths[api]
    prefix = urlsplit(model.url).path.rstrip("/")
    tail = API_PATHS[api].removeprefix("/v1")
    if model.provider is not Provider.AZURE_OPENAI:
        return (prefix or "/v1") + tail
    if model.api_version is None:
        return (prefix or "/openai/v1") + tail
    prefix = prefix or "/openai"
    if api is not Api.RESPONSES:
        prefix += f"/deployments/{quote(upstream_name(name, model), safe='')}"
    return f"{prefix}{tail}?api-version={model.api_version}"


def key_header(model: Model) -> tuple[str, str]:
    """The header that carries the provider's key, and the text before the key."""
    auth = model.auth
    header = auth.header if auth and auth.header else _KEY_HEADERS[model.provider]
    if auth is not None and auth.prefix is not None:
        return header, auth.prefix
    return header, "Bearer " if header == "authorization" else ""
