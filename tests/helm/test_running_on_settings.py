"""Sidecar and Envoy run on the chart's settings: over a Unix socket, with TLS, with an authority of one's own."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.certificates import Authority
from tests.e2e.stack import Process, free_ports, get, wait_until
from tests.helm.attaching import (
    Installed,
    Provider,
    chat,
    envoy,
    rendered_envoy,
)
from tests.helm.rendering import (
    CHART,
    Object,
    objects,
    one,
)
from tests.mounted import Mounted


@contextmanager
def serving(found: list[Object], directory: Path, local: dict[str, str]) -> Iterator[dict[str, str]]:
    """A sidecar on the chart's settings, with paths and addresses of the pod replaced. Gives the settings."""
    settings = dict(one(found, "ConfigMap", "router-extproc-static")["data"])
    (page,) = free_ports(1)
    local = {**local, "/var/lib/router-extproc": str(directory / "state"), "0.0.0.0:9090": f"127.0.0.1:{page}"}
    for old, new in {**local, "0.0.0.0:": "127.0.0.1:"}.items():
        settings = {name: value.replace(old, new) for name, value in settings.items()}
    process = Process([sys.executable, "-m", "router_extproc", "serve"], directory / "sidecar.log", settings)

    def ready() -> bool:
        process.check()
        return bool(get(f"http://127.0.0.1:{page}/readyz"))

    try:
        wait_until(ready, "sidecar ready", 90)
        yield settings
    finally:
        process.stop()


def routed_by_the_envoy_of(found: list[Object], directory: Path, local: dict[str, str]) -> None:
    """The chart's Envoy asks that sidecar."""
    pod = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
    container = next(c for c in pod["containers"] if c["name"] == "envoy")
    listen, stats = (port["containerPort"] for port in container["ports"])
    (admin,) = free_ports(1)
    replace = {
        "0.0.0.0": "127.0.0.1",
        "port_value: 9901": f"port_value: {admin}",
        "router-extproc envoy ": f"{sys.executable} -m router_extproc envoy --envoy-admin 127.0.0.1:{admin} ",
        **local,
    }
    command, _ = rendered_envoy(found, directory, replace)
    with envoy(command, directory, lambda: get(f"http://127.0.0.1:{stats}/ready") == b"LIVE\n"):
        healthy = b'membership_healthy{envoy_cluster_name="mom-sidecar"} 1'
        wait_until(lambda: healthy in get(f"http://127.0.0.1:{stats}/stats/prometheus"), "healthy sidecar")
        status, headers, _ = chat(f"http://127.0.0.1:{listen}", "some Python please")
    assert (status, headers["x-mom-model"], headers["x-mom-route"]) == (200, "coder", "code")


def attach_envoy() -> Object:
    listen, stats = free_ports(2)
    return {"provider": "envoy", "envoy": {"port": listen, "statsPort": stats, "concurrency": 1}}


def test_sidecar_mode_runs_on_its_settings_over_a_unix_socket(installed: Installed, tmp_path: Path) -> None:
    found = objects({**installed.given, "mode": "sidecar", "attach": attach_envoy()})
    sockets = tempfile.mkdtemp(prefix="mom")  # a socket's path may have 107 characters
    socket = {"/var/run/router-extproc": sockets}
    try:
        with serving(found, tmp_path, {**socket, "/etc/router-extproc": str(installed.mounted.path)}) as settings:
            assert settings["ROUTER_EXTPROC_LISTEN"] == f"unix:{sockets}/router.sock"
            routed_by_the_envoy_of(found, tmp_path, socket)
    finally:
        shutil.rmtree(sockets)


def test_tls_runs_on_the_chart_s_settings_and_secrets(installed: Installed, tmp_path: Path) -> None:
    (port,) = free_ports(1)
    tls = {"enabled": True, "serverSecret": "server", "clientSecret": "client"}
    found = objects({**installed.given, "grpc": {"port": port}, "tls": tls, "attach": attach_envoy()})
    authority = Authority(tmp_path)
    for name, data in (("server", authority.issue("router-extproc.mom.svc")), ("client", authority.issue("gateway"))):
        Mounted(tmp_path / name).swap(data)
    server = {"/etc/router-tls": str(tmp_path / "server"), "/etc/router-extproc": str(installed.mounted.path)}
    client = {
        "/etc/router-tls": str(tmp_path / "client"),
        f"router-extproc-headless.mom.svc.cluster.local:{port}": f"127.0.0.1:{port}",
        f"router-extproc:{port}": f"127.0.0.1:{port}",
    }
    with serving(found, tmp_path, server):
        routed_by_the_envoy_of(found, tmp_path, client)
        for name in ("health", "route"):  # the pods of `helm test`
            arguments = one(found, "Pod", f"router-extproc-test-{name}")["spec"]["containers"][0]["args"]
            for old, new in client.items():
                arguments = [argument.replace(old, new) for argument in arguments]
            script = str(CHART / "files" / "tests" / f"{name}.py")
            done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("authority", "status"), [("ours", 200), ("another", 503)])
def test_an_https_model_is_verified_by_the_authority_that_the_values_name(
    authority: str, status: int, tmp_path: Path
) -> None:
    authorities = {name: Authority(tmp_path, name) for name in ("ours", "another")}
    for name, text in authorities["ours"].issue("localhost").items():
        (tmp_path / name).write_text(text)
    Mounted(tmp_path / "mounted").swap({"all.pem": authorities[authority].certificate})
    attach = attach_envoy()
    attach["envoy"]["caSecret"] = {"name": "models", "key": "all.pem"}
    with Provider((tmp_path / "tls.crt", tmp_path / "tls.key")) as model:
        models = {"only": {"url": f"https://localhost:{model.port}", "price": {"input": 1, "output": 1}}}
        found = objects({"router": {"models": models, "default": "only"}, "attach": attach})
        pod = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
        container = next(c for c in pod["containers"] if c["name"] == "envoy")
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes[mounts["/etc/mom/ca"]]["secret"] == {"secretName": "models"}
        admin, nobody = free_ports(2)
        replace = {
            "0.0.0.0": "127.0.0.1",
            "port_value: 9901": f"port_value: {admin}",
            "router-extproc-headless.mom.svc.cluster.local:50051": f"127.0.0.1:{nobody}",
            "router-extproc envoy ": f"{sys.executable} -m router_extproc envoy --envoy-admin 127.0.0.1:{admin} ",
            "/etc/mom/ca": str(tmp_path / "mounted"),
        }
        command, _ = rendered_envoy(found, tmp_path, replace)
        listen, stats = (attach["envoy"][name] for name in ("port", "statsPort"))
        with envoy(command, tmp_path, lambda: get(f"http://127.0.0.1:{stats}/ready") == b"LIVE\n"):
            got, _, answer = chat(f"http://127.0.0.1:{listen}", "hello")
            assert got == status, answer
            page = get(f"http://127.0.0.1:{stats}/stats/prometheus").decode()
            failed = re.findall(r'envoy_cluster_ssl_fail_verify_error\{envoy_cluster_name="only"\} (\d+)', page)
            assert any(map(int, failed)) == (status == 503)
    assert len(model.seen) == (1 if status == 200 else 0)
