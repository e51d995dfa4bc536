"""mTLS between the real Envoy and the sidecar, and certificates that are renewed while both run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
import pytest

from router_extproc.config.envoy_tls import SidecarTls
from tests.certificates import Authority
from tests.e2e.conftest import LIMITS, registered
from tests.e2e.stack import Stack, running, wait_until, write_config
from tests.mounted import Mounted

NAME = "router.mom.svc"
PROMPT = "Write a Python function that sorts a list"


def ask(stack: Stack) -> httpx.Response:
    body = {"model": "auto", "messages": [{"role": "user", "content": PROMPT}]}
    return httpx.post(f"{stack.url}/v1/chat/completions", json=body, timeout=30)


def tls_of(directory: Path) -> SidecarTls:
    """Envoy's side: the client's Secret mounted at `directory`."""
    files = {name: str(directory / name) for name in ("ca.crt", "tls.crt", "tls.key")}
    return SidecarTls(files["ca.crt"], NAME, files["tls.crt"], files["tls.key"], str(directory.parent / "sds"))


@dataclass
class Secured:
    """An installation whose sidecar wants a client's certificate; both Secrets are mounted."""

    stack: Stack
    directory: Path
    authority: Authority
    server: Mounted
    client: Mounted


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("tls")
    authority = Authority(directory)
    server, client = Mounted(directory / "server"), Mounted(directory / "client")
    server.swap(authority.issue(NAME))
    client.swap(authority.issue("gateway"))
    flags = []
    for flag, name in (("--tls-cert", "tls.crt"), ("--tls-key", "tls.key"), ("--tls-client-ca", "ca.crt")):
        flags += [flag, str(server.path / name)]
    config = write_config(directory, LIMITS)
    with running(directory, config, flags=flags, sidecar_tls=tls_of(client.path)) as stack, registered(stack):
        yield Secured(stack, directory, authority, server, client)


def test_requests_are_routed_and_certificates_renewed_while_both_run(secured: Secured) -> None:
    stack, updates = secured.stack, "cluster.mom-sidecar.client_ssl_socket_factory.ssl_context_update_by_sds"
    assert ask(stack).headers["x-mom-route"] == "code"
    assert stack.counter("cluster.mom-sidecar.ssl.handshake") > 0

    # Another authority altogether: what was open stays open, what is new needs the new one on both sides.
    before = stack.counter(updates)
    secured.authority = Authority(secured.directory, "others")
    secured.server.swap(secured.authority.issue(NAME))
    secured.client.swap(secured.authority.issue("gateway"))
    wait_until(lambda: stack.counter(updates) > before, "Envoy took the new files over")
    assert ask(stack).headers["x-mom-route"] == "code"
    handshakes = stack.counter("cluster.mom-sidecar.ssl.handshake")
    sidecar = stack.sidecars[0]
    assert sidecar.process is not None
    sidecar.process.kill()
    stack.wait_sidecars(0)
    assert "x-mom-route" not in ask(stack).headers  # fails open as ever
    sidecar.start()
    stack.wait_sidecars(1)
    assert ask(stack).headers["x-mom-route"] == "code"
    assert stack.counter("cluster.mom-sidecar.ssl.handshake") > handshakes


@pytest.mark.parametrize("wrong", ["name", "authority", "no certificate", "plaintext"])
def test_who_cannot_be_trusted_decides_nothing(wrong: str, secured: Secured, tmp_path: Path) -> None:
    """A second Envoy in front of the same sidecar, which one of the two does not trust: the default model serves."""
    client = Mounted(tmp_path / "client")
    client.swap(secured.authority.issue("gateway"))
    tls: SidecarTls | None = tls_of(client.path)
    assert tls is not None
    match wrong:
        case "name":
            tls = replace(tls, name="elsewhere.test")
        case "authority":
            client.swap({**secured.authority.issue("gateway"), "ca.crt": Authority(tmp_path).certificate})
        case "no certificate":
            tls = replace(tls, certificate=None, key=None)
        case _:
            tls = None
    with running(
        tmp_path,
        secured.stack.config,
        sidecars=0,
        addresses=[secured.stack.sidecars[0].address],
        prepare=lambda servers: servers.clear(),
        sidecar_tls=tls,
        wait_healthy=False,
    ) as stack:
        wait_until(lambda: stack.counter("cluster.mom-sidecar.health_check.failure"), "a failed health check")
        assert stack.healthy_sidecars() == 0
        answer = ask(stack)
        assert answer.status_code == 200
        assert "x-mom-route" not in answer.headers
    assert ask(secured.stack).headers["x-mom-route"] == "code"
