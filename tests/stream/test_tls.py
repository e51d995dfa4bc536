"""TLS on the gateways' port: who gets in, and which certificate is shown after a renewal."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router_extproc.errors import ConfigError
from router_extproc.processor import Processor
from router_extproc.runtime import Runtimes
from router_extproc.server import SERVING, Server
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import Recorder
from router_extproc.testing import FakeClassifier
from router_extproc.tls import TlsFiles, server_credentials
from tests.certificates import Authority
from tests.mounted import Mounted
from tests.stream.conftest import ANSWERS, CONFIG, LABELS, compiled

NAME = "router.test"


def files(directory: Path, *, client_ca: bool = True) -> TlsFiles:
    return TlsFiles(directory / "tls.crt", directory / "tls.key", directory / "ca.crt" if client_ca else None)


async def serving(tls: TlsFiles) -> AsyncIterator[int]:
    metrics = Metrics()
    recorder = Recorder(metrics)
    runtimes = Runtimes(compiled(CONFIG, FakeClassifier(ANSWERS, LABELS)))
    server = Server("127.0.0.1:0", Processor(runtimes, recorder), recorder, dict, tls=tls)
    await server.start()
    await server.ready()
    yield server.port
    await server.drain(0, 1)
    metrics.close()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


@pytest.fixture
def mounted(authority: Authority, tmp_path: Path) -> Mounted:
    found = Mounted(tmp_path / "mounted")
    found.swap(authority.issue(NAME))
    return found


@pytest_asyncio.fixture
async def port(mounted: Mounted) -> AsyncIterator[int]:
    async for found in serving(files(mounted.path)):
        yield found


async def healthy(port: int, shown: dict[str, str] | None, trusted: Authority) -> bool:
    """Whether a client that trusts `trusted` and shows a certificate, or none, gets an answer."""
    mine = {} if shown is None else {"private_key": shown["tls.key"], "certificate_chain": shown["tls.crt"]}
    credentials = grpc.ssl_channel_credentials(
        trusted.certificate.encode(), **{name: text.encode() for name, text in mine.items()}
    )
    options = [("grpc.ssl_target_name_override", NAME)]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        except grpc.aio.AioRpcError:
            return False
        return bool(answer.status == SERVING)


async def certificate_shown(port: int, client: dict[str, str], trusted: Authority, directory: Path) -> str:
    """The common name that the server shows to whoever connects now."""
    context = ssl.create_default_context(cadata=trusted.certificate)
    for name in ("tls.crt", "tls.key"):
        (directory / name).write_text(client[name])
    context.load_cert_chain(directory / "tls.crt", directory / "tls.key")
    context.set_alpn_protocols(["h2"])

    def connect() -> str:
        with (
            socket.create_connection(("127.0.0.1", port), 10) as raw,
            context.wrap_socket(raw, server_hostname=NAME) as wrapped,
        ):
            found = wrapped.getpeercert()
            assert found is not None
            return str(found["subject"][0][0][1])

    return await asyncio.to_thread(connect)


async def test_only_clients_with_a_certificate_of_the_authority_get_in(
    port: int, authority: Authority, tmp_path: Path
) -> None:
    strangers = Authority(tmp_path, "strangers")
    assert await healthy(port, authority.issue("gateway"), authority)
    assert not await healthy(port, None, authority)
    assert not await healthy(port, strangers.issue("gateway"), authority)
    assert not await healthy(port, authority.issue("gateway"), strangers)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError):
            await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)


async def test_without_a_client_authority_whoever_trusts_the_server_gets_in(
    mounted: Mounted, authority: Authority
) -> None:
    async for port in serving(files(mounted.path, client_ca=False)):
        assert await healthy(port, None, authority)


async def test_a_renewed_certificate_serves_without_a_restart_and_a_bad_one_never(
    port: int, mounted: Mounted, authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = authority.issue("gateway")
    assert await certificate_shown(port, client, authority, tmp_path) == "ca-1"
    old, new = authority.issue(NAME), authority.issue(NAME)
    with caplog.at_level(logging.ERROR, "router_extproc.tls"):
        mounted.swap({**new, "tls.key": old["tls.key"]})
        for _ in range(3):
            assert await certificate_shown(port, client, authority, tmp_path) == "ca-1"
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "refused the new certificate, the last good one serves on"
    ]
    mounted.swap(new)
    assert await certificate_shown(port, client, authority, tmp_path) == "ca-4"

    others = Authority(tmp_path, "others")
    mounted.swap(others.issue(NAME))
    assert await healthy(port, others.issue("gateway"), others)
    assert not await healthy(port, client, others)


@pytest.mark.parametrize("broken", ["tls.crt", "tls.key", "ca.crt"])
def test_files_that_cannot_be_used_are_refused_at_the_start(
    broken: str, mounted: Mounted, authority: Authority
) -> None:
    mounted.swap({**authority.issue(NAME), broken: "not PEM"})
    with pytest.raises(ConfigError, match="TLS"):
        server_credentials(files(mounted.path))
    (mounted.path / broken).unlink()
    with pytest.raises(ConfigError, match=broken):
        server_credentials(files(mounted.path))
