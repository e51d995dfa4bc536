"""Answers to `GET /v1/models` and `GET /v1/models/{id}`, which SDKs and coding agents ask for."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import unquote

from router_extproc.apis.error_body import anthropic_error, openai_error

PATH: Final = "/v1/models"
OWNER: Final = "router-extproc"


CREATED: Final = 1_767_225_600
"""Unix time shown for every model, 2026-01-01: a catalogue has no dates, and replicas must not differ."""


@dataclass(frozen=True, slots=True)
class ModelsAnswer:
    """An answer with a JSON body."""

    status: int
    body: bytes


def answer_models(method: str, path: str, headers: Mapping[str, str], names: Collection[str]) -> ModelsAnswer | None:
    """The answer to a request about models, or None for any other.

    `headers` have lower-case names: `anthropic-version`, which that API requires of every client, tells the two
    shapes apart. `names` are the virtual models and the catalogue's, in the order to show. The whole list is one page:
    a catalogue is short, so the query (`limit`, `after_id`) is ignored.
    """
    route = path.partition("?")[0]
    name = unquote(route.removeprefix(PATH + "/"))
    if method != "GET" or (route != PATH and (not route.startswith(PATH + "/") or not name)):
        return None
    anthropic = "anthropic-version" in headers
    if route == PATH:
        return ModelsAnswer(200, _encode(_anthropic_list(list(names)) if anthropic else _openai_list(names)))
    if name in names:
        return ModelsAnswer(200, _encode(_anthropic_model(name) if anthropic else _openai_model(name)))
    message = f"The model '{name[:256]}' does not exist."
    if anthropic:
        return ModelsAnswer(404, anthropic_error(404, message, headers.get("x-request-id", "")))
    return ModelsAnswer(404, openai_error(404, "model_not_found", message, "model"))


def _openai_model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": CREATED, "owned_by": OWNER}


def _openai_list(names: Collection[str]) -> dict[str, Any]:
    return {"object": "list", "data": [_openai_model(name) for name in names]}


def _anthropic_model(name: str) -> dict[str, Any]:
    moment = datetime.fromtimestamp(CREATED, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"type": "model", "id": name, "display_name": name, "created_at": moment}


def _anthropic_list(names: Sequence[str]) -> dict[str, Any]:
    return {
        "data": [_anthropic_model(name) for name in names],
        "has_more": False,
        "first_id": names[0] if names else None,
        "last_id": names[-1] if names else None,
    }


def _encode(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
