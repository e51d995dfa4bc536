"""The seam of client APIs: how a body is read while it arrives, and how errors look."""

from __future__ import annotations

from typing import Protocol

from router_extproc.domain import LlmRequest


class BodyReader(Protocol):
    """Reads one request body, chunk by chunk. One per exchange, on the event loop."""

    def feed(self, chunk: bytes) -> None:
        """Takes the next bytes. Raises MalformedBody as soon as the body cannot become valid.

        Also BodyTooLarge when one value of the body is too large to be held while it arrives.
        """

    def partial(self) -> LlmRequest | None:
        """The request as far as it is certain that a classification of it will be useful, else None.

        Returned when a human turn is complete though the body still arrives: speculative work may start from it.
        """

    def growing(self) -> str:
        """The readable text so far of a human turn that is still arriving, else "".

        Its beginning stays the same while the turn grows (up to a cap), so windows of it may be classified early.
        Whether they were part of the prompt shows only at the end: compare with the prompt of `finish`.
        """

    def arriving(self) -> LlmRequest | None:
        """The request as if the human turn that is still arriving ended with `growing()`; None without one."""

    def written(self) -> tuple[tuple[str, ...], int]:
        """`LlmRequest.written` and `fresh` so far: complete texts, which may be read while the rest arrives."""

    def estimate(self) -> tuple[int, bool | None]:
        """The tokens of what has arrived, and whether the answer shall stream, None while the body has not said it."""

    def complete(self) -> bool:
        """Whether the JSON object has ended: nothing but blanks may follow."""

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
