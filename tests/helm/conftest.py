"""What several files here need to attach to a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.stack import Sidecar, envoy_of, free_ports
from tests.helm.attaching import (
    Installed,
    Provider,
)
from tests.helm.rendering import (
    objects,
    one,
)
from tests.mounted import Mounted


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> str:
    """The Envoy that a test asks for by its version."""
    return envoy_of(request.param)


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
