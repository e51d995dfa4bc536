"""Install, upgrade, rollback, test and uninstall by real Helm, against a simulated API server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import helm_python as helm
import pytest

from tests.helm.cluster import MONITORING, Cluster
from tests.helm.rendering import CHART, NAMESPACE, NEWEST_MINOR, RELEASE, built_in, objects, values

UNCHECKED: dict[str, Any] = {"validateRoutes": {"enabled": False}}
"""Without the Job of the hook, which takes Helm seconds to wait for."""


@contextmanager
def connected(cluster: Cluster) -> Iterator[Any]:
    """Helm with its releases in memory."""
    with helm.Config(
        kube_apiserver=cluster.url, namespace=NAMESPACE, storage_driver="memory", qps=10_000, burst_limit=10_000
    ) as config:
        yield config


def test_install_upgrade_rollback_test_uninstall() -> None:
    first, second = values("envoy"), values("envoy")
    for given in (first, second):
        given["metrics"] = {}
    second["router"]["routes"] = second["router"]["routes"][:1]
    second["maxQueued"] = 99
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, first, wait="watcher", timeout=30)
        assert cluster.names("deployments") == {"router-extproc", "router-extproc-envoy"}
        assert cluster.names("jobs") == set()
        job, deployment = (
            cluster.log.index("create Job/router-extproc-check"),
            cluster.log.index("create Deployment/router-extproc"),
        )
        assert job < deployment  # the routes are checked before anything else is there
        routes = cluster.get("configmaps", "router-extproc-routes")["data"]["router.yaml"]

        config.upgrade(str(CHART), RELEASE, second, wait="watcher", timeout=30)
        assert cluster.get("configmaps", "router-extproc-routes")["data"]["router.yaml"] != routes
        assert cluster.get("configmaps", "router-extproc-static")["data"]["ROUTER_EXTPROC_MAX_QUEUED"] == "99"

        config.rollback(RELEASE, version=1)
        assert cluster.get("configmaps", "router-extproc-routes")["data"]["router.yaml"] == routes
        assert cluster.get("configmaps", "router-extproc-static")["data"]["ROUTER_EXTPROC_MAX_QUEUED"] == "512"

        cluster.log.clear()
        config.test(RELEASE)
        pods = {line.removeprefix("create Pod/") for line in cluster.log if line.startswith("create Pod/")}
        assert pods == {f"router-extproc-test-{name}" for name in ("health", "route", "metrics", "envoy")}
        assert cluster.names("pods") == set()

        config.uninstall(RELEASE)
        assert cluster.objects == {}


def test_bad_routes_stop_an_upgrade_before_anything_changes() -> None:
    changed = values("minimal", replicaCount=5)
    changed["router"]["routes"] = [{"name": "r", "when": "no_such_signal.label == 'x'", "models": "small"}]
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, values("minimal"), wait="watcher", timeout=30)
        cluster.fails.add("router-extproc-check")
        cluster.log.clear()
        with pytest.raises(helm.HelmError, match="pre-upgrade"):
            config.upgrade(str(CHART), RELEASE, changed, wait="watcher", timeout=30)
        assert cluster.get("deployments", "router-extproc")["spec"]["replicas"] == 2
        written = {line.split()[1] for line in cluster.log}
        assert written == {"ConfigMap/router-extproc-check", "Job/router-extproc-check"}
        assert cluster.names("jobs") == {"router-extproc-check"}  # kept: its log says what is wrong


def mounted_in_the_check(cluster: Cluster) -> list[str]:
    """Names of what the hook's Job mounts: each must be there before the Job is."""
    volumes = cluster.get("jobs", "router-extproc-check")["spec"]["template"]["spec"]["volumes"]
    maps = [v["configMap"]["name"] for v in volumes if "configMap" in v]
    return maps + [v["persistentVolumeClaim"]["claimName"] for v in volumes if "persistentVolumeClaim" in v]


def test_the_check_of_routes_of_your_own_fetches_the_weights_too() -> None:
    given = values("models-download", router={}, existingRoutesConfigMap="mine")
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        cluster.fails.add("router-extproc-check")
        with pytest.raises(helm.HelmError, match="pre-install"):
            config.install(str(CHART), RELEASE, given, wait="watcher", timeout=30)
        mounted = mounted_in_the_check(cluster)
        assert set(mounted) == {"mine", "router-extproc-check"}
        job = cluster.log.index("create Job/router-extproc-check")
        assert cluster.log.index("create ConfigMap/router-extproc-check") < job
    (script,) = (o for o in objects(given) if o["metadata"]["name"] == "router-extproc-check" and "data" in o)
    assert set(script["data"]) == {"fetch_model.py"}


def test_the_check_waits_for_no_claim_that_is_still_to_be_made() -> None:
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, values("minimal", **UNCHECKED), timeout=30)
        cluster.log.clear()
        claimed = values("minimal", models={"source": "pvc", "pvc": {"create": True}})
        config.upgrade(str(CHART), RELEASE, claimed, wait="watcher", timeout=30)
        assert "create PersistentVolumeClaim/router-extproc-model" in cluster.log
        assert not [line for line in cluster.log if "Job/" in line]
        cluster.fails.add("router-extproc-check")
        with pytest.raises(helm.HelmError, match="pre-upgrade"):  # from now on the claim is there
            config.upgrade(str(CHART), RELEASE, claimed, wait="watcher", timeout=30)
        assert "router-extproc-model" in mounted_in_the_check(cluster)


def test_a_claim_of_yours_is_checked_from_the_first_install() -> None:
    given = values("minimal", models={"source": "pvc", "pvc": {"create": True, "existingClaim": "mine"}})
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        cluster.fails.add("router-extproc-check")
        with pytest.raises(helm.HelmError, match="pre-install"):
            config.install(str(CHART), RELEASE, given, wait="watcher", timeout=30)
        assert "mine" in mounted_in_the_check(cluster)


def test_a_failing_test_fails_helm_test() -> None:
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, values("minimal", **UNCHECKED), timeout=30)
        cluster.fails.add("router-extproc-test-route")
        with pytest.raises(helm.HelmError, match="router-extproc-test-route"):
            config.test(RELEASE)


def test_a_claim_of_the_chart_outlives_the_release() -> None:
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, values("models-pvc"), timeout=30)
        config.uninstall(RELEASE)
        assert [name for _, _, name in cluster.objects] == ["router-extproc-model"]


@pytest.mark.parametrize("operator", [True, False])
def test_monitoring_objects_only_where_their_kinds_exist(operator: bool) -> None:
    with Cluster(NEWEST_MINOR, MONITORING if operator else None) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, values("minimal", **UNCHECKED), timeout=30)
        wanted = {"router-extproc"} if operator else set()
        assert cluster.names("servicemonitors") == wanted
        assert cluster.names("prometheusrules") == wanted


@pytest.mark.parametrize("case", ["istio", "envoy-gateway", "envoy-gateway-sidecar", "envoy-tls", "keda"])
def test_objects_of_other_projects_come_and_go_with_the_release(case: str) -> None:
    given = values(case, **UNCHECKED)
    kinds: dict[str, set[str]] = {}
    for thing in objects(given):
        if not built_in(thing):
            kinds.setdefault(thing["apiVersion"], set()).add(thing["kind"])
    assert kinds
    with (
        Cluster(NEWEST_MINOR, {api: tuple(sorted(names)) for api, names in kinds.items()}) as cluster,
        connected(cluster) as config,
    ):
        config.install(str(CHART), RELEASE, given, timeout=30)
        assert {thing["kind"] for thing in cluster.objects.values()} >= set().union(*kinds.values())
        more = values(case, **UNCHECKED)
        more["router"]["models"]["another"] = {
            "url": "http://another.models.svc.cluster.local",
            "price": {"input": 1, "output": 1},
        }
        config.upgrade(str(CHART), RELEASE, more, timeout=30)
        assert "another" in cluster.get("configmaps", "router-extproc-routes")["data"]["router.yaml"]
        config.uninstall(RELEASE)
        assert cluster.objects == {}


def test_an_older_kubernetes_is_refused() -> None:
    with (
        Cluster("1.26") as cluster,
        connected(cluster) as config,
        pytest.raises(helm.HelmError, match=r"kubeVersion: >=1\.27"),
    ):
        config.install(str(CHART), RELEASE, values("minimal"), timeout=30)


def test_the_simulated_server_refuses_unknown_fields() -> None:
    given = values("minimal", podSecurityContext={"runAsNonRot": True}, **UNCHECKED)
    with (
        Cluster(NEWEST_MINOR) as cluster,
        connected(cluster) as config,
        pytest.raises(helm.HelmError, match="runAsNonRot"),
    ):
        config.install(str(CHART), RELEASE, given, timeout=30)


def test_autoscaling_that_is_turned_on_starts_from_the_pods_that_run() -> None:
    """A number that is left out where it stood before becomes 1: all pods but one would stop."""
    fixed = values("minimal", replicaCount=10, **UNCHECKED)
    scaled = values("minimal", autoscaling={"type": "hpa", "minReplicas": 6}, **UNCHECKED)
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, fixed, timeout=30)
        config.upgrade(str(CHART), RELEASE, scaled, timeout=30)
        deployment = cluster.get("deployments", "router-extproc")
        assert deployment["spec"]["replicas"] == 10
        deployment["spec"]["replicas"] = 7  # as the autoscaler does
        config.upgrade(str(CHART), RELEASE, scaled, timeout=30)
        assert cluster.get("deployments", "router-extproc")["spec"]["replicas"] == 7


def test_autoscaling_from_the_first_install_owns_the_number_of_pods() -> None:
    scaled = values("minimal", autoscaling={"type": "hpa"}, **UNCHECKED)
    fixed = values("minimal", replicaCount=10, **UNCHECKED)
    with Cluster(NEWEST_MINOR) as cluster, connected(cluster) as config:
        config.install(str(CHART), RELEASE, scaled, timeout=30)
        config.upgrade(str(CHART), RELEASE, scaled, timeout=30)
        assert "replicas" not in cluster.get("deployments", "router-extproc")["spec"]
        for given in (fixed, scaled):  # off, and on again
            config.upgrade(str(CHART), RELEASE, given, timeout=30)
            assert cluster.get("deployments", "router-extproc")["spec"]["replicas"] == 10
