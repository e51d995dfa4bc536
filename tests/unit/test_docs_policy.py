"""The policy page: every piece of YAML on it is valid together with a catalogue."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_extproc.config.loader import parse
from router_extproc.runtime import compile_runtime
from router_extproc.selection.table import SELECTIONS

PAGE = Path(__file__).parents[2] / "docs" / "policy.md"
HEADS = {
    "shipped": {
        "intent": ("code_generation", "code_review_debug"),
        "guard": ("benign", "harmful", "injection", "jailbreak"),
        "pii": ("none", "PERSON"),
    }
}
LABELS = {"mistral": {"where": "eu"}, "large": {"where": "house", "tier": "premium"}, "coder": {"tier": "light"}}
BASE: dict[str, Any] = {
    "models": {
        name: {"url": "http://h", "price": {"input": 1, "output": 1}, "labels": LABELS.get(name, {})}
        for name in ("coder", "general", "mistral", "large", "beta-model")
    },
    "signals": {
        "intent": {"type": "classifier", "head": "intent"},
        "guard": {"type": "classifier", "head": "guard"},
        "pii": {"type": "classifier", "head": "pii"},
        "mentions_code": {"type": "keywords", "any": "code"},
        "confidential": {"type": "keywords", "any": "secret"},
        "project": {"type": "keywords", "any": "Bluebird", "mark": True},
    },
    "default": "large",
}


@pytest.mark.parametrize("block", re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.S))
def test_every_block_is_valid(block: str) -> None:
    base = {key: value for key, value in BASE.items() if not re.search(rf"^{key}:", block, re.M)}
    text = yaml.safe_dump(base, sort_keys=False) + block
    config = compile_runtime(parse(text.encode(), Path("router.yaml")), HEADS, {}).config
    assert config.routes or config.guards or config.preferences.users or config.schedules or len(base) < len(BASE)


def test_every_selection_is_in_the_table_and_valid() -> None:
    selections = re.findall(r"^\|.*`selection: (.*?)` (?:\(.*\) )?\|$", PAGE.read_text(), re.M)
    read = [yaml.safe_load(selection) for selection in selections]
    assert sorted(spec if isinstance(spec, str) else spec["type"] for spec in read) == sorted(SELECTIONS.table)
    for selection in selections:
        routes = f"routes: [{{name: r, when: 'true', models: [coder, general], selection: {selection}}}]\n"
        compile_runtime(parse((yaml.safe_dump(BASE) + routes).encode(), Path("router.yaml")), HEADS, {})
