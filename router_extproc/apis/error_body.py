"""Error bodies in the shapes of the two API families."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

OPENAI_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    429: "rate_limit_error",
}
"""Status -> `type`. Any other 4xx is an invalid_request_error, any 5xx a server_error."""

ANTHROPIC_TYPES: Final[Mapping[int, str]] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""Status -> `type`. Any other 4xx is an invalid_request_error, any other 5xx an api_error."""


def openai_error(status: int, code: str, message: str, param: str | None) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`."""
    kind = OPENAI_TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    return _encode({"error": {"message": message, "type": kind, "param": param, "code": code}})


def anthropic_error(status: int, message: str, request_id: str) -> bytes:
    """`{"type": "error", "error": {"type", "message"}, "request_id"}`."""
    kind = ANTHROPIC_TYPES.get(status) or ("api_error" if status >= 500 else "invalid_request_error")
    return _encode({"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id})


def _encode(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
