"""The container image, as far as it can be checked without building it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tomllib
import venv
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tests.e2e.stack import free_ports, wait_until
from tests.helm.rendering import ROOT, objects, one, values

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments, continuation lines joined."""
    joined = re.sub(r"\\\n", " ", "\n".join(line for line in DOCKERFILE.splitlines() if not line.startswith("#")))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in joined.splitlines() if line.strip()]


def final_stage() -> list[tuple[str, str]]:
    found = instructions()
    start = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    return found[start:]


def test_hadolint_finds_nothing() -> None:
    tool = shutil.which("hadolint", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    if tool is None:
        pytest.fail("hadolint is missing: pip install 'router-extproc[helm]' brings it")
    done = subprocess.run([tool, ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_final_stage_has_no_build_tools_and_is_nobody() -> None:
    stage = final_stage()
    names = [name for name, _ in stage]
    assert "RUN" not in names  # nothing is installed, so what is there came from the base or by COPY
    user = dict(stage)["USER"]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    pod = one(objects(values("minimal")), "Deployment")["spec"]["template"]["spec"]
    assert user.split(":")[0] == str(pod["securityContext"]["runAsUser"])
    assert re.search(r"ARG PYTHON=3\.11\.\d+-slim", DOCKERFILE)
    assert {"HEALTHCHECK", "STOPSIGNAL", "ENTRYPOINT", "CMD"} <= set(names)


def test_everything_copied_exists_and_is_not_ignored() -> None:
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    for name, arguments in instructions():
        if name != "COPY" or "--from" in arguments:
            continue
        *sources, _ = shlex.split(arguments)
        for source in sources:
            assert (ROOT / source).exists(), source
            verdict = False
            for rule in ignored:  # the last rule that matches wins
                pattern = rule.removeprefix("!")
                if fnmatch(source, pattern) or source.startswith(pattern + "/"):
                    verdict = not rule.startswith("!")
            assert not verdict, f"{source} is left out by .dockerignore"


def test_dependencies_are_pinned_and_in_step() -> None:
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    locked = dict(line.split("==") for line in lines)
    assert len(locked) == len(lines)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = dict(requirement.split("==") for requirement in project["dependencies"])
    assert {name: locked.get(name) for name in direct} == direct


@pytest.mark.parametrize(
    ("device", "index", "lone"),
    [("cpu", "https://wheels.example/cpu", True), ("cpu", "", False), ("cuda", "", False)],
)
def test_torch_comes_without_its_libraries_only_from_the_index_that_leaves_them_out(
    device: str, index: str, lone: bool, tmp_path: Path
) -> None:
    """torch of the default index requires the CUDA libraries: without them `pip check` would end the build."""
    (script,) = (arguments for name, arguments in instructions() if name == "RUN" and "TORCH_INDEX" in arguments)
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@" >> "$ASKED"\n')
    pip.chmod(0o755)
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "ASKED": str(tmp_path / "asked"),
        "DEVICE": device,
        "TORCH_INDEX": index,
    }
    subprocess.run(["sh", "-c", script], check=True, env=environment, cwd=ROOT)
    torch, rest, check = (tmp_path / "asked").read_text().splitlines()
    assert ("--no-deps" in torch, index in torch) == (lone, True)
    assert (rest, check) == ("install --no-deps -r requirements.lock", "check")
    wrong = subprocess.run(["sh", "-c", script], check=False, env={**environment, "DEVICE": "tpu"}, cwd=ROOT)
    assert wrong.returncode == 1


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the image installs, built from a copy: a build leaves files behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE", "NOTICE"):
        shutil.copy(ROOT / name, source / name)
    shutil.copytree(ROOT / "router_extproc", source / "router_extproc", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_holds_every_file_that_is_read_at_run_time(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = set(archive.namelist())
    wanted = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "router_extproc").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyi"
    }
    assert wanted - inside == set()
    assert not [name for name in inside if name.startswith(("tests/", "models/", "bench/"))]


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean virtual environment with the wheel; third-party packages are those of this environment."""
    place = tmp_path_factory.mktemp("installed")
    venv.create(place, with_pip=False)
    (packages,) = place.glob("lib/python*/site-packages")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--quiet", "--no-deps", wheel],
        check=True,
    )
    ours = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (packages / "third_party.pth").write_text(f"{ours}\n")
    return place


def test_the_installed_entry_point_runs_as_in_the_image(installed: Path, tmp_path: Path) -> None:
    """With the image's own environment variables, the chart's routes, and its HEALTHCHECK."""
    port, admin = free_ports(2)
    routes = tmp_path / "routes"
    routes.mkdir()
    (routes / "router.yaml").write_text(
        one(objects(values("minimal")), "ConfigMap", "router-extproc-routes")["data"]["router.yaml"]
    )
    replaced = {
        "/opt/venv/bin:$PATH": f"{installed}/bin:{os.environ['PATH']}",
        "/opt/models/router-minilm": str(ROOT / "models" / "router-minilm"),
        "/etc/router-extproc": str(routes),
        "0.0.0.0:50051": f"127.0.0.1:{port}",
        "0.0.0.0:9090": f"127.0.0.1:{admin}",
    }
    environment = {"HOME": str(tmp_path)}
    for name, arguments in final_stage():
        if name == "ENV":
            environment |= dict(assignment.split("=", 1) for assignment in shlex.split(arguments))
    environment = {name: replaced.get(value, value) for name, value in environment.items()}
    stage = dict(final_stage())
    command = yaml.safe_load(stage["ENTRYPOINT"]) + yaml.safe_load(stage["CMD"])
    check = yaml.safe_load(stage["HEALTHCHECK"].split("CMD", 1)[1])
    assert command == ["router-extproc", "serve"]
    script = str(installed / "bin" / command[0])
    where = subprocess.run(
        [installed / "bin" / "python", "-c", "import router_extproc; print(router_extproc.__file__)"],
        capture_output=True, text=True, check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert str(installed) in where.stdout

    def healthy() -> bool:
        done = subprocess.run(check, env=environment, capture_output=True, check=False, cwd=tmp_path)
        return done.returncode == 0

    assert not healthy()
    rendered = subprocess.run(
        [script, "envoy", routes], capture_output=True, text=True, check=True, env=environment, cwd=tmp_path
    )
    assert "envoy_on_request" in rendered.stdout  # the Lua file came with the wheel
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([script, *command[1:]], stdout=log, stderr=log, env=environment, cwd=tmp_path)
        try:
            wait_until(healthy, "healthy", 60)
            socket.create_connection(("127.0.0.1", port), 5).close()
        finally:
            process.terminate()
            assert process.wait(60) == 0, (tmp_path / "log").read_text()


def test_the_init_container_fetches_only_what_its_digest_allows(tmp_path: Path) -> None:
    import hashlib
    import tarfile

    source, target = tmp_path / "router-minilm", tmp_path / "models"
    source.mkdir()
    target.mkdir()
    (source / "config.json").write_text("{}")
    archive = tmp_path / "model.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source, "router-minilm")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    script = one(objects(values("models-download")), "ConfigMap", "router-extproc-scripts")["data"]["fetch_model.py"]
    (tmp_path / "fetch_model.py").write_text(script)

    def fetch(url: str, sha256: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(tmp_path / "fetch_model.py"), url, sha256, str(target)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    refused = fetch(archive.as_uri(), "0" * 64)
    assert refused.returncode == 1
    assert "SHA-256 is" in refused.stderr
    assert list(target.iterdir()) == []
    done = fetch(archive.as_uri(), digest)
    assert done.returncode == 0, done.stderr
    assert (target / "router-minilm" / "config.json").read_text() == "{}"
    for name, to in (("../outside", ""), ("link", "/etc")):
        with tarfile.open(archive, "w:gz") as tar:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = (tarfile.SYMTYPE if to else tarfile.REGTYPE), to
            tar.addfile(member)
        assert fetch(archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest()).returncode == 1
        assert sorted(path.name for path in target.iterdir()) == ["router-minilm"]
        assert not (tmp_path / "outside").exists()

    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "config.json", "../escaped.json")
    evil = fetch(archive.as_uri(), hashlib.sha256(archive.read_bytes()).hexdigest())
    assert evil.returncode != 0
    assert not (tmp_path / "escaped.json").exists()
