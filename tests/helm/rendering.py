"""Renders the chart with real Helm and reads the result strictly."""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate  # type: ignore[import-untyped]
import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "router-extproc"
RELEASE, NAMESPACE = "router-extproc", "mom"
NEWEST_MINOR = "1.37"
OLDEST_MINOR = "1.27"

Object = dict[str, Any]

PRICE = {"input": 1, "output": 1}
ISTIO: Object = {"provider": "istio", "istio": {"workloadSelector": {"a": "b"}}}
"""Values of `attach`, for tests that need any gateway of Istio's."""


class UniqueKeys(yaml.CSafeLoader):
    """Refuses a mapping that has a key twice: Kubernetes would take the last one in silence."""


def _mapping(loader: UniqueKeys, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = {key for key in keys if keys.count(key) > 1}
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"duplicate keys {twice}", node.start_mark)
    return loader.construct_mapping(node, deep=True)


UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def cases() -> list[str]:
    """Names of the values files in ci/."""
    return sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))


@cache
def _values(case: str) -> str:
    return (CHART / "ci" / f"{case}-values.yaml").read_text(encoding="utf-8")


def values(case: str, **changes: Any) -> dict[str, Any]:
    """The values of a case, with top-level keys replaced."""
    return {**yaml.load(_values(case), UniqueKeys), **changes}


def texts(given: dict[str, Any]) -> dict[str, str]:
    """Every template's text by its name below templates/."""
    return dict(_texts(json.dumps(given)))


@cache
def _texts(given: str) -> dict[str, str]:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(json.loads(given))
        rendered: dict[str, str] = chart.render(json.loads(given), name=RELEASE, namespace=NAMESPACE, is_upgrade=False)
    return {os.path.relpath(name, "router-extproc/templates"): text for name, text in rendered.items()}


def objects(given: dict[str, Any]) -> list[Object]:
    """Every rendered object, read with duplicate keys refused."""
    found = []
    for name, text in texts(given).items():
        if name.endswith(".yaml"):
            found += [document for document in yaml.load_all(text, UniqueKeys) if document]
    return found


def yaml_blocks(page: str) -> list[Object]:
    """Every document of a page's YAML blocks."""
    blocks = re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)
    return [document for block in blocks for document in yaml.load_all(block, UniqueKeys)]


def one(found: list[Object], kind: str, name: str | None = None) -> Object:
    """The one object of a kind (and name)."""
    matching = [o for o in found if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(matching) == 1, f"{kind}/{name}: {[o['metadata']['name'] for o in found if o['kind'] == kind]}"
    return matching[0]


def pod_specs(found: list[Object]) -> dict[str, Object]:
    """Pod specs of all workloads, by kind/name."""
    specs = {}
    for thing in found:
        title = f"{thing['kind']}/{thing['metadata']['name']}"
        if thing["kind"] == "Pod":
            specs[title] = thing["spec"]
        elif thing["kind"] in ("Deployment", "Job"):
            specs[title] = thing["spec"]["template"]["spec"]
    return specs


def built_in(thing: Object) -> bool:
    """Whether Kubernetes itself knows the kind."""
    group = thing["apiVersion"].rpartition("/")[0]
    return "." not in group or (group.endswith(".k8s.io") and group != "gateway.networking.k8s.io")


def check_fields(thing: Object, minor: str) -> None:
    """Raises kubernetes_validate.ValidationError for a field that this Kubernetes does not know, or of a wrong type."""
    _check_fields(json.dumps(thing, sort_keys=True), minor)


@cache
def _check_fields(text: str, minor: str) -> None:
    kubernetes_validate.validate(json.loads(text), minor, strict=True)
