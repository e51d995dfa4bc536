"""The complete examples, as they are but for addresses: 40 labelled prompts each, through Envoy."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.conftest import registered
from tests.e2e.stack import free_ports, running

EXAMPLES = Path(__file__).parents[2] / "examples"
RIGHT = 0.9
"""Least share of prompts that must take the route (and reach the model) that a person chose for them."""


def localised(name: str, directory: Path) -> Path:
    """The example with every model on loopback, and a deadline that a loaded machine keeps."""
    text = (EXAMPLES / name / "router.yaml").read_text()

    def here(found: re.Match[str]) -> str:
        return f"url: http://127.0.0.1:{free_ports(1)[0]}{found.group(1) or ''}"

    text = re.sub(r"url: https?://[^/\s]+(/\S*)?", here, text)
    text = text.replace("{file: /var/run/secrets/llm/token}", "{env: HOUSE_TOKEN}")
    deadline = "deadline_ms: 5000"
    text = (
        text.replace("limits: {", f"limits: {{{deadline}, ")
        if "limits: {" in text
        else f"{text}limits: {{{deadline}}}\n"
    )
    path = directory / "router.yaml"
    path.write_text(text)
    return path


def wrong(answer: httpx.Response, expected: dict[str, Any]) -> str:
    """What is wrong with the answer to a labelled prompt; empty when nothing is."""
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.text[:100]}"
    route, model = answer.headers["x-mom-route"], answer.headers["x-mom-model"]
    if (route, model) != (expected["route"], expected.get("model", model)):
        return f"{route} -> {model} ({answer.headers['x-mom-reason']})"
    return ""


@pytest.mark.parametrize("name", ["code-platform", "ecommerce-support", "education", "hybrid", "on-prem"])
def test_labelled_prompts_reach_the_models_that_they_should(name: str, tmp_path: Path) -> None:
    labelled = [json.loads(line) for line in (EXAMPLES / name / "prompts.jsonl").read_text().splitlines()]
    mistakes: list[str] = []
    taken: Counter[str] = Counter()
    with running(tmp_path, localised(name, tmp_path)) as stack, registered(stack), httpx.Client(timeout=30) as client:
        for expected in labelled:
            answer = client.post(
                f"{stack.url}/v1/chat/completions",
                json={
                    "model": expected.get("ask", "auto"),
                    "messages": [{"role": "user", "content": expected["prompt"]}],
                },
                headers=expected.get("headers", {}),
            )
            taken[answer.headers.get("x-mom-route", "refused")] += 1
            found = wrong(answer, expected)
            if found:
                mistakes.append(f"{expected['route']}: {found}: {expected['prompt'][:80]}")
        served = {model: len(server.seen) for model, server in stack.models.servers.items()}
    shown = "\n".join(mistakes)
    assert len(labelled) - len(mistakes) >= RIGHT * len(labelled), shown
    for route, count in Counter(each["route"] for each in labelled).items():
        assert abs(taken[route] - count) <= 4, f"{route}: {taken[route]} instead of {count}\n{shown}"
    assert sum(served.values()) >= len(labelled) - len(mistakes)
