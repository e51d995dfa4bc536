"""What an answer costs: tokens and a catalogue price, in exact decimals."""

from __future__ import annotations

from datetime import datetime
from decimal import Context, Decimal, DecimalException, DivisionByZero, Inexact, InvalidOperation, Overflow
from zoneinfo import ZoneInfo

from router_extproc.config.price import Price
from router_extproc.domain import Usage

PRICED = ("input", "output", "cached_input", "cache_write", "per_request")
TRAPS: list[type[DecimalException]] = [Inexact, InvalidOperation, DivisionByZero, Overflow]
EXACT = Context(prec=80, traps=TRAPS)
"""Sums and products of money: a result that would have to be rounded is an error, not a slightly wrong figure."""


def price_at(price: Price, at: datetime) -> Price:
    """The price of the hour: that of the first window that holds at `at`, else the usual one."""
    for window in price.windows:
        if window.holds(at.astimezone(ZoneInfo(window.timezone))):
            other = {name: value for name in PRICED if (value := getattr(window, name)) is not None}
            return price.model_copy(update=other)
    return price


def cost_of(price: Price, usage: Usage) -> Decimal:
    """USD of one answered request, exact: input, cached input, cache writes, output and the fee per request.

    `usage.cached` and `usage.cache_write` are parts of `usage.input`; they cost as other input where the price does not
    name `cached_input` or `cache_write`.
    """
    cached = min(usage.cached, usage.input)
    written = min(usage.cache_write, usage.input - cached)
    per_cached = price.input if price.cached_input is None else price.cached_input
    per_written = price.input if price.cache_write is None else price.cache_write
    micro = EXACT.add(
        EXACT.add(EXACT.multiply(price.input, usage.input - cached - written), EXACT.multiply(per_cached, cached)),
        EXACT.add(EXACT.multiply(per_written, written), EXACT.multiply(price.output, usage.output)),
    )
    # A shift by six places divides by a million without any rounding.
    return EXACT.add(EXACT.scaleb(micro, -6), price.per_request)


def plain(amount: Decimal) -> str:
    """An amount in full, without the zeros that additions leave behind."""
    return f"{EXACT.normalize(amount):f}"


def dollars(amount: Decimal) -> str:
    """An amount in full with its sign where people look for it: -$0.0002."""
    text = plain(amount)
    return f"-${text[1:]}" if text.startswith("-") else f"${text}"
