import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_extproc.config.loader import MAX_BYTES, LoadedConfig, load, parse
from router_extproc.errors import ConfigError, ConfigMistakes, Mistake
from router_extproc.patterns import IN_WORDS
from router_extproc.preferences import Preferences
from router_extproc.reference import config_schema
from router_extproc.validation import did_you_mean

GOOD = """\
models:
  small: {url: "http://127.0.0.1:8001", price: {input: 0.1, output: 0.2}}
  big:
    url: https://api.example.com/v1
    api_version: 2024-10-21
    price: {input: 3, output: 15}
signals:
  office: {type: time, windows: {day: {from: 08:00, to: 18:30}}}
routes:
  - name: day
    when: office.label == "day"
    models: small
default: big
"""

TEXT = "expected text, but YAML reads"
FALLBACK = "`falback`, did you mean `fallback`?"
AT_MOST_1 = "input should be less than or equal to 1, got `2`"
QUOTES = "put it in quotes"
NOT_ALLOWED = "is not allowed here"
URL = "it must begin with http:// or https://, then host, port and path, and nothing else"
SIGNAL = "only letters, digits and `_`, at most 63, no digit first"


def parsed(text: str) -> LoadedConfig:
    return parse(text.encode(), Path("router.yaml"))


def mistakes(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parsed(text)
    return caught.value.mistakes


def test_a_good_file_loads_with_its_lines_and_digest(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    loaded = load(file)
    assert loaded.source == file
    assert len(loaded.digest) == 64
    assert loaded.config.routes[0].models == ["small"]
    assert loaded.line_of(("models", "big", "price")) == 6
    assert loaded.line_of(("routes", 0, "when")) == 11
    assert loaded.line_of(("routes", 0, "nowhere", 3)) == 10
    assert loaded.mistake(("routes", 0, "when"), "is odd") == f"{file}:11: routes[0].when: is odd"


def test_times_and_dates_stay_text_without_quotes() -> None:
    config = parsed(GOOD).config
    assert config.signals["office"].params["windows"] == {"day": {"from": "08:00", "to": "18:30"}}
    assert config.models["big"].api_version == "2024-10-21"


def test_errors_come_in_the_order_of_the_file() -> None:
    error = parsed(GOOD).error([Mistake(("default",), "second"), Mistake(("models",), "first")])
    assert error.mistakes == ["router.yaml:1: models: first", "router.yaml:13: default: second"]


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("s: small", "s: small\n    falback: big", "13: routes[0].falback", f"unknown field {FALLBACK}"),
        ("output: 15", "outputs: 15", "6: models.big.price.output", "`output` is missing"),
        ("price: {input: 3, output: 15}", "tools: true", "3: models.big.price", "`price` is missing"),
        ("2024-10-21", "off", "5: models.big.api_version", f"{TEXT} this bare word as false: {QUOTES}"),
        ("2024-10-21", "4.1", "5: models.big.api_version", f"{TEXT} `4.1` as a number: {QUOTES}"),
        ("  small:", "  no:", "2: models.no", f"YAML reads the key `no` as bool, not text: {QUOTES}"),
        ("  small:", "  big:", "1: models", "`big` stands twice: lines 2 and 3"),
        ("default: big", "default: big\nlimits: 7", "14: limits", "expected a mapping (`key: value`), got `7`"),
        ("default: big", "default: []", "13: default", "must not be empty"),
        ("default: big", "default: big\nbands: {fallback: 2}", "14: bands.fallback", AT_MOST_1),
        ("default: big", "default: big\nbands: {fallback: 1}", "14: bands", "fallback must not be above recommended"),
        ("url: https", "url: ftp", "4: models.big.url", f"`ftp://api.example.com/v1` {NOT_ALLOWED}: {URL}"),
        ("  office:", "  9to5:", "8: signals.9to5", f"`9to5` {NOT_ALLOWED}: {SIGNAL}"),
    ],
)  # fmt: skip
def test_each_mistake_is_named_with_line_and_key(old: str, new: str, place: str, message: str) -> None:
    assert old in GOOD
    assert f"router.yaml:{place}: {message}" in mistakes(GOOD.replace(old, new, 1))


@pytest.mark.parametrize(
    ("old", "new", "place", "message"),
    [
        ("2024-10-21", "x\n    provider: ollama", "6: models.big.provider", "OpenAI's API"),
        ("2024-10-21", "x\n    context_window: 32k", "6: models.big.context_window", "without a unit, got `32k`"),
        ("input: 3", "input: $3", "6: models.big.price.input", "a plain number, without a unit, got `$3`"),
        ("2024-10-21", "x\n    paths: {responses: r}", "6: models.big.paths.responses", "it must begin with `/`"),
        ("2024-10-21", "x\n    modalities: 5", "6: models.big.modalities", "expected a list, got `5`"),
        ("default: big", "default: big\nlimits: {deadline_ms: 250ms}", "14: limits.deadline_ms", "without a unit"),
        ("default: big", "default: big\npreferences: {header: X-A}", "14: preferences.header", "headers in lower case"),
        ("url: https://", "url: https://me:hunter2@", "4: models.big.url", "holds no user or password here"),
        (
            "default: big",
            "default: big\nschedules: [{name: s, from: 10pm}]",
            "14: schedules[0].from",
            "`10pm` is not allowed here: write a time as HH:MM, like 06:00",
        ),
    ],
)
def test_messages_are_in_plain_words(old: str, new: str, place: str, message: str) -> None:
    [found] = mistakes(GOOD.replace(old, new, 1))
    assert found.startswith(f"router.yaml:{place}: ")
    assert message in found
    assert "hunter2" not in found


def test_every_shape_of_text_is_described_in_words() -> None:
    patterns: set[str] = set()

    def visit(part: Any) -> None:
        if isinstance(part, dict):
            patterns.update({part["pattern"]} if isinstance(part.get("pattern"), str) else ())
            patterns.update(part.get("patternProperties", ()))
        for inner in part.values() if isinstance(part, dict) else part if isinstance(part, list) else ():
            visit(inner)

    visit(config_schema())
    assert patterns
    assert patterns <= IN_WORDS.keys()


NO_KEY = "write `auth: {env: NAME}`, the name of an environment variable of Envoy; no key stands in this file"


@pytest.mark.parametrize(
    ("auth", "place", "message"),
    [
        ("sk-SECRET", "auth", NO_KEY),
        ("[sk-SECRET]", "auth", NO_KEY),
        ("{sk-SECRET}", "auth", f"unknown field (known: env, file, header, passthrough, prefix); {NO_KEY}"),
        ("{key: sk-SECRET}", "auth", f"unknown field (known: env, file, header, passthrough, prefix); {NO_KEY}"),
        ("{evn: sk-SECRET}", "auth", "unknown field, did you mean `env`?"),
        ("{env: sk-SECRET}", "auth.env", NO_KEY),
        ("{env: $SECRET}", "auth.env", NO_KEY),
        ("{env: 12SECRET}", "auth.env", NO_KEY),
        ("{env: A, header: sk-SECRET}", "auth.header", "write headers in lower case, letters, digits and `-`"),
        (
            "{passthrough: true, prefix: sk-SECRET}",
            "auth",
            "header and prefix are for a key of ours: with passthrough the client's go on as they are",
        ),
        ("{passthrough: sk-SECRET}", "auth.passthrough", "input should be a valid boolean, unable to interpret input"),
        ("{sk-SECRET: 1, sk-SECRET: 2}", "auth", "a key stands twice: lines 5 and 5"),
        ("{12345: SECRET}", "auth", "YAML reads a key as int, not text: put it in quotes"),
        ("{sk-SECRET: !x 1}", "auth", "the tag or value cannot be used here"),
        ("!sk-SECRET {env: A}", "auth", "the tag or value cannot be used here"),
    ],
)
def test_a_key_that_somebody_types_into_the_file_is_never_shown(auth: str, place: str, message: str) -> None:
    [found] = mistakes(GOOD.replace("api_version: 2024-10-21", f"auth: {auth}"))
    assert found == f"router.yaml:5: models.big.{place}: {message}"
    assert "SECRET" not in found


def test_one_modality_needs_no_list() -> None:
    config = parsed(GOOD.replace("api_version: 2024-10-21", "modalities: image")).config
    assert config.models["big"].modalities == {"image"}


def test_what_keeps_the_rest_from_being_checked_says_so() -> None:
    with pytest.raises(ConfigError) as caught:
        parsed(GOOD.replace("when:", "wen:"))
    assert str(caught.value) == "\n".join([*caught.value.mistakes, "more may follow when these are mended"])
    assert "more may follow" not in str(parsed(GOOD).error([Mistake(("default",), "odd")]))


@pytest.mark.parametrize(
    ("word", "known", "expected"),
    [
        ("coder", ["code", "chat"], ", did you mean `code`?"),
        ("EMAIL", ["EMAIL_ADDRESS", "PERSON"], ", did you mean `EMAIL_ADDRESS`?"),
        ("email", ["EMAIL_ADDRESS", "PERSON"], ", did you mean `EMAIL_ADDRESS`?"),
        ("Card", ["CREDIT_CARD", "PERSON"], ", did you mean `CREDIT_CARD`?"),
        ("gpt", ["gpt-4-preview-0", "gpt-4o-2024-05"], ", did you mean `gpt-4-preview-0` or `gpt-4o-2024-05`?"),
        ("cs_", ["cs_accounts", "cs_billings", "cs_complaints", "cs_returned"], " (known: cs_accounts, cs_billings, "),
        ("x", ["xylophones", "y"], " (known: xylophones, y)"),
        ("true", ["", "legal"], ' (known: "", legal)'),
        ("zz", [f"label {number}" for number in range(21)], ""),
    ],
)
def test_what_was_probably_meant(word: str, known: list[str], expected: str) -> None:
    found = did_you_mean(word, known)
    assert found.startswith(expected)
    assert bool(found) == bool(expected)


def test_all_mistakes_are_reported_at_once() -> None:
    text = GOOD.replace("url: https", "uri: https").replace("when:", "wen:").replace("default: big", "defaults: big")
    keys = {message.split(": ")[1] for message in mistakes(text)}
    assert keys == {"models.big.url", "models.big.uri", "routes[0].when", "routes[0].wen", "default", "defaults"}


def test_merge_keys_and_aliases_work() -> None:
    merged = "price: &p {input: 3, output: 15}\n  huge: {<<: {price: *p, url: 'http://base'}, url: 'http://own'}"
    config = parsed(GOOD.replace("price: {input: 3, output: 15}", merged)).config
    assert config.models["huge"].price == config.models["big"].price
    assert config.models["huge"].url == "http://own"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "router.yaml: is empty"),
        ("a: [1, 2", "router.yaml:2: not valid YAML: while parsing a flow sequence, did not find expected ',' or ']'"),
        ("a: 1\n---\nb: 2", "router.yaml:2: not valid YAML: expected a single document in the stream"),
        ("- 1", "router.yaml:1: expected a mapping (`key: value`), got a list"),
        ("a: *nowhere", "router.yaml:1: not valid YAML: found undefined alias"),
        ("a: !!python/object:os.system {}", "router.yaml:1: a: the tag or value `python/object"),
        ("a: !!int x", "router.yaml:1: a: the tag or value `int` cannot be used here"),
        ("b: 1\na: !!int ''", "router.yaml:2: a: the tag or value `int` cannot be used here"),
        ("a: !!float ''", "router.yaml:1: a: the tag or value `float` cannot be used here"),
        ("a: !!bool maybe", "router.yaml:1: a: the tag or value `bool` cannot be used here"),
        ("a: !!timestamp x", "router.yaml:1: a: the tag or value `timestamp` cannot be used here"),
        ("&a [*a]", "router.yaml:1: " + "[0]" * 65 + ": more than 64 levels deep (an alias inside itself?)"),
        ("a: &a {<<: *a}", "router.yaml:1: a: more than 64 levels deep (an alias inside itself?)"),
        ("a:\n " + "[" * 65, "router.yaml:2: more than 64 levels deep"),
        ("a:\n " + "? " * 65, "router.yaml:2: more than 64 levels deep"),
    ],
)  # fmt: skip
def test_what_is_no_configuration_at_all(text: str, expected: str) -> None:
    assert mistakes(text)[0].startswith(expected)


@pytest.mark.parametrize(
    ("retry", "said"),
    [
        ("{total_seconds: 60}", "total_seconds (60) must be above first_byte_seconds (60)"),
        ("{first_byte_seconds: 20, total_seconds: 12.5}", "total_seconds (12.5) must be above first_byte_seconds (20)"),
        ("{answer_seconds: 59.5}", "answer_seconds (59.5) must be at least first_byte_seconds (60)"),
        ("{answer_seconds: 600}", "answer_seconds (600) must be below total_seconds (600): else no other model"),
    ],
)
def test_a_model_that_hangs_leaves_time_for_the_next(retry: str, said: str) -> None:
    (mistake,) = mistakes(f"{GOOD}\nretry: {retry}\n")
    assert "retry" in mistake
    assert said in mistake
    assert parsed(f"{GOOD}\nretry: {{first_byte_seconds: 5, total_seconds: 6}}\n").config.retry.attempt_seconds == 5
    assert parsed(f"{GOOD}\nretry: {{first_byte_seconds: 5, answer_seconds: 5}}\n").config.retry.attempt_seconds == 5


def test_a_bomb_of_aliases_is_refused_quickly() -> None:
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "more than 200000 values" in mistakes("\n".join(levels))[0]


@pytest.mark.parametrize("opened", ["[", "{a: ", "- ", "? "])
def test_depth_never_ends_the_process(tmp_path: Path, opened: str) -> None:
    # In a process of its own: too many levels would take this one along.
    (tmp_path / "router.yaml").write_text(WITH_USERS)
    (tmp_path / "users.yaml").write_text(f"users:\n  {opened * 60_000}")
    found = subprocess.run(
        [sys.executable, "-m", "router_extproc", "check", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 1
    assert found.stderr == f"{tmp_path}/users.yaml:2: more than 64 levels deep\n"


def test_bad_bytes_and_sizes(tmp_path: Path) -> None:
    file = tmp_path / "router.yaml"
    file.write_bytes(b"a: \xff")
    with pytest.raises(ConfigError, match="is not UTF-8 at byte 3"):
        load(file)
    file.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="is larger than 1048576 bytes"):
        load(file)
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        load(tmp_path / "absent.yaml")


def test_a_configmap_directory_is_read_through_its_data_link(tmp_path: Path) -> None:
    (tmp_path / "..2026").mkdir()
    (tmp_path / "..2026" / "router.yaml").write_text(GOOD)
    (tmp_path / "..data").symlink_to("..2026")
    assert load(tmp_path).source == tmp_path / "..2026" / "router.yaml"


def test_a_plain_directory_holds_router_yaml(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text(GOOD)
    assert load(tmp_path).source == tmp_path / "router.yaml"


WITH_USERS = GOOD + "preferences: {header: x-tenant, users: {acme: {prefer: best}}, users_file: users.yaml}\n"


def test_users_can_stand_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "router.yaml").write_text(WITH_USERS)
    (tmp_path / "users.yaml").write_text("users:\n  umbrella:\n    prefer: cheap\n    favourite: smal\n")
    loaded = load(tmp_path)
    assert {name: str(user.prefer) for name, user in loaded.config.preferences.users.items()} == {
        "acme": "best",
        "umbrella": "cheap",
    }
    with pytest.raises(ConfigMistakes) as caught:
        Preferences(loaded.config)
    assert loaded.error([Mistake(("default",), "x"), *caught.value.mistakes]).mistakes == [
        f"{tmp_path}/router.yaml:13: default: x",
        f"{tmp_path}/users.yaml:4: users.umbrella.favourite[0]: unknown model `smal`, did you mean `small`?",
    ]
    before = loaded.digest
    (tmp_path / "users.yaml").write_text("users: {}")
    assert load(tmp_path).digest != before


@pytest.mark.parametrize(
    ("users", "message"),
    [
        (None, "router.yaml:14: preferences.users_file: {0}/users.yaml: cannot be read: No such file or directory"),
        ("users: {acme: {}}", "users.yaml:1: users.acme: stands in router.yaml too"),
        ("users: {x: {prefr: best}}", "users.yaml:1: users.x.prefr: unknown field `prefr`, did you mean `prefer`?"),
        ("user: {}", "users.yaml:1: users: `users` is missing"),
    ],
)
def test_mistakes_in_the_users_file_are_named_there(tmp_path: Path, users: str | None, message: str) -> None:
    (tmp_path / "router.yaml").write_text(WITH_USERS)
    if users is not None:
        (tmp_path / "users.yaml").write_text(users)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path)
    assert caught.value.mistakes[0] == f"{tmp_path}/{message.format(tmp_path)}"
    assert str(caught.value).endswith("\nmore may follow when these are mended")


def test_the_users_file_stands_beside_router_yaml() -> None:
    assert "a file beside this one" in mistakes(WITH_USERS.replace("users.yaml", "../users.yaml"))[0]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(GOOD)), st.integers(0, 12), st.text(alphabet="{}[]:&*!|>-'\"#% \n\tab0", max_size=6))
def test_no_text_gives_anything_but_a_config_or_its_mistakes(start: int, cut: int, put: str) -> None:
    text = GOOD[:start] + put + GOOD[start + cut :]
    found: list[str] = []
    try:
        parsed(text)
    except ConfigError as error:
        found = error.mistakes
    assert all(message.startswith("router.yaml") for message in found)
