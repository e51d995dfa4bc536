"""The complete examples: valid, labelled prompts for every route, and what they promise of cost."""

import json
import re
import subprocess
from collections import Counter
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.loader import load, parse
from router_extproc.config.model import Api
from router_extproc.config.providers import endpoint_of, key_header, upstream_path
from router_extproc.inference import artifact
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.signals.base import SHIPPED

ENVOY = str(files("envoy") / "_bin" / "envoy")
ROOT = Path(__file__).parents[2]
NAMES = ("code-platform", "ecommerce-support", "education", "hybrid", "on-prem")


def compiled(name: str) -> Runtime:
    heads = {SHIPPED: artifact.read(ROOT / "models" / "router-minilm").labels}
    return compile_runtime(load(ROOT / "examples" / name / "router.yaml"), heads, {})


def prompts(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (ROOT / "examples" / name / "prompts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_valid_and_every_prompt_names_a_route(name: str) -> None:
    config = compiled(name).config
    labelled = prompts(name)
    assert len(labelled) == len({each["prompt"] for each in labelled}) == 40
    routes = {route.name for route in config.routes}
    assert {each["route"] for each in labelled} <= routes
    assert {each["model"] for each in labelled if "model" in each} <= set(config.models)
    assert {each["ask"] for each in labelled if "ask" in each} <= set(config.virtual_models)


@pytest.mark.parametrize("name", NAMES)
def test_envoy_accepts_what_is_rendered_from_the_examples(name: str, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("sk-house")
    text = (ROOT / "examples" / name / "router.yaml").read_text().replace("/var/run/secrets/llm/token", str(token))
    path = tmp_path / "envoy.yaml"
    path.write_text(render(parse(text.encode(), Path("router.yaml")).config, EnvoyOptions(access_log="/dev/null")))
    done = subprocess.run(
        [ENVOY, "--mode", "validate", "-c", str(path), "--log-level", "error"],
        env={key: f"sk-{key.lower()}" for key in re.findall(r"env: (\w+)", text)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_hybrid_example_meets_each_provider_as_it_wants_to_be_met() -> None:
    chat = Api.CHAT_COMPLETIONS
    models = compiled("hybrid").config.models
    met = {
        name: (
            endpoint_of(model).authority,
            endpoint_of(model).tls,
            upstream_path(name, model, chat),
            key_header(model)[0],
        )
        for name, model in models.items()
    }
    assert met == {
        "gpt": ("api.openai.com", True, "/v1/chat/completions", "authorization"),
        "claude": ("api.anthropic.com", True, "/v1/chat/completions", "x-api-key"),
        "azure-gpt": (
            "example-resource.openai.azure.com",
            True,
            "/openai/deployments/gpt-4o-prod/chat/completions?api-version=2024-10-21",
            "api-key",
        ),
        "llama": ("llm.corp.example:8443", True, "/llama/v1/chat/completions", "authorization"),
    }
    assert upstream_path("claude", models["claude"], Api.MESSAGES) == "/v1/messages"


@pytest.mark.parametrize(
    ("name", "shares", "per_query"),
    [
        # Cost of the mix per query against everything on the premium model, prices as in the file.
        ("ecommerce-support", {"orders": 14, "products": 12, "complex": 10, "returns": 4}, ("0.0413500", "0.15")),
        ("code-platform", {"syntax": 14, "review": 10, "architecture": 8, "docs": 8}, ("0.0062000", "0.02")),
    ],
)
def test_the_prompts_come_in_the_usual_mix(name: str, shares: dict[str, int], per_query: tuple[str, str]) -> None:
    config = compiled(name).config
    assert Counter(each["route"] for each in prompts(name)) == shares
    price = {route.name: config.models[route.models[0]].price.per_request for route in config.routes}
    mixture = sum((price[route] * count for route, count in shares.items()), Decimal(0)) / 40
    assert (mixture, config.models[config.default[0]].price.per_request) == tuple(Decimal(usd) for usd in per_query)
