"""Rules are told by labels, or evaluated on single values: either way they say what CEL says of them as written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_extproc.domain import LlmRequest, SignalSet, SignalValue
from router_extproc.errors import ConfigMistakes
from router_extproc.facts import Facts, request_fields, signal_fields
from router_extproc.rule_tokens import flattened, required_labels, tokens_of
from router_extproc.rules import Rule, compile_rule

LABELS = {
    "intent": ("code", "math", "chat"),
    "guard": None,
    "label__intent": None,
    "size": None,
}

tests = st.one_of(
    st.builds(
        "{}.label == '{}'".format, st.sampled_from(["intent", "label__intent"]), st.sampled_from(["code", "math"])
    ),
    st.builds('"{}" == intent.label'.format, st.sampled_from(["chat", "math"])),
    st.builds("guard.label in {}".format, st.sampled_from(['["benign"]', '["benign", "harmful"]', "['harmful']"])),
    st.sampled_from(
        [
            "intent.label != 'code'",
            "intent.confidence > 0.5",
            'intent.scores["math"] > 0.3',
            "size(guard.scores) > 1",
            "guard.scores.exists(l, l == 'harmful')",
            "request.tokens > 50",
            'request["tokens"] > 50',
            "has(request.api)",
            "has(label__intent.value)",
            "has(intent.label) && label__intent.label == 'code'",
            "[1, 2].exists(intent, intent + 1 == 3)",
            '"image" in request.modalities',
            "1 / request.turns > 0",
            "intent.label.startsWith('c')",
            "request.virtual == 'auto' // intent.label == 'code'\n",
            "(intent.label == 'code' ? guard.label == 'benign' : guard.label == 'harmful')",
            r"""guard.label != r"C:\" """,
            """guard.label != '''it's intent.label == 'code' '''""",
            '''guard.label != """a" && intent.label == "chat" && "b"""''',
            'size.label == "big" && size(request.modalities) > 1',
        ]
    ),
)
rules = st.recursive(
    tests,
    lambda inner: st.one_of(
        st.builds("{} && {}".format, inner, inner),
        st.builds("{} || {}".format, inner, inner),
        st.builds("({})".format, inner),
        st.builds("!({})".format, inner),
    ),
    max_leaves=8,
)
values = st.dictionaries(
    st.sampled_from(sorted(LABELS)),
    st.builds(
        SignalValue,
        st.sampled_from(["code", "math", "chat", "benign", "harmful", "big", ""]),
        st.floats(0, 1),
        st.floats(0, 9),
        st.dictionaries(st.sampled_from(["math", "harmful"]), st.floats(0, 1)),
    ),
)
requests = st.builds(
    lambda tokens, turns, modalities: LlmRequest(
        "chat_completions", "auto", None, "hi", tokens=tokens, turns=turns, modalities=frozenset(modalities)
    ),
    st.sampled_from([10, 100]),
    st.sampled_from([0, 1]),
    st.sampled_from([["text"], ["text", "image"]]),
)


def as_written(rule: Rule, facts: Facts) -> Any:
    try:
        known = {name: signal_fields(value) for name, value in facts.signals.values.items()}
        return rule.program.execute({**known, "request": request_fields(facts.request, facts.virtual)})
    except Exception:  # noqa: BLE001  # a rule without a value
        return None


@settings(max_examples=500, deadline=None)
@given(st.lists(rules, min_size=1, max_size=3), requests, values)
def test_a_rule_says_what_its_text_says(
    sources: list[str], request: LlmRequest, signals: dict[str, SignalValue]
) -> None:
    """Several rules share one context, and none sees what another left there."""
    facts = Facts(request, SignalSet(signals), "auto")
    for source in sources:
        rule = compile_rule(source, LABELS)
        assert rule.holds(facts) == as_written(rule, facts), source
        assert (rule.holds(facts) is None) == bool(rule.why_not(facts))


TYPED = {"vip": ("true", "false"), "intent": ("code", "small_talk"), "tenant": None}
NUMBER = "`request.tokens` is a number"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("vip.label == true", '`vip.label` is text: write `"true"`'),
        ("true == vip.label", '`vip.label` is text: write `"true"`'),
        ("vip.label != true", '`vip.label` is text: write `"true"`'),
        ('vip.label in ["false", true]', '`vip.label` is text: write `"true"`'),
        ("(vip.label) == true", '`vip.label` is text: write `"true"`'),
        ('vip["label"] == true', '`vip["label"]` is text: write `"true"`'),
        ('intent.label == "small_talk" && vip.label == true', '`vip.label` is text: write `"true"`'),
        ("intent.label == 1", "`intent.label` is text (known: code, small_talk)"),
        ("tenant.label == 1", '`tenant.label` is text: write `"1"`'),
        ("tenant.label == null", "`tenant.label` is text"),
        ("intent.label > 3", "`intent.label` is text (known: code, small_talk)"),
        ("intent.label == intent.confidence", "`intent.label` is text, `intent.confidence` is a number: they do not "),
        ('"ode" in intent.label', '`intent.label` is text: write `intent.label.contains("ode")`'),
        ('request.stream == "true"', "`request.stream` is true or false: write `true`"),
        ('"TRUE" != request.stream', "`request.stream` is true or false: write `true`"),
        ("request.stream == 1", "`request.stream` is true or false: write `true` or `false`"),
        ('request.tokens == "5000"', f"{NUMBER}: write `5000`"),
        ('request.stream && request.tokens > "5000"', f"{NUMBER}: write `5000`"),
        ('request.tokens in [1, "5"]', f"{NUMBER}: write `5`"),
        ('request.tokens == "many"', NUMBER),
        ("1 in request.tokens", f"{NUMBER}: `in` needs a list"),
        ('size(request.modalities) == "2"', "`size(request.modalities)` is a number: write `2`"),
        ('request.modalities == "text"', '`request.modalities` is a list: write `"text" in request.modalities`'),
        ('request.modalities in ["text"]', '`request.modalities` is a list: write `"text" in request.modalities`'),
        ('"vision" in request.modalities', "`request.modalities` is never `vision` (known: audio, file, image, text, "),
        ("true in request.modalities", "`request.modalities` has text in it, `true` is true or false"),
        ('request.api == "chat"', "`request.api` is never `chat`, did you mean `chat_completions`?"),
        ('"chat" == request.api', "`request.api` is never `chat`, did you mean `chat_completions`?"),
        ('request.api in ["responses", "chat"]', "`request.api` is never `chat`, did you mean `chat_completions`?"),
        ("intent.confidence > 90", "`intent.confidence` is from 0 to 1: write `0.9`"),
        ("1.5 > intent.confidence", "`intent.confidence` is from 0 to 1"),
        ('intent.scores["code"] > 70', '`intent.scores["code"]` is from 0 to 1: write `0.7`'),
        ("intent.scores > 0.7", '`intent.scores` is a mapping: write `intent.scores["code"]`'),
        ('"talk" in intent.scores', "`intent` never has the label `talk`, did you mean `small_talk`?"),
    ],
)
def test_a_comparison_that_cannot_be_meant_is_named(source: str, message: str) -> None:
    with pytest.raises(ConfigMistakes) as caught:
        compile_rule(source, TYPED)
    [mistake] = caught.value.mistakes
    assert mistake.message.startswith(message)


@pytest.mark.parametrize(
    "source",
    [
        'intent.label == "co" + "de"',
        '"co" + "de" == intent.label',
        'intent.label + "s" == "codes"',
        "intent.confidence > 0.9 && intent.confidence <= 1 && intent.confidence >= 1e-3 || .5 < intent.confidence",
        "tenant.value > 100",
        'tenant.scores["any"] > 0.5',
        "request.tokens > 1000.5 && -request.tokens == -5",
        "request.stream == true && request.has_tools != false",
        '(intent.label == "code") == true && intent.label == "code" == request.stream',
        'request.modalities == ["text"] && request.modalities.exists(kind, kind == "image")',
        "[1, 2].exists(n, n == request.tokens)",
        '[intent, vip].exists(signal, signal.label == "code")',
        '{"a": 1}["a"] == 1 && dyn(1) == 1',
        'request.stream ? intent.label == "code" : vip.label == "true"',
    ],
)
def test_other_comparisons_pass(source: str) -> None:
    compile_rule(source, TYPED)


@pytest.mark.parametrize(
    ("source", "required"),
    [
        ('intent.label == "code"', {"intent": {"code"}}),
        ('"code" == intent.label', {"intent": {"code"}}),
        ('intent.label in ["code", r"a\\b"]', {"intent": {"code", "a\\b"}}),
        ('intent.label == "a" && (guard.label == "b") && request.tokens > 1', {"intent": {"a"}, "guard": {"b"}}),
        ('intent.label == "a" || intent.label == "b"', {"intent": {"a", "b"}}),
        ('(intent.label == "a" || intent.label == "b") && intent.label == "b"', {"intent": {"b"}}),
        ('intent.label == "a" || guard.label == "b"', {}),
        ('intent.label == "a" && guard.label == "c" || guard.label == "b"', {"guard": {"b", "c"}}),
        ('!(intent.label == "a")', {}),
        ('intent.label != "a"', {}),
        ('intent.label == "a" ? true : false', {}),
        ('[1].exists(x, intent.label == "a")', {}),
        ('intent.label in []', {}),
        ('intent.label == "a" + "b"', {}),
        ("intent.confidence > 0.5", {}),
    ],
)  # fmt: skip
def test_which_labels_a_rule_cannot_do_without(source: str, required: dict[str, set[str]]) -> None:
    assert required_labels(tokens_of(source)) == required


def test_a_label_that_is_told_needs_no_evaluation() -> None:
    rule = compile_rule('intent.label == "code" && 1 / request.turns > 0', LABELS)
    facts = Facts(
        LlmRequest("chat_completions", "auto", None, "hi"), SignalSet({"intent": SignalValue("math")}), "auto"
    )
    assert rule.holds(facts) is False
    assert facts.context(()).variables == {}


def test_a_rule_that_reads_whole_signals_converts_none_but_its_own() -> None:
    signals = {"intent": SignalValue("code"), "size": SignalValue("big"), "guard": SignalValue("\udcff")}
    facts = Facts(LlmRequest("chat_completions", "auto", None, "hi"), SignalSet(signals), "auto")
    rule = compile_rule("has(intent.label) && size(intent.label) == 4", LABELS)
    assert rule.flat is None
    # The guard's label is no text for CEL: whoever converted it would have no value.
    assert rule.holds(facts) is True
    assert rule.why_not(facts) == ""
    assert facts.whole(()).variables == {"intent": {"label": "code", "confidence": 1.0, "value": 0.0, "scores": {}}}
    assert facts.context(()).variables == {}
    compile_rule("has(request.api)", LABELS).holds(facts)
    assert set(facts.whole(()).variables) == {"intent", "request"}


def test_fields_become_variables_of_their_own() -> None:
    flat, reads = flattened('intent.label=="a" && x.intent.label == "b" && request.tokens > 1', {"intent", "request"})
    assert flat == 'label__intent=="a" && x.intent.label == "b" && tokens__request > 1'
    assert [(read.name, read.field) for read in reads] == [("intent", "label"), ("request", "tokens")]
    flat, reads = flattened("intent.scores['it'] > intent.scores.size()", {"intent"})
    assert flat == "scores_6974_intent > scores__intent.size()"


@pytest.mark.parametrize("source", ["1/0 == 1", "[1][5] == 1", '{"a": 1}["b"] == 1'])
def test_a_rule_that_never_has_a_value_is_a_mistake(source: str) -> None:
    with pytest.raises(ConfigMistakes, match="never has a value"):
        compile_rule(source, LABELS)


def test_what_cel_has_no_value_for_is_absent_and_takes_nothing_else_with_it() -> None:
    signals = {"guard": SignalValue("\udcff"), "intent": SignalValue("code")}
    facts = Facts(LlmRequest("chat_completions", "auto", None, "hi"), SignalSet(signals), "auto")
    assert compile_rule('intent.label == "code" || guard.label == "x"', LABELS).holds(facts) is True
    assert compile_rule('guard.label == "x"', LABELS).holds(facts) is False
    assert compile_rule('guard.label != "x"', LABELS).holds(facts) is None
