"""What every `stores.base.Store` keeps: the one in memory, and a real redis-server behind the client that we ship."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from router_extproc.config.store import Store as StoreSection
from router_extproc.stores.base import Change, Store
from router_extproc.stores.table import STORES, open_store
from tests.redis_server import RedisServer, needs_redis, redis_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as found:
        yield found


@pytest_asyncio.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    url = "memory:" if request.param == "memory" else request.getfixturevalue("server").url
    # A slow machine is no reason to fail here; a prefix per test keeps them apart.
    opened = open_store(StoreSection(url=url, timeout_ms=10_000, prefix=tmp_path.name[-60:]))
    assert opened is not None
    yield opened
    await opened.aclose()


async def total(store: Store, key: str) -> int:
    return (await store.add("asking", 1, [Change(key, 0, 60)])).totals[0]


async def test_a_batch_counts_and_tells_totals(store: Store) -> None:
    added = await store.add("a", 1, [Change("x", 5, 60), Change("y", -2, 60), Change("z", 0, 60)])
    assert (added.totals, added.known) == ((5, -2, 0), False)
    added = await store.add("b", 1, [Change("x", 7, 60)])
    assert (added.totals, added.known) == ((12,), False)
    assert (await store.add("a", 2, [Change("x", 1, 60)])).known
    assert await total(store, "x") == 13


async def test_a_batch_that_comes_again_counts_once(store: Store) -> None:
    for _ in range(3):
        assert (await store.add("a", 4, [Change("x", 5, 60)])).totals == (5,)
    assert (await store.add("a", 3, [Change("x", 100, 60)])).totals == (5,)
    assert (await store.add("a", 5, [Change("x", 1, 60)])).totals == (6,)


async def test_large_amounts_are_exact(store: Store) -> None:
    large = 2**62 + 1
    await store.add("a", 1, [Change("x", large, 60)])
    assert (await store.add("a", 2, [Change("x", -3, 60)])).totals == (large - 3,)


async def test_one_counter_may_stand_twice_in_a_batch(store: Store) -> None:
    assert (await store.add("a", 1, [Change("x", 1, 60), Change("x", 2, 60)])).totals == (3, 3)


async def test_many_writers_at_once_lose_nothing(store: Store) -> None:
    async def write(name: str) -> None:
        for number in range(1, 21):
            await store.add(name, number, [Change("x", 1, 60), Change(name, 1, 60)])

    await asyncio.gather(*(write(f"w{number}") for number in range(8)))
    assert await total(store, "x") == 160
    assert await total(store, "w3") == 20


async def test_values_are_kept_and_expire(store: Store) -> None:
    await store.put({"a": b"\x00\xff", "b": b""}, 60)
    await store.put({"short": b"1"}, 1)
    assert await store.get(["b", "nobody", "a"]) == [b"", None, b"\x00\xff"]
    await store.put({"a": b"newer"}, 60)
    assert await store.get(["a"]) == [b"newer"]
    async with asyncio.timeout(30):
        while await store.get(["short"]) != [None]:  # noqa: ASYNC110 - expiry has no event
            await asyncio.sleep(0.05)


async def test_counters_expire(store: Store) -> None:
    await store.add("a", 1, [Change("x", 5, 1)])
    async with asyncio.timeout(30):
        while await total(store, "x"):  # noqa: ASYNC110 - expiry has no event
            await asyncio.sleep(0.05)


def test_the_table_has_what_the_schema_lets_through() -> None:
    assert set(STORES) == {"memory", "redis", "rediss"}
    assert open_store(StoreSection()) is None
