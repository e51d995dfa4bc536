"""`ledger` and `budgets` of router.yaml: what savings are counted against, and what may be spent."""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import Self

from pydantic import Field, model_validator

from router_extproc.account_names import account_name
from router_extproc.config.section import Name, Names, Section
from router_extproc.patterns import HEADER


class Ledger(Section):
    """What the savings are counted against, and who they are counted for."""

    baseline: Name | None = Field(
        None,
        description="The model that would have answered everything. Default: the first of the file's `default`. The "
        "same number of tokens is assumed.",
    )
    router_per_query: Decimal = Field(
        Decimal(0), ge=0, description="USD that the router itself costs per query; taken off the savings."
    )
    tenant_header: str | None = Field(
        None,
        pattern=HEADER,
        description="Request header that names the tenant. Set or strip it in front of the router: a client could "
        "name another one. Of a name of more than 64 characters the first 47 are shown, with `~` and a hash of it.",
    )


class BudgetScope(StrEnum):
    """What has a budget of its own."""

    TENANT = "tenant"
    USER = "user"
    ROUTE = "route"
    TOTAL = "total"


class BudgetWindow(StrEnum):
    """When a budget begins anew. In UTC."""

    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


class WhenSpent(StrEnum):
    """What happens to a request that no longer fits."""

    CHEAPEST = "cheapest"
    REFUSE = "refuse"


class Budget(Section):
    """A limit in US dollars or tokens. Estimated when a request is admitted, settled when it has ended."""

    name: Name
    per: BudgetScope = Field(
        BudgetScope.TOTAL,
        description="What has such a budget of its own: each tenant (`ledger.tenant_header`), each user (as the body "
        "names them: clients can make that up), each route, or all requests together.",
    )
    only: Names | None = Field(
        None,
        description="Tenants, users or routes that it holds for, by their names as they are sent, however long. "
        "Default: all.",
    )
    window: BudgetWindow = Field(BudgetWindow.DAY, description="When it begins anew (UTC).")
    usd: Decimal | None = Field(None, gt=0, description="US dollars per window.")
    tokens: int | None = Field(None, gt=0, description="Input and output tokens per window.")
    cheaper_at: Decimal = Field(
        Decimal("0.8"), ge=0, le=1, description="From this part on the models of a plan are tried cheapest first."
    )
    when_spent: WhenSpent = Field(
        WhenSpent.CHEAPEST,
        description="`cheapest`: the plan's cheapest model alone goes on; `refuse`: 429 with Retry-After.",
    )

    @cached_property
    def counted(self) -> frozenset[str] | None:
        """`only`, by the names under which tenants and users are counted."""
        return frozenset(map(account_name, self.only)) if self.only is not None else None

    @property
    def limit(self) -> Decimal:
        """Dollars or tokens per window."""
        return self.usd if self.usd is not None else Decimal(self.tokens or 1)

    @property
    def unit(self) -> str:
        """What the limit counts: `USD` or `tokens`."""
        return "USD" if self.usd is not None else "tokens"

    @model_validator(mode="after")
    def _one_limit(self) -> Self:
        if (self.usd is None) == (self.tokens is None):
            raise ValueError("give either usd or tokens")
        return self
