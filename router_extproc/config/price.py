"""The `price` of a model in router.yaml: what its tokens cost, and what at some hours of the week."""

from __future__ import annotations

from decimal import Decimal

from pydantic import Field

from router_extproc.config.clock import Timezone, Window
from router_extproc.config.section import Section


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
