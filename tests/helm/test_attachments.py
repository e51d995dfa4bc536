"""The three ways to attach, through the real proxy: valid, and routing."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.certificates import Authority
from tests.e2e.stack import ENVOY, Process, Sidecar, envoy_of, free_ports, get, wait_until
from tests.helm.gateways import TYPE, Addresses, cluster, gateway, through_envoy_gateway, through_istio
from tests.helm.rendering import CHART, Object, cases, objects, one, values
from tests.mounted import Mounted

KEYS = {"CODER_KEY": "sk-coder", "PREMIUM_KEY": "sk-premium"}


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> str:
    """The Envoy that a test asks for by its version."""
    return envoy_of(request.param)


EVERY_ENVOY = pytest.mark.parametrize("proxy", ["1.40", "1.36"], indirect=True)


def validate(path: Path, *arguments: str, environment: dict[str, str] | None = None, proxy: str = ENVOY) -> None:
    """Raises unless Envoy takes the configuration."""
    done = subprocess.run(
        [proxy, "--mode", "validate", "-c", str(path), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
    assert done.returncode == 0, done.stderr


def rendered_envoy(found: list[Object], directory: Path, replace: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """Runs the init container's script, and gives the Envoy container's command and environment.

    Its paths are those of the container: they, and addresses, are replaced.
    """
    pod = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
    routes = directory / "routes"
    routes.mkdir()
    name = next(v["configMap"]["name"] for v in pod["volumes"] if v["name"] == "router-routes")
    (routes / "router.yaml").write_text(one(found, "ConfigMap", name)["data"]["router.yaml"])
    replace = {
        "router-extproc envoy ": f"{sys.executable} -m router_extproc envoy ",
        **replace,
        "/etc/router-extproc": str(routes),
        "/rendered": str(directory),
    }

    def local(text: str) -> str:
        for old, new in replace.items():
            text = text.replace(old, new)
        return text

    init = next(c for c in pod["initContainers"] if c["name"] == "render")
    subprocess.run([*init["command"], *map(local, init["args"])], check=True)
    envoy = next(c for c in pod["containers"] if c["name"] == "envoy")
    assert envoy["command"] == ["envoy"]
    wanted = {entry["name"]: f"key-{entry['name']}" for entry in envoy.get("env", [])}
    return [ENVOY, *map(local, envoy["args"])], wanted


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


@EVERY_ENVOY
@pytest.mark.parametrize("case", [case for case in cases() if case.startswith("istio")])
def test_envoy_takes_every_patch_of_the_envoy_filter(case: str, proxy: str, tmp_path: Path) -> None:
    found = objects(values(case))
    text = json.dumps(one(found, "EnvoyFilter"))
    names = {part.split('"')[0] for part in text.split('"outbound|')[1:]}
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(through_istio(found, 1, 2, {f"outbound|{name}": ("127.0.0.1", 9) for name in names})))
    validate(path, environment={"OPENAI_API_KEY": "a", "ANTHROPIC_API_KEY": "b"}, proxy=proxy)


def test_validation_would_find_a_wrong_field(tmp_path: Path) -> None:
    config = gateway(1, 2, [], [])
    config["static_resources"]["listeners"][0]["per_connection_buffer_limit"] = 1
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps(config))
    with pytest.raises(AssertionError, match="per_connection_buffer_limit"):
        validate(path)


class Provider:
    """A model server that takes everything and tells what it got; over TLS where it has a certificate."""

    def __init__(self, certificate: tuple[Path, Path] | None = None) -> None:
        self.seen: list[tuple[str, dict[str, str], Any]] = []
        self.answering = threading.Event()
        """Cleared, it holds every answer back."""
        self.answering.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
                outer.seen.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                outer.answering.wait()
                answer = json.dumps({"id": "1", "object": "chat.completion", "model": body["model"]}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def do_GET(self) -> None:
                # Only with a key of ours would there be anything to read.
                keys = [self.headers.get(name, "") for name in ("authorization", "api-key")]
                self.send_response(200 if any("sk-" in key for key in keys) else 401)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_port

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Installed:
    """Two providers, a sidecar on the mounted ConfigMap, and what the chart renders."""

    given: dict[str, Any]
    providers: dict[str, Provider]
    sidecar: Sidecar
    mounted: Mounted
    directory: Path
    urls: list[str] = field(default_factory=list)

    def objects(self, **attach: Any) -> list[Object]:
        """The chart's objects for one way to attach."""
        return objects({**self.given, "attach": attach})

    @property
    def addresses(self) -> Addresses:
        """Where the models and the sidecar are, by the names that gateways have for them."""
        found = {"ext_proc": ("127.0.0.1", self.sidecar.port)}
        found["outbound|50051||router-extproc.mom.svc.cluster.local"] = found["ext_proc"]
        for name, provider in self.providers.items():
            found[f"router-extproc-{name}"] = ("127.0.0.1", provider.port)
            found[f"outbound|{provider.port}||localhost"] = ("127.0.0.1", provider.port)
        return found


def chat(url: str, prompt: str, model: str = "auto", **headers: str) -> tuple[int, dict[str, str], Any]:
    """Status, headers and document of a chat completion."""
    body = json.dumps({"messages": [{"role": "user", "content": prompt}], "model": model}).encode()
    request = urllib.request.Request(
        f"{url}/v1/chat/completions", body, {"content-type": "application/json", **headers}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, {k.lower(): v for k, v in answer.headers.items()}, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, {}, error.read().decode()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    directory = tmp_path_factory.mktemp("installed")
    with Provider() as small, Provider() as coder, Provider() as premium:
        providers = {"small": small, "coder": coder, "premium": premium}
        more = {"price": {"input": 1, "output": 1}, "context_window": 10_000_000}
        models: dict[str, Any] = {
            "small": {"url": f"http://localhost:{small.port}", "upstream_model": "llama", **more},
            "coder": {
                "url": f"http://localhost:{coder.port}/openai/v1",
                "upstream_model": "gpt",
                "auth": {"env": "CODER_KEY"},
                **more,
            },
            "premium": {
                "url": f"http://localhost:{premium.port}",
                "auth": {"env": "PREMIUM_KEY", "header": "api-key"},
                **more,
            },
        }
        given = {
            "router": {
                "models": models,
                "signals": {"code": {"type": "keywords", "any": ["python"]}},
                "routes": [
                    {"name": "code", "when": "code.label == 'true'", "models": "coder"},
                    {"name": "hello", "when": "true", "models": "small"},
                ],
                "default": "premium",
                "limits": {"deadline_ms": 5000},
            },
            "providerKeys": {"existingSecret": "keys"},
        }
        mounted = Mounted(directory / "mounted")
        mounted.swap(one(objects(given), "ConfigMap", "router-extproc-routes")["data"])
        port, admin = free_ports(2)
        sidecar = Sidecar(mounted.path, directory, port, admin)
        sidecar.start()
        try:
            yield Installed(given, providers, sidecar, mounted, directory)
        finally:
            assert sidecar.process is not None
            sidecar.process.stop()


@contextmanager
def envoy(command: list[str], directory: Path, ready: Callable[[], Any]) -> Iterator[Process]:
    """A running Envoy."""
    command = [*command, "--use-dynamic-base-id", "--component-log-level", "misc:error"]
    process = Process(command, directory / "envoy.log", KEYS)

    def answers() -> bool:
        process.check()
        return bool(ready())

    try:
        wait_until(answers, "Envoy ready")
        yield process
        process.check()
    finally:
        process.stop()


@contextmanager
def attached(
    installed: Installed,
    kind: str,
    directory: Path,
    make: Callable[..., Object],
    proxy: str = ENVOY,
    *,
    sidecar: bool = True,
) -> Iterator[str]:
    """A gateway with our objects; gives its URL."""
    listen, admin, nobody = free_ports(3)
    more: dict[str, Any] = (
        {"istio": {"workloadSelector": {"a": "b"}, "jsonLog": True}}
        if kind == "istio"
        else {"envoyGateway": {"gateway": {"name": "g"}, "jsonLog": True}}
    )
    addresses = installed.addresses
    if not sidecar:
        addresses = {
            name: ("127.0.0.1", nobody) if address[1] == installed.sidecar.port else address
            for name, address in addresses.items()
        }
    config = make(installed.objects(provider=kind, **more), listen, admin, addresses)
    path = directory / "gateway.json"
    path.write_text(json.dumps(config))
    url = f"http://127.0.0.1:{admin}/ready"
    command = [proxy, "-c", str(path), "--concurrency", "1", "--log-level", "warning"]
    command += ["--file-flush-interval-msec", "100"]
    with envoy(command, directory, lambda: get(url) == b"LIVE\n"):
        yield f"http://127.0.0.1:{listen}"


def outcomes(installed: Installed) -> Counter[str]:
    """Answers with status 200 that the sidecar was told of, by model."""
    found: Counter[str] = Counter()
    for labels, value in re.findall(r"^mom_outcomes_total\{(.*)\} (\S+)$", installed.sidecar.metrics(), re.MULTILINE):
        label = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        if label["status"] == "200":
            found[label["model"]] += int(float(value))
    return found


def logged(directory: Path, decision: str) -> dict[str, Any] | None:
    """The line of the access log about a decision, among what Envoy says on standard output."""
    for text in (directory / "envoy.log").read_text().splitlines():
        if text.startswith("{") and (line := json.loads(text))["mom.decision.id"] == decision:
            return dict(line)
    return None


GATEWAYS = [("istio", through_istio), ("envoy-gateway", through_envoy_gateway)]


@EVERY_ENVOY
@pytest.mark.parametrize(("kind", "make"), GATEWAYS, ids=["istio", "envoy-gateway"])
def test_a_gateway_routes_by_the_rendered_objects(
    kind: str, make: Callable[..., Object], proxy: str, installed: Installed, tmp_path: Path
) -> None:
    for provider in installed.providers.values():
        provider.seen.clear()
    before = outcomes(installed)
    with attached(installed, kind, tmp_path, make, proxy) as url:
        forged = {"x-mom-model": "premium", "x-mom-cluster": "premium", "authorization": "Bearer client"}
        status, headers, document = chat(url, "some Python please", **forged)
        assert (status, headers["x-mom-model"], document["model"]) == (200, "coder", "gpt")
        assert headers["x-mom-route"] == "code"
        assert headers["x-mom-reason"]
        line = wait_until(lambda: logged(tmp_path, headers["x-mom-decision-id"]), "a JSON line")
        assert (line["status"], line["path"], line["mom.attempts"]) == (200, "/v1/chat/completions", 1)
        assert (line["mom.route"], line["mom.band"], line["mom.pick"]) == ("code", "recommended", "coder")
        assert (line["gen_ai.operation.name"], line["gen_ai.request.stream"]) == ("chat", False)
        status, headers, document = chat(url, "hello", **forged)
        assert (status, headers["x-mom-model"], document["model"]) == (200, "small", "llama")
        status, headers, document = chat(url, "hello", model="premium")
        assert (status, headers["x-mom-model"], document["model"]) == (200, "premium", "premium")
        assert chat(url, "x" * 3_000_000)[0] == 200
        with urllib.request.urlopen(f"{url}/v1/models", timeout=20) as answer:
            assert {entry["id"] for entry in json.load(answer)["data"]} == {"auto", "small", "coder", "premium"}
        stored = urllib.request.Request(f"{url}/v1/responses/resp_1", headers={"authorization": "Bearer client"})
        with pytest.raises(urllib.error.HTTPError) as refused, urllib.request.urlopen(stored, timeout=20):
            pass
        refused.value.close()
        wait_until(lambda: outcomes(installed)["coder"] == before["coder"] + 1, "the access log's outcome")

    ((path, got, _),) = installed.providers["coder"].seen
    assert path == "/openai/v1/chat/completions"
    assert got["authorization"] == "Bearer sk-coder"
    path, got, body = installed.providers["small"].seen[0]
    assert path == "/v1/chat/completions"
    assert body["messages"] == [{"role": "user", "content": "hello"}]
    ((_, premium, _),) = installed.providers["premium"].seen
    assert premium["api-key"] == "sk-premium"
    for seen in (got, premium):
        assert "authorization" not in seen
        assert not [name for name in seen if name.startswith("x-mom-")]


@EVERY_ENVOY
def test_a_backup_with_the_same_name_takes_over_in_istio(proxy: str, installed: Installed, tmp_path: Path) -> None:
    """`small` refuses connections; the request ends at a model with the same upstream name."""
    given = values("istio-backup")
    small, west = (given["router"]["models"][name] for name in ("small", "small-west"))
    (dead,) = free_ports(1)
    small["url"], west["url"] = f"http://dead:{dead}", f"http://localhost:{installed.providers['small'].port}"
    listen, admin = free_ports(2)
    addresses = {**installed.addresses, f"outbound|{dead}||dead": ("127.0.0.1", dead)}
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(through_istio(objects(given), listen, admin, addresses)))
    installed.providers["small"].seen.clear()
    command = [proxy, "-c", str(path), "--concurrency", "1", "--log-level", "warning"]
    with envoy(command, tmp_path, lambda: get(f"http://127.0.0.1:{admin}/ready") == b"LIVE\n"):
        assert [chat(f"http://127.0.0.1:{listen}", "hello")[0] for _ in range(5)] == [200] * 5
    assert len(installed.providers["small"].seen) == 5


def test_a_filter_that_routes_turn_on_is_that_of_the_first_route(tmp_path: Path) -> None:
    """Why keys are headers of routes here: an injected one goes to the wrong provider after the route was changed."""
    injector, inject = "envoy.filters.http.credential_injector", "envoy.http.injected_credentials.generic"
    decide = "function envoy_on_request(h) h:headers():replace('x-mom-model', 'b') h:clearRouteCache() end"
    lua = {"@type": TYPE + "envoy.extensions.filters.http.lua.v3.Lua", "default_source_code": {"inline_string": decide}}
    filters: list[Object] = [{"name": "decide", "typed_config": lua}]
    routes: list[Object] = []
    for name in ("b", "a"):
        generic = TYPE + "envoy.extensions.http.injected_credentials.generic.v3.Generic"
        credential = {"@type": generic, "credential": {"name": name}, "header": f"x-key-{name}"}
        config = {
            "@type": TYPE + "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
            "credential": {"name": inject, "typed_config": credential},
        }
        filters.append({"name": f"{injector}/{name}", "disabled": True, "typed_config": config})
        on = {f"{injector}/{name}": {"@type": TYPE + "envoy.config.route.v3.FilterConfig", "config": {}}}
        routes.append({"match": {"prefix": "/"}, "route": {"cluster": name}, "typed_per_filter_config": on})
    routes[0]["match"]["headers"] = [{"name": "x-mom-model", "string_match": {"exact": "b"}}]
    listen, admin = free_ports(2)
    proxy = gateway(listen, admin, routes, filters)
    static = proxy["static_resources"]
    static["secrets"] = [{"name": n, "generic_secret": {"secret": {"inline_string": f"key of {n}"}}} for n in "ab"]
    path = tmp_path / "gateway.json"
    with Provider() as a, Provider() as b:
        static["clusters"] = [cluster(n, ("127.0.0.1", p.port)) for n, p in (("a", a), ("b", b))]
        path.write_text(json.dumps(proxy))
        command = [ENVOY, "-c", str(path), "--log-level", "warning"]
        with envoy(command, tmp_path, lambda: get(f"http://127.0.0.1:{admin}/ready") == b"LIVE\n"):
            assert chat(f"http://127.0.0.1:{listen}", "hello")[0] == 200
    ((_, got, _),) = b.seen
    assert {name: value for name, value in got.items() if name.startswith("x-key")} == {"x-key-a": "key of a"}


def test_other_traffic_of_an_istio_gateway_never_meets_the_sidecar(installed: Installed, tmp_path: Path) -> None:
    attach = {"provider": "istio", "istio": {"workloadSelector": {"a": "b"}, "hostnames": ["127.0.0.1", "*.llm.test"]}}
    listen, admin = free_ports(2)
    path = tmp_path / "gateway.json"
    path.write_text(json.dumps(through_istio(installed.objects(**attach), listen, admin, installed.addresses)))
    url, page = f"http://127.0.0.1:{listen}", f"http://127.0.0.1:{admin}"
    command = [ENVOY, "-c", str(path), "--concurrency", "1", "--log-level", "warning"]

    def asked() -> int:
        return int(re.findall(r"ext_proc.streams_started: (\d+)", get(f"{page}/stats").decode())[0])

    with envoy(command, tmp_path, lambda: get(f"{page}/ready") == b"LIVE\n"):
        assert chat(url, "hello")[0] == 200
        assert chat(url, "hello", host="a.llm.test")[0] == 200
        assert asked() == 2
        assert chat(url, "hello", host="other.test")[:1] == (404,)
        assert chat(url, "hello", host="llm.test.evil")[:1] == (404,)
        assert chat(f"{url}/upload", "hello")[:1] == (404,)
        assert asked() == 2


@EVERY_ENVOY
@pytest.mark.parametrize(("kind", "make"), GATEWAYS, ids=["istio", "envoy-gateway"])
def test_without_a_sidecar_the_default_model_serves_and_no_client_chooses(
    kind: str, make: Callable[..., Object], proxy: str, installed: Installed, tmp_path: Path
) -> None:
    for provider in installed.providers.values():
        provider.seen.clear()
    with attached(installed, kind, tmp_path, make, proxy, sidecar=False) as url:
        status, headers, _ = chat(url, "python", **{"x-mom-model": "coder", "x-mom-cluster": "coder"})
        assert (status, headers["x-mom-model"]) == (200, "premium")
        assert "x-mom-route" not in headers
    ((_, got, body),) = installed.providers["premium"].seen
    assert got["api-key"] == "sk-premium"
    assert body["model"] == "auto"  # what this way of attaching cannot change without the sidecar


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
