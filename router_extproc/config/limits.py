"""`limits` and `retry` of router.yaml: how large, how long, how often."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from router_extproc.config.section import Section


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


LATE_SECONDS = 60.0
"""How late Envoy may be to end an exchange and to tell its outcome."""


class Retry(Section):
    """When an attempt counts as failed and the plan's next model is tried."""

    statuses: list[Annotated[int, Field(ge=400, le=599)]] = Field(
        [429], description="Upstream statuses that move on, besides every 5xx."
    )
    per_try_seconds: float | None = Field(
        None, gt=0, le=3600, description="Time for one attempt's response to complete. Default: no limit."
    )
    first_byte_seconds: float = Field(
        60,
        gt=0,
        le=3600,
        description="Time to the first byte of an attempt's answer that streams; then the next model is tried.",
    )
    answer_seconds: float | None = Field(
        None,
        gt=0,
        le=86_400,
        description="Longest that one attempt may take to begin an answer that does not stream, which is the time for "
        "all of it, or any answer while no sidecar says whether it streams; then the next model is tried. Default: "
        "half of `total_seconds`, at least `first_byte_seconds`.",
    )
    total_seconds: float = Field(
        600,
        gt=0,
        le=86_400,
        description="Time for the whole exchange; above `first_byte_seconds` and `answer_seconds`.",
    )

    @property
    def first_byte_ms(self) -> int:
        """The same in milliseconds, as Envoy takes it in a header; 0 would be no limit."""
        return max(1, round(self.first_byte_seconds * 1000))

    @property
    def attempt_seconds(self) -> float:
        """How long an attempt may take to begin its answer where nobody says that it streams."""
        return self.answer_seconds or max(self.total_seconds / 2, self.first_byte_seconds)

    @property
    def told_seconds(self) -> float:
        """How long after its decision an exchange's outcome may come; later nobody will tell it."""
        return self.total_seconds + LATE_SECONDS

    @model_validator(mode="after")
    def _time_for_the_next(self) -> Self:
        if self.total_seconds <= self.first_byte_seconds:
            raise ValueError(
                f"total_seconds ({self.total_seconds:g}) must be above first_byte_seconds "
                f"({self.first_byte_seconds:g}): else no other model is tried when one hangs"
            )
        if self.answer_seconds is None:
            return self
        if self.answer_seconds < self.first_byte_seconds:
            raise ValueError(
                f"answer_seconds ({self.answer_seconds:g}) must be at least first_byte_seconds "
                f"({self.first_byte_seconds:g}): an answer that does not stream takes longer to begin"
            )
        if self.answer_seconds >= self.total_seconds:
            raise ValueError(
                f"answer_seconds ({self.answer_seconds:g}) must be below total_seconds ({self.total_seconds:g}): "
                "else no other model is tried when one hangs"
            )
        return self
