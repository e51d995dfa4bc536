"""The rendered configuration: accepted by the real Envoy, and what must never be in it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import yaml

from router_extproc import wire
from router_extproc.config.envoy import RENDERED, BodyMode, EnvoyOptions, Profile, render, same_for_envoy
from router_extproc.config.envoy_tls import SidecarTls
from router_extproc.config.model import Api
from router_extproc.config.providers import endpoint_of, key_header, upstream_path
from router_extproc.config.schema import RouterConfig
from router_extproc.errors import ConfigError
from tests.certificates import Authority
from tests.e2e.stack import envoy_of

ENVOY = str(files("envoy") / "_bin" / "envoy")
PRICE = {"input": 1, "output": 2}
LOCAL = {"url": "http://127.0.0.1:8101", "price": PRICE}
EVERYTHING: dict[str, Any] = {
    "local": {**LOCAL, "upstream_model": 'odd "name" \\ ü'},
    "vllm": {"url": "http://vllm.models.svc:8000", "provider": "vllm", "price": PRICE, "auth": {"env": "VLLM_KEY"}},
    "gpt": {"url": "https://api.openai.com/v1", "price": PRICE, "auth": {"env": "OPENAI_KEY"}},
    "claude": {
        "url": "https://api.anthropic.com",
        "provider": "anthropic",
        "price": PRICE,
        "auth": {"file": "KEY_FILE"},
        "cluster": "anthropic",
    },
    "azure": {
        "url": "https://mine.openai.azure.com",
        "provider": "azure_openai",
        "price": PRICE,
        "api_version": "2024-10-21",
        "auth": {"env": "AZURE_KEY"},
        "upstream_model": "my/deployment",
    },
    "theirs": {"url": "https://10.0.0.1:8443/llm/v1", "price": PRICE, "auth": {"passthrough": True}},
    "six": {"url": "http://[::1]:8000", "price": PRICE, "apis": ["embeddings"]},
}


def config_of(models: dict[str, Any], default: Sequence[str] | None = None, **sections: Any) -> RouterConfig:
    chosen = list(default or [next(iter(models))])
    return RouterConfig.model_validate({"models": models, "default": chosen, **sections})


def everything(tmp_path: Path) -> RouterConfig:
    key = tmp_path / "key"
    key.write_text("sk-from-a-file\n")
    claude = {**EVERYTHING["claude"], "auth": {"file": str(key)}}
    return config_of({**EVERYTHING, "claude": claude}, ["gpt", "claude"], retry={"per_try_seconds": 90})


def validate(text: str, directory: Path, proxy: str = ENVOY) -> str:
    path = directory / "envoy.yaml"
    path.write_text(text)
    environment = {"VLLM_KEY": "sk-vllm", "OPENAI_KEY": "sk-openai", "AZURE_KEY": "sk-azure"}
    environment |= {f"{name}_API_KEY": "sk" for name in ("SMALL", "CODER", "GENERAL", "PREMIUM")}
    done = subprocess.run(
        [proxy, "--mode", "validate", "-c", str(path), "--log-level", "error"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("mode", list(BodyMode))
def test_envoy_accepts_every_provider_in_every_body_mode(mode: BodyMode, tmp_path: Path) -> None:
    options = EnvoyOptions(body_mode=mode, sidecars=("127.0.0.1:50051", "[::1]:50052"), access_log="/dev/null")
    text = render(everything(tmp_path), options)
    assert "OK" in validate(text, tmp_path)


def test_envoy_accepts_sidecars_on_a_socket_or_by_name(tmp_path: Path) -> None:
    config = config_of({"local": LOCAL})
    for sidecar in ("unix:/run/router-extproc.sock", "router-extproc.mom.svc:50051"):
        validate(render(config, EnvoyOptions(sidecars=(sidecar,), failure_mode_allow=False)), tmp_path)


def test_envoy_accepts_tls_to_sidecars_from_fixed_files(tmp_path: Path) -> None:
    files = {name: str(tmp_path / name) for name in ("ca.crt", "tls.crt", "tls.key")}
    for name, text in Authority(tmp_path).issue("gateway").items():
        (tmp_path / name).write_text(text)
    tls = SidecarTls(files["ca.crt"], "router.mom.svc", files["tls.crt"], files["tls.key"])
    text = render(everything(tmp_path), EnvoyOptions(sidecar_tls=tls))
    assert "OK" in validate(text, tmp_path)
    (cluster,) = [c for c in yaml.safe_load(text)["static_resources"]["clusters"] if c["name"] == "mom-sidecar"]
    socket = cluster["transport_socket"]["typed_config"]
    assert socket["sni"] == "router.mom.svc"
    (name,) = socket["common_tls_context"]["validation_context"]["match_typed_subject_alt_names"]
    assert name == {"san_type": "DNS", "matcher": {"exact": "router.mom.svc"}}


def mistakes_of(config: RouterConfig, **options: Any) -> str:
    with pytest.raises(ConfigError) as raised:
        render(config, EnvoyOptions(**options))
    return str(raised.value)


def test_the_compatible_profile_uses_nothing_that_old_envoys_lack_and_says_what_it_cannot_do(tmp_path: Path) -> None:
    models = {name: EVERYTHING[name] for name in ("local", "vllm", "gpt", "theirs", "six")}
    config = config_of({**models, "copy": EVERYTHING["vllm"] | {"upstream_model": "vllm"}}, ["gpt"])
    text = render(config, EnvoyOptions(profile=Profile.COMPATIBLE, backups={"vllm": ("copy",)}))
    assert "OK" in validate(text, tmp_path)
    assert "OK" in validate(text, tmp_path, envoy_of("1.36"))
    for lacking in ("priority_group", "refresh_cluster_on_retry", "ai_protocol_manager", ".lua", "credential_injector"):
        assert lacking not in text
    told = mistakes_of(everything(tmp_path), profile=Profile.COMPATIBLE, backups={"gpt": ("vllm", "nobody")})
    for mistake in (
        "models.claude.auth.file: the compatible profile reads keys from the environment",
        "models.azure: the compatible profile cannot add a query to the path",
        "backup gpt: vllm has another name upstream, key or path",
        "backup gpt: unknown model 'nobody'",
    ):
        assert mistake in told
    assert "backups are for the compatible profile" in mistakes_of(config, backups={"vllm": ("copy",)})


def test_no_key_is_ever_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_KEY", "sk-openai")
    text = render(everything(tmp_path), EnvoyOptions())
    assert "sk-" not in text
    assert "environment_variable: OPENAI_KEY" in text


def test_every_cluster_removes_the_key_headers_of_all_others() -> None:
    models = {"a": {**LOCAL, "auth": {"env": "A", "header": "x-special-key"}}, "b": LOCAL}
    document = yaml.safe_load(render(config_of(models), EnvoyOptions()))
    for name in ("a", "b"):
        mutations = filters_of(document, name)[0]["typed_config"]["mutations"]["request_mutations"]
        removed = {m["remove"] for m in mutations if "remove" in m}
        assert {"authorization", "x-api-key", "api-key", "x-special-key"} <= removed


def test_passthrough_hands_on_the_same_headers_in_both_profiles() -> None:
    models = {"theirs": {**LOCAL, "auth": {"passthrough": True}}, "b": {**LOCAL, "auth": {"env": "B", "header": "x-b"}}}
    full, old = (yaml.safe_load(render(config_of(models), EnvoyOptions(profile=profile))) for profile in Profile)
    mutations = filters_of(full, "theirs")[0]["typed_config"]["mutations"]["request_mutations"]
    removed = {m["remove"] for m in mutations if "remove" in m}
    kept = {m["append"]["header"]["key"] for m in mutations if "append" in m}
    [route] = [found for found in routes_of(old) if found["name"] == "chat_completions-theirs"]
    assert {"cookie", "proxy-authorization", "x-b"} < removed - kept <= set(route["request_headers_to_remove"])
    assert not {"authorization", "x-api-key"} & set(route["request_headers_to_remove"])


def test_attempts_are_prepared_in_order(tmp_path: Path) -> None:
    document = yaml.safe_load(render(everything(tmp_path), EnvoyOptions()))
    short = [f["name"].rpartition(".")[2] for f in filters_of(document, "gpt")]
    assert short == ["header_mutation", "credential_injector", "lua", "upstream_codec"]
    assert "credential_injector" not in str(filters_of(document, "local"))


def test_limits_follow_the_file() -> None:
    config = config_of(
        {"a": LOCAL, "b": {**LOCAL, "apis": ["chat_completions"]}},
        ["b"],
        limits={"max_body_bytes": 5000, "max_attempts": 4, "deadline_ms": 500},
        retry={"statuses": [408, 429], "first_byte_seconds": 7, "total_seconds": 70},
    )
    document = yaml.safe_load(render(config, EnvoyOptions()))
    [route] = [r for r in routes_of(document) if r["name"] == "chat_completions"]
    assert route["request_body_buffer_limit"] > 5000
    assert route["route"]["timeout"] == "70s"
    policy = route["route"]["retry_policy"]
    assert policy["num_retries"] == 3
    assert policy["per_try_timeout"] == "35s"
    assert policy["retriable_status_codes"] == [408, 429]
    groups = route["route"]["inline_cluster_specifier_plugin"]["extension"]["typed_config"]["priority_groups"]
    assert [group["name"] for group in groups] == ["b", "a"]
    [processor] = [f for f in manager_of(document)["http_filters"] if f["name"].endswith("ext_proc.mom")]
    assert processor["typed_config"]["message_timeout"] == "2.5s"
    assert processor["typed_config"]["max_message_timeout"] == f"{wire.CLIENT_SECONDS}s"


@pytest.mark.parametrize(
    ("retry", "attempts", "seconds"),
    [
        ({}, 3, 660),
        ({"total_seconds": 500.5}, 3, 561),
        ({"answer_seconds": 70, "total_seconds": 5000}, 1, 5060),
        ({"first_byte_seconds": 20, "total_seconds": 100}, 3, 300),
    ],
)
def test_silence_may_last_as_long_as_all_attempts(retry: dict[str, Any], attempts: int, seconds: int) -> None:
    config = config_of({"a": LOCAL}, retry=retry, limits={"max_attempts": attempts})
    assert manager_of(yaml.safe_load(render(config, EnvoyOptions())))["stream_idle_timeout"] == f"{seconds}s"


@pytest.mark.parametrize("profile", list(Profile))
@pytest.mark.parametrize(
    ("retry", "seconds"),
    [
        ({}, "300s"),
        ({"first_byte_seconds": 20, "total_seconds": 70}, "35s"),
        ({"first_byte_seconds": 50, "total_seconds": 70}, "50s"),
        ({"answer_seconds": 69.5, "total_seconds": 70}, "69.5s"),
    ],
)
def test_an_attempt_has_time_for_an_answer_that_does_not_stream(
    retry: dict[str, Any], seconds: str, profile: Profile
) -> None:
    document = yaml.safe_load(render(config_of({"a": LOCAL}, retry=retry), EnvoyOptions(profile=profile)))
    policies = [route["route"]["retry_policy"] for route in routes_of(document) if "route" in route]
    assert {policy["per_try_timeout"] for policy in policies if "per_try_timeout" in policy} == {seconds}
    [processor] = [f for f in manager_of(document)["http_filters"] if f["name"].endswith("ext_proc.mom")]
    # Or the sidecar could not say that a stream has to begin sooner.
    assert processor["typed_config"]["mutation_rules"] == {"allow_all_routing": True, "allow_envoy": True}


@pytest.mark.parametrize("profile", list(Profile))
def test_only_passthrough_lets_out_what_is_no_llm_api(profile: Profile) -> None:
    options = EnvoyOptions(profile=profile)
    assert "mom-passthrough" not in render(config_of({"a": LOCAL}), options)
    assert "mom-passthrough" in render(config_of({"a": LOCAL}, passthrough=True), options)


def test_only_some_sections_make_up_envoys_configuration() -> None:
    config = config_of(EVERYTHING, ["gpt"])
    whole = render(config, EnvoyOptions())
    narrow = config.model_copy()
    for name in set(RouterConfig.model_fields) - set(RENDERED):
        del narrow.__dict__[name]
    assert render(narrow, EnvoyOptions()) == whole


def test_a_change_that_envoy_does_not_see_is_none_for_it() -> None:
    before = config_of({"a": LOCAL})
    dearer = {**LOCAL, "price": {"input": 9, "output": 9}, "quality": 0.5, "labels": {"tier": "light"}}
    assert same_for_envoy(before, config_of({"a": dearer}, bands={"recommended": 0.8}))
    for models, sections in (
        ({"a": LOCAL, "b": LOCAL}, {}),
        ({"a": {**LOCAL, "upstream_model": "other"}}, {}),
        ({"a": LOCAL}, {"limits": {"max_attempts": 2}}),
        ({"a": LOCAL}, {"retry": {"statuses": [408]}}),
        ({"a": {**LOCAL, "cluster": "mom-sidecar"}}, {}),  # cannot be rendered
    ):
        assert not same_for_envoy(before, config_of(models, **sections))
    both = {"a": LOCAL, "b": LOCAL}
    assert not same_for_envoy(config_of(both, ["a"]), config_of(both, ["b"]))
    three, other_order = (dict.fromkeys(names, LOCAL) for names in ("abc", "acb"))
    assert not same_for_envoy(config_of(three, ["a"]), config_of(other_order, ["a"]))


def test_an_api_that_nobody_speaks_is_answered_in_its_own_shape() -> None:
    document = yaml.safe_load(render(config_of({"a": LOCAL}), EnvoyOptions()))
    [route] = [r for r in routes_of(document) if r["name"] == "messages"]
    assert route["direct_response"]["status"] == 404
    assert '"type": "error"' in route["direct_response"]["body"]["inline_string"]


@pytest.mark.parametrize(
    ("models", "default", "options", "said"),
    [
        ({"a": LOCAL, "b": {**LOCAL, "cluster": "a"}}, ["a"], EnvoyOptions(), "`a` is already that of `a`"),
        ({"mom-sidecar": LOCAL}, ["mom-sidecar"], EnvoyOptions(), "models.mom-sidecar: `mom-sidecar`"),
        ({"a": {**LOCAL, "url": "http://host:99999"}}, ["a"], EnvoyOptions(), "models.a.url"),
        ({"a": LOCAL}, ["b"], EnvoyOptions(), "unknown model 'b'"),
        ({"a": LOCAL}, ["a"], EnvoyOptions(listen="nowhere"), "not HOST:PORT"),
        ({"a": LOCAL}, ["a"], EnvoyOptions(sidecars=()), "at least one sidecar"),
    ],
)
def test_what_cannot_be_rendered_is_named(
    models: dict[str, Any], default: list[str], options: EnvoyOptions, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        render(config_of(models, default), options)


def test_paths_and_keys_by_provider() -> None:
    models = config_of(EVERYTHING).models
    azure = models["azure"]
    chat, answer = Api.CHAT_COMPLETIONS, Api.RESPONSES
    assert upstream_path("local", models["local"], chat) == "/v1/chat/completions"
    assert upstream_path("theirs", models["theirs"], chat) == "/llm/v1/chat/completions"
    assert upstream_path("claude", models["claude"], Api.MESSAGES) == "/v1/messages"
    assert upstream_path("azure", azure, chat) == (
        "/openai/deployments/my%2Fdeployment/chat/completions?api-version=2024-10-21"
    )
    assert upstream_path("azure", azure, answer) == "/openai/responses?api-version=2024-10-21"
    newer = azure.model_copy(update={"api_version": None})
    assert upstream_path("azure", newer, chat) == "/openai/v1/chat/completions"
    assert key_header(models["gpt"]) == ("authorization", "Bearer ")
    assert key_header(models["claude"]) == ("x-api-key", "")
    assert key_header(azure) == ("api-key", "")
    assert endpoint_of(models["six"]).authority == "[::1]:8000"
    assert endpoint_of(models["gpt"]).authority == "api.openai.com"
    assert replace(endpoint_of(models["gpt"]), port=444).authority == "api.openai.com:444"


def manager_of(document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = document["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0][
        "typed_config"
    ]
    return found


def routes_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = manager_of(document)["route_config"]["virtual_hosts"][0]["routes"]
    return found


def filters_of(document: dict[str, Any], cluster: str) -> list[dict[str, Any]]:
    [found] = [c for c in document["static_resources"]["clusters"] if c["name"] == cluster]
    [options] = found["typed_extension_protocol_options"].values()
    filters: list[dict[str, Any]] = options["http_filters"]
    return filters


def test_the_configuration_that_ships_to_be_read_is_accepted(tmp_path: Path) -> None:
    shipped = Path(__file__).parents[2] / "envoy"
    text = (shipped / "quickstart.yaml").read_text(encoding="utf-8")
    assert "OK" in validate(text, tmp_path)
    # The access log beside it stands for Envoys that others configure.
    config = yaml.safe_load(text)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    log = next(each for each in manager["access_log"] if "json_format" in str(each))
    log["typed_config"]["log_format"]["json_format"] = json.loads((shipped / "access-log.json").read_text())
    assert "OK" in validate(yaml.safe_dump(config), tmp_path)
