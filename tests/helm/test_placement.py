"""Where pods run, how many, and how long they may take to end."""

from __future__ import annotations

import pytest

from router_extproc.app import ServeOptions
from tests.helm.rendering import (
    CHART,
    NEWEST_MINOR,
    Object,
    objects,
    one,
    pod_specs,
    values,
)


def test_the_pod_is_given_time_for_the_whole_drain() -> None:
    spec = one(objects(values("minimal")), "Deployment")["spec"]["template"]["spec"]
    pre_stop = spec["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    defaults = ServeOptions(config=CHART)
    assert spec["terminationGracePeriodSeconds"] > pre_stop + defaults.drain_notice + defaults.drain_grace
    assert one(objects(values("hpa")), "Deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] == 120


@pytest.mark.parametrize("version", ["v1.29.0", "v1.30.0", f"v{NEWEST_MINOR}.0"])
def test_nobody_is_asked_to_sleep_for_no_time(version: str) -> None:
    """Kubernetes 1.30 to 1.32 refuse it."""
    given = values("envoy", kubeVersion=version)
    given["drain"] = {"preStopSeconds": 0}
    given["attach"]["envoy"] |= {"image": "envoyproxy/envoy:distroless-v1.40.0", "drainSeconds": 0}
    for name in ("router-extproc", "router-extproc-envoy"):
        (container,) = one(objects(given), "Deployment", name)["spec"]["template"]["spec"]["containers"]
        assert "lifecycle" not in container
    given["attach"]["envoy"]["drainSeconds"] = 7
    (container,) = one(objects(given), "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]["containers"]
    assert "7" in str(container["lifecycle"]["preStop"])


def test_autoscalers_own_the_number_of_pods() -> None:
    for case, kind in (("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")):
        found = objects(values(case))
        assert "replicas" not in one(found, "Deployment")["spec"]
        assert one(found, kind)["spec"]["scaleTargetRef"]["name"] == "router-extproc"


def test_a_gpu_is_asked_for_tolerated_and_never_needed_twice() -> None:
    spec = one(objects(values("gpu")), "Deployment")["spec"]
    pod = spec["template"]["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert "nvidia.com/gpu" not in pod["containers"][0]["resources"]["requests"]
    assert pod["tolerations"] == [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod["runtimeClassName"] == "nvidia"
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert one(objects(values("gpu")), "ConfigMap", "router-extproc-static")["data"]["ROUTER_EXTPROC_DEVICE"] == "cuda"


GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}


def test_beside_an_envoy_a_gpu_is_asked_for_tolerated_and_never_needed_twice() -> None:
    gpu = {"enabled": True, "runtimeClassName": "nvidia"}
    spec = one(objects(values("envoy-sidecar", gpu=gpu)), "Deployment", "router-extproc-envoy")["spec"]
    pod = spec["template"]["spec"]
    assert pod["tolerations"] == [GPU_TOLERATION]
    assert pod["runtimeClassName"] == "nvidia"
    assert spec["strategy"]["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}


def test_every_pod_goes_to_the_nodes_that_are_named() -> None:
    nodes: Object = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}
    pods: Object = {"requiredDuringSchedulingIgnoredDuringExecution": []}
    given = values("envoy", affinity={"nodeAffinity": nodes, "podAffinity": pods})
    given["nodeSelector"] = {"pool": "gpu"}
    given["tolerations"] = [{"key": "dedicated", "operator": "Exists"}]
    given["gpu"] = {"enabled": True}
    gpu = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    specs = pod_specs(objects(given))
    assert len(specs) == 7
    for name, spec in specs.items():
        assert spec["nodeSelector"] == {"pool": "gpu"}, name
        own_envoy = name == "Deployment/router-extproc-envoy"
        assert spec["tolerations"] == given["tolerations"] + ([] if own_envoy else [gpu]), name
        # The Job runs before there is any pod that it could be near to.
        wanted = {"nodeAffinity": nodes} if not name.startswith("Deployment") else given["affinity"]
        assert spec["affinity"] == wanted, name
        assert ("topologySpreadConstraints" in spec) == name.startswith("Deployment"), name


def test_native_sidecars_only_where_kubernetes_has_them() -> None:
    for version, native in (("v1.29.0", True), ("v1.28.5", False)):
        pod = one(objects(values("envoy-sidecar", kubeVersion=version)), "Deployment")["spec"]["template"]["spec"]
        listed = {c["name"]: c for c in (pod["initContainers"] if native else pod["containers"])}
        assert listed["router"].get("restartPolicy") == ("Always" if native else None)
        assert "httpGet" in listed["router"]["readinessProbe"]
