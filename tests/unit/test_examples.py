"""The complete examples: valid, labelled prompts for every route, and what they promise of cost."""

import json
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from router_extproc.config.loader import load
from router_extproc.inference import artifact
from router_extproc.runtime import Runtime, compile_runtime
from router_extproc.signals.base import SHIPPED

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
