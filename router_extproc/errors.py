"""Everything that can go wrong with a request, in one tree.

RouterError
 +-- ClientError            the client's fault: its text reaches the client, in the shape of the API that was called
 |    +-- MalformedBody        400  not JSON, not an object, two model keys, a required field of the wrong type
 |    +-- UnknownModel         404  neither in the catalogue nor a virtual model
 |    +-- UnsupportedModel     400  the named model does not speak this API (or modality, or tools)
 |    +-- ContextTooLong       400  longer than every candidate's context window
 |    +-- BodyTooLarge         413  over the body cap
 |    +-- UnsupportedEncoding  415  a compressed body
 |    +-- GuardBlocked         403  a guard's policy says no (400 where the guard says so)
 |    +-- ModelForbidden       403  preferences or guards leave the user none of the models
 |    +-- BudgetSpent          429  a budget is spent; says when to come again
 |    +-- Unjudged             503  ours to answer for, but a guard with `on_error: block` lets nothing pass unread
 +-- Saturated               too many bytes are held; the default model serves, unrouted
 +-- ConfigError             a router.yaml that cannot be used; never reaches a client
 +-- ConfigMistakes          the same while it is compiled: paths into the document instead of lines of the file
 +-- inference.base.InferenceError   a signal that is absent; never reaches a client
 +-- stores.base.StoreError          what replicas share gave no answer; never reaches a client

Anything else that escapes is a bug: the client gets the default model, the log gets the traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class RouterError(Exception):
    """Root of all errors that this package raises on purpose."""


class ClientError(RouterError):
    """An error that the client may read. `param` names the offending field of the body, `code` is machine-readable."""

    status: int = 400
    code: str = "invalid_request"
    param: str | None = None

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if param is not None:
            self.param = param


class MalformedBody(ClientError):
    """The body is not what the API takes."""

    code = "malformed_body"


class UnknownModel(ClientError):
    """The model is neither in the catalogue nor virtual."""

    status = 404
    code = "model_not_found"
    param = "model"


class UnsupportedModel(ClientError):
    """No candidate can take a request of this kind (API, modality, tools)."""

    code = "model_not_supported"
    param = "model"


class ContextTooLong(ClientError):
    """The input (with the output limit asked for) is longer than every candidate's context window."""

    code = "context_length_exceeded"


class BodyTooLarge(ClientError):
    """The body is over `limits.max_body_bytes`."""

    status = 413
    code = "request_too_large"


class UnsupportedEncoding(ClientError):
    """The body is compressed, so nothing in it can be read."""

    status = 415
    code = "unsupported_content_encoding"


class GuardBlocked(ClientError):
    """A guard decided that this request goes nowhere. `guards` are those that held, the one that blocks last."""

    status = 403
    code = "blocked_by_policy"
    guards: tuple[str, ...] = ()


class ModelForbidden(ClientError):
    """The named model, or every candidate, is one that this user or request may not have."""

    status = 403
    code = "model_forbidden"
    param = "model"


class BudgetSpent(ClientError):
    """A budget of this request is spent. `retry_after` is in seconds: until it begins anew."""

    status = 429
    code = "budget_exceeded"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unjudged(ClientError):
    """Something of ours kept the request from being judged, and a guard wants it judged."""

    status = 503
    code = "not_judged"


class Saturated(RouterError):
    """The bodies held at once are over the process's bound. Never reaches a client."""


class ConfigError(RouterError):
    """A configuration that cannot be used. One message per mistake, each with `file:line: key: what is wrong`.

    `partly` says that these kept the rest from being checked.
    """

    def __init__(self, mistakes: list[str], *, partly: bool = False) -> None:
        super().__init__("\n".join((*mistakes, "more may follow when these are mended") if partly else mistakes))
        self.mistakes = mistakes


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in router.yaml. `path` leads to it from the document's root: `("routes", 2, "when")`."""

    path: tuple[str | int, ...]
    message: str


class ConfigMistakes(RouterError):
    """What a part of the configuration found wrong with itself; `LoadedConfig.error` adds file and line."""

    def __init__(self, mistakes: Sequence[Mistake]) -> None:
        super().__init__("; ".join(mistake.message for mistake in mistakes))
        self.mistakes = tuple(mistakes)
