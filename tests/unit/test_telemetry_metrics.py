"""Metrics: names, units and buckets of the conventions, exact counts, bounded series, a parsable exposition."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics_families
from prometheus_client.parser import text_string_to_metric_families

from router_extproc import __version__
from router_extproc.bookkeeping import served_by
from router_extproc.config.loader import parse
from router_extproc.domain import Band, Decision, LlmRequest, Outcome, Plan, SignalSet, Turn, Usage
from router_extproc.telemetry import instruments
from router_extproc.telemetry.exposition import prometheus_name
from router_extproc.telemetry.instruments import MAX_SERIES
from router_extproc.telemetry.metrics import Metrics
from router_extproc.telemetry.recorder import KEPT_PROMPT, REMEMBERED, Decided, Recorder
from router_extproc.telemetry.reference import metrics_reference

DOCS = Path(__file__).parents[2] / "docs"

CONFIG = parse(
    b"""
models:
  small: {url: "http://10.1.2.3:8000", provider: vllm, upstream_model: small-8b, price: {input: 1, output: 1}}
  claude: {url: "https://api.example.com", provider: anthropic, price: {input: 3, output: 15}}
default: claude
""",
    Path("router.yaml"),
).config

ANSWERED = Outcome(
    decision_id="d1",
    api="messages",
    status=200,
    model="claude",
    attempts=2,
    duration_seconds=1.1,
    first_byte_seconds=0.1,
    usage=Usage(300, 11, 100, model="claude-4"),
    route="chat",
    stream=True,
)


def decided(identity: str = "d1") -> Decided:
    request = LlmRequest("messages", "auto", None, "hello")
    decision = Decision("chat", Band.RECOMMENDED, 0.9, ("claude",), "sure")
    signals = SignalSet({}, {"intent": "late"})
    return Decided(identity, request, signals, decision, Plan(("claude",)), 0.003, 1, (("policy", 0.0001),))


class Scrape:
    """What Prometheus would read."""

    def __init__(self, metrics: Metrics) -> None:
        self.text = metrics.exposition().decode()
        self.samples = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.text)
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum over all series that have these labels."""
        found = [v for (n, have), v in self.samples.items() if n == name and labels.items() <= dict(have).items()]
        assert found, f"{name} {labels}"
        return sum(found)

    def has(self, name: str) -> bool:
        """Whether there is any series."""
        return any(n.startswith(name) for n, _ in self.samples)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def recorder(metrics: Metrics) -> Recorder:
    recorder = Recorder(metrics)
    served = served_by(CONFIG)
    recorder.served = lambda: served
    return recorder


def test_an_answer_is_recorded_by_the_conventions(metrics: Metrics, recorder: Recorder) -> None:
    recorder.decided(decided())
    recorder.outcome(ANSWERED)
    scrape = Scrape(metrics)
    labels = {
        "gen_ai_operation_name": "chat",
        "gen_ai_provider_name": "anthropic",
        "gen_ai_request_model": "claude",
        "gen_ai_response_model": "claude-4",
        "server_address": "api.example.com",
        "server_port": "443",
    }
    assert scrape.value("gen_ai_client_token_usage_sum", gen_ai_token_type="input", **labels) == 300
    assert scrape.value("gen_ai_client_token_usage_sum", gen_ai_token_type="output", **labels) == 11
    assert scrape.value("gen_ai_client_token_usage_bucket", gen_ai_token_type="input", le="256.0") == 0
    assert scrape.value("gen_ai_client_token_usage_bucket", gen_ai_token_type="input", le="1024.0") == 1
    assert scrape.value("gen_ai_client_operation_duration_seconds_sum", **labels) == 1.1
    assert scrape.value("gen_ai_client_operation_time_to_first_chunk_seconds_count", **labels) == 1
    assert scrape.value("gen_ai_server_time_to_first_token_seconds_bucket", le="0.1") == 1
    assert scrape.value("gen_ai_server_time_per_output_token_seconds_sum", **labels) == pytest.approx(0.1)
    assert "error_type" not in scrape.text
    assert scrape.value("mom_tokens_total", type="cached", model="claude", estimated="false") == 100
    assert scrape.value("mom_upstream_attempts_total", model="claude") == 2
    assert scrape.value("mom_decisions_total", route="chat", band="recommended", model="claude") == 1
    assert scrape.value("mom_signals_absent_total", signal="intent", reason="late") == 1
    assert scrape.value("mom_decision_stage_duration_seconds_count", stage="policy") == 1
    assert scrape.value("mom_decision_duration_seconds_bucket", api="messages", le="0.004") == 1


@pytest.mark.parametrize(
    ("changes", "attempts"),
    [
        ({"attempts": 3, "plan": ("small", "other", "claude")}, {"small": 1, "other": 1, "claude": 1}),
        ({"attempts": 1, "plan": ("claude", "small")}, {"claude": 1}),
        # A gateway that does not follow the plan; a plan of one; none at all; more attempts than the plan has models.
        ({"attempts": 2, "plan": ("claude", "small")}, {"claude": 2}),
        ({"attempts": 2, "plan": ("claude",)}, {"claude": 2}),
        ({"attempts": 2}, {"claude": 2}),
        ({"attempts": 3, "plan": ("small", "claude")}, {"claude": 3}),
        ({"attempts": 0, "model": None}, {}),
    ],
)
def test_each_attempt_counts_for_the_model_that_was_tried(
    metrics: Metrics, recorder: Recorder, changes: dict[str, object], attempts: dict[str, int]
) -> None:
    recorder.outcome(replace(ANSWERED, **changes))  # type: ignore[arg-type]
    found = {dict(labels)["model"]: v for (n, labels), v in Scrape(metrics).samples.items() if "attempts_total" in n}
    assert found == attempts


def test_cache_writes_are_tokens_of_their_own(metrics: Metrics, recorder: Recorder) -> None:
    recorder.outcome(replace(ANSWERED, usage=Usage(300, 11, 100, cache_write=150)))
    assert Scrape(metrics).value("mom_tokens_total", type="cache_write", model="claude") == 150


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"status": 503, "usage": None}, "503"),
        ({"status": 0, "usage": None, "model": None}, "client_disconnected"),
        ({"flags": "DC", "usage": Usage(10, 5, estimated=True)}, "client_disconnected"),
        ({"flags": "UC", "usage": Usage(10, 5, estimated=True)}, "stream_broken"),
        ({"flags": "URX,UT", "usage": Usage(10, 5, estimated=True)}, "stream_broken"),
        ({"status": 503, "flags": "UC", "usage": None}, "503"),
    ],
)
def test_failures_have_an_error_type_and_no_times(
    metrics: Metrics, recorder: Recorder, changes: dict[str, object], error: str
) -> None:
    recorder.outcome(replace(ANSWERED, **changes))  # type: ignore[arg-type]
    scrape = Scrape(metrics)
    assert scrape.value("gen_ai_client_operation_duration_seconds_count", error_type=error) == 1
    assert scrape.value("mom_outcomes_total", error_type=error) == 1
    assert not scrape.has("gen_ai_client_operation_time_to_first_chunk")
    assert not scrape.has("gen_ai_client_token_usage")


def test_estimated_tokens_stay_out_of_the_conventions(metrics: Metrics, recorder: Recorder) -> None:
    recorder.outcome(replace(ANSWERED, usage=Usage(10, 5, estimated=True)))
    scrape = Scrape(metrics)
    assert not scrape.has("gen_ai_client_token_usage")
    assert not scrape.has("gen_ai_server_time_per_output_token")
    assert scrape.value("mom_tokens_total", estimated="true") == 15


def test_every_name_and_bucket_of_the_conventions_is_exact() -> None:
    doubled = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
    powers = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864]
    found = {m.name: (m.unit, list(m.bounds)) for m in instruments.ALL if m.kind == "histogram"}
    assert {name: value for name, value in found.items() if name.startswith("gen_ai.")} == {
        "gen_ai.client.token.usage": ("{token}", powers),
        "gen_ai.client.operation.duration": ("s", doubled),
        "gen_ai.client.operation.time_to_first_chunk": ("s", doubled),
        "gen_ai.server.time_to_first_token": (
            "s",
            [0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0],
        ),
        "gen_ai.server.time_per_output_token": (
            "s",
            [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5],
        ),
    }


def test_a_decision_whose_outcome_never_comes_is_told_without_it(metrics: Metrics) -> None:
    now = 0.0
    recorder = Recorder(metrics, remembered=10, clock=lambda: now)
    recorder.patience = lambda: 60.0
    told: list[tuple[object, str]] = []
    recorder.listeners.append(lambda outcome, made: told.append((outcome, made.decision_id if made else "")))
    for number in range(12):
        recorder.decided(decided(str(number)))
    assert told == [(None, "0"), (None, "1")]
    recorder.outcome(replace(ANSWERED, decision_id="7"))
    assert told[-1][1] == "7"
    now = 59.9
    recorder.decided(decided("late"))
    assert len(told) == 3
    now = 60.0
    recorder.decided(decided("later"))
    assert told[3:] == [(None, str(number)) for number in (2, 3, 4, 5, 6, 8, 9, 10, 11)]
    recorder.drain()
    assert told[12:] == [(None, "late"), (None, "later")]


LONG = "x" * 100_000
TEXTS: dict[Any, Any] = {str: LONG, tuple[str, ...]: (LONG,), tuple[Turn, ...]: (Turn("user", LONG),)}
NO_TEXTS = (int, bool, int | None, tuple[int, int] | None, frozenset[str])
NAMES = ("api", "model", "user", "client_session")
HINTS = get_type_hints(LlmRequest)


@pytest.mark.parametrize("name", [field.name for field in fields(LlmRequest) if field.name not in NAMES])
def test_a_decision_that_waits_for_its_outcome_holds_no_texts(metrics: Metrics, name: str) -> None:
    recorder, kept = Recorder(metrics), list[Decided]()
    recorder.on_decision.append(kept.append)
    if HINTS[name] in NO_TEXTS:
        return
    request = replace(decided().request, **{name: TEXTS[HINTS[name]]})
    recorder.decided(replace(decided(), request=request))
    assert len(repr(kept[0].request)) < KEPT_PROMPT + 1000


def test_a_hundred_and_forty_streams_a_second_wait_for_their_outcomes(metrics: Metrics) -> None:
    assert Recorder(metrics).patience() == CONFIG.retry.told_seconds == 660
    assert REMEMBERED >= 2 * 140 * 30


def test_buckets_are_those_of_the_table(metrics: Metrics) -> None:
    for one in instruments.ALL:
        if one.kind == "histogram":
            metrics.record(one, 0.03, *("x" for _ in one.labels))
    scrape = Scrape(metrics)
    for one in instruments.ALL:
        if one.kind == "histogram":
            name = prometheus_name(one.name, one.unit, one.kind)
            found = [float(dict(labels)["le"]) for n, labels in scrape.samples if n == f"{name}_bucket"]
            assert found == [*one.bounds, float("inf")]


def test_series_are_bounded(metrics: Metrics) -> None:
    metrics.watch(instruments.MODEL_SCALE, lambda: {(str(number),): 1 for number in range(MAX_SERIES + 500)})
    for number in range(MAX_SERIES + 500):
        metrics.add(instruments.ATTEMPTS, 1, str(number))
        metrics.record(instruments.STAGE_SECONDS, 1, str(number))
    scrape = Scrape(metrics)
    for name in ("mom_upstream_attempts_total", "mom_decision_stage_duration_seconds_count", "mom_model_scale"):
        assert sum(n == name for n, _ in scrape.samples) == MAX_SERIES + 1
    overflow = {"otel_metric_overflow": "true"}
    assert scrape.value("mom_upstream_attempts_total", **overflow) == 500
    assert scrape.value("mom_decision_stage_duration_seconds_count", **overflow) == 500


def test_only_attributes_of_the_table_are_kept(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="zip"):
        metrics.add(instruments.ATTEMPTS, 1, "small", "user-4711")
    metrics.add(instruments.ATTEMPTS, 1, "small")
    metrics.add(instruments.ATTEMPTS, 1, "")
    found = {labels for name, labels in Scrape(metrics).samples if name == "mom_upstream_attempts_total"}
    assert found == {frozenset({("model", "small")}), frozenset()}


@given(st.lists(st.floats(0, 1e9), max_size=50), st.text(min_size=1, max_size=20))
def test_the_exposition_parses_back_to_what_was_recorded(values: list[float], label: str) -> None:
    metrics = Metrics()
    for value in values:
        metrics.record(instruments.EXCHANGE_SECONDS, value, label)
    text, openmetrics = metrics.exposition().decode(), metrics.exposition(openmetrics=True).decode()
    name, bounds = "mom_exchange_duration_seconds", instruments.EXCHANGE_SECONDS.bounds
    families = [
        *text_string_to_metric_families(text),
        *openmetrics_families(openmetrics),  # type: ignore[no-untyped-call]
    ]
    samples = [s for f in families if f.name == name for s in f.samples]
    assert len(samples) == (2 * (len(bounds) + 3) if values else 0)
    for sample in samples:
        assert sample.labels["route"] == label
        if sample.name == f"{name}_bucket":
            assert sample.value == sum(value <= float(sample.labels["le"]) for value in values)
        elif sample.name == f"{name}_count":
            assert sample.value == len(values)
        else:
            assert sample.value == pytest.approx(sum(values))


def test_totals_go_on_from_page_to_page(metrics: Metrics) -> None:
    for number in range(1, 4):
        metrics.add(instruments.ATTEMPTS, 1, "small")
        metrics.record(instruments.EXCHANGE_SECONDS, 0.5, "chat")
        scrape = Scrape(metrics)
        assert scrape.value("mom_upstream_attempts_total") == number
        assert scrape.value("mom_exchange_duration_seconds_count") == number


def test_what_is_observed_is_read_anew_and_goes_when_it_is_gone(metrics: Metrics) -> None:
    used: dict[tuple[str | int, ...], float] = {("daily",): 0.25}
    metrics.watch(instruments.BUDGET_USED, lambda: used)
    assert Scrape(metrics).value("mom_budget_used", budget="daily") == 0.25
    used = {("hourly",): 0.5}
    assert Scrape(metrics).value("mom_budget_used") == 0.5


def test_the_configuration_that_serves_is_a_gauge(metrics: Metrics, recorder: Recorder) -> None:
    assert not Scrape(metrics).has("mom_config_generation")
    recorder.serves(3, newest=False)
    recorder.reloaded(accepted=True)
    recorder.reloaded(accepted=False)
    scrape = Scrape(metrics)
    assert scrape.value("mom_config_generation") == 3
    assert scrape.value("mom_config_last_reload_successful") == 0
    assert scrape.value("mom_config_reloads_total", result="accepted") == 1
    assert scrape.value("mom_config_reloads_total", result="refused") == 1


def test_the_page_says_who_exports_it(metrics: Metrics) -> None:
    assert Scrape(metrics).value("target_info", service_name="router-extproc", service_version=__version__) == 1


def test_all_instruments_have_distinct_names_and_descriptions() -> None:
    names = [prometheus_name(one.name, one.unit, one.kind) for one in instruments.ALL]
    assert len(set(names)) == len(names) == len(instruments.ALL)
    assert all(one.description for one in instruments.ALL)
    assert all(one.name.startswith(("mom.", "gen_ai.", "process.")) for one in instruments.ALL)


def test_the_reference_on_disk_is_what_the_code_says() -> None:
    # Write it anew with: router-extproc metrics > docs/metrics.md
    assert (DOCS / "metrics.md").read_text() == metrics_reference() + "\n"


def test_memory_is_observed(metrics: Metrics) -> None:
    assert Scrape(metrics).value("process_memory_usage_bytes") > 1_000_000
