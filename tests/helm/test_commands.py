"""The commands that the chart runs: what the hook's Job and the init container are given."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_extproc.cli import main as cli
from router_extproc.config.envoy import EnvoyOptions, render
from router_extproc.config.envoy_tls import SidecarTls
from router_extproc.config.limits import Limits
from router_extproc.config.loader import parse
from tests.helm.gateways import milliseconds
from tests.helm.rendering import (
    CHART,
    ISTIO,
    Object,
    cases,
    objects,
    one,
    texts,
    values,
)


def _commands(job: Object) -> list[list[str]]:
    """What the Job runs, one command after the other, each as words and without what it does with the output."""
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["sh", "-ec"]
    (script,) = container["args"]
    lines = [shlex.split(line, comments=True) for line in script.replace("\\\n", " ").splitlines()]
    return [[word for word in words if word not in (">", "/dev/null")] for words in lines if words]


# Where the chart makes the claim of the weights there is no Job before it (test_lifecycle.py).
@pytest.mark.parametrize("case", [case for case in cases() if "router" in values(case) and case != "models-pvc"])
def test_the_job_of_the_hook_accepts_the_routes(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = objects(values(case))
    (tmp_path / "router.yaml").write_text(one(found, "ConfigMap", "router-extproc-check")["data"]["router.yaml"])
    local = {"/etc/router-extproc": str(tmp_path), "/tmp/sds": str(tmp_path / "sds")}
    commands = _commands(one(found, "Job"))
    own_envoy = values(case).get("attach", {}).get("provider") == "envoy"
    assert [command[:2] for command in commands] == [
        ["router-extproc", name] for name in ("check", "envoy")[: 1 + own_envoy]
    ]
    for _, *arguments in commands:
        assert cli([local.get(argument, argument) for argument in arguments]) == 0, capsys.readouterr().err


def test_the_job_of_the_hook_refuses_what_the_envoy_cannot_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = values("envoy-compatible")
    given["router"]["models"]["premium"]["auth"] = {"file": "/etc/mom/keys/KEY"}
    found = objects(given)
    (tmp_path / "router.yaml").write_text(one(found, "ConfigMap", "router-extproc-check")["data"]["router.yaml"])
    local = {"/etc/router-extproc": str(tmp_path)}
    checked, rendered = (
        cli([local.get(argument, argument) for argument in arguments]) for _, *arguments in _commands(one(found, "Job"))
    )
    assert (checked, rendered) == (0, 1)
    assert "models.premium.auth.file" in capsys.readouterr().err


@pytest.mark.parametrize("case", ["minimal", "models-download", "gpu"])
def test_the_job_of_the_hook_has_the_environment_of_the_sidecar(case: str) -> None:
    """Or it could not load a classifier from a hub, which the sidecar can, and would take one that the sidecar does
    not."""
    more: Object = {
        "extraEnv": [{"name": "HF_HUB_OFFLINE", "value": "0"}],
        "extraEnvFrom": [{"secretRef": {"name": "hub-token"}}],
    }
    found = objects(values(case, **more))
    (check,) = one(found, "Job")["spec"]["template"]["spec"]["containers"]
    assert check["envFrom"] == more["extraEnvFrom"]
    static = one(found, "ConfigMap", "router-extproc-static")["data"]
    weights = [name for name in ("ROUTER_EXTPROC_MODEL_DIR", "ROUTER_EXTPROC_MODEL_DIGEST") if name in static]
    assert check["env"] == [{"name": name, "value": static[name]} for name in weights] + more["extraEnv"]
    assert len(weights) == {"minimal": 0, "models-download": 1, "gpu": 2}[case]


def test_the_job_of_the_hook_runs_what_the_init_container_runs() -> None:
    """Also what a shell would take apart."""
    for case in ("envoy-tls", "envoy-compatible", "envoy-private-ca", "envoy-behind-gateway"):
        given = values(case)
        given["attach"].setdefault("envoy", {})["renderArgs"] = ["--access-log", "/dev/it's $HOME"]
        found = objects(given)
        pod = one(found, "Deployment", "router-extproc-envoy")["spec"]["template"]["spec"]
        (script,) = next(c for c in pod["initContainers"] if c["name"] == "render")["args"]
        words = [word.replace("/rendered/sds", "/tmp/sds") for word in shlex.split(script.replace("\\\n", " "))]
        assert words[-2:] == [">", "/rendered/envoy.yaml"]
        assert words[-4:-2] == ["--access-log", "/dev/it's $HOME"]
        assert _commands(one(found, "Job"))[1] == words[:-2]


@pytest.mark.parametrize(
    ("change", "flags"),
    [
        ({}, []),
        ({"maxConnections": 500}, ["--max-connections", "500"]),
        ({"caFile": "/etc/pki/ca.pem"}, ["--ca-file", "/etc/pki/ca.pem"]),
        ({"caSecret": {"name": "models", "key": "all.pem"}}, ["--ca-file", "/etc/mom/ca/all.pem"]),
    ],
)
def test_values_of_the_envoy_become_flags(change: dict[str, Any], flags: list[str]) -> None:
    given = values("minimal", attach={"provider": "envoy", "envoy": change})
    _, command = _commands(one(objects(given), "Job"))
    assert command[7:] == flags


@pytest.mark.parametrize("deadline", [None, 60_000])
def test_every_gateway_waits_longer_than_the_sidecar_may_take(deadline: int | None) -> None:
    """As long as `router-extproc envoy` itself makes Envoy wait."""
    router = {**values("minimal")["router"], **({"limits": {"deadline_ms": deadline}} if deadline else {})}
    envoy_gateway = {"provider": "envoy-gateway", "envoyGateway": {"gateway": {"name": "g"}}}
    wanted = (Limits().deadline_ms if deadline is None else deadline) + 2000
    for attach, timeout in (
        ({}, [f"{wanted / 1000:g}s"]),
        ({"messageTimeout": "61.5s"}, ["61.5s"]),
    ):
        found = objects(values("minimal", router=router, attach={"provider": "envoy", **attach}))
        _, (_, _, _, *flags) = _commands(one(found, "Job"))
        parser = argparse.ArgumentParser()
        EnvoyOptions.add_arguments(parser)
        text = render(parse(yaml.safe_dump(router).encode(), CHART).config,
                      EnvoyOptions.from_arguments(parser.parse_args(flags)))  # fmt: skip
        assert re.findall(r"\bmessage_timeout: (\S+)", text) == timeout
        seconds = float(timeout[0].removesuffix("s"))
        patches = str(one(objects(values("minimal", router=router, attach={**ISTIO, **attach})), "EnvoyFilter"))
        assert [float(found) for found in re.findall(r"'message_timeout': '([0-9.]+)s'", patches)] == [seconds]
        policy = one(
            objects(values("minimal", router=router, attach={**envoy_gateway, **attach})), "EnvoyExtensionPolicy"
        )
        assert milliseconds(policy["spec"]["extProc"][0]["messageTimeout"]) == seconds * 1000


@pytest.mark.parametrize("client", [True, False])
def test_the_notes_print_an_envoy_that_speaks_tls_to_sidecars_that_want_it(client: bool) -> None:
    """Plaintext would fail, and with it every decision, while the default model serves on."""
    tls = {"enabled": True, "serverSecret": "s", "clientSecret": "c", "requireClientCertificate": client}
    notes = texts(values("minimal", tls=tls))["NOTES.txt"]
    (command,) = re.findall(r"(router-extproc envoy (?:.*\\\n)*.*)", notes)
    words = shlex.split(command.replace("\\\n", " "))
    parser = argparse.ArgumentParser()
    EnvoyOptions.add_arguments(parser)
    asked = EnvoyOptions.from_arguments(parser.parse_args(words[3:])).sidecar_tls
    at = "/etc/router-tls"
    own = (f"{at}/tls.crt", f"{at}/tls.key") if client else (None, None)
    assert asked == SidecarTls(f"{at}/ca.crt", "router-extproc.mom.svc", *own)
    assert f"{at} is a directory as that Envoy sees it" in notes
    assert ("tls.key of the Secret c" in notes) is client
    assert at not in texts(values("minimal"))["NOTES.txt"]
