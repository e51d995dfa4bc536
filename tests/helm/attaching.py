"""What tests need to attach to a running gateway: model servers, a sidecar on the mounted ConfigMap, the real proxy."""

from __future__ import annotations

import json
import os
import re
import ssl
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

import pytest

from tests.e2e.stack import ENVOY, Process, Sidecar, free_ports, get, wait_until
from tests.helm.gateways import Addresses, through_envoy_gateway, through_istio
from tests.helm.rendering import (
    Object,
    objects,
    one,
)
from tests.mounted import Mounted

KEYS = {"CODER_KEY": "sk-coder", "PREMIUM_KEY": "sk-premium"}


EVERY_ENVOY = pytest.mark.parametrize("proxy", ["1.40", "1.36"], indirect=True)


GATEWAYS = [("istio", through_istio), ("envoy-gateway", through_envoy_gateway)]


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

    def read(self, given: dict[str, Any]) -> None:
        """Hands the sidecar other routes, and waits until it has them. What the gateway is made of stays as it is."""
        before = self._generation()
        self.mounted.swap(one(objects(given), "ConfigMap", "router-extproc-routes")["data"])
        wait_until(lambda: self._generation() > before, "the new routes")

    def _generation(self) -> int:
        return int(float(re.findall(r"^mom_config_generation (\S+)$", self.sidecar.metrics(), re.MULTILINE)[0]))

    @property
    def addresses(self) -> Addresses:
        """Where the models and the sidecar are, by the names that gateways have for them."""
        found = {"ext_proc": ("127.0.0.1", self.sidecar.port)}
        found["outbound|50051||router-extproc.mom.svc.cluster.local"] = found["ext_proc"]
        for provider in self.providers.values():
            found[f"localhost:{provider.port}"] = ("127.0.0.1", provider.port)
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
