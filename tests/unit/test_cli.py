"""The command line as a user meets it: what it prints and with which status it exits."""

import json
from pathlib import Path

import pytest

from router_extproc.cli import main
from router_extproc.config.envoy_clusters import socket_address
from router_extproc.flags import BadValue, address_or_socket, host_and_port
from router_extproc.inference import artifact
from router_extproc.testing import tiny_model_directory

GOOD = """
models:
  small: {url: "http://127.0.0.1:1", price: {input: 1, output: 2}}
  big: {url: "https://api.example.com/v1", auth: {env: BIG_KEY}, price: {input: 5, output: 9}}
signals:
  intent: {type: classifier, head: intent}
routes:
  - {name: code, when: 'intent.label == "code_generation"', models: small, bands: {recommended: 0, fallback: 0}}
default: big
"""


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(tiny_model_directory(tmp_path / "model"))


def write(tmp_path: Path, text: str) -> str:
    path = tmp_path / "router.yaml"
    path.write_text(text)
    return str(path)


def test_check_accepts_a_good_file(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", write(tmp_path, GOOD), "--model-dir", model]) == 0
    assert "ok, 2 models, 1 signals, 1 routes" in capsys.readouterr().out


def test_check_warns_of_who_is_left_without_a_model(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GOOD.replace("price: {input: 1,", "labels: {where: house}, price: {input: 1,")
    text += "guards: [{name: house, when: 'true', action: reroute, models: {where: house}}]\n"
    text += "preferences: {header: x-tenant, users: {lab: {only: big}}}\n"
    assert main(["check", write(tmp_path, text), "--model-dir", model]) == 0
    warned = "warning: preferences.users.lab: allows no model that guard `house` allows: such requests get a 403"
    assert warned in capsys.readouterr().out.splitlines()


def test_check_warns_of_what_has_no_effect(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    models = """
  azure: {url: "https://a", provider: azure_openai, api_version: "2024-10-21", price: {input: 1, output: 1}}
  claude:
    {url: "https://b", provider: anthropic, api_version: "2023-06-01", price: {input: 1, output: 1},
     paths: {messages: /messages, responses: /responses}}
  dated: {url: "https://c", api_version: "2024-10-21", price: {input: 1, output: 1}}
signals:
  word: {type: keywords, any: word}
  again: {type: classifier, head: intent}
"""
    routes = """
  - {name: chosen, when: 'word.label == "true"', models: big, confidence: intent, bands: {}, second_opinion: again}
  - {name: plain, when: 'word.label == "false"', models: big, bands: {}, second_opinion: intent}
schedules: [{name: night, from: "22:00"}, {name: day, favourite: big}, {name: noon, scale: {big: 2}}]
default: big
"""
    text = GOOD.replace("\nsignals:\n", models).replace("\ndefault: big\n", routes)
    assert main(["check", write(tmp_path, text), "--model-dir", model]) == 0
    warned = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    why = "has no effect: the rule of `plain` reads no classifier's signal, and `confidence` names none"
    assert warned == [
        "warning: models.claude.paths.responses: has no effect: the model does not speak this API",
        "warning: models.dated.api_version: has no effect: only azure_openai and anthropic are asked for a version",
        f"warning: routes[2].bands: {why}",
        f"warning: routes[2].second_opinion: {why}",
        "warning: schedules[0]: `night` has no effect: it has neither `favourite` nor `scale`",
    ]


def test_check_names_every_mistake_with_file_line_and_key(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GOOD.replace("models: small,", "models: smal,").replace("head: intent", "head: intention")
    assert main(["check", write(tmp_path, text.replace("default: big", "default: huge")), "--model-dir", model]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 3
    assert "router.yaml:6: signals.intent.head:" in lines[0]
    assert "router.yaml:8: routes[0].models" in lines[1]
    assert "`smal`" in lines[1]
    assert "router.yaml:9: default" in lines[2]


def test_what_stands_in_different_sections_is_named_at_once(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    text = GOOD.replace("https://api.example.com/v1", "https://api.example.com:port").replace("code_gen", "cod_gen")
    text += "ledger: {baseline: bigg}\nbudgets: [{name: a, per: tenant, usd: 1}]\npreferences: {users: {a: {}}}\n"
    text += "schedules: [{name: s, scale: {smal: 1}}]\n"
    assert main(["check", write(tmp_path, text), "--model-dir", model]) == 1
    places = [
        line.split(": ")[0].split(":")[1] + " " + line.split(": ")[1] for line in capsys.readouterr().err.splitlines()
    ]
    assert places == [
        "4 models.big.url",
        "8 routes[0].when",
        "10 ledger.baseline",
        "11 budgets[0].per",
        "12 preferences.header",
        "13 schedules[0].scale.smal",
    ]


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("https://api.example.com/v1", "https://api.example.com:port/v1", "models.big.url"),
        ("auth: {env: BIG_KEY}", "cluster: mom-sidecar", "models.big.cluster"),
    ],
)
def test_check_and_envoy_refuse_the_same_models_with_line_and_key(
    old: str, new: str, place: str, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, GOOD.replace(old, new))
    assert main(["check", file, "--model-dir", model]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"{file}:4: {place}: ")
    assert main(["envoy", file]) == 1
    assert capsys.readouterr().err == said


def test_models_are_like_one_of_the_classifiers(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace("auth:", "like: code_gen, auth:").replace("  intent:", "  win:").replace("intent.", "win.")
    assert main(["check", write(tmp_path, text), "--model-dir", model]) == 1
    assert "models.big.like: `win` has no label `code_gen`, did you mean `code_generation`?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "/nowhere/router.yaml"],
        ["envoy", "/nowhere/router.yaml"],
        ["check", "{file}", "--model-dir", "/nowhere"],
    ],
)
def test_what_cannot_be_read_is_said_without_a_traceback(
    tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path, GOOD)
    assert main([argument.format(file=file) for argument in arguments]) == 1
    assert "/nowhere" in capsys.readouterr().err


def test_envoy_prints_a_configuration_without_any_key(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIG_KEY", "sk-not-to-be-seen")
    assert main(["envoy", write(tmp_path, GOOD)]) == 0
    out = capsys.readouterr().out
    assert "BIG_KEY" in out
    assert "sk-not-to-be-seen" not in out


def test_envoy_takes_a_bound_on_connections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envoy", write(tmp_path, GOOD), "--max-connections", "7"]) == 0
    assert "max_active_downstream_connections: 7\n" in capsys.readouterr().out


def test_explain_shows_signals_rules_and_plan(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "--config", write(tmp_path, GOOD), "--model-dir", model]
    assert main([*arguments, "hello"]) == 0
    out = capsys.readouterr().out
    assert "signal  intent" in out
    assert "route   code" in out
    assert main([*arguments, "--json", "--model", "big", "hello"]) == 0
    explained = json.loads(capsys.readouterr().out)
    assert explained["plan"] == ["big"]
    assert explained["band"] == "named"


def test_explain_shows_what_a_guard_refuses_and_why(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "signals:\n  secret: {type: keywords, any: Bluebird, where: conversation}"
    guard = "guards: [{name: names, when: 'secret.label == \"true\"', action: block}]\n"
    file = write(tmp_path, GOOD.replace("signals:", secret) + guard)
    arguments = ["explain", "--config", file, "--model-dir", model, "--context", "It is Bluebird.", "translate it"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "signal  secret             true" in out
    assert "route   code" in out
    assert "guard   names              matched      block: secret=true 1.000\n" in out
    assert out.endswith("refused 403 blocked_by_names: This request is not allowed here.\n")


def test_schema_is_json_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema"]) == 0
    assert "models" in json.loads(capsys.readouterr().out)["properties"]


def test_an_environment_variable_sets_a_flag(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROUTER_EXTPROC_MODEL_DIR", model)
    monkeypatch.setenv("ROUTER_EXTPROC_CONFIG", write(tmp_path, GOOD))
    assert main(["explain", "--json", "hello"]) == 0
    assert json.loads(capsys.readouterr().out)["signals"]["intent"]["label"] in ("code_generation", "factual_qa")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--tls-cert", "c.pem"], "TLS needs --tls-cert and --tls-key"),
        (["--tls-client-ca", "ca.pem"], "TLS needs --tls-cert and --tls-key"),
    ],
)
def test_half_of_tls_is_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", "--config", write(tmp_path, GOOD), *flags]) == 1
    assert said in capsys.readouterr().err


def test_envoy_writes_the_files_by_which_it_follows_certificates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tls = ["--sidecar-ca", "/tls/ca.crt", "--sidecar-name", "router.mom.svc", "--sidecar-sds", str(tmp_path / "sds")]
    mine = ["--sidecar-cert", "/tls/tls.crt", "--sidecar-key", "/tls/tls.key"]
    assert main(["envoy", write(tmp_path, GOOD), *tls, *mine]) == 0
    rendered = capsys.readouterr().out
    for path in (tmp_path / "sds").iterdir():
        assert str(path) in rendered
        (secret,) = json.loads(path.read_text())["resources"]
        assert secret["name"] == path.stem
        assert "/tls" in json.dumps(secret)
    assert len(list((tmp_path / "sds").iterdir())) == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sidecar-cert", "c"], "TLS to the sidecar needs --sidecar-ca"),
        (["--sidecar-ca", "a"], "TLS to the sidecar needs the DNS name"),
        (["--sidecar-ca", "a", "--sidecar-name", "n", "--sidecar-key", "k"], "a certificate needs its key"),
    ],
)
def test_half_of_tls_to_the_sidecar_is_refused(
    flags: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["envoy", write(tmp_path, GOOD), *flags]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serve", "--admin", "localhost"], "argument --admin: 'localhost' is not HOST:PORT"),
        (["serve", "--admin", "9090"], "argument --admin: '9090' is not HOST:PORT"),
        (["serve", "--listen", "foo"], "argument --listen: 'foo' is neither HOST:PORT nor unix:/PATH"),
        (["serve", "--log-level", "loud"], "argument --log-level: 'loud' is not debug, info, warning or error"),
        (["serve", "--trace-ratio", "5"], "argument --trace-ratio: '5' is not a number from 0 to 1"),
        (["serve", "--trace-ratio", "nan"], "argument --trace-ratio: 'nan' is not a number from 0 to 1"),
        (["serve", "--drain-grace", "-1"], "argument --drain-grace: '-1' is not a number"),
        (["serve", "--max-streams", "0"], "argument --max-streams: '0' is not a whole number from 1"),
        (["serve", "--threads", "2.5"], "argument --threads: '2.5' is not a whole number"),
        (["explain", "--header", "x-team", "hello"], "argument --header: 'x-team' is not NAME=VALUE"),
        (["explain", "--api", "chat", "hello"], "choose from 'chat_completions'"),
        (["explain", "--device", "tpu", "hello"], "argument --device: 'tpu' is not cpu, cuda, cuda:NUMBER or auto"),
        (["envoy", "--listen", "foo", "router.yaml"], "argument --listen: 'foo' is not HOST:PORT"),
        (["envoy", "--sidecar", "foo", "router.yaml"], "argument --sidecar: 'foo' is neither HOST:PORT nor unix:/PATH"),
        (["envoy", "--message-timeout", "-1", "router.yaml"], "argument --message-timeout: '-1' is not a number"),
        (
            ["envoy", "--max-connections", "0", "router.yaml"],
            "argument --max-connections: '0' is not a whole number from",
        ),
        (
            ["envoy", "--max-connections", "1e4", "router.yaml"],
            "argument --max-connections: '1e4' is not a whole number",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_flag(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_bad_variable_is_told_by_the_commands_that_read_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROUTER_EXTPROC_THREADS", "abc")
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    assert ended.value.code == 2
    assert (
        "--threads: 'abc' is not a whole number from 0 to 1024 (in ROUTER_EXTPROC_THREADS)" in capsys.readouterr().err
    )
    assert main(["schema"]) == 0


def test_an_empty_variable_counts_as_unset(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROUTER_EXTPROC_DEVICE", "")
    monkeypatch.setenv("ROUTER_EXTPROC_MODEL_DIGEST", "")
    monkeypatch.setenv("ROUTER_EXTPROC_THREADS", "")
    assert main(["check", write(tmp_path, GOOD), "--model-dir", model]) == 0
    assert main(["serve", "--config", "/nowhere/router.yaml", "--admin", "127.0.0.1:0"]) == 1
    assert "/nowhere/router.yaml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [("localhost:1", "localhost", 1), ("0.0.0.0:65535", "0.0.0.0", 65535), ("[::1]:9090", "::1", 9090)],
)
def test_addresses(text: str, host: str, port: int) -> None:
    assert host_and_port(text) == (host, port)
    assert socket_address(text)["socket_address"] == {"address": host, "port_value": port}


@pytest.mark.parametrize("text", ["", ":1", "h", "h:", "h:65536", "h:x", "::1:9090", "http://h:1", "h h:1", "unix:x"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(BadValue, match="is neither"):
        address_or_socket(text)


def test_a_socket_is_written_in_one_way() -> None:
    assert {address_or_socket(text) for text in ("/run/mom.sock", "unix:/run/mom.sock")} == {"unix:/run/mom.sock"}


def test_headers_keep_the_case_of_their_value(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    team = "  team: {type: header, name: x-team, values: [Legal], otherwise: other}\nroutes:"
    arguments = ["explain", "--config", write(tmp_path, GOOD.replace("routes:", team)), "--model-dir", model, "--json"]
    for value, label in (("Legal", "Legal"), ("sales=legal", "other")):
        assert main([*arguments, "--header", f"X-Team={value}", "hello"]) == 0
        assert json.loads(capsys.readouterr().out)["signals"]["team"]["label"] == label


def test_a_replay_of_nothing_is_no_success(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path, GOOD)
    for log in (file, str(tmp_path)):
        assert main(["simulate", "--config", file, "--model-dir", model, "--log", log]) == 1
        assert f"no decisions in {log}: `serve --state-dir`" in capsys.readouterr().err


def test_a_report_without_a_ledger_says_what_writes_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path)]) == 1
    assert "`serve --state-dir` writes one" in capsys.readouterr().err


def test_a_folder_without_a_classifier_says_which_flag_names_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(tmp_path, GOOD), "--model-dir", str(tmp_path / "none")]) == 1
    assert (
        "none: no classifier here, heads.json is missing; give the folder of one with --model-dir"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["check", "{file}"], 0, "ok, 2 models"),
        (["simulate", "--config", "{file}", "--log", "{file}"], 1, "no decisions in"),
    ],
)
def test_what_runs_before_the_sidecar_looks_at_the_pinned_digest_too(
    command: list[str], status: int, said: str, tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file, digest = write(tmp_path, GOOD), artifact.read(Path(model)).digest
    arguments = [*(argument.format(file=file) for argument in command), "--model-dir", model, "--model-digest"]
    assert main([*arguments, digest]) == status
    assert said in "".join(capsys.readouterr())
    assert main([*arguments, "0" * 64]) == 1
    assert f"digest is {digest}, pinned is 000" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["check", "simulate"])
def test_no_device_is_offered_where_nothing_runs_on_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    told = capsys.readouterr().out
    assert "--model-digest" in told
    assert "--device" not in told


def test_a_gpu_that_is_not_here_is_said(tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["explain", "--config", write(tmp_path, GOOD), "--model-dir", model]
    assert main([*arguments, "--device", "cuda:99", "hello"]) == 1
    assert "--device cuda:99: PyTorch finds no such GPU here" in capsys.readouterr().err
