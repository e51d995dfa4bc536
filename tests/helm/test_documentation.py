"""docs/kubernetes.md: its values render, its routes load, its links lead somewhere, its alerts and values exist."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from router_extproc.config.loader import parse
from tests.helm.rendering import CHART, ROOT, objects, one, values, yaml_blocks

PAGE = (ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8")
BLOCKS = yaml_blocks(PAGE)
BASE = next(block for block in BLOCKS if "router" in block)
ATTACHED = [block for block in BLOCKS if "attach" in block]


@pytest.mark.parametrize("block", ATTACHED, ids=[str(block["attach"]) for block in ATTACHED])
def test_the_values_on_the_page_render(block: dict[str, Any]) -> None:
    found = objects({**BASE, **block})
    routes = one(found, "ConfigMap", "router-extproc-routes")["data"]["router.yaml"]
    assert parse(routes.encode(), CHART).config.default == ["premium", "small"]
    mentioned = set(re.findall(r"\b(?:service|deploy|configmap|job|httproute)[/ ](router-extproc[a-z-]*)", PAGE))
    known = {o["metadata"]["name"] for case in ("envoy", "minimal") for o in objects(values(case))}
    assert mentioned <= known


def test_tls_on_the_page_is_what_the_chart_wants() -> None:
    (block,) = [block for block in BLOCKS if "tls" in block]
    name = re.findall(r"--from-file=tls.crt=(\S+)\.crt", PAGE)[0]
    for tls in (block["tls"], {"enabled": True, "serverSecret": "router-server", "clientSecret": "router-client"}):
        given = {**BASE, "tls": tls, "attach": {"provider": "envoy"}}
        render = one(objects(given), "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]["initContainers"]
        assert f"--sidecar-name {name} " in render[0]["args"][0]


def test_the_values_of_the_readme_render() -> None:
    (block,) = yaml_blocks((CHART / "README.md").read_text(encoding="utf-8"))
    assert one(objects(block), "Deployment", "router-extproc-envoy")


def test_every_way_to_attach_is_shown() -> None:
    shown = {block["attach"]["provider"] for block in ATTACHED}
    assert shown == {"envoy", "istio", "envoy-gateway"}


def test_links_lead_somewhere() -> None:
    headings = {re.sub(r"[^a-z0-9 -]", "", line.lstrip("# ").lower()).replace(" ", "-")
                for line in PAGE.splitlines() if line.startswith("#")}  # fmt: skip
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGE):
        path, _, anchor = target.partition("#")
        assert (ROOT / "docs" / path).exists(), target
        assert path or anchor in headings, target


def test_the_list_of_contents_is_whole() -> None:
    headings = [line.removeprefix("## ") for line in PAGE.splitlines() if line.startswith("## ")]
    contents = " ".join(PAGE[: PAGE.index("\n## ")].split())
    for heading in headings:
        anchor = re.sub(r"[^a-z0-9 -]", "", heading.lower()).replace(" ", "-")
        assert f"(#{anchor})" in contents, heading


def test_values_and_alerts_that_are_named_exist() -> None:
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    roots = "attach|metrics|models|gpu|drain|autoscaling|state|admin|image|router.limits|networkPolicy|serviceMonitor"
    for name in re.findall(rf"`((?:{roots})(?:\.[A-Za-z]+)+)", PAGE):
        node: Any = defaults if not name.startswith(("router.", "serviceMonitor")) else None
        for key in name.split(".") if node is not None else ():
            if isinstance(node, dict) and not node:
                break
            assert key in node, name
            node = node[key]
    rules = one(objects(values("envoy")), "PrometheusRule")["spec"]["groups"][0]["rules"]
    table = PAGE[PAGE.index("| alert |") : PAGE.index("## Security")]
    assert set(re.findall(r"Router[A-Z]\w+", table)) == {rule["alert"] for rule in rules}
