"""One JSON line per exchange, on disk in rotated files and as a log line: what was seen, decided, answered and paid."""

from __future__ import annotations

import contextlib
import heapq
import json
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Outcome
from router_extproc.ledger import price
from router_extproc.records import VERSION, note, record
from router_extproc.stores.background import Background, sharing
from router_extproc.stores.journal import Journal, lines_of
from router_extproc.telemetry.recorder import Decided, Refused

log = logging.getLogger("router_extproc.exchange")

NAME = "decisions"
WRITE_SECONDS = 0.25
MAX_WAITING = 50_000
SEGMENTS = 8
MAX_JOINED = 100_000
"""Decisions and outcomes that wait for each other while logs are read; half a kilobyte each."""
MAX_UNSORTED = 20_000
"""Records that are held while logs are read, to hand them on by their times; two kilobytes each."""
OF_THE_END = ("time", "outcome", "cost", "baseline", "saved")
"""What the outcome brings into a line."""


class _Item(NamedTuple):
    """What one line is made of, and when it was handed over (seconds since 1970)."""

    at: float
    outcome: Outcome | None = None
    decided: Decided | None = None
    refused: Refused | None = None
    facts: Mapping[str, Any] | None = None


class DecisionLog:
    """Writes records on a thread of its own. `record` is for the event loop and takes half a microsecond.

    `max_bytes` bounds all files together. A disk that fails costs lines (`lost`), never a request. `versions`
    names what decided (the classifier, say). Without a directory there are log lines only.
    """

    def __init__(
        self,
        config: Callable[[], RouterConfig],
        directory: Path | None = None,
        *,
        prompts: bool = False,
        max_bytes: int = 256 * 1024 * 1024,
        versions: Callable[[], dict[str, Any]] = dict,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config, self._prompts, self._versions, self._clock = config, prompts, versions, clock
        self._work: Background[_Item] = Background(
            "decision log", self._write, seconds=WRITE_SECONDS, max_waiting=MAX_WAITING
        )
        self._journal = (
            Journal(directory, NAME, max_bytes=max_bytes // SEGMENTS, keep=SEGMENTS - 1) if directory else None
        )
        self.lost = 0
        """Lines that the disk did not take."""

    @property
    def dropped(self) -> int:
        """Lines that came faster than they could be written."""
        return self._work.dropped

    def start(self) -> None:
        """Takes the files. Raises JournalTaken or OSError."""
        if self._journal is not None:
            self._journal.open()
        self._work.start()

    def record(self, outcome: Outcome | None, decided: Decided | None) -> None:
        """An exchange has ended, or nobody told what became of it (None)."""
        self._work.put(_Item(self._clock(), outcome, decided))

    def refused(self, refused: Refused) -> None:
        """A request was answered with an error after it had been read. Its exchange has a line of its own, by Envoy's
        request id."""
        self._work.put(_Item(refused.at, refused=refused))

    def note(self, facts: Mapping[str, Any], at: float) -> None:
        """Something was said about an exchange."""
        self._work.put(_Item(at, facts=facts))

    def flush(self) -> None:
        """Blocks until everything so far is written."""
        self._work.flush()

    def close(self) -> None:
        """Writes everything that waits and ends. Blocks for that."""
        self._work.close()
        if self._journal is not None:
            self._journal.close()

    def _write(self, batch: list[_Item]) -> None:
        if self._journal is None and not log.isEnabledFor(logging.INFO):
            return
        lines, config = [], self._config()
        versions = self._versions() if batch else {}
        for item in sharing(batch):
            if item.facts is not None:
                made = note(item.facts, item.at)
            else:
                entry = price(item.outcome, config, item.at) if item.outcome is not None else None
                made = record(item.outcome, item.decided, entry, refused=item.refused, prompts=self._prompts)
            line = json.dumps(made | {"versions": versions}, separators=(",", ":"))
            log.info("%s", line)
            lines.append(line.encode() + b"\n")
        if lines and self._journal is not None:
            try:
                self._journal.append(b"".join(lines))
            except OSError as error:
                self.lost += len(lines)
                logging.getLogger(__name__).error("%d lines of the decision log are lost: %s", len(lines), error)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file, or of all files of a directory, oldest first, also while a sidecar writes there. A line
    that is no record is an empty one, for whoever counts them. Raises OSError."""
    if not path.is_dir():
        yield from map(_record_of, lines_of(path))
        return
    for file in sorted(path.glob(f"{NAME}-*.jsonl")):
        # The oldest file may be gone by now: a new one has taken its place.
        with contextlib.suppress(FileNotFoundError):
            yield from map(_record_of, lines_of(file))


def read_logs(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The records of the logs of several sidecars, about by their times. Raises OSError."""
    return heapq.merge(*map(read_log, paths), key=_time_of)


def _time_of(made: Mapping[str, Any]) -> str:
    return str(made.get("time", ""))


def by_time(records: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Sorted, for whoever replays them, but for those that stand more than `MAX_UNSORTED` records behind their place: a
    decision whose outcome does not come is written minutes later, with its own time."""
    held: list[tuple[str, int, str]] = []  # as text: objects take six times as much
    for number, made in enumerate(records):
        item = (_time_of(made), number, json.dumps(made))
        if len(held) < MAX_UNSORTED:
            heapq.heappush(held, item)
        else:
            yield json.loads(heapq.heappushpop(held, item)[2])
    while held:
        yield json.loads(heapq.heappop(held)[2])


def read_joined(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    """The same with one record per exchange: one sidecar decides a request, and Envoy may tell another the outcome.

    What the two wrote is joined, whatever the order of files and lines, of the newest `MAX_JOINED`, and has the time of
    the outcome, in the place of the decision. All is read twice. Raises OSError.
    """
    decided: OrderedDict[str, None] = OrderedDict()
    told: OrderedDict[str, str] = OrderedDict()
    for made in read_logs(paths):
        identity = str(made.get("id"))
        if _lacks_outcome(made):
            decided[identity] = None
        elif _lacks_decision(made):
            told[identity] = json.dumps({name: made[name] for name in OF_THE_END if name in made})
        for table in (decided, told):
            if len(table) > MAX_JOINED:
                table.popitem(last=False)
    pairs = {identity: told[identity] for identity in decided if identity in told}
    del decided, told
    yield from _paired(paths, pairs)


def _paired(paths: Sequence[Path], told: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """The records, decisions with their outcomes of `told`."""
    for made in read_logs(paths):
        found = told.get(str(made.get("id")))
        if found is not None and _lacks_outcome(made):
            yield made | json.loads(found)
        elif found is None or not _lacks_decision(made):
            yield made


def _lacks_outcome(made: Mapping[str, Any]) -> bool:
    return "plan" in made and made.get("outcome") is None


def _lacks_decision(made: Mapping[str, Any]) -> bool:
    """Whether another sidecar decided it. Without a route nobody did: its id is Envoy's, which a client may choose."""
    undecided = "plan" not in made and "refused" not in made and bool(made.get("route"))
    return undecided and isinstance(made.get("outcome"), dict)


def _record_of(line: bytes) -> dict[str, Any]:
    try:
        made = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return made if isinstance(made, dict) and made.get("v") == VERSION else {}
