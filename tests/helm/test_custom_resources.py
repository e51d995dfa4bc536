"""Every custom resource that the chart renders, against the types of the projects that define them.

`tsc` finds unknown fields and wrong types, the models' own `validate()` missing fields, enums and patterns. What only a
live API server checks (CEL rules, admission) is not checked here.
"""

from __future__ import annotations

import filecmp
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.helm.rendering import ROOT, Object, built_in, cases, objects, values, yaml_blocks

LOCKED = Path(__file__).parent / "typed-crds"
WORK = ROOT / ".run" / "typed-crds"
PACKAGES = {
    "cert-manager.io": "cert-manager",
    "networking.istio.io": "istio",
    "gateway.envoyproxy.io": "envoy-gateway",
    "gateway.networking.k8s.io": "gateway-api",
    "keda.sh": "keda",
    "monitoring.coreos.com": "prometheus-operator",
}


def _run(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    try:
        return subprocess.run(
            command, cwd=WORK, capture_output=True, text=True, env={**os.environ, "PATH": path}, check=False
        )
    except FileNotFoundError:
        pytest.fail(f"{command[0]} is missing: pip install 'router-extproc[helm]' brings node and npm")


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """The locked packages, installed once below .run/."""
    WORK.mkdir(parents=True, exist_ok=True)
    lock = WORK / "package-lock.json"
    done = WORK / "node_modules" / ".package-lock.json"
    if done.exists() and lock.exists() and filecmp.cmp(lock, LOCKED / lock.name, shallow=False):
        return
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED / name, WORK / name)
    done_install = _run(["npm", "ci", "--no-audit", "--no-fund"])
    assert done_install.returncode == 0, done_install.stderr


def _module(thing: Object) -> str:
    group, _, version = thing["apiVersion"].rpartition("/")
    return f"@kubernetes-models/{PACKAGES[group]}/{group}/{version}/{thing['kind']}"


def custom_resources() -> list[Object]:
    """Each different custom resource of all values files, and of the page that says how to begin."""
    page = yaml_blocks((ROOT / "docs" / "kubernetes.md").read_text(encoding="utf-8"))
    found = {json.dumps(thing): thing for thing in page if "apiVersion" in thing}
    for case in cases():
        for thing in objects(values(case)):
            if not built_in(thing):
                found[json.dumps(thing, sort_keys=True)] = thing
    return list(found.values())


def _typescript(things: list[Object]) -> str:
    lines = []
    for number, thing in enumerate(things):
        lines.append(f'import type {{ I{thing["kind"]} as I{number} }} from "{_module(thing)}";')
        lines.append(f"export const o{number}: I{number} = {json.dumps(thing)};")
    return "\n".join(lines)


def test_no_field_is_unknown_or_of_a_wrong_type() -> None:
    things = custom_resources()
    kinds = {thing["kind"] for thing in things}
    assert kinds == {
        "BackendTrafficPolicy",
        "Backend",
        "Certificate",
        "ClientTrafficPolicy",
        "DestinationRule",
        "EnvoyExtensionPolicy",
        "EnvoyFilter",
        "EnvoyProxy",
        "Gateway",
        "GatewayClass",
        "HTTPRoute",
        "HTTPRouteFilter",
        "PodMonitor",
        "PrometheusRule",
        "ReferenceGrant",
        "ScaledObject",
        "ServiceEntry",
        "ServiceMonitor",
    }
    wrong = json.loads(json.dumps(next(thing for thing in things if thing["kind"] == "EnvoyExtensionPolicy")))
    wrong["spec"]["extProc"][0]["failOpn"] = wrong["spec"]["extProc"][0].pop("failOpen")
    (WORK / "good.ts").write_text(_typescript(things))
    (WORK / "wrong.ts").write_text(_typescript([wrong]))
    options = "--noEmit --strict --skipLibCheck --module nodenext --moduleResolution nodenext --target es2022"
    done = _run(["node_modules/.bin/tsc", *options.split(), "good.ts", "wrong.ts"])
    assert [line for line in done.stdout.splitlines() if line.startswith("good.ts")] == []
    assert "wrong.ts" in done.stdout, done.stderr
    assert "failOpn" in done.stdout


def test_nothing_required_is_missing_and_no_pattern_is_broken() -> None:
    things = custom_resources()
    wrong = json.loads(json.dumps(next(thing for thing in things if thing["kind"] == "EnvoyExtensionPolicy")))
    wrong["spec"]["extProc"][0]["messageTimeout"] = "soon"
    lines = ["const wrong = [];"]
    for number, thing in enumerate([*things, wrong]):
        lines.append(f'import {{ {thing["kind"]} as K{number} }} from "{_module(thing)}";')
        lines.append(f"try {{ new K{number}({json.dumps(thing)}).validate(); }}")
        lines.append(f"catch (error) {{ wrong.push([{number}, String(error.message)]); }}")
    lines.append("console.log(JSON.stringify(wrong));")
    (WORK / "validate.mjs").write_text("\n".join(lines))
    done = _run(["node", "validate.mjs"])
    assert done.returncode == 0, done.stderr
    refused = json.loads(done.stdout)
    assert [things[number]["metadata"]["name"] + ": " + why for number, why in refused if number < len(things)] == []
    assert [number for number, _ in refused] == [len(things)]
