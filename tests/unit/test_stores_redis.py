"""The client of a real redis-server: passwords, TLS, and what a server that is away costs."""

from __future__ import annotations

import asyncio
import logging
import time
from pathlib import Path

import pytest
import redis.asyncio

from router_extproc.config.loader import parse
from router_extproc.config.store import Store as StoreSection
from router_extproc.errors import ConfigError, ConfigMistakes
from router_extproc.stores.base import Change, StoreError
from router_extproc.stores.redis import RedisStore
from tests.redis_server import RedisServer, needs_redis, redis_server

TLS = Path(__file__).parents[1] / "e2e" / "tls"
SECRET = "correct-horse"


@needs_redis
async def test_the_password_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with redis_server(tmp_path, flags=("--requirepass", SECRET)) as server:
        section = StoreSection(url=server.url, password_env="STORE_PASSWORD", timeout_ms=5000)
        with pytest.raises(ConfigMistakes):
            RedisStore(section)
        monkeypatch.setenv("STORE_PASSWORD", SECRET)
        store = RedisStore(section)
        await store.put({"a": b"1"}, 60)
        assert await store.get(["a"]) == [b"1"]
        await store.aclose()
        monkeypatch.setenv("STORE_PASSWORD", f"not {SECRET}")
        store = RedisStore(section)
        with caplog.at_level(logging.DEBUG), pytest.raises(StoreError) as caught:
            await store.get(["a"])
        await store.aclose()
    assert SECRET not in f"{caplog.text} {caught.value} {section!r} {store!r} {vars(store)}"


@needs_redis
async def test_a_password_in_a_file_may_change_while_we_run(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    section = StoreSection(url="redis://127.0.0.1:1", password_file=str(secret), username="mom", timeout_ms=5000)
    with pytest.raises(ConfigMistakes):
        RedisStore(section)
    secret.write_text("old\n")
    users = tmp_path / "users.acl"
    users.write_text("user default off\nuser mom on >new ~{mom}:* +@all\n")
    with redis_server(tmp_path, flags=("--aclfile", str(users))) as server:
        store = RedisStore(section.model_copy(update={"url": server.url}), clock=iter(range(1000)).__next__)
        with pytest.raises(StoreError):
            await store.get(["a"])
        secret.write_text("new\n")
        assert await store.get(["a"]) == [None]
        await store.aclose()


@needs_redis
async def test_tls_needs_a_certificate_that_leads_to_the_given_ones(tmp_path: Path) -> None:
    flags = ("--port", "0", "--tls-cert-file", str(TLS / "cert.pem"), "--tls-key-file", str(TLS / "key.pem"))
    server = RedisServer(tmp_path)
    server = RedisServer(
        tmp_path, port=server.port, flags=(*flags, "--tls-port", str(server.port), "--tls-auth-clients", "no")
    )
    server.start()
    try:
        url = f"rediss://localhost:{server.port}/0"
        trusting = RedisStore(StoreSection(url=url, ca_file=str(TLS / "cert.pem"), timeout_ms=5000))
        assert await trusting.get(["a"]) == [None]
        await trusting.aclose()
        wary = RedisStore(StoreSection(url=url, timeout_ms=5000))
        with pytest.raises(StoreError) as caught:
            await wary.get(["a"])
        assert caught.value.reason == "down"
        await wary.aclose()
    finally:
        server.close()


@needs_redis
async def test_a_server_that_hangs_costs_one_timeout_and_then_nothing(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = RedisStore(StoreSection(url=server.url, timeout_ms=200))
        assert await store.get(["a"]) == [None]
        server.hang()
        began = time.monotonic()
        failures = await asyncio.gather(*(store.get(["a"]) for _ in range(50)), return_exceptions=True)
        assert {str(getattr(failure, "reason", failure)) for failure in failures} == {"slow"}
        for _ in range(1000):
            try:
                await store.get(["a"])
            except StoreError:
                continue
        assert time.monotonic() - began < 10
        server.go_on()
        await _back(store)
        await store.aclose()


@needs_redis
async def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        store = RedisStore(StoreSection(url=server.url, timeout_ms=5000))
        await store.add("a", 1, [Change("x", 5, 600)])
        server.kill()
        with pytest.raises(StoreError) as caught:
            await store.add("a", 2, [Change("x", 5, 600)])
        assert caught.value.reason == "down"
        server.start()
        await _back(store)
        added = await store.add("a", 2, [Change("x", 1, 600)])
        assert (added.totals, added.known) == ((6,), True)
        await store.aclose()


@needs_redis
async def test_a_server_without_memory_refuses_a_batch_whole(tmp_path: Path) -> None:
    def changes(amount: int) -> list[Change]:
        return [Change(key, amount, 600) for key in "xyz"]

    with redis_server(tmp_path, flags=("--maxmemory-policy", "noeviction")) as server:
        store = RedisStore(StoreSection(url=server.url, timeout_ms=5000), clock=iter(range(0, 1000, 10)).__next__)
        operator = redis.asyncio.Redis(port=server.port)
        assert (await store.add("a", 1, changes(100))).totals == (100, 100, 100)
        await operator.config_set("maxmemory", 1)
        for _ in range(3):
            with pytest.raises(StoreError) as caught:
                await store.add("a", 2, changes(5))
            assert caught.value.reason == "refused"
        await operator.config_set("maxmemory", 0)
        added = await store.add("a", 2, changes(5))
        await operator.aclose()
        await store.aclose()
    assert (added.totals, added.known) == ((105, 105, 105), True)


@needs_redis
async def test_after_a_failover_the_new_server_is_found(tmp_path: Path) -> None:
    """The address moves, while the connections to the old server, now a replica, stay."""
    directories = [tmp_path / "old", tmp_path / "new"]
    for directory in directories:
        directory.mkdir()
    with redis_server(directories[0]) as old, redis_server(directories[1]) as new:
        ports = [old.port]

        async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", ports[-1])
            await asyncio.gather(_pump(reader, back_writer), _pump(back_reader, writer))

        async with await asyncio.start_server(forward, "127.0.0.1", 0) as address:
            port = address.sockets[0].getsockname()[1]
            section = StoreSection(url=f"redis://127.0.0.1:{port}/0", timeout_ms=5000)
            store = RedisStore(section, clock=iter(range(0, 1000, 10)).__next__)
            await store.add("a", 1, [Change("x", 5, 600)])
            ports.append(new.port)
            operator = redis.asyncio.Redis(port=old.port)
            await operator.replicaof("127.0.0.1", new.port)
            await operator.aclose()
            with pytest.raises(StoreError) as caught:
                await store.add("a", 2, [Change("x", 5, 600)])
            assert caught.value.reason == "refused"
            assert (await store.add("a", 2, [Change("x", 5, 600)])).totals == (5,)
            await store.aclose()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()


async def _back(store: RedisStore) -> None:
    """Until it answers again: it is not asked for a moment after a failure."""
    async with asyncio.timeout(30):
        while True:
            try:
                await store.get(["a"])
                return
            except StoreError:
                await asyncio.sleep(0.01)


MINIMAL = "models: {a: {url: 'http://a', price: {input: 1, output: 1}}}\ndefault: a\nstore: "
WRONG = [
    ("{url: 'redis://user:hunter2@host'}", "r.yaml:3: store.url: holds no user or password here"),
    ("{url: 'http://host'}", "store.url: `http://host` is not allowed here"),
    ("{url: 'redis://h', password_env: A, password_file: b}", "give either password_env or password_file"),
    ("{url: 'redis://h', ca_file: ca.pem}", "ca_file belongs to a rediss:// url"),
    ("{url: 'redis://h', prefix: 'a b'}", "store.prefix"),
    ("{urls: 'redis://h'}", "did you mean `url`"),
]


@pytest.mark.parametrize(("section", "message"), WRONG)
def test_mistakes_are_named_without_secrets(section: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse((MINIMAL + section).encode(), Path("r.yaml"))
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)
