"""The chart's own Envoy, as the init container writes it: valid, routing, stopping, and under changes."""

from __future__ import annotations

import http.client
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests.certificates import Authority
from tests.e2e.stack import envoy_of, free_ports, get, wait_until
from tests.helm.attaching import (
    KEYS,
    Installed,
    chat,
    envoy,
    rendered_envoy,
    validate,
)
from tests.helm.rendering import (
    CHART,
    cases,
    objects,
    one,
    values,
)
from tests.mounted import Mounted

OWN_ENVOY = [case for case in cases() if case.startswith("envoy") and "gateway" not in case] + ["envoy-behind-gateway"]


@pytest.mark.parametrize("case", OWN_ENVOY)
def test_envoy_takes_what_the_init_container_writes(case: str, tmp_path: Path) -> None:
    given = values(case)
    Mounted(tmp_path / "client").swap(Authority(tmp_path).issue("gateway"))
    mounts = {"/etc/router-tls": str(tmp_path / "client"), "/etc/mom/ca": str(tmp_path / "client")}
    command, environment = rendered_envoy(objects(given), tmp_path, mounts)
    wanted = {model["auth"]["env"] for model in given["router"]["models"].values() if "auth" in model}
    assert environment == {name: f"key-{name}" for name in wanted}
    assert command[1] == "--config-path"
    validate(Path(command[2]), *command[3:], environment=environment)
    if case == "envoy-compatible":
        validate(Path(command[2]), *command[3:], environment=environment, proxy=envoy_of("1.36"))


@pytest.fixture(scope="module")
def plain(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The chart's own Envoy: the init container's output and the container's arguments."""
    directory = tmp_path_factory.mktemp("plain")
    listen, stats, admin = free_ports(3)
    found = installed.objects(provider="envoy", envoy={"port": listen, "statsPort": stats, "concurrency": 1})
    command, keys = rendered_envoy(
        found,
        directory,
        {
            "0.0.0.0": "127.0.0.1",
            "router-extproc-headless.mom.svc.cluster.local:50051": installed.sidecar.address,
            "port_value: 9901": f"port_value: {admin}",
            "router-extproc envoy ": f"{sys.executable} -m router_extproc envoy --envoy-admin 127.0.0.1:{admin} ",
        },
    )
    assert set(keys) == set(KEYS)
    # The probe's own path: what the kubelet will ask.
    with envoy(command, directory, lambda: get(f"http://127.0.0.1:{stats}/ready") == b"LIVE\n"):
        page = f"http://127.0.0.1:{stats}/stats/prometheus"
        wait_until(lambda: b'membership_healthy{envoy_cluster_name="mom-sidecar"} 1' in get(page), "healthy sidecar")
        with pytest.raises(urllib.error.HTTPError, match="404"):
            get(f"http://127.0.0.1:{stats}/quitquitquit")
        yield f"http://127.0.0.1:{listen}"


def test_clients_that_hold_all_connections_do_not_keep_probes_out(installed: Installed, tmp_path: Path) -> None:
    listen, stats, admin = free_ports(3)
    found = installed.objects(provider="envoy", envoy={"port": listen, "statsPort": stats, "concurrency": 1})
    flags = f"--envoy-admin 127.0.0.1:{admin} --max-connections 1"
    command, _ = rendered_envoy(
        found,
        tmp_path,
        {
            "0.0.0.0": "127.0.0.1",
            "port_value: 9901": f"port_value: {admin}",
            "router-extproc envoy ": f"{sys.executable} -m router_extproc envoy {flags} ",
            "router-extproc-headless.mom.svc.cluster.local:50051": installed.sidecar.address,
        },
    )

    def ready() -> bool:
        return get(f"http://127.0.0.1:{stats}/ready") == b"LIVE\n"

    with envoy(command, tmp_path, ready), socket.create_connection(("127.0.0.1", listen)) as first:
        with socket.create_connection(("127.0.0.1", listen), timeout=10) as second:
            # The one too many is closed; the other stays.
            assert second.recv(1) == b""
            first.setblocking(False)
            with pytest.raises(BlockingIOError):
                first.recv(1)
        assert ready()


def test_the_rendered_envoy_routes(plain: str, installed: Installed) -> None:
    installed.providers["coder"].seen.clear()
    status, headers, document = chat(plain, "some Python please")
    assert (status, headers["x-mom-model"], headers["x-mom-route"], document["model"]) == (200, "coder", "code", "gpt")
    ((path, got, _),) = installed.providers["coder"].seen
    assert path == "/openai/v1/chat/completions"
    assert got["authorization"] == "Bearer sk-coder"


def test_a_stopping_envoy_sends_clients_away_and_waits_for_the_last_answer(
    installed: Installed, tmp_path: Path
) -> None:
    """The preStop command against the running Envoy; the kubelet's SIGTERM would come when it ends."""
    listen, stats, admin = free_ports(3)
    attach = {"provider": "envoy", "envoy": {"port": listen, "statsPort": stats, "concurrency": 1, "drainSeconds": 60}}
    found = objects({**installed.given, "drain": {"preStopSeconds": 1}, "attach": attach})
    replace = {
        "0.0.0.0": "127.0.0.1",
        "router-extproc-headless.mom.svc.cluster.local:50051": installed.sidecar.address,
        "port_value: 9901": f"port_value: {admin}",
        "router-extproc envoy ": f"{sys.executable} -m router_extproc envoy --envoy-admin 127.0.0.1:{admin} ",
    }
    command, _ = rendered_envoy(found, tmp_path, replace)
    pod = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
    container = next(c for c in pod["containers"] if c["name"] == "envoy")
    *shell, script = container["lifecycle"]["preStop"]["exec"]["command"]
    assert pod["terminationGracePeriodSeconds"] > 60
    page, slow = f"http://127.0.0.1:{admin}", installed.providers["coder"]

    mine = 0

    def asked_by_the_script() -> int:
        nonlocal mine
        mine += 1
        return int(re.findall(r"http.admin.downstream_rq_total: (\d+)", get(f"{page}/stats").decode())[0]) - mine

    with envoy(command, tmp_path, lambda: get(f"http://127.0.0.1:{stats}/ready") == b"LIVE\n"):
        kept = http.client.HTTPConnection("127.0.0.1", listen, timeout=20)  # connects anew where it has to

        def closed_by(path: str) -> bool:
            kept.request("GET", path)
            with kept.getresponse() as answer:
                answer.read()
                return answer.getheader("connection") == "close"

        assert not closed_by("/v1/models")
        slow.answering.clear()
        slow.seen.clear()
        answers: list[int] = []
        client = threading.Thread(target=lambda: answers.append(chat(f"http://127.0.0.1:{listen}", "Python")[0]))
        client.start()
        try:
            wait_until(lambda: slow.seen, "a request in flight")
            stopping = subprocess.Popen([*shell, script.replace("/9901", f"/{admin}")])
            wait_until(lambda: closed_by("/v1/models"), "connections are closed")
            before = asked_by_the_script()
            wait_until(lambda: asked_by_the_script() >= before + 2, "it asked for requests in flight, and again")
            assert stopping.poll() is None
        finally:
            slow.answering.set()
            client.join()
            kept.close()
        assert answers == [200]
        assert stopping.wait(20) == 0


def _last_is(answers: list[tuple[int, str]], name: str) -> bool:
    return bool(answers) and answers[-1][1] == name


def test_a_config_map_swap_under_load_fails_no_request(plain: str, installed: Installed) -> None:
    routes = yaml.safe_load(one(installed.objects(), "ConfigMap", "router-extproc-routes")["data"]["router.yaml"])
    stop = threading.Event()
    answers: list[tuple[int, str]] = []

    def load() -> None:
        while not stop.is_set():
            status, headers, _ = chat(plain, "hello")
            answers.append((status, headers.get("x-mom-route", "")))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for name in ("first", "second", "third"):
            routes["routes"][1]["name"] = name
            installed.mounted.swap({"router.yaml": yaml.safe_dump(routes)})
            wait_until(partial(_last_is, answers, name), name)
        installed.mounted.swap({"router.yaml": "models: {}"})
        wait_until(
            lambda: re.search(r"^mom_config_last_reload_successful 0", installed.sidecar.metrics(), re.M), "refused"
        )
        count = len(answers)
        wait_until(lambda: len(answers) > count + 20, "more requests")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        installed.mounted.swap(one(installed.objects(), "ConfigMap", "router-extproc-routes")["data"])
    assert {status for status, _ in answers} == {200}
    assert [name for name in dict.fromkeys(name for _, name in answers) if name != "hello"] == [
        "first",
        "second",
        "third",
    ]


def test_the_scripts_of_helm_test_pass_and_fail(plain: str, installed: Installed) -> None:
    sidecar, admin = installed.sidecar.address, installed.sidecar.admin
    nobody = f"127.0.0.1:{free_ports(1)[0]}"
    runs = [
        (0, ["health", sidecar]),
        (0, ["route", sidecar, "auto"]),
        (0, ["metrics", f"{admin}/metrics"]),
        (0, ["envoy", plain, "auto"]),
        (1, ["route", sidecar, "no-such-model"]),
        (1, ["metrics", f"{admin}/livez"]),
        (1, ["metrics", f"http://{nobody}/metrics"]),
        (1, ["envoy", plain, "no-such-model"]),
    ]
    for expected, (name, *arguments) in runs:
        script = CHART / "files" / "tests" / f"{name}.py"
        done = subprocess.run(
            [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == expected, (name, arguments, done.stdout, done.stderr)
