"""Models by name: addresses that fail, one or some of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from simulated_models import SimulatedModel

from tests.e2e.stack import Stack, free_ports, running, wait_until

CONFIG = """
models:
  named: {{url: "http://localhost:{0}", price: {{input: 1, output: 1}}}}
default: named
"""
EJECTIONS = "cluster.named.outlier_detection.ejections_"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "router.yaml"
    path.write_text(CONFIG.format(*free_ports(1)))
    return path


@pytest.fixture(scope="module")
def http() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=30) as client:
        yield client


def ask(stack: Stack, http: httpx.Client) -> int:
    body = {"model": "named", "messages": [{"role": "user", "content": "hello"}]}
    return http.post(f"{stack.url}/v1/chat/completions", json=body).status_code


def test_the_only_address_of_a_name_serves_as_soon_as_it_has_recovered(
    config: Path, tmp_path: Path, http: httpx.Client
) -> None:
    with running(tmp_path, config, sidecars=0) as stack:
        # Three attempts each: two requests more than it takes to call an address an outlier.
        stack.server("named").fail("status", times=15, status=500)
        assert [ask(stack, http) for _ in range(5)] == [500] * 5
        wait_until(lambda: stack.counter(f"{EJECTIONS}detected_consecutive_5xx"), "an outlier")
        assert [ask(stack, http) for _ in range(10)] == [200] * 10


def test_while_some_addresses_of_a_name_are_out_all_goes_to_the_others(
    config: Path, tmp_path: Path, http: httpx.Client
) -> None:
    def failing_too(servers: dict[str, SimulatedModel]) -> None:
        servers["failing"] = replace(servers["named"], host="127.0.0.2", failures=type(servers["named"].failures)())
        servers["failing"].fail("status", times=1_000_000, status=500)

    def two_addresses(text: str) -> str:
        document: dict[str, Any] = yaml.safe_load(text)
        (cluster,) = (c for c in document["static_resources"]["clusters"] if c["name"] == "named")
        port = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
        both = [{**port, "address": address} for address in ("127.0.0.1", "127.0.0.2")]
        endpoints = [{"endpoint": {"address": {"socket_address": address}}} for address in both]
        cluster["load_assignment"]["endpoints"][0]["lb_endpoints"] = endpoints
        changed: str = yaml.safe_dump(document)
        return changed

    with running(tmp_path, config, sidecars=0, prepare=failing_too, edit=two_addresses) as stack:

        def ejected() -> bool:
            ask(stack, http)
            return stack.counter(f"{EJECTIONS}active") == 1

        wait_until(ejected, "the failing address is out")
        assert {ask(stack, http) for _ in range(40)} == {200}
        # Nobody listens at the address that stands for a name without any.
        assert stack.counter("cluster.named.upstream_cx_connect_fail") == 0
