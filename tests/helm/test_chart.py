"""What the chart renders for every values file: valid, closed, described."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from typing import Any

import helm_python as helm
import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml

from tests.helm.rendering import (
    CHART,
    NEWEST_MINOR,
    OLDEST_MINOR,
    ROOT,
    Object,
    UniqueKeys,
    built_in,
    cases,
    check_fields,
    objects,
    one,
    pod_specs,
    texts,
    values,
)


@pytest.mark.parametrize("case", cases())
def test_lints_strictly(case: str) -> None:
    report = helm.lint(str(CHART), values(case), strict=True, kube_version="v1.33.0", with_subcharts=True)
    assert [m for m in report["messages"] if m["severity"] > 1] == []
    assert report["errors"] == []


@pytest.mark.parametrize("minor", [OLDEST_MINOR, NEWEST_MINOR])
@pytest.mark.parametrize("case", cases())
def test_kubernetes_knows_every_field(case: str, minor: str) -> None:
    given = values(case, kubeVersion=f"v{minor}.0")
    if given.get("models", {}).get("source") == "ociVolume" and minor == OLDEST_MINOR:
        with pytest.raises(helm.HelmError, match=r"image volumes need Kubernetes 1\.31"):
            objects(given)
        return
    found = objects(given)
    for thing in found:
        if built_in(thing):
            check_fields(thing, minor)
    names = [(o["apiVersion"], o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in found]
    assert len(names) == len(set(names))
    assert all(len(name) <= 63 for *_, name in names)


def test_strict_validation_would_catch_a_typo() -> None:
    service = one(objects(values("minimal")), "Service", "router-extproc")
    service["spec"]["portz"] = service["spec"].pop("ports")
    with pytest.raises(kubernetes_validate.ValidationError, match="portz"):
        check_fields(service, NEWEST_MINOR)


def test_duplicate_keys_would_be_caught() -> None:
    with pytest.raises(yaml.YAMLError, match="duplicate"):
        yaml.load("a: {b: 1, b: 2}", UniqueKeys)


@pytest.mark.parametrize("case", cases())
def test_every_pod_meets_the_restricted_standard(case: str) -> None:
    specs = pod_specs(objects(values(case)))
    assert specs
    for name, spec in specs.items():
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in [*spec.get("initContainers", []), *spec["containers"]]:
            security = container["securityContext"]
            assert security["readOnlyRootFilesystem"] is True, name
            assert security["allowPrivilegeEscalation"] is False, name
            assert security["capabilities"] == {"drop": ["ALL"]}, name
            assert "limits" in container["resources"], name
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted <= {volume["name"] for volume in spec["volumes"]}, name
            assert not any("subPath" in mount for mount in container.get("volumeMounts", [])), name


@pytest.mark.parametrize("case", cases())
def test_selectors_and_references_meet(case: str) -> None:
    found = objects(values(case))
    maps = {o["metadata"]["name"] for o in found if o["kind"] == "ConfigMap"} | {"my-routes"}
    for spec in pod_specs(found).values():
        assert {v["configMap"]["name"] for v in spec["volumes"] if "configMap" in v} <= maps
    for thing in found:
        if thing["kind"] == "Deployment":
            wanted = thing["spec"]["selector"]["matchLabels"]
            labels = thing["spec"]["template"]["metadata"]["labels"]
            assert wanted.items() <= labels.items()
            assert not {"app.kubernetes.io/version", "helm.sh/chart"} & wanted.keys()
    templates = [o["spec"]["template"]["metadata"]["labels"] for o in found if o["kind"] == "Deployment"]
    for service in (o for o in found if o["kind"] == "Service"):
        assert any(service["spec"]["selector"].items() <= labels.items() for labels in templates)


def test_what_is_generated_is_in_step() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "helm" / "generate.py", "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_every_value_is_described() -> None:
    comments = runpy.run_path(str(ROOT / "helm" / "generate.py"))["comments"]
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    described = {name for kind, name, _ in comments(text) if kind == "param"}

    def leaves(node: Any, at: str) -> list[str]:
        if at in described or not isinstance(node, dict) or not node:
            return [at]
        return [leaf for key, value in node.items() for leaf in leaves(value, f"{at}.{key}" if at else key)]

    assert set(leaves(yaml.safe_load(text), "")) == described


@pytest.mark.parametrize(
    ("case", "changes", "warns"),
    [
        ("redis", {}, False),
        ("redis", {"redis": {}}, True),
        ("redis", {"redis": {}, "replicaCount": 1}, False),
        ("redis", {"redis": {}, "replicaCount": 1, "autoscaling": {"type": "hpa"}}, True),
        ("redis", {"redis": {}, "store": {"url": "redis://valkey:6379/0"}}, False),
        ("redis", {"store": {"budgets": False}}, True),
        ("redis", {"redis": {}, "budgets": []}, False),
        ("envoy-sidecar", {"budgets": [{"name": "all", "usd": 9}]}, True),
        ("own-routes", {}, False),
    ],
)
def test_the_notes_warn_of_budgets_that_each_pod_counts_alone(case: str, changes: Object, warns: bool) -> None:
    given = values(case)
    routes = {name: changes[name] for name in ("store", "budgets") if name in changes}
    if routes:
        given["router"] = {**given["router"], **routes}
    given |= {name: value for name, value in changes.items() if name not in routes}
    assert ("Budgets are not shared" in texts(given)["NOTES.txt"]) is warns


@pytest.mark.parametrize("case", cases())
def test_the_notes_say_what_to_do_next(case: str) -> None:
    given = values(case)
    notes, found = texts(given)["NOTES.txt"], objects(given)
    assert "<no value>" not in notes
    steps = [int(number) for number in re.findall(r"^(\d+)\. ", notes, re.MULTILINE)]
    assert steps == list(range(1, len(steps) + 1))
    there = {(o["kind"].lower(), o["metadata"]["name"]) for o in found}
    named = re.findall(r"\b(deployment|service|configmap|httproute|certificate)[/ ](router-extproc[a-z-]*)", notes)
    assert named
    assert set(named) <= there
    wanted = {
        "none": ["-headless.mom.svc.cluster.local:50051"],
        "envoy": ["port-forward service/router-extproc-envoy"],
        "istio": ["istioctl proxy-config listener"],
        "envoy-gateway": ['"kind":"EnvoyProxy","name":"router-extproc"', "status.ancestors", "/v1/chat/completions"],
    }
    for text in wanted[given.get("attach", {}).get("provider", "none")]:
        assert text in notes
    if given.get("tls", {}).get("certManager"):
        assert "get certificate" in notes
    if "targetRefs" in given.get("attach", {}).get("istio", {}) and "providerKeys" in given:
        assert "patch gateway inference-gateway" in notes
    elif case == "istio-outbound":
        assert "patch deployment YOUR-DEPLOYMENT --type strategic" in notes


def test_a_label_that_is_given_twice_is_written_once_and_selectors_keep_theirs() -> None:
    twice = {"app.kubernetes.io/part-of": "llm", "team": "common", "sidecar.istio.io/inject": "true"}
    ours = {"app.kubernetes.io/component": "x", "app.kubernetes.io/name": "x", "app.kubernetes.io/instance": "x"}
    given = values("envoy", commonLabels={**twice, **ours}, podLabels={"team": "pods", **ours})
    given["metrics"] = {"serviceMonitor": {"enabled": True, "additionalLabels": {"team": "monitors"}}}
    found = objects(given)  # refuses a key that is there twice
    plain = values("envoy", metrics={"serviceMonitor": {"enabled": True}})
    for thing, before in zip(found, objects(plain), strict=True):
        labels = thing["metadata"]["labels"]
        assert {name: labels[name] for name in ours} == {name: before["metadata"]["labels"][name] for name in ours}
        assert thing["spec"].get("selector") == before["spec"].get("selector") if "spec" in thing else True
        assert labels["team"] == ("monitors" if thing["kind"] == "ServiceMonitor" else "common")
        assert labels["app.kubernetes.io/part-of"] == "llm"
    for name in ("router-extproc", "router-extproc-envoy"):
        deployment = one(found, "Deployment", name)["spec"]
        labels = deployment["template"]["metadata"]["labels"]
        assert deployment["selector"]["matchLabels"].items() <= labels.items()
        assert labels["team"] == "pods"
    job = one(found, "Job")["spec"]["template"]["metadata"]["labels"]
    assert job["sidecar.istio.io/inject"] == "false"


def test_a_name_like_that_of_something_else_renames_nothing_else() -> None:
    found = objects(values("models-download", fullnameOverride="router"))
    pod = one(found, "Job")["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["name"] for c in [*pod["initContainers"], *pod["containers"]] for mount in c["volumeMounts"]}
    assert mounts == volumes.keys()
    assert volumes["router-scripts"]["configMap"] == {"name": "router-check"}
    account = one(objects(values("minimal", serviceAccount={"name": "own"})), "ServiceAccount")["metadata"]
    assert (account["name"], account["labels"]["app.kubernetes.io/name"]) == ("own", "router-extproc")
