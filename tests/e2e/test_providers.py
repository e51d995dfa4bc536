"""Every kind of provider and credential in one plan: each attempt carries its own and nobody else's."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from simulated_models import SimulatedModel

from tests.e2e.conftest import registered
from tests.e2e.stack import Stack, free_ports, running

TLS = Path(__file__).parent / "tls"
CHAT = {"model": "auto", "messages": [{"role": "user", "content": "hello"}]}
CONFIG = """
models:
  lost: {{url: "http://no-such-host.invalid:80", auth: {{env: LOST_KEY}}, price: {{input: 1, output: 1}}}}
  filed:
    {{url: "http://127.0.0.1:{0}", provider: anthropic, apis: [chat_completions, messages], api_version: "2022-02-02",
     auth: {{file: {key}}}, price: {{input: 1, output: 1}}}}
  azure:
    {{url: "http://127.0.0.1:{1}", provider: azure_openai, api_version: "2024-10-21", upstream_model: deployment-1,
     auth: {{env: AZURE_KEY}}, price: {{input: 1, output: 1}}}}
  theirs: {{url: "http://127.0.0.1:{2}/base/v1", auth: {{passthrough: true}}, price: {{input: 1, output: 1}}}}
  custom:
    {{url: "http://127.0.0.1:{3}", auth: {{env: CUSTOM_KEY, header: x-special, prefix: "Key "}},
     price: {{input: 1, output: 1}}}}
  open: {{url: "http://127.0.0.1:{4}", price: {{input: 1, output: 1}}}}
  secure: {{url: "https://localhost:{5}/v1", auth: {{env: SECURE_KEY}}, price: {{input: 1, output: 1}}}}
default: [lost, filed, azure, theirs, custom, open, secure]
limits: {{max_attempts: 7}}
retry: {{first_byte_seconds: 30, per_try_seconds: 1}}
"""


def prepare(servers: dict[str, SimulatedModel]) -> None:
    del servers["lost"]
    servers["filed"].key = "sk-filed-0123"
    servers["theirs"].key = "Bearer sk-client"
    servers["secure"].tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    servers["secure"].tls.load_cert_chain(TLS / "cert.pem", TLS / "key.pem")


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    directory = tmp_path_factory.mktemp("many")
    key = directory / "key"
    key.write_text("sk-filed-0123\n")  # mounted secrets often end in a newline
    config = directory / "router.yaml"
    config.write_text(CONFIG.format(*free_ports(6), key=key))
    with (
        running(directory, config, sidecars=0, prepare=prepare, ca_file=str(TLS / "cert.pem")) as found,
        registered(found),
    ):
        yield found


def test_seven_attempts(many: Stack) -> None:
    """A name without an address, an answer that takes too long, four failures; the last, over TLS, answers."""
    many.server("filed").fail("hang", seconds=30)
    for name in ("azure", "theirs", "custom", "open"):
        many.server(name).fail("status", status=503)
    answer = httpx.post(
        f"{many.url}/v1/chat/completions?x=1", json=CHAT, headers={"authorization": "Bearer sk-client"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    assert (answer.headers["x-mom-attempts"], answer.headers["x-mom-model"]) == ("7", "secure")
    sent = {
        "filed": ("/v1/chat/completions?x=1", "filed", {"x-api-key": "sk-filed-0123"}),
        "azure": (
            "/openai/deployments/deployment-1/chat/completions?api-version=2024-10-21&x=1",
            "deployment-1",
            {"api-key": "sk-azure-0123"},
        ),
        # It is tried after two models with keys of ours, and gets the client's own key back, not theirs.
        "theirs": ("/base/v1/chat/completions?x=1", "theirs", {"authorization": "Bearer sk-client"}),
        "custom": ("/v1/chat/completions?x=1", "custom", {"x-special": "Key sk-custom-0123"}),
        "open": ("/v1/chat/completions?x=1", "open", {}),
        "secure": ("/v1/chat/completions?x=1", "secure", {"authorization": "Bearer sk-secure-0123"}),
    }
    for name, (path, model, credentials) in sent.items():
        [seen] = many.server(name).seen
        assert (seen.path, json.loads(seen.body)["model"]) == (path, model)
        found = {key: value for key, value in seen.headers.items() if "sk-" in value}
        assert found == credentials, name
    assert many.server("filed").seen[0].headers["anthropic-version"] == "2022-02-02"


def test_a_clients_own_version_header_is_kept(many: Stack) -> None:
    headers = {"anthropic-version": "2099-01-01"}
    answer = httpx.post(f"{many.url}/v1/messages", json=CHAT | {"max_tokens": 5}, headers=headers, timeout=30)
    assert answer.status_code == 200, answer.text
    assert many.server("filed").seen[0].headers["anthropic-version"] == "2099-01-01"


ODD = """
models:
  odd: {{url: "http://127.0.0.1:{0}", upstream_model: '\u901a\u4e49 "7b"\\x', price: {{input: 1, output: 1}}}}
  other: {{url: "http://127.0.0.1:{1}", upstream_model: "caf\u00e9", price: {{input: 1, output: 1}}}}
default: [odd, other]
"""


def test_a_provider_may_call_its_model_what_it_likes(tmp_path: Path) -> None:
    config = tmp_path / "router.yaml"
    config.write_text(ODD.format(*free_ports(2)), encoding="utf-8")
    with running(tmp_path, config) as found, registered(found):
        for model in ("auto", "odd"):
            for name in ("odd", "other"):
                answer = httpx.post(f"{found.url}/v1/chat/completions", json={**CHAT, "model": model}, timeout=30)
                assert (answer.status_code, answer.headers["x-mom-model"]) == (200, name), answer.text
                assert json.loads(found.server(name).seen[0].body) == {**CHAT, "model": found.server(name).model}
                found.server("odd").fail("status", times=1, status=503)
            found.reset()
