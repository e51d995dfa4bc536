"""The client APIs by path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from router_extproc.apis.base import ClientApi
from router_extproc.apis.chat_completions import ChatCompletions
from router_extproc.apis.completions import Completions
from router_extproc.apis.embeddings import Embeddings
from router_extproc.apis.messages import Messages
from router_extproc.apis.responses import Responses

APIS: Final[Mapping[str, ClientApi]] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": Responses(),
    "/v1/embeddings": Embeddings(),
    "/v1/messages": Messages(),
}
"""Path, exactly, -> API."""


def for_path(path: str) -> ClientApi | None:
    """The API of a request path. The query is ignored; case and a trailing slash are not."""
    return APIS.get(path.partition("?")[0])
