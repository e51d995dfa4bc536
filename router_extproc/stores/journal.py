"""An append-only file of JSON lines that survives a kill and never outgrows its bound.

The file is a row of segments, `NAME-00000001.jsonl` and so on. A full segment is followed by a new one, and the oldest
are deleted. Where an owner gives a header (totals carried over, say), it is the first line of each segment and stands
for what is gone. Only one process may write a journal at a time.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from router_extproc.errors import RouterError

TAIL_BYTES = 64 * 1024
"""Read at once, from a segment's end, to find its last whole line."""


class JournalTaken(RouterError):
    """Another process writes this journal."""


class Journal:
    """Blocking file operations: call everything on one thread that may wait, never on the event loop.

    `max_bytes` bounds one segment (a single `append` may exceed it once), and `header` gives the first line of each new
    one. With a header, `keep` segments stay beside the current one, and each process begins a new one. Without, what is
    gone is lost: the newest segment goes on until it is full, and the oldest go when the full ones together have more
    than `keep` times `max_bytes`.
    """

    def __init__(
        self,
        directory: Path,
        name: str,
        *,
        max_bytes: int,
        keep: int = 1,
        header: Callable[[], bytes] | None = None,
    ) -> None:
        self.directory = directory
        self._name, self._max_bytes, self._keep, self._header = name, max_bytes, keep, header
        self._pattern = re.compile(re.escape(name) + r"-(\d{8})\.jsonl")
        self._lock: int | None = None
        self._file: int | None = None
        self._size = 0
        self._dirty = False
        self._torn = False

    def open(self) -> None:
        """Takes the journal. Raises JournalTaken or OSError."""
        self.directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(self.directory / f"{self._name}.lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise JournalTaken(f"{self.directory}: another process writes {self._name} here") from None
        self._lock = lock
        if self._header is None:
            try:
                self._go_on()
            except OSError:
                self.close()
                raise

    def segments(self) -> list[Path]:
        """The segments on disk, oldest first."""
        found = [path for path in self.directory.glob(f"{self._name}-*.jsonl") if self._pattern.fullmatch(path.name)]
        return sorted(found)

    @property
    def size(self) -> int:
        """Bytes in the segments on disk."""
        return sum(path.stat().st_size for path in self.segments())

    def append(self, lines: bytes) -> None:
        """Writes whole lines; they survive a kill of the process from then on. Raises OSError.

        After an error the next call begins a new segment with its header, so that a line that was cut off is the last
        one of its segment and the header makes up for what was lost. Without a header it takes that line away.
        """
        if self.due:
            self.rotate()
        assert self._file is not None
        if self._torn:
            os.ftruncate(self._file, self._size)
        self._torn = True
        _write(self._file, lines)
        self._torn = False
        self._size += len(lines)
        self._dirty = True

    @property
    def due(self) -> bool:
        """Whether the next `append` begins a new segment. An owner whose header sums up rotates by itself before."""
        made_up_for = self._torn and self._header is not None
        return self._file is None or made_up_for or self._size >= self._max_bytes

    @property
    def lacking(self) -> bool:
        """Whether lines are missing that only a new segment's header can make up for."""
        return self._torn

    def behind(self) -> None:
        """The owner has left out lines: the next segment's header has to make up for them."""
        self._torn = True

    def sync(self) -> None:
        """Makes what was appended survive a crash of the machine. Raises OSError."""
        if self._file is not None and self._dirty:
            os.fsync(self._file)
            self._dirty = False

    def close(self) -> None:
        """Syncs and lets the journal go."""
        try:
            self.sync()
        finally:
            for descriptor in (self._file, self._lock):
                if descriptor is not None:
                    os.close(descriptor)
            self._file = self._lock = None

    def rotate(self) -> None:
        """Begins a new segment, which appears whole, header included, or not at all. Raises OSError."""
        segments = self.segments()
        number = int(segments[-1].stem.rpartition("-")[2]) + 1 if segments else 1
        path = self.directory / f"{self._name}-{number:08}.jsonl"
        draft = path.with_suffix(".draft")
        header = self._header() if self._header is not None else b""
        new = os.open(draft, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            _write(new, header)
            os.fsync(new)
            draft.rename(path)
            _sync_directory(self.directory)
        except OSError:
            os.close(new)
            draft.unlink(missing_ok=True)
            raise
        if self._file is not None:
            os.close(self._file)
        self._file, self._size, self._dirty, self._torn = new, len(header), False, False
        for old in self._beyond(segments):
            old.unlink(missing_ok=True)

    def _go_on(self) -> None:
        """Takes the newest segment up again. Else each start would cost an old one, and a crash loop all of them."""
        segments = self.segments()
        if segments:
            self._file = os.open(segments[-1], os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
            # A line that a crash cut off goes with the next `append`.
            self._size = _whole(segments[-1])
            self._torn = self._size < os.fstat(self._file).st_size

    def _beyond(self, full: list[Path]) -> list[Path]:
        """The oldest of these segments, for which there is no room beside a new one."""
        if self._header is not None:
            return full[: max(0, len(full) - self._keep)]
        sizes = [path.stat().st_size for path in full]
        gone = 0
        while sum(sizes[gone:]) > self._keep * self._max_bytes:
            gone += 1
        return full[:gone]


def lines_of(path: Path) -> Iterator[bytes]:
    """The whole lines of a segment: one that a crash cut off at the end is left out."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield line


def _whole(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - TAIL_BYTES)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def _write(descriptor: int, content: bytes) -> None:
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
