"""What every answer cost, and what it would have cost had the baseline model answered everything.

Tokens are assumed equal for the baseline: the same question, the same length of answer. A priced request is an `Entry`;
`Totals` add entries up exactly; `Ledger` does both on a thread of its own and keeps them on disk.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Outcome
from router_extproc.errors import Mistake
from router_extproc.prices import EXACT, cost_of, plain, price_at
from router_extproc.stores.background import Background, sharing
from router_extproc.stores.journal import Journal, lines_of
from router_extproc.validation import did_you_mean

log = logging.getLogger(__name__)

ZERO = Decimal(0)
WRITE_SECONDS = 0.25
SYNC_SECONDS = 0.75
"""Together under the one second that a crash of the machine may cost; a kill of the process costs `WRITE_SECONDS`."""
MAX_WAITING = 100_000
MAX_IDS = 100_000
MAX_KEYS = 1_000
MAX_HOURS = 92 * 24
SEGMENT_BYTES = 16 * 1024 * 1024
OTHER = "other"
EARLIER = "earlier"
DIMENSIONS = ("route", "model", "tenant", "band", "hour")


@dataclass(frozen=True, slots=True)
class Entry:
    """One exchange, priced in USD. `cost` is the models' price, `router` our own, `baseline` the counterfactual.

    `id` is our own, empty where we did not decide: Envoy's request id may be the client's, who can send it twice. `at`
    is in seconds since 1970 (UTC). `priced` is false when something answered that the catalogue does not know.
    """

    id: str
    at: float
    route: str
    band: str
    model: str
    tenant: str
    status: int
    input: int = 0
    output: int = 0
    cached: int = 0
    estimated: bool = False
    priced: bool = True
    cost: Decimal = ZERO
    router: Decimal = ZERO
    baseline: Decimal = ZERO
    cache_write: int = 0

    @property
    def saved(self) -> Decimal:
        """Against the baseline; negative when routing cost more."""
        return EXACT.subtract(self.baseline, EXACT.add(self.cost, self.router))

    @property
    def hour(self) -> str:
        """The hour it ended in, UTC: `2026-01-31T23`."""
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%dT%H")

    def line(self) -> bytes:
        """Its line in the journal."""
        return (
            json.dumps(
                [
                    *(self.id, round(self.at, 3), self.route, self.band, self.model, self.tenant, self.status),
                    *(self.input, self.output, self.cached, int(self.estimated), int(self.priced)),
                    *(str(self.cost), str(self.router), str(self.baseline), self.cache_write),
                ],
                separators=(",", ":"),
            ).encode()
            + b"\n"
        )

    @staticmethod
    def parse(line: bytes) -> Entry:
        """The entry of a journal's line; older ones have no cache writes. Raises ValueError, TypeError or
        ArithmeticError."""
        values = json.loads(line)
        if not isinstance(values, list) or len(values) not in (15, 16):
            raise ValueError("not an entry")
        identity, at, route, band, model, tenant, status, tokens, output, cached, estimated, priced, *rest = values
        cost, router, baseline = map(Decimal, rest[:3])
        return Entry(
            *(str(identity), float(at), str(route), str(band), str(model), str(tenant), int(status)),
            *(int(tokens), int(output), int(cached), bool(estimated), bool(priced)),
            *(cost, router, baseline, int(rest[3]) if len(rest) > 3 else 0),
        )


def check_ledger(config: RouterConfig) -> list[Mistake]:
    """A baseline that is no model."""
    name = config.ledger.baseline
    if name is None or name in config.models:
        return []
    return [Mistake(("ledger", "baseline"), f"unknown model `{name}`{did_you_mean(name, config.models)}")]


def baseline_of(config: RouterConfig) -> str:
    """The model that savings are counted against."""
    return config.ledger.baseline or config.default[0]


def price(outcome: Outcome, config: RouterConfig, at: float) -> Entry:
    """Prices an outcome at the prices of `at`, when it ended (seconds since 1970).

    Only what was answered costs: an exchange without usage costs the router's share alone.
    """
    usage, model = outcome.usage, config.models.get(outcome.model or "")
    baseline = config.models.get(baseline_of(config))
    cost = counterfactual = ZERO
    # An unknown price saves nothing.
    if usage is not None and model is not None:
        when = datetime.fromtimestamp(at, UTC)
        cost = counterfactual = cost_of(price_at(model.price, when), usage)
        # A client that named its model would have had it without us, and a model that does not speak the API could not
        # have answered.
        if outcome.band != Band.NAMED and baseline is not None and outcome.api in baseline.speaks:
            counterfactual = cost_of(price_at(baseline.price, when), usage)
    return Entry(
        id=outcome.decision_id,
        at=at,
        route=outcome.route or "none",
        band=outcome.band or "none",
        model=outcome.model or "none",
        tenant=outcome.tenant or "none",
        status=outcome.status,
        input=usage.input if usage else 0,
        output=usage.output if usage else 0,
        cached=usage.cached if usage else 0,
        cache_write=usage.cache_write if usage else 0,
        estimated=usage is not None and usage.estimated,
        priced=usage is None or model is not None,
        cost=cost,
        router=config.ledger.router_per_query if outcome.decision_id else ZERO,
        baseline=counterfactual,
    )


@dataclass(slots=True)
class Sum:
    """Entries added up. `answered` counts statuses 200 to 299, `estimated` those whose tokens were estimated."""

    requests: int = 0
    answered: int = 0
    estimated: int = 0
    unpriced: int = 0
    input: int = 0
    output: int = 0
    cached: int = 0
    cache_write: int = 0
    cost: Decimal = ZERO
    router: Decimal = ZERO
    baseline: Decimal = ZERO

    @property
    def saved(self) -> Decimal:
        """Against the baseline."""
        return EXACT.subtract(self.baseline, EXACT.add(self.cost, self.router))

    def add(self, entry: Entry) -> None:
        """Adds one entry."""
        self.requests += 1
        self.answered += 200 <= entry.status < 300
        self.estimated += entry.estimated
        self.unpriced += not entry.priced
        self.input += entry.input
        self.output += entry.output
        self.cached += entry.cached
        self.cache_write += entry.cache_write
        self.cost = EXACT.add(self.cost, entry.cost)
        self.router = EXACT.add(self.router, entry.router)
        self.baseline = EXACT.add(self.baseline, entry.baseline)

    def merge(self, other: Sum) -> None:
        """Adds another sum."""
        for name in _COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        for name in _MONEY:
            setattr(self, name, EXACT.add(getattr(self, name), getattr(other, name)))

    def json(self) -> dict[str, Any]:
        """Money as text: JSON numbers are not exact."""
        counts = {name: getattr(self, name) for name in _COUNTS}
        return counts | {name: plain(getattr(self, name)) for name in _MONEY}

    @staticmethod
    def parse(value: Mapping[str, Any]) -> Sum:
        """The opposite of `json`; unknown keys are ignored, older headers have no cache writes. Raises ValueError,
        KeyError or TypeError."""
        found = Sum()
        for name in _COUNTS:
            setattr(found, name, int(value.get(name, 0) if name == "cache_write" else value[name]))
        for name in _MONEY:
            setattr(found, name, Decimal(value[name]))
        return found


_COUNTS = ("requests", "answered", "estimated", "unpriced", "input", "output", "cached", "cache_write")
_MONEY = ("cost", "router", "baseline")


@dataclass(slots=True)
class Totals:
    """The same entries summed in all and by each dimension. Every table is bounded, its sums always add up to `all`."""

    all: Sum = field(default_factory=Sum)
    by: dict[str, dict[str, Sum]] = field(default_factory=lambda: {name: {} for name in DIMENSIONS})

    def add(self, entry: Entry) -> None:
        """Adds one entry to every table."""
        self.all.add(entry)
        for name in DIMENSIONS:
            self._sum(name, getattr(entry, name)).add(entry)

    def merge(self, other: Totals) -> None:
        """Adds another ledger's."""
        self.all.merge(other.all)
        for name in DIMENSIONS:
            for key, value in other.by[name].items():
                self._sum(name, key).merge(value)

    def _sum(self, dimension: str, key: str) -> Sum:
        table = self.by[dimension]
        found = table.get(key)
        if found is None:
            if dimension == "hour":
                self._fold_old_hours(table)
            elif len(table) >= MAX_KEYS:
                key = OTHER
            found = table.setdefault(key, Sum())
        return found

    def _fold_old_hours(self, table: dict[str, Sum]) -> None:
        while len(table) >= MAX_HOURS:
            oldest = min(key for key in table if key != EARLIER)
            table.setdefault(EARLIER, Sum()).merge(table.pop(oldest))

    def json(self) -> dict[str, Any]:
        """For the journal's header."""
        return {
            "all": self.all.json(),
            "by": {name: {key: value.json() for key, value in table.items()} for name, table in self.by.items()},
        }

    @staticmethod
    def parse(value: Mapping[str, Any]) -> Totals:
        """The opposite of `json`. Raises ValueError, KeyError or TypeError."""
        tables = {name: {k: Sum.parse(v) for k, v in value["by"].get(name, {}).items()} for name in DIMENSIONS}
        return Totals(Sum.parse(value["all"]), tables)


class Ledger:
    """Prices and adds up outcomes on its own thread, and keeps them in a journal under `directory` (None: only here).

    `outcome` may be called from the event loop and takes half a microsecond; everything else happens at most
    `WRITE_SECONDS` later. An id counts once, however often its outcome arrives (among the last `MAX_IDS`). A disk
    that fails costs no request and no total: what could not be written is carried over once it can be.
    `on_entry` is told of each entry, on the ledger's thread.
    """

    def __init__(
        self,
        config: Callable[[], RouterConfig],
        directory: Path | None = None,
        *,
        on_entry: Callable[[Entry], None] = lambda _: None,
        segment_bytes: int = SEGMENT_BYTES,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._config, self._on_entry = config, on_entry
        self._totals = Totals()
        self._ids: OrderedDict[str, None] = OrderedDict()
        self._since = time.time()
        self._guard = threading.Lock()
        self._work: Background[tuple[Outcome, float]] = Background(
            "ledger", self._take, seconds=WRITE_SECONDS, max_waiting=max_waiting
        )
        self._journal = (
            Journal(directory, "ledger", max_bytes=segment_bytes, keep=1, header=self._header) if directory else None
        )
        self._synced = 0.0
        self.write_errors = 0

    @property
    def dropped(self) -> int:
        """Outcomes that came faster than the thread could take them."""
        return self._work.dropped

    def start(self) -> None:
        """Reads what is on disk, then takes outcomes. Blocks for the reading. Raises JournalTaken or OSError."""
        if self._journal is not None:
            self._journal.open()
            self._read(self._journal)
        self._work.start()

    def outcome(self, outcome: Outcome) -> None:
        """An exchange has ended."""
        self._work.put((outcome, time.time()))

    def flush(self) -> None:
        """Blocks until everything so far is in the totals and on disk."""
        self._work.flush()

    def close(self) -> None:
        """Writes everything that waits and ends. Blocks for that."""
        self._work.close()
        if self._journal is not None:
            try:
                if self._journal.lacking:
                    self._journal.rotate()
                self._journal.close()
            except OSError as error:
                self._unwritten(error)

    def savings(self, tables: Collection[str] = DIMENSIONS) -> dict[str, Any]:
        """The totals for people and dashboards, by each of `tables`. From any thread but the event loop's: it waits
        for the ledger's, and takes some 8 us per row (`MAX_KEYS` and `MAX_HOURS` bound them)."""
        config = self._config()
        with self._guard:
            by = {
                f"{name}s": {key: _shown(value) for key, value in sorted(self._totals.by[name].items())}
                for name in tables
            }
            total = _shown(self._totals.all)
        return {
            "since": datetime.fromtimestamp(self._since, UTC).isoformat(timespec="seconds"),
            "currency": "USD",
            "baseline": baseline_of(config),
            "assumption": "the baseline model would have read and written the same number of tokens",
            "durable": self._journal is not None,
            "dropped": self.dropped,
            "write_errors": self.write_errors,
            "total": total,
            **by,
        }

    def _take(self, batch: list[tuple[Outcome, float]]) -> None:
        """A batch into the totals and the journal."""
        lines: list[bytes] = []
        config = self._config()
        writable = self._begin_segment() if batch else False
        for outcome, at in sharing(batch):
            entry = price(outcome, config, at)
            with self._guard:
                if not self._new(entry.id):
                    continue
                self._totals.add(entry)
            lines.append(entry.line())
            self._on_entry(entry)
        if self._journal is None:
            return
        try:
            if lines and writable:
                self._journal.append(b"".join(lines))
            elif lines:
                self._journal.behind()
            if time.monotonic() - self._synced >= SYNC_SECONDS:
                self._journal.sync()
                self._synced = time.monotonic()
        except OSError as error:
            self._unwritten(error)

    def _begin_segment(self) -> bool:
        """Rotates where it is due, before new entries enter the totals that the header carries. False: no disk."""
        if self._journal is None:
            return False
        if self._journal.due:
            try:
                self._journal.rotate()
            except OSError as error:
                self._unwritten(error)
        return not self._journal.due

    def _unwritten(self, error: OSError) -> None:
        self.write_errors += 1
        log.error("the ledger cannot be written, its totals go on in memory: %s", error)

    def _new(self, identity: str) -> bool:
        """Whether this id has not been counted. An exchange that we did not decide has none, and counts."""
        if not identity:
            return True
        if identity in self._ids:
            return False
        self._ids[identity] = None
        if len(self._ids) > MAX_IDS:
            self._ids.popitem(last=False)
        return True

    def _header(self) -> bytes:
        with self._guard:
            carried = {"version": 1, "since": self._since, "carried": self._totals.json()}
        return json.dumps(carried, separators=(",", ":")).encode() + b"\n"

    def _read(self, journal: Journal) -> None:
        """Totals and the last ids, of what is on disk."""
        found = _from_disk(journal.segments())
        if found is not None:
            self._totals, self._since, ids = found
            for identity in ids:
                self._new(identity)


def read_totals(directory: Path) -> Totals | None:
    """What a ledger on disk adds up to, also while its sidecar writes it. None when there is none."""
    found = _from_disk(Journal(directory, "ledger", max_bytes=SEGMENT_BYTES).segments())
    return found[0] if found is not None else None


def _from_disk(segments: list[Path]) -> tuple[Totals, float, list[str]] | None:
    """Totals of the newest segment with a header, its entries on top; since when; ids, older segments' too."""
    for number, segment in enumerate(reversed(segments)):
        header, *lines = _lines(segment) or [b""]
        try:
            found = json.loads(header)
            totals, since = Totals.parse(found["carried"]), float(found["since"])
        except (ValueError, KeyError, TypeError, ArithmeticError):
            log.error("%s has no usable header; the segment before it is read", segment)
            continue
        ids = [
            entry.id for older in segments[: len(segments) - 1 - number] for entry in _entries(_lines(older)[1:], older)
        ]
        for entry in _entries(lines, segment):
            totals.add(entry)
            ids.append(entry.id)
        return totals, since, ids
    return None


def _lines(segment: Path) -> list[bytes]:
    """None of a segment that is gone by now: whose ledger it is has begun a new one."""
    try:
        return list(lines_of(segment))
    except FileNotFoundError:
        return []


def _entries(lines: list[bytes], segment: Path) -> Iterator[Entry]:
    for line in lines:
        try:
            yield Entry.parse(line)
        except (ValueError, TypeError, ArithmeticError):
            log.error("%s: a line is not an entry and is left out: %r", segment, line[:80])


def _shown(value: Sum) -> dict[str, Any]:
    shown = value.json()
    shown["saved"] = plain(value.saved)
    shown["saved_percent"] = round(float(value.saved / value.baseline * 100), 2) if value.baseline else None
    return shown
