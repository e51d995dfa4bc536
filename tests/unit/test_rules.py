"""Rules are told by labels, or evaluated on single values: either way they say what CEL says of them as written."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_extproc.domain import LlmRequest, SignalSet, SignalValue
from router_extproc.errors import ConfigMistakes
from router_extproc.facts import Facts
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
        return rule.program.execute(facts.everything())
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
