from pathlib import Path

from models import labels
from router_extproc.app import SHIPPED_MODEL
from router_extproc.inference import artifact
from router_extproc.reference import config_schema, configuration_reference
from router_extproc.selection.table import SELECTIONS
from router_extproc.signals.table import SIGNALS

DOCS = Path(__file__).parents[2] / "docs"


def test_the_reference_on_disk_is_what_the_code_says() -> None:
    # Write it anew with: router-extproc reference > docs/configuration.md
    assert (DOCS / "configuration.md").read_text() == configuration_reference() + "\n"


def test_the_labels_on_disk_are_those_of_the_shipped_classifier() -> None:
    # Write them anew with: make generated
    assert labels.PAGE.read_text(encoding="utf-8") == labels.page()
    for head, known in artifact.read(SHIPPED_MODEL).labels.items():
        [row] = [line for line in labels.table().splitlines() if line.startswith(f"| `{head}` |")]
        assert all(f"`{label}`" in row for label in known)
        assert head in labels.SAYS


def test_every_reference_inside_the_schema_resolves() -> None:
    schema = config_schema()
    pending, seen = [schema], 0
    while pending:
        part = pending.pop()
        if isinstance(part, list):
            pending += part
        if isinstance(part, dict):
            pending += part.values()
            if "$ref" in part:
                assert part["$ref"].removeprefix("#/$defs/") in schema["$defs"]
                seen += 1
    assert seen > 10


def test_the_schema_knows_every_plugin() -> None:
    definitions = config_schema()["$defs"]
    types = [variant["properties"]["type"]["const"] for variant in definitions["SignalSpec"]["oneOf"]]
    assert types == list(SIGNALS.table)
    names, *variants = definitions["SelectionSpec"]["oneOf"]
    assert names["enum"] == sorted(SELECTIONS.table)
    assert [variant["properties"]["type"]["const"] for variant in variants] == list(SELECTIONS.table)


def test_every_section_and_plugin_is_described() -> None:
    text = configuration_reference()
    assert all(f"`type: {name}`" in text for name in SIGNALS.table)
    assert all(f"`type: {name}`" in text for name in SELECTIONS.table)
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split(" | ")]
        if line.startswith("| `") and len(cells) == 4:
            assert cells[3].rstrip(" |") or "[" in cells[1] or cells[0][3:-1] in ("name", "recommended", "fallback"), (
                line
            )
