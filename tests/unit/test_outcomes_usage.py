"""Access log entries become outcomes; tokens that nobody counted are estimated, and marked."""

from typing import Any

import pytest

from router_extproc.domain import Outcome, Usage
from router_extproc.outcomes import USAGE_NAMESPACE, outcome_of
from router_extproc.pb import access_log_pb2 as pb

FACTS = {"decision_id": "d1", "route": "chat", "band": "recommended", "tenant": "acme", "tokens": 50, "stream": False}


def entry(
    facts: dict[str, Any] = FACTS,
    *,
    status: int = 200,
    attempts: int = 1,
    size: int = 1200,
    usage: pb.TokenUsage | None = None,
    path: str = "/v1/chat/completions",
    cluster: str = "small-cluster",
    method: pb.RequestMethod.ValueType = pb.POST,
) -> pb.StreamAccessLogsMessage:
    message = pb.StreamAccessLogsMessage()
    found = message.http_logs.log_entry.add()
    found.request.path = path
    found.request.request_method = method
    found.request.request_id = "r1"
    found.response.response_code.value = status
    found.response.response_body_bytes = size
    found.common_properties.upstream_cluster = cluster
    found.common_properties.upstream_request_attempt_count = attempts
    if facts:
        found.common_properties.metadata.filter_metadata["mom"].update(facts)
    if usage is not None:
        found.common_properties.metadata.typed_filter_metadata[USAGE_NAMESPACE].Pack(usage)
    return message


def only(message: pb.StreamAccessLogsMessage) -> Outcome:
    (logged,) = message.http_logs.log_entry
    found = outcome_of(logged, lambda: {"small-cluster": "small"})
    assert found is not None
    return found


def test_an_entry_tells_everything_that_the_ledger_needs() -> None:
    usage = pb.TokenUsage()
    usage.input_tokens.value, usage.output_tokens.value = 100, 20
    usage.input_token_details.cached_tokens.value = 60
    found = only(entry(usage=usage))
    assert found.usage == Usage(100, 20, 60)
    assert (found.decision_id, found.request_id, found.tenant, found.model) == ("d1", "r1", "acme", "small")


def test_cache_writes_and_half_read_usage_are_told() -> None:
    # As Envoy 1.40 writes it: input 10,500 (500 read from the cache, 9,000 written to it), output 100, PARTIAL.
    usage = pb.TokenUsage.FromString(
        b"\x1a\x03\x08\x84\x52\x22\x02\x08\x64\x32\x0a\x0a\x03\x08\xf4\x03\x12\x03\x08\xa8\x46\x48\x02"
    )
    assert only(entry(usage=usage, size=0)).usage == Usage(10_500, 100, 500, cache_write=9000, estimated=True)
    usage.extraction_status = pb.TokenUsage.COMPLETE
    assert only(entry(usage=usage)).usage == Usage(10_500, 100, 500, cache_write=9000)


def test_a_long_answer_of_which_the_first_count_alone_arrived_is_not_one_token_long() -> None:
    """Anthropic's `message_start` counts the input and one token of output; the rest comes at the end."""
    usage = pb.TokenUsage(extraction_status=pb.TokenUsage.PARTIAL)
    usage.input_tokens.value, usage.output_tokens.value = 30, 1
    message = entry(FACTS | {"stream": True}, path="/v1/messages", size=120_000, usage=usage)
    assert only(message).usage == Usage(30, 1000, estimated=True)
    usage.extraction_status = pb.TokenUsage.COMPLETE
    assert only(entry(FACTS | {"stream": True}, path="/v1/messages", size=120_000, usage=usage)).usage == Usage(30, 1)


@pytest.mark.parametrize(
    ("cluster", "model"),
    [
        ("small-cluster", "small"),
        ("outbound|443||api.example.com", "coder"),
        ("httproute/mom/router-extproc-coder/rule/0", "coder"),
        ("mom-coder", "coder"),
        ("mom-backed-coder", "coder"),
        ("gpt-old", "gpt-old"),
    ],
)
def test_the_pick_answered_unless_the_cluster_may_be_another_model_s(cluster: str, model: str) -> None:
    """The catalogue has lost `gpt-old`, Envoy has not been told, and answers by its own order."""
    assert only(entry(FACTS | {"model": "coder"}, cluster=cluster)).model == model


def test_the_plan_is_told_by_its_models() -> None:
    groups = [{"name": "small-cluster"}, {"name": "elsewhere"}]
    assert only(entry(FACTS | {"priority_groups": groups})).plan == ("small", "elsewhere")
    assert only(entry(FACTS | {"priority_groups": "x"})).plan == ()


@pytest.mark.parametrize(
    ("path", "stream", "size", "output"),
    [
        ("/v1/chat/completions", False, 1200, 200),
        ("/v1/chat/completions", False, 100, 0),
        ("/v1/chat/completions", True, 2200, 10),
        ("/v1/messages", True, 2400, 20),
        ("/v1/embeddings", False, 90_000, 0),
    ],
)
def test_tokens_that_the_provider_did_not_count_are_estimated(path: str, stream: bool, size: int, output: int) -> None:
    found = only(entry(FACTS | {"stream": stream}, path=path, size=size))
    assert found.usage == Usage(50, output, estimated=True)
    assert found.stream is stream


def test_an_answer_that_may_have_streamed_is_not_taken_for_a_whole_one() -> None:
    facts = {name: value for name, value in FACTS.items() if name != "stream"}
    assert only(entry(facts, size=2200)).usage == Usage(50, 10, estimated=True)


@pytest.mark.parametrize("changes", [{"status": 503}, {"attempts": 0}, {"status": 0}, {"facts": {}}])
def test_what_was_not_answered_has_no_tokens(changes: dict[str, Any]) -> None:
    assert only(entry(**changes)).usage is None


@pytest.mark.parametrize("path", ["//[", "//x/v1/chat/completions", "/v1/chat/completions/", "", "/metrics"])
def test_paths_that_are_no_api_are_no_outcomes(path: str) -> None:
    (logged,) = entry(path=path).http_logs.log_entry
    assert outcome_of(logged, dict) is None


@pytest.mark.parametrize("method", [pb.OPTIONS, pb.GET, pb.HEAD, pb.DELETE])
def test_what_is_not_posted_is_no_outcome(method: pb.RequestMethod.ValueType) -> None:
    """A browser's preflight, above all."""
    (logged,) = entry(method=method, status=404, attempts=0, facts={}).http_logs.log_entry
    assert outcome_of(logged, dict) is None
    assert only(entry(method=pb.METHOD_UNSPECIFIED)).model == "small"
