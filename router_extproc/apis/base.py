"""The seam of client APIs: how a body is read while it arrives, and how errors look."""

from __future__ import annotations

from typing import Protocol

from router_extproc.domain import LlmRequest


class BodyReader(Protocol):
    """Reads one request body, chunk by chunk. One per exchange, on the event loop."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises MalformedBody as soon as the body cannot become valid."""

    def partial(self) -> LlmRequest | None:
        """The request as far as it is certain that a classification of it will be useful, else None.

        Returned when a human turn is complete though the body still arrives: speculative work may start from it.
        """

    def finish(self) -> LlmRequest:
        """The whole request, after the last byte. Raises MalformedBody when the body is not what the API takes."""


class ClientApi(Protocol):
    """One client API. Stateless."""

    @property
    def name(self) -> str:
        """Its name in router.yaml, for instance `chat_completions`."""

    @property
    def path(self) -> str:
        """Its path, for instance `/v1/chat/completions`."""

    def reader(self) -> BodyReader:
        """A reader for one body."""

    def error(self, status: int, code: str, message: str, param: str | None, request_id: str) -> bytes:
        """A JSON body for an error, in the API's own shape."""
