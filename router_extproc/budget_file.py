"""What budgets keep on disk: `budgets.json` in the state directory, read at the start and written on a thread."""

from __future__ import annotations

import heapq
import json
import logging
import os
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from router_extproc.prices import plain
from router_extproc.stores.background import Background
from router_extproc.stores.base import Change
from router_extproc.stores.tally import Batch

log = logging.getLogger(__name__)

FILE = "budgets.json"
SAVE_SECONDS = 0.75
WRITE_SECONDS = 0.25
"""Together how long what was spent or reserved may be missing in the file."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What the file says of an account that nobody has asked for yet. `counted`: the store knows it, or is told. `unit`
    is that of its budget then; an older file does not say it, and "" stands for any."""

    began: str
    spent: Decimal
    counted: bool
    unit: str = ""


@dataclass(frozen=True, slots=True)
class Unwritten:
    """What the file shall hold: of each account the budget, the key, and the rest; and what the store has not counted
    of these (None: there is no store)."""

    accounts: list[tuple[str, str, Kept]]
    owed: list[Batch] | None


class BudgetFile:
    """The file in `directory`, which is made where there is none. A disk that fails is told in the log and nobody
    waits for it."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE
        self._writer: Background[Unwritten] = Background("budgets", self._write, seconds=WRITE_SECONDS, max_waiting=10)

    def start(self, most: int) -> tuple[dict[str, dict[str, Kept]], list[Batch]]:
        """What was kept, by budget and key, `most` accounts of each budget; and what the store has yet to count.

        Begins to write. Blocks for the reading. Raises OSError when the directory cannot be made.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        accounts: dict[str, dict[str, Kept]] = {}
        owed: list[Batch] = []
        try:
            found = json.loads(self._path.read_bytes())
            accounts = _newest(
                (
                    (str(name), str(key), Kept(str(began), Decimal(spent), counted is True, *map(str, unit[:1])))
                    for name, key, began, spent, counted, *unit in found["accounts"]
                ),
                most,
            )
            owed = [
                Batch(str(writer), int(number), tuple(Change(str(key), int(units), int(s)) for key, units, s in rows))
                for writer, number, rows in found.get("owed", ())
            ]
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError) as error:
            log.error("%s cannot be used, budgets begin anew: %s", self._path, error)
        self._writer.start()
        return accounts, owed

    def put(self, unwritten: Unwritten) -> None:
        """Hands over what the file shall hold, soon; does not wait."""
        self._writer.put(unwritten)

    def close(self) -> None:
        """Writes what was put last. Blocks for that."""
        self._writer.close()

    def _write(self, batch: list[Unwritten]) -> None:
        if not batch:
            return
        newest = batch[-1]
        rows = [
            [name, key, each.began, plain(each.spent), each.counted, each.unit] for name, key, each in newest.accounts
        ]
        kept: dict[str, Any] = {"version": 1, "accounts": rows}
        if newest.owed is not None:
            kept["owed"] = [
                [each.writer, each.number, [[change.key, change.amount, change.seconds] for change in each.changes]]
                for each in newest.owed
            ]
        try:
            _replace(self._path, json.dumps(kept).encode())
        except OSError as error:
            log.error("what was spent of the budgets cannot be written: %s", error)


def _replace(path: Path, content: bytes) -> None:
    """Keys are names of tenants and end users: for the owner's eyes. On the disk before the old file goes."""
    draft = path.with_suffix(".draft")
    draft.unlink(missing_ok=True)  # one that others may read, left by a process that was killed
    with open(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _newest(rows: Iterable[tuple[str, str, Kept]], most: int) -> dict[str, dict[str, Kept]]:
    """By budget and key; of each budget the newest `most`, first those that have spent most."""
    by_name: dict[str, dict[str, Kept]] = {}
    for name, key, kept in rows:
        by_name.setdefault(name, {})[key] = kept
    for name, table in by_name.items():
        newest = heapq.nlargest(most, table.items(), key=lambda item: (item[1].began, item[1].spent))
        by_name[name] = dict(newest)
    return by_name
