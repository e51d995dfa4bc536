import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from router_extproc.config.loader import read
from router_extproc.config.watcher import content_digest, watch
from router_extproc.errors import ConfigError


class Changes:
    """What a watcher reported: the content found at each call, None where there was none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()

    async def on_change(self) -> None:
        try:
            self._queue.put_nowait(read(self._path)[1])
        except ConfigError:
            self._queue.put_nowait(None)

    async def next(self) -> bytes | None:
        return await asyncio.wait_for(self._queue.get(), 20)

    def more(self) -> int:
        return self._queue.qsize()


@contextlib.asynccontextmanager
async def watching(path: Path, since: str | None = "") -> AsyncIterator[Changes]:
    changes = Changes(path)
    task = asyncio.create_task(watch(path, changes.on_change, interval=0.005, since=since))
    try:
        yield changes
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_overwriting_is_noticed_once_per_content(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"one")
    async with watching(file) as changes:
        assert await changes.next() == b"one"
        os.utime(file)
        file.write_bytes(b"one")
        file.write_bytes(b"two")
        assert await changes.next() == b"two"
        assert changes.more() == 0


async def test_an_editors_rename_is_one_change(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"one")
    async with watching(file) as changes:
        assert await changes.next() == b"one"
        (tmp_path / ".router.yaml.swp").write_bytes(b"two")
        file.rename(tmp_path / "router.yaml~")
        (tmp_path / ".router.yaml.swp").rename(file)
        assert await changes.next() == b"two"


def kubelet_writes(volume: Path, version: str, content: bytes) -> None:
    """What kubelet's AtomicWriter does to a ConfigMap volume."""
    (volume / version).mkdir()
    (volume / version / "router.yaml").write_bytes(content)
    (volume / "..data_tmp").symlink_to(version)
    old = (volume / "..data").resolve()
    (volume / "..data_tmp").rename(volume / "..data")
    if not (volume / "router.yaml").is_symlink():
        (volume / "router.yaml").symlink_to("..data/router.yaml")
    if old.name.startswith("..2026"):
        (old / "router.yaml").unlink()
        old.rmdir()


@pytest.mark.parametrize("name", ["", "router.yaml"])
async def test_configmap_swaps_are_noticed(tmp_path: Path, name: str) -> None:
    kubelet_writes(tmp_path, "..2026_01", b"one")
    async with watching(tmp_path / name) as changes:
        assert await changes.next() == b"one"
        for number in range(2, 6):
            kubelet_writes(tmp_path, f"..2026_0{number}", b"version %d" % number)
            assert await changes.next() == b"version %d" % number
        kubelet_writes(tmp_path, "..2026_10", b"version 5")
        kubelet_writes(tmp_path, "..2026_11", b"last")
        assert await changes.next() == b"last"
        assert changes.more() == 0


@pytest.mark.parametrize(
    "named",
    [
        b"users_file: users.yaml",
        b"'users_file': \"users.yaml\"",
        b"users_file : users.yaml",
        b"? users_file\n  : users.yaml",
        b'"users\\x5ffile": &it users.yaml',
        b"users_file: # beside this one\n    users.yaml",
    ],
)
async def test_a_change_of_the_users_file_is_noticed(tmp_path: Path, named: bytes) -> None:
    content = b"models: {a: {url: 'http://h', price: {input: 1, output: 1}}}\ndefault: a\n"
    content += b"preferences:\n  header: x-tenant\n  " + named
    (tmp_path / "router.yaml").write_bytes(content)
    async with watching(tmp_path) as changes:
        assert await changes.next() == content
        for users in (b"users: {}", b"users: {a: {}}"):
            (tmp_path / "users.yaml").write_bytes(users)
            assert await changes.next() == content
        (tmp_path / "users.yaml").unlink()
        assert await changes.next() == content


async def test_a_file_that_stays_away_is_reported_and_so_is_its_return(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"one")
    async with watching(file) as changes:
        assert await changes.next() == b"one"
        file.unlink()
        assert await changes.next() is None
        file.write_bytes(b"one")
        assert await changes.next() == b"one"


async def test_without_since_only_what_comes_later_counts(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"one")
    started = asyncio.Event()
    changes = Changes(file)

    async def on_change() -> None:
        started.set()
        await changes.on_change()

    task = asyncio.create_task(watch(file, on_change, interval=0.005))
    version = 0
    while not started.is_set():  # the first content counts as known, whichever of these it is
        version += 1
        file.write_bytes(b"%d" % version)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(started.wait(), 0.05)
    assert await changes.next() == b"%d" % version
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_that_nobody_has_foreseen_does_not_end_the_watch(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"one")
    changes, failures = Changes(file), 3

    def digest(path: Path) -> str:
        nonlocal failures
        if path.read_bytes() == b"two" and failures:
            failures -= 1
            raise IndexError("of a parser")
        return content_digest(path)

    task = asyncio.create_task(watch(file, changes.on_change, interval=0.005, since="", digest=digest))
    assert await changes.next() == b"one"
    file.write_bytes(b"two")
    assert await changes.next() == b"two"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [record.getMessage() for record in caplog.records] == [f"{file} cannot be looked at"]
