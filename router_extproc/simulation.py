"""Replays recorded decisions against another policy: who would move where, and what that would cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from router_extproc.domain import LlmRequest, SignalSet, Usage
from router_extproc.errors import ClientError
from router_extproc.prices import EXACT, cost_of, dollars, plain
from router_extproc.records import request_of, signals_of
from router_extproc.runtime import Runtime

OF_THE_REQUEST = frozenset({"tokens", "turns", "tools", "modality"})
"""Signal types that the recorded facts of a request suffice for; others need texts, headers or a classifier."""
NOT_RECORDED = "not recorded"


@dataclass(slots=True)
class Simulation:
    """What a policy would have done with recorded traffic.

    Costs are for the tokens that were used: another model is assumed to read and write as many. `quality` is the mean
    of the catalogue's own figures, over the requests whose model has one.
    """

    replayed: int = 0
    skipped: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    moves: Counter[tuple[str, str]] = field(default_factory=Counter)
    routes: Counter[tuple[str, str]] = field(default_factory=Counter)
    bands: Counter[tuple[str, str]] = field(default_factory=Counter)
    missing: Counter[str] = field(default_factory=Counter)
    before: Decimal = Decimal(0)
    after: Decimal = Decimal(0)
    priced: int = 0
    quality_before: list[float] = field(default_factory=list)
    quality_after: list[float] = field(default_factory=list)

    @property
    def moved(self) -> int:
        """Requests that would go to another model."""
        return sum(count for (old, new), count in self.moves.items() if old != new)

    def json(self) -> dict[str, Any]:
        """For machines; money is text, in USD."""
        return {
            "replayed": self.replayed,
            "skipped": self.skipped,
            "moved": self.moved,
            "refused": dict(self.refused),
            "moves": _rows(self.moves),
            "routes": _rows(self.routes),
            "bands": _rows(self.bands),
            "missing_signals": dict(self.missing),
            "cost": {"requests": self.priced, "before": plain(self.before), "after": plain(self.after)},
            "quality": {"before": _mean(self.quality_before), "after": _mean(self.quality_after)},
        }

    def text(self) -> str:
        """For people."""
        lines = [f"{self.replayed:,} requests replayed, {self.skipped:,} records without a decision left out"]
        share = f" ({self.moved / self.replayed:.1%})" if self.replayed else ""
        lines.append(f"{self.moved:,} would go to another model{share}")
        lines += [f"{count:,} would be refused: {code}" for code, count in self.refused.most_common()]
        for title, counts in (("model", self.moves), ("route", self.routes), ("band", self.bands)):
            changed = [(pair, count) for pair, count in counts.most_common() if pair[0] != pair[1]]
            lines += [f"  {title} {old} -> {new}: {count:,}" for (old, new), count in changed[:20]]
        if self.priced:
            change = f" ({(self.after / self.before - 1) * 100:+.1f} %)" if self.before else ""
            lines.append(
                f"cost of {self.priced:,} answered requests: {dollars(self.before)} -> {dollars(self.after)}{change}"
            )
        old, new = _mean(self.quality_before), _mean(self.quality_after)
        if old is not None and new is not None:
            lines.append(f"quality by the catalogue's figures: {old:.3f} -> {new:.3f}")
        for name, count in self.missing.most_common():
            lines.append(f"signal {name} is not in {count:,} records: rules that need it were not judged there")
        return "\n".join(lines)


def simulate(records: Iterable[Mapping[str, Any]], runtime: Runtime) -> Simulation:
    """Replays them in order. Records of exchanges that were not decided are skipped. Budgets are not replayed."""
    found = Simulation()
    for made in records:
        try:
            request, recorded = request_of(made), signals_of(made)
            old_model, old_route, old_band = _answered_by(made), str(made["route"]), str(made["band"])
        except (KeyError, TypeError, ValueError):
            found.skipped += 1
            continue
        found.replayed += 1
        signals = _signals(runtime, request, recorded, found)
        try:
            decision, plan = runtime.router.plan_for(request, signals, {})
        except ClientError as error:
            found.refused[error.code] += 1
            continue
        found.moves[old_model, plan.pick] += 1
        found.routes[old_route, decision.route] += 1
        found.bands[old_band, decision.band.value] += 1
        _price(found, made, plan.pick, runtime)
        _quality(found, old_model, plan.pick, runtime)
    return found


def _answered_by(made: Mapping[str, Any]) -> str:
    """The model that the old policy picked; fallbacks tell of a provider's bad day, not of the policy."""
    return str(made["plan"][0])


def _signals(runtime: Runtime, request: LlmRequest, recorded: SignalSet, found: Simulation) -> SignalSet:
    """The recorded signals that the new configuration has, and those that can be worked out from the record."""
    config = runtime.config.signals
    values = {name: value for name, value in recorded.values.items() if name in config}
    absent = {name: why for name, why in recorded.absent.items() if name in config}
    unknown = [name for name in config if name not in values and name not in absent]
    if not unknown:
        return SignalSet(values, absent)
    fresh = runtime.router.signals(request, {}, {})
    for name in unknown:
        if config[name].type in OF_THE_REQUEST and name in fresh.values:
            values[name] = fresh.values[name]
        else:
            absent[name] = NOT_RECORDED
            found.missing[name] += 1
    return SignalSet(values, absent)


def _price(found: Simulation, made: Mapping[str, Any], pick: str, runtime: Runtime) -> None:
    tokens = (made.get("outcome") or {}).get("tokens")
    if tokens is None or "cost" not in made:
        return
    usage = Usage(int(tokens["input"]), int(tokens["output"]), int(tokens["cached"]))
    found.priced += 1
    found.before = EXACT.add(found.before, Decimal(made["cost"]))
    found.after = EXACT.add(found.after, cost_of(runtime.config.models[pick].price, usage))


def _quality(found: Simulation, old: str, new: str, runtime: Runtime) -> None:
    models = runtime.config.models
    before = models[old].quality if old in models else None
    after = models[new].quality
    if before is not None and after is not None:
        found.quality_before.append(before)
        found.quality_after.append(after)


def _rows(counts: Counter[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"from": old, "to": new, "requests": count} for (old, new), count in counts.most_common()]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
