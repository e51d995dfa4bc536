"""What-if: what a mixture of models costs against a single one, with every step of the calculation.

The steps are part of the result, so that a published figure that does not follow from its own inputs is caught.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext

from router_extproc.config.cost_plan import FIGURES, CostPlan, Line, Per, Side
from router_extproc.domain import Usage
from router_extproc.prices import EXACT, TRAPS, cost_of

TENTHS = Decimal("0.1")
ROUNDED = Context(prec=28, rounding=ROUND_HALF_UP)
"""For percentages and months, which seldom come out even."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A published figure beside ours. `ours` is None when the plan does not give that figure at all."""

    figure: str
    published: Decimal
    ours: Decimal | None

    @property
    def follows(self) -> bool:
        """Whether our figure, rounded to as many places as were published, is the published one."""
        return self.ours is not None and rounded(self.ours, self.published) == self.published


@dataclass(frozen=True, slots=True)
class Total:
    """What one side costs over the horizon, in USD: `once` at the start, `running` for the rest."""

    once: Decimal
    running: Decimal

    @property
    def all(self) -> Decimal:
        """Everything."""
        return EXACT.add(self.once, self.running)


@dataclass(frozen=True, slots=True)
class CostReport:
    """A plan calculated: exact figures (USD, percent, months), the steps that lead to them, and the claims checked."""

    name: str
    figures: Mapping[str, Decimal]
    steps: tuple[str, ...]
    claims: tuple[Claim, ...]

    @property
    def follows(self) -> bool:
        """Whether every published figure follows from the plan."""
        return all(claim.follows for claim in self.claims)

    def text(self) -> str:
        """All of it for people."""
        return "\n".join([self.name, *self.steps, *self._claims()])

    def json(self) -> dict[str, object]:
        """All of it for machines; figures are text, because JSON numbers are not exact."""
        claims = [
            {
                "figure": claim.figure,
                "published": f"{claim.published:f}",
                "ours": None if claim.ours is None else f"{claim.ours:f}",
                "follows": claim.follows,
            }
            for claim in self.claims
        ]
        figures = {name: f"{value:f}" for name, value in self.figures.items()}
        return {"name": self.name, "figures": figures, "steps": list(self.steps), "published": claims}

    def _claims(self) -> Iterator[str]:
        if self.claims:
            yield "published"
        for claim in self.claims:
            ours = "the plan does not give it" if claim.ours is None else f"{rounded(claim.ours, claim.published):,f}"
            verdict = "follows" if claim.follows else f"DOES NOT FOLLOW: {ours}"
            yield f"  {claim.figure} {claim.published:,f}: {verdict}"


def calculate(plan: CostPlan) -> CostReport:
    """Works the plan out. Pure; exact but for percentages and months, which are rounded to 28 digits."""
    # Long sums of money must fail rather than round; prices come from people, so 80 digits always do.
    with localcontext(EXACT):
        return _Calculation(plan).report()


@dataclass(slots=True)
class _Calculation:
    plan: CostPlan
    steps: list[str] = field(default_factory=list)
    figures: dict[str, Decimal] = field(default_factory=dict)

    def report(self) -> CostReport:
        plan = self.plan
        queries = self._traffic()
        mixture = self._side("mixture", plan.mixture, queries)
        self.figures["mixture"] = mixture.all
        if plan.single is not None:
            single = self._side("single", plan.single, queries)
            self.figures["single"] = single.all
            self._compare(mixture, single)
        claims = tuple(
            Claim(name, plan.published[name], self.figures.get(name)) for name in FIGURES if name in plan.published
        )
        return CostReport(plan.name, self.figures, tuple(self.steps), claims)

    def _traffic(self) -> Decimal:
        """All queries of the horizon."""
        plan, per = self.plan, self.plan.traffic.per
        queries = Decimal(plan.traffic.queries)
        unit = {Per.ONCE: "", Per.DAY: " a day", Per.MONTH: " a month"}[per]
        if plan.months is None or per is Per.ONCE:
            self.steps.append(f"traffic: {count(queries)} queries{unit}")
            return queries
        if per is Per.DAY:
            total = queries * plan.days_per_month * plan.months
            days = f"{plan.days_per_month} days x {plan.months} months"
            self.steps.append(f"traffic: {count(queries)} queries a day x {days} = {count(total)} queries")
            return total
        total = queries * plan.months
        self.steps.append(f"traffic: {count(queries)} queries a month x {plan.months} months = {count(total)} queries")
        return total

    def _side(self, name: str, side: Side, queries: Decimal) -> Total:
        self.steps.append(name)
        width = max(len(part) for part in [*(m.name for m in side.models), *(c.name for c in side.costs), "together"])
        running = once = Decimal(0)
        for line in side.models:
            usd, text = self._line(line, queries)
            running += usd
            self.steps.append(f"  {line.name:{width}}  {text}")
        months = self.plan.months or 0
        for cost in side.costs:
            if cost.once is not None:
                usd, text = cost.once, f"{money(cost.once)} once"
                once += usd
            elif cost.per_query is not None:
                usd = cost.per_query * queries
                text = f"{count(queries)} queries x {money(cost.per_query)} = {money(usd)}"
                running += usd
            elif cost.per_month is not None:
                usd = cost.per_month * months
                text = f"{money(cost.per_month)} a month x {months} months = {money(usd)}"
                running += usd
            else:
                per_year = cost.per_year or Decimal(0)
                usd = self._share_of_years(per_year, months)
                text = f"{money(per_year)} a year x {months} / 12 = {money(usd)}"
                running += usd
            self.steps.append(f"  {cost.name:{width}}  {text}")
        total = Total(once, running)
        parts = f"{money(once)} once + {money(running)} running = " if once else ""
        self.steps.append(f"  {'together':{width}}  {parts}{money(total.all)}{self._unit()}")
        return total

    def _share_of_years(self, per_year: Decimal, months: int) -> Decimal:
        # The only amount that may not come out even: a twelfth.
        return ROUNDED.divide(per_year * months, Decimal(12))

    def _unit(self) -> str:
        if self.plan.months is not None:
            return f" in {self.plan.months} months"
        return {Per.ONCE: "", Per.DAY: " a day", Per.MONTH: " a month"}[self.plan.traffic.per]

    def _line(self, line: Line, queries: Decimal) -> tuple[Decimal, str]:
        if line.share is not None:
            own = queries * line.share
            text = f"{number(line.share * 100)} % x {count(queries)} = {count(own)} queries"
        elif line.queries is not None:
            # The plan counts them in the traffic's unit, so the horizon stretches them alike.
            own = queries / self.plan.traffic.queries * line.queries
            text = f"{count(own)} queries"
        else:
            own, text = queries, f"{count(queries)} queries"
        per_query = line.per_query
        if per_query is None:
            assert line.tokens is not None
            assert line.price is not None
            tokens = line.tokens
            usage = Usage(tokens.input, tokens.output, tokens.cached, cache_write=tokens.cache_write)
            per_query = cost_of(line.price, usage)
            written = f", {count(Decimal(usage.cache_write))} put into the cache" if usage.cache_write else ""
            weighs = f"{count(Decimal(usage.input))} input ({count(Decimal(usage.cached))} cached{written}) and "
            self.steps.append(
                f"  {line.name}: {weighs}{count(Decimal(usage.output))} output tokens = {money(per_query)} a query"
            )
        usd = own * per_query
        return usd, f"{text} x {money(per_query)} = {money(usd)}"

    def _compare(self, mixture: Total, single: Total) -> None:
        figures, steps, months = self.figures, self.steps, self.plan.months
        saved = figures["saved"] = single.all - mixture.all
        steps.append("saved")
        steps.append(f"  {money(single.all)} - {money(mixture.all)} = {money(saved)}{self._unit()}")
        if single.all:
            percent = figures["saved_percent"] = ROUNDED.divide(saved * 100, single.all)
            steps.append(f"  {money(saved)} / {money(single.all)} = {rounded(percent, TENTHS)} %")
        if months is None:
            return
        running = single.running - mixture.running
        a_month = figures["saved_per_month"] = ROUNDED.divide(running, Decimal(months))
        steps.append(f"  running costs saved: {money(running)} / {months} months = {money(a_month)} a month")
        once = mixture.once - single.once
        if once <= 0:
            return
        if running <= 0:
            steps.append(f"  break-even: never, because {money(once)} once buys no lower running costs")
            return
        even = figures["break_even_months"] = ROUNDED.divide(once, a_month)
        steps.append(f"  break-even: {money(once)} once / {money(a_month)} a month = {rounded(even, TENTHS)} months")
        if saved > 0:
            net = ROUNDED.divide(saved, Decimal(months))
            payback = figures["net_payback_months"] = ROUNDED.divide(once, net)
            steps.append(
                f"  by the net saving, from which {money(once)} is already taken off: {money(once)} / "
                f"({money(saved)} / {months}) = {rounded(payback, TENTHS)} months"
            )


def rounded(value: Decimal, like: Decimal) -> Decimal:
    """`value` with as many places as `like`, half up, as people round."""
    exponent = like.as_tuple().exponent
    places = Decimal(1).scaleb(exponent) if isinstance(exponent, int) and exponent < 0 else Decimal(1)
    return value.quantize(places, context=Context(prec=80, rounding=ROUND_HALF_UP, traps=TRAPS[1:]))


def number(value: Decimal) -> str:
    """Without the zeros that a calculation leaves behind: 35.00 is 35."""
    text = f"{value:,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def count(value: Decimal) -> str:
    """A number of queries or tokens."""
    return number(value)


def money(value: Decimal) -> str:
    """USD with cents, and with more places only where there are more: $140.00, $0.0015."""
    places = Decimal("0.01") if value == rounded(value, Decimal("0.01")) else Decimal("0.0000000001")
    text = f"{abs(rounded(value, places)):,f}"
    whole, _, cents = text.partition(".")
    return f"{'-' if value < 0 else ''}${whole}.{cents.rstrip('0'):0<2}"
