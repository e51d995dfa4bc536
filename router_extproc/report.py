"""What the records of sidecars add up to: savings, shares, bands, latency, fallbacks, quality, likely misroutes."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from router_extproc.config.schema import RouterConfig
from router_extproc.decision_log import read_joined, read_logs
from router_extproc.domain import Usage
from router_extproc.errors import RouterError
from router_extproc.ledger import EARLIER, Sum, Totals, read_totals
from router_extproc.prices import cost_of, dollars, plain
from router_extproc.records import UNREADABLE, as_table

TOP = 10
SPECIALISTS = ("recommended", "fallback")
PERCENTILES = (50, 90, 99)
UNSURE = 0.8
"""A specialist's answer that was picked with less confidence is worth a look even where nobody complained. The default
models are no specialists: they get what nobody is sure of."""


@dataclass(frozen=True, slots=True)
class Point:
    """One way to answer everything: USD per request, and the share answered well, from 0 to 1."""

    name: str
    cost: float
    quality: float


@dataclass(frozen=True, slots=True)
class Suspect:
    """A decision that may have been wrong. `bad` means that somebody said so."""

    id: str
    time: str
    route: str
    band: str
    model: str
    confidence: float
    reason: str
    bad: bool


@dataclass(slots=True)
class Watch:
    """How a guard did: requests on which it `acted`, and those of them that somebody called a false alarm."""

    acted: int = 0
    false_alarms: int = 0


@dataclass(slots=True)
class Said:
    """What people said of one decision: whether its route was good (the last word counts), and of its guards."""

    good: bool | None = None
    false_alarm: bool = False
    missed: bool = False
    wanted_route: str | None = None
    wanted_label: str | None = None


@dataclass(slots=True)
class Report:
    """The figures. Money is exact in `totals`; `days` sums hours per day (UTC), oldest first.

    `latency_ms` are percentiles of the time from a body's last byte to the decision. `accuracy` is good answers and
    judged ones per route, `guards` how each guard did, `missed` what guards should have seen (by the label that was
    wanted), `misrouted` counts bad routes by route and the one that was wanted. `frontier` has each model alone and,
    last, the mixture, where the catalogue has qualities. `unreadable` counts lines of the decision log that are no
    records or damaged ones.
    """

    totals: Totals
    decisions: int = 0
    days: dict[str, Sum] = field(default_factory=dict)
    unreadable: int = 0
    latency_ms: dict[int, float] = field(default_factory=dict)
    fallbacks: Counter[tuple[str, str]] = field(default_factory=Counter)
    accuracy: dict[str, tuple[int, int]] = field(default_factory=dict)
    guards: dict[str, Watch] = field(default_factory=dict)
    missed: Counter[str] = field(default_factory=Counter)
    misrouted: Counter[tuple[str, str]] = field(default_factory=Counter)
    frontier: list[Point] = field(default_factory=list)
    suspects: list[Suspect] = field(default_factory=list)

    def json(self) -> dict[str, Any]:
        """For machines; money is text, in USD."""
        return {
            "total": _shown(self.totals.all),
            "days": {day: _shown(value) for day, value in self.days.items()},
            "models": {name: _shown(value) for name, value in self.totals.by["model"].items()},
            "routes": {name: _shown(value) for name, value in self.totals.by["route"].items()},
            "bands": {name: value.requests for name, value in self.totals.by["band"].items()},
            "decisions": self.decisions,
            "unreadable": self.unreadable,
            "latency_ms": {f"p{number}": value for number, value in self.latency_ms.items()},
            "fallbacks": [{"picked": a, "answered": b, "requests": n} for (a, b), n in self.fallbacks.most_common()],
            "accuracy": {route: {"good": good, "judged": judged} for route, (good, judged) in self.accuracy.items()},
            "guards": {
                name: {"acted": watch.acted, "false_alarms": watch.false_alarms} for name, watch in self.guards.items()
            },
            "missed": dict(self.missed),
            "misrouted": [{"route": a, "wanted": b, "requests": n} for (a, b), n in self.misrouted.most_common(TOP)],
            "frontier": [{"name": p.name, "usd_per_request": p.cost, "quality": p.quality} for p in self.frontier],
            "suspects": [
                {name: getattr(suspect, name) for name in Suspect.__dataclass_fields__} for suspect in self.suspects
            ],
        }

    def text(self) -> str:
        """For people."""
        total = self.totals.all
        lines = [
            f"{total.requests:,} requests, {total.answered:,} answered, {total.estimated:,} with estimated tokens",
            f"cost {dollars(total.cost)}, router {dollars(total.router)}, baseline {dollars(total.baseline)}",
            f"saved {dollars(total.saved)}{_percent(total)}",
        ]
        for title, table in (
            ("day", self.days),
            ("model", self.totals.by["model"]),
            ("route", self.totals.by["route"]),
        ):
            lines += ["", f"per {title}"]
            width = max((len(name) for name in table), default=0)
            for name, value in table.items():
                share = f"{value.requests / total.requests:6.1%}" if total.requests else ""
                lines.append(
                    f"  {name:{width}} {value.requests:>9,} {share}  saved {dollars(value.saved)}{_percent(value)}"
                )
        bands = ", ".join(f"{name} {value.requests:,}" for name, value in self.totals.by["band"].items())
        lines += ["", f"bands: {bands}"]
        if self.latency_ms:
            times = ", ".join(f"p{number} {value:.2f} ms" for number, value in self.latency_ms.items())
            lines.append(f"decision latency of {self.decisions:,} decisions: {times}")
        if self.unreadable:
            lines.append(f"{self.unreadable:,} lines of the decision log cannot be read and are left out")
        lines += [f"fallback {picked} -> {by}: {n:,}" for (picked, by), n in self.fallbacks.most_common(TOP)]
        for route, (good, judged) in self.accuracy.items():
            lines.append(f"feedback on {route}: {good:,} of {judged:,} good ({good / judged:.1%})")
        for (route, wanted), n in self.misrouted.most_common(TOP):
            lines.append(f"misrouted {route}, wanted {wanted or 'elsewhere'}: {n:,}")
        for name, watch in self.guards.items():
            alarms = f", {watch.false_alarms:,} false alarms" if watch.false_alarms else ""
            lines.append(f"guard {name} acted on {watch.acted:,}{alarms}")
        lines += [f"guards missed {label or 'something'}: {n:,}" for label, n in self.missed.most_common(TOP)]
        for point in self.frontier:
            lines.append(f"{point.name}: ${point.cost:.6f} a request, quality {point.quality:.3f}")
        if self.suspects:
            lines += ["", "worth a look"]
        for found in self.suspects:
            said = "bad feedback, " if found.bad else ""
            lines.append(f"  {found.id} {found.route} -> {found.model}: {said}{found.reason}")
        return "\n".join(lines)


def make_report(*states: Path, config: RouterConfig | None = None, feedback: Path | None = None) -> Report:
    """Reads state directories, also while sidecars write them. Raises RouterError when there is nothing in any.

    `config` gives the models' qualities and prices for the frontier, `feedback` is a file of JSON lines with `id` and
    `good`, beside the verdicts that the sidecar was told.
    """
    totals = Totals()
    # One of several may not have been told of any exchange.
    ledgers = [found for found in map(read_totals, states) if found is not None]
    if not ledgers:
        where = ", ".join(map(str, states))
        raise RouterError(f"{where}: no ledger here: `serve --state-dir` writes one")
    for ledger in ledgers:
        totals.merge(ledger)
    judged: dict[str, Said] = {}
    for made in read_logs(states):
        if "feedback" in made:
            _hear(judged.setdefault(str(made.get("id")), Said()), made)
    if feedback is not None:
        for identity, was_good in _feedback(feedback).items():
            judged.setdefault(identity, Said()).good = was_good
    report = Report(totals, days=_days(totals))
    latencies: list[float] = []
    suspects: list[Suspect] = []
    for made in read_joined(states):
        _count(report, made, judged, latencies, suspects)
    report.latency_ms = _percentiles(latencies)
    report.suspects = sorted(suspects, key=lambda s: (not s.bad, s.confidence))[:TOP]
    if config is not None:
        report.frontier = _frontier(totals, config)
    return report


def _count(
    report: Report,
    made: Mapping[str, Any],
    judged: Mapping[str, Said],
    latencies: list[float],
    suspects: list[Suspect],
) -> None:
    """One record into the report. Records of exchanges that were not decided tell nothing of routing."""
    if "feedback" in made or (made and "plan" not in made and "refused" not in made):
        return
    try:
        line = _Line.of(made)
    except UNREADABLE:
        report.unreadable += 1
        return
    said = judged.get(line.id, NOTHING_SAID)
    for guard in line.guards:
        watch = report.guards.setdefault(guard, Watch())
        watch.acted += 1
        watch.false_alarms += said.false_alarm
    if said.missed:
        report.missed[said.wanted_label or ""] += 1
    if not line.picked:
        return
    report.decisions += 1
    if line.ms is not None:
        latencies.append(line.ms)
    if line.answered is not None and line.answered != line.picked:
        report.fallbacks[line.picked, line.answered] += 1
    good = said.good
    if good is False:
        report.misrouted[line.route, said.wanted_route or ""] += 1
    if good is not None:
        was_good, count = report.accuracy.get(line.route, (0, 0))
        report.accuracy[line.route] = (was_good + good, count + 1)
    if good is False or (line.band in SPECIALISTS and line.confidence < UNSURE):
        suspects.append(
            Suspect(
                *(line.id, line.time, line.route, line.band),
                *(line.answered or line.picked, line.confidence, line.reason, good is False),
            )
        )
        if len(suspects) > 1000:
            suspects.sort(key=lambda suspect: (not suspect.bad, suspect.confidence))
            del suspects[TOP:]


@dataclass(frozen=True, slots=True)
class _Line:
    """What the report needs of a record. `picked` is "" where the request was refused, `ms` None in older records."""

    id: str
    guards: tuple[str, ...]
    picked: str = ""
    answered: str | None = None
    route: str = ""
    band: str = ""
    confidence: float = 0.0
    reason: str = ""
    time: str = ""
    ms: float | None = None

    @staticmethod
    def of(made: Mapping[str, Any]) -> _Line:
        """Raises one of `UNREADABLE`."""
        identity, guards = str(made.get("id", "")), _texts(made.get("guards", []))
        if "plan" not in made:
            as_table(made["refused"])
            return _Line(identity, guards)
        answered = as_table(made.get("outcome") or {}).get("model")
        ms, confidence = as_table(made.get("ms", {})).get("decision"), float(made["confidence"])
        if not 0 <= confidence <= 1:
            raise ValueError("no confidence")
        return _Line(
            identity,
            guards,
            _texts(made["plan"])[0],
            None if answered is None else str(answered),
            *(str(made["route"]), str(made["band"]), confidence),
            *(str(made.get("reason", "")), str(made.get("time", ""))),
            None if ms is None else float(ms),
        )


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("not a list")
    return tuple(map(str, value))


NOTHING_SAID = Said()


def _hear(said: Said, made: Mapping[str, Any]) -> None:
    """One verdict of the decision log."""
    verdict = made["feedback"]
    if verdict in ("good", "bad"):
        said.good = verdict == "good"
    said.false_alarm = said.false_alarm or verdict == "false_alarm"
    said.missed = said.missed or verdict == "missed"
    said.wanted_route = str(made.get("wanted_route") or "") or said.wanted_route
    said.wanted_label = str(made.get("wanted_label") or "") or said.wanted_label


def _feedback(path: Path) -> dict[str, bool]:
    found: dict[str, bool] = {}
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            said = as_table(json.loads(line))
            if not isinstance(said["good"], bool):
                raise TypeError("good is neither true nor false")
            found[str(said["id"])] = said["good"]
        except (ValueError, KeyError, TypeError, RecursionError):
            raise RouterError(f'{path}:{number}: expected {{"id": ..., "good": true or false}}') from None
    return found


def _days(totals: Totals) -> dict[str, Sum]:
    days: dict[str, Sum] = {}
    for hour, value in sorted(totals.by["hour"].items(), key=lambda item: (item[0] != EARLIER, item[0])):
        days.setdefault(hour.partition("T")[0], Sum()).merge(value)
    return days


def _percentiles(values: Iterable[float]) -> dict[int, float]:
    ordered = sorted(values)
    if not ordered:
        return {}
    # Nearest rank: the smallest value that at least so many percent do not exceed.
    return {number: ordered[max(0, -(-number * len(ordered) // 100) - 1)] for number in PERCENTILES}


def _frontier(totals: Totals, config: RouterConfig) -> list[Point]:
    """Each model alone on all tokens that were used, and the mixture as it was; only models with a `quality`."""
    total = totals.all
    if not total.answered:
        return []
    usage = Usage(total.input, total.output, total.cached, cache_write=total.cache_write)
    points = []
    for name, model in config.models.items():
        if model.quality is not None:
            fees = model.price.per_request * (total.answered - 1)
            points.append(Point(name, float((cost_of(model.price, usage) + fees) / total.answered), model.quality))
    served = {name: value.answered for name, value in totals.by["model"].items() if value.answered}
    qualities = {name: config.models[name].quality for name in served if name in config.models}
    known = {name: quality for name, quality in qualities.items() if quality is not None}
    if points and len(known) == len(served):
        quality = sum(known[name] * count for name, count in served.items()) / sum(served.values())
        points.append(Point("mixture", float((total.cost + total.router) / total.answered), quality))
    return points


def _shown(value: Sum) -> dict[str, Any]:
    return value.json() | {"saved": plain(value.saved)}


def _percent(value: Sum) -> str:
    return f" ({float(value.saved / value.baseline):.1%})" if value.baseline else ""
