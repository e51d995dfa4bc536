"""The shape of a cost plan: traffic, a mixture of models and the single model that it is compared with."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from router_extproc.config.loader import parse_as, read
from router_extproc.config.price import Price
from router_extproc.config.section import Section


def _percent(value: Any) -> Any:
    """`35%` is short for 0.35."""
    if isinstance(value, str) and value.endswith("%"):
        try:
            return Decimal(value[:-1]) / 100
        except InvalidOperation:
            raise ValueError(f"`{value}` is not a percentage") from None
    return value


Share = Annotated[Decimal, BeforeValidator(_percent), Field(gt=0, le=1)]
Usd = Annotated[Decimal, Field(ge=0)]


class Per(StrEnum):
    """What the traffic's number of queries is counted over."""

    ONCE = "once"
    DAY = "day"
    MONTH = "month"


class Traffic(Section):
    """How many queries there are."""

    queries: int = Field(ge=1, le=10**15, description="Queries per day or month, or in all.")
    per: Per = Field(Per.ONCE, description="What `queries` is counted over.")


class Tokens(Section):
    """What one query weighs, for a price by tokens."""

    input: int = Field(ge=0, description="Input tokens, the cached ones included.")
    output: int = Field(ge=0, description="Output tokens.")
    cached: int = Field(0, ge=0, description="Input tokens that the provider's prompt cache serves.")
    cache_write: int = Field(0, ge=0, description="Input tokens that are put into the provider's prompt cache.")

    @model_validator(mode="after")
    def _cached_is_input(self) -> Self:
        if self.cached + self.cache_write > self.input:
            raise ValueError("cached tokens and cache writes are parts of the input: there cannot be more of them")
        return self


class Line(Section):
    """Queries that one model answers."""

    name: str = Field(min_length=1, max_length=80)
    share: Share | None = Field(None, description="Part of the traffic: `35%` or 0.35.")
    queries: int | None = Field(None, ge=0, description="Number of queries, counted as the traffic's.")
    per_query: Usd | None = Field(None, description="USD per query.")
    tokens: Tokens | None = Field(None, description="With `price`: what a query weighs.")
    price: Price | None = Field(None, description="With `tokens`: USD per million tokens, as in router.yaml.")

    @model_validator(mode="after")
    def _one_price(self) -> Self:
        if (self.per_query is None) == (self.tokens is None and self.price is None):
            raise ValueError("give either per_query, or tokens and price")
        if (self.tokens is None) != (self.price is None):
            raise ValueError("tokens and price go together")
        if self.price is not None and self.price.windows:
            raise ValueError("price.windows: a plan has no hours: give the price that holds")
        if self.share is not None and self.queries is not None:
            raise ValueError("give share or queries, not both")
        return self


class Cost(Section):
    """A cost beside the models' answers: people, machines, the router itself."""

    name: str = Field(min_length=1, max_length=80)
    once: Usd | None = Field(None, description="USD, paid at the start.")
    per_month: Usd | None = Field(None, description="USD per month.")
    per_year: Usd | None = Field(None, description="USD per year.")
    per_query: Usd | None = Field(None, description="USD for every query of the traffic.")

    @model_validator(mode="after")
    def _one_amount(self) -> Self:
        if sum(v is not None for v in (self.once, self.per_month, self.per_year, self.per_query)) != 1:
            raise ValueError("give exactly one of once, per_month, per_year, per_query")
        return self


class Side(Section):
    """One way to serve the traffic."""

    models: list[Line] = Field(min_length=1)
    costs: list[Cost] = Field(default_factory=list)


FIGURES = (
    "mixture",
    "single",
    "saved",
    "saved_percent",
    "saved_per_month",
    "break_even_months",
    "net_payback_months",
)


class CostPlan(Section):
    """The whole of a plan file."""

    name: str = Field(min_length=1, max_length=200)
    traffic: Traffic
    months: int | None = Field(None, ge=1, le=600, description="Horizon. Absent: one day, one month, or the one time.")
    days_per_month: int = Field(30, ge=1, le=31, description="For daily traffic over a horizon of months.")
    mixture: Side
    single: Side | None = Field(None, description="What the mixture is compared with.")
    published: dict[str, Decimal] = Field(
        default_factory=dict, description="Figures that are claimed; each is checked against the calculation."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name, side in (("mixture", self.mixture), ("single", self.single)):
            if side is not None:
                self._add_up(name, side)
        unknown = sorted(set(self.published) - set(FIGURES))
        if unknown:
            raise ValueError(f"published: unknown figure `{unknown[0]}` (known: {', '.join(FIGURES)})")
        return self

    def _add_up(self, name: str, side: Side) -> None:
        if self.months is None and any(cost.once is None and cost.per_query is None for cost in side.costs):
            raise ValueError(f"{name}.costs: costs per month or year need `months`")
        if len(side.models) == 1 and side.models[0].share is None and side.models[0].queries is None:
            return
        shares = [line.share for line in side.models if line.share is not None]
        counts = [line.queries for line in side.models if line.queries is not None]
        if len(shares) == len(side.models):
            if sum(shares) != 1:
                percent = (sum(shares, Decimal(0)) * 100).normalize()
                raise ValueError(f"{name}.models: the shares add up to {percent:f} %, not 100 %")
        elif len(counts) == len(side.models):
            if sum(counts) != self.traffic.queries:
                raise ValueError(
                    f"{name}.models: the queries add up to {sum(counts):,}, the traffic is {self.traffic.queries:,}"
                )
        else:
            raise ValueError(f"{name}.models: every model needs a share, or every model needs queries")


def load_plan(path: Path) -> CostPlan:
    """Reads and checks a plan file. Raises ConfigError with every mistake and its line."""
    source, content = read(path)
    return parse_as(CostPlan, content, source)[0]
