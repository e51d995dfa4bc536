from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router_extproc.config.loader import parse
from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision, LlmRequest, SignalSet, SignalValue
from router_extproc.errors import ConfigMistakes
from router_extproc.facts import Facts
from router_extproc.policy import Policy
from router_extproc.rules import FUNCTIONS, compile_rule
from router_extproc.signals.base import Signal, SignalInputs
from router_extproc.validation import validate


@dataclass(frozen=True)
class FakeSignal:
    labels: tuple[str, ...] | None = None
    classifier: str | None = None

    def evaluate(self, inputs: SignalInputs) -> SignalValue | None:
        return None


SIGNALS: Mapping[str, Signal] = {
    "intent": FakeSignal(("code", "math", "chat"), "shipped"),
    "guard": FakeSignal(("benign", "harmful"), "shipped"),
    "vip": FakeSignal(("true", "false")),
    "tenant": FakeSignal(),
}
PRICE = {"input": 1, "output": 2}


def config(*routes: Mapping[str, Any], **more: Any) -> RouterConfig:
    document = {
        "models": {name: {"url": "http://h", "price": PRICE} for name in ("small", "coder", "safe", "big", "spare")},
        "signals": {name: {"type": "tokens"} for name in SIGNALS},
        "routes": [{"name": f"r{index}", "models": "small", **route} for index, route in enumerate(routes)],
        "default": ["big", "spare"],
        **more,
    }
    return validate(RouterConfig, document)


def policy(*routes: Mapping[str, Any], **more: Any) -> Policy:
    return Policy.compile(config(*routes, **more), SIGNALS)


def mistakes(*routes: Mapping[str, Any], **more: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigMistakes) as caught:
        policy(*routes, **more)
    return [(".".join(map(str, mistake.path)), mistake.message) for mistake in caught.value.mistakes]


REQUEST = LlmRequest("chat_completions", "auto", None, "hi", tokens=100)


def intent(label: str, confidence: float) -> SignalValue:
    rest = {"code": 0.0, "math": 0.0, "chat": 0.0}
    return SignalValue(label, confidence, 0.0, {**rest, label: confidence})


def decide(compiled: Policy, virtual: str = "auto", request: LlmRequest = REQUEST, **values: SignalValue) -> Decision:
    return compiled.decide(Facts(request, SignalSet(values), virtual))


CODE = {"name": "code", "when": 'intent.label == "code"', "models": ["coder"], "fallback": ["safe"]}


@pytest.mark.parametrize(
    ("confidence", "band", "candidates", "fallbacks", "reason"),
    [
        (0.97, Band.RECOMMENDED, ("coder",), ("safe", "big", "spare"), "intent=code 0.97 > 0.90"),
        (0.9001, Band.RECOMMENDED, ("coder",), ("safe", "big", "spare"), "intent=code 0.9001 > 0.9000"),
        (0.9, Band.FALLBACK, ("safe",), ("big", "spare"), "intent=code 0.90 > 0.70"),
        (0.7, Band.DEFAULT, ("big", "spare"), (), "intent=code 0.70 <= 0.70"),
        (0.2, Band.DEFAULT, ("big", "spare"), (), "intent=code 0.20 <= 0.70"),
    ],
)
def test_confidence_picks_the_band(
    confidence: float, band: Band, candidates: tuple[str, ...], fallbacks: tuple[str, ...], reason: str
) -> None:
    found = decide(policy(CODE), intent=intent("code", confidence))
    assert found == Decision("code", band, confidence, candidates, reason, fallbacks, "first")


def test_without_a_fallback_the_default_models_are_safe() -> None:
    found = decide(policy({"when": 'intent.label == "code"', "models": ["coder"]}), intent=intent("code", 0.8))
    assert (found.band, found.candidates, found.fallbacks) == (Band.FALLBACK, ("big", "spare"), ())


def test_a_routes_own_bands_and_selection() -> None:
    route = {
        **CODE,
        "models": ["coder", "small"],
        "bands": {"recommended": 0.5, "fallback": 0.1},
        "selection": "cheapest",
    }
    found = decide(policy(route), intent=intent("code", 0.6))
    assert (found.band, found.selection, found.candidates) == (Band.RECOMMENDED, "cheapest", ("coder", "small"))
    assert decide(policy(route), intent=intent("code", 0.1)).selection == "first"


def test_first_match_wins_and_no_match_is_the_default() -> None:
    compiled = policy(CODE, {"when": 'intent.label != "chat"'}, {"when": 'intent.label == "math"'})
    assert decide(compiled, intent=intent("code", 0.99)).route == "code"
    assert decide(compiled, intent=intent("math", 0.99)).route == "r1"
    found = decide(compiled, intent=intent("chat", 0.99))
    assert found == Decision("default", Band.DEFAULT, 0.0, ("big", "spare"), "no rule matched")


def test_facts_are_certain() -> None:
    found = decide(policy({"when": 'vip.label == "true" && request.tokens < 500'}), vip=SignalValue("true"))
    assert (found.band, found.confidence, found.reason) == (Band.RECOMMENDED, 1.0, "vip=true")
    found = decide(policy({"when": '"text" in request.modalities && !request.stream'}))
    assert (found.band, found.reason) == (Band.RECOMMENDED, "by the request alone")


def test_the_least_certain_classifier_decides_unless_told_otherwise() -> None:
    when = 'intent.label == "code" && guard.label == "benign"'
    signals = SignalSet({"intent": intent("code", 0.95), "guard": SignalValue("benign", 0.75)})
    found = policy({"when": when}).decide(Facts(REQUEST, signals, "auto"))
    assert (found.band, found.reason) == (Band.FALLBACK, "guard=benign 0.75 > 0.70")
    told = policy({"when": when, "confidence": "intent"}).decide(Facts(REQUEST, signals, "auto"))
    assert told.band is Band.RECOMMENDED


def test_the_confidence_of_a_signal_that_is_absent_is_none_at_all() -> None:
    compiled = policy({"when": 'vip.label == "true"', "confidence": "intent"})
    found = compiled.decide(Facts(REQUEST, SignalSet({"vip": SignalValue("true")}, {"intent": "late"}), "auto"))
    assert (found.route, found.band, found.reason) == ("r0", Band.DEFAULT, "intent late")


LATE = {"intent": "late", "guard": "late"}


@pytest.mark.parametrize(
    ("when", "values", "route"),
    [
        ('intent.label == "code"', {}, "default"),
        ('intent.label != "code"', {}, "default"),
        ('!(intent.label == "code")', {}, "default"),
        ('vip.label == "true"', {"vip": "true"}, "r0"),
        ('vip.label == "true" || intent.label == "code"', {"vip": "true"}, "r0"),
        ('vip.label == "true" || intent.label == "code"', {"vip": "false"}, "default"),
        ('vip.label == "true" && intent.label == "code"', {"vip": "true"}, "default"),
    ],
)
def test_a_rule_that_needs_an_absent_signal_does_not_match(when: str, values: dict[str, str], route: str) -> None:
    signals = SignalSet({name: SignalValue(label) for name, label in values.items()}, LATE)
    found = policy({"when": when}).decide(Facts(REQUEST, signals, "auto"))
    assert found.route == route
    if route == "default":
        assert found.reason == "signals late"


def test_none_of_the_above_is_unknown_while_a_signal_is_late() -> None:
    compiled = policy(CODE, {"when": "true"})
    late = compiled.decide(Facts(REQUEST, SignalSet({}, {"intent": "late", "guard": "overloaded"}), "auto"))
    assert (late.band, late.candidates, late.reason) == (Band.DEFAULT, ("big", "spare"), "signals late and overloaded")
    assert decide(compiled, intent=intent("chat", 0.9)).route == "r1"
    assert decide(compiled, intent=intent("chat", 0.9)).reason == "catch-all"


def test_a_rule_that_is_false_anyway_needs_nothing_more() -> None:
    compiled = policy({"when": 'intent.label == "code" && vip.label == "true"'}, {"when": "true"})
    assert compiled.decide(Facts(REQUEST, SignalSet({"vip": SignalValue("false")}, LATE), "auto")).route == "r1"
    assert compiled.decide(Facts(REQUEST, SignalSet({"vip": SignalValue("true")}, LATE), "auto")).route == "default"


def test_virtual_models_have_their_own_routes_and_default() -> None:
    compiled = policy(
        CODE,
        {"name": "any", "when": "request.tokens >= 0"},
        virtual_models={"auto": {}, "cheap": {"routes": ["any"], "default": "small"}},
    )
    value = intent("code", 0.3)
    assert decide(compiled, "auto", intent=value).candidates == ("big", "spare")
    assert decide(compiled, "cheap", intent=value).route == "any"
    only_code = policy(CODE, virtual_models={"cheap": {"default": "small"}})
    assert decide(only_code, "cheap", intent=value).candidates == ("small",)
    assert decide(only_code, "cheap", intent=intent("chat", 1.0)).candidates == ("small",)


def test_reasons_can_stand_in_a_header() -> None:
    compiled = policy({"when": 'tenant.label != ""'})
    reason = decide(compiled, tenant=SignalValue("né\r\nx-evil: 1 " + "a" * 300)).reason
    assert reason.startswith("tenant=n???x-evil: 1 aaa")
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 200


def test_a_rule_that_breaks_on_a_request_does_not_match_it() -> None:
    compiled = policy({"when": "100 / request.turns > 1"}, {"when": "request.turns == 0"})
    assert decide(compiled, request=LlmRequest("chat_completions", "auto", None, "", turns=0)).route == "r1"


def test_scores_are_there_where_a_rule_reads_them() -> None:
    compiled = policy(
        {"when": 'intent.scores["math"] + intent.scores["code"] > 0.8', "bands": {"recommended": 0, "fallback": 0}}
    )
    both = SignalValue("math", 0.5, 0.0, {"math": 0.5, "code": 0.4, "chat": 0.1})
    assert decide(compiled, intent=both).route == "r0"
    assert decide(compiled, intent=intent("chat", 0.9)).route == "default"


def test_explain_says_what_became_of_every_route() -> None:
    compiled = policy(
        {"name": "math", "when": 'intent.label == "math"'},
        {"name": "late", "when": 'guard.label == "harmful"'},
        CODE,
        {"name": "rest", "when": "true"},
    )
    signals = SignalSet({"intent": intent("code", 0.9)}, {"guard": "late"})
    found = [(result.route, result.matched, result.why) for result in compiled.explain(Facts(REQUEST, signals, "auto"))]
    assert found == [
        ("math", False, "intent=code"),
        ("late", None, "guard late"),
        ("code", True, "intent=code"),
        ("rest", None, "an earlier route matched"),
    ]
    signals = SignalSet({"intent": intent("chat", 0.9)}, {"guard": "late"})
    assert compiled.explain(Facts(REQUEST, signals, "auto"))[3].why == "a rule above it could not be judged"


def test_nothing_is_looked_at_below_a_catch_all_that_could_not_be_judged() -> None:
    compiled = policy(
        {"name": "late", "when": 'guard.label == "harmful"'},
        {"name": "rest", "when": "true"},
        {"name": "all", "when": "request.turns > 0"},
        virtual_models={"auto": {}, "other": {"routes": ["all"]}},
    )
    facts = Facts(REQUEST, SignalSet({}, {"guard": "late"}), "auto")
    assert compiled.decide(facts).route == "default"
    assert [(result.matched, result.why) for result in compiled.explain(facts)] == [
        (None, "guard late"),
        (None, "a rule above it could not be judged"),
        (None, "not looked at"),
    ]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(SIGNALS)),
        st.builds(SignalValue, st.sampled_from(["code", "math", "true", ""]), st.floats(0, 1), st.floats(0, 9)),
    )
)
def test_explain_and_decide_agree(values: dict[str, SignalValue]) -> None:
    compiled = policy(
        CODE,
        {"when": 'vip.label == "true" && intent.confidence < 0.5'},
        {"when": 'guard.label == "harmful" || tenant.label == "math"'},
        {"when": "intent.value > 3.0"},
        {"when": "true"},
    )
    signals = SignalSet(values, {name: "late" for name in SIGNALS if name not in values})
    taken = compiled.decide(Facts(REQUEST, signals, "auto"))
    matched = [result.route for result in compiled.explain(Facts(REQUEST, signals, "auto")) if result.matched]
    assert matched == ([] if taken.route == "default" else [taken.route])
    assert taken.candidates


@pytest.mark.parametrize(
    ("vip", "confidence", "band", "reason"),
    [
        ("true", 0.3, Band.RECOMMENDED, "vip=true"),
        ("true", 0.95, Band.RECOMMENDED, "vip=true"),
        ("false", 0.95, Band.RECOMMENDED, "intent=code 0.95 > 0.90"),
        ("false", 0.3, Band.DEFAULT, "intent=code 0.30 <= 0.70"),
    ],
)
def test_a_rule_that_holds_by_facts_alone_is_certain(vip: str, confidence: float, band: Band, reason: str) -> None:
    compiled = policy({"when": 'vip.label == "true" || intent.label == "code"', "fallback": "safe"})
    found = decide(compiled, vip=SignalValue(vip), intent=intent("code", confidence))
    assert (found.band, found.reason) == (band, reason)
    by_request = policy({"when": 'request.tokens > 50 || intent.label == "code"'})
    assert decide(by_request, intent=intent("code", 0.1)).reason == "by the request alone"


# Second opinions

UNSURE = {**CODE, "second_opinion": "guard"}
OPINIONS: Mapping[str, Signal] = {**SIGNALS, "guard": FakeSignal(("code", "math", "chat"), "own")}


@pytest.mark.parametrize(
    ("first", "second", "route", "band", "reason"),
    [
        (0.95, ("math", 0.99), "code", Band.RECOMMENDED, "intent=code 0.95 > 0.90"),
        (0.6, ("code", 0.95), "code", Band.RECOMMENDED, "guard=code 0.95 > 0.90"),
        (0.6, ("code", 0.8), "code", Band.FALLBACK, "guard=code 0.80 > 0.70"),
        (0.8, ("code", 0.3), "code", Band.FALLBACK, "intent=code 0.80 > 0.70"),
        (0.6, ("math", 0.8), "code", Band.DEFAULT, "intent=code 0.60 <= 0.70"),
        (0.8, ("math", 0.95), "rest", Band.RECOMMENDED, "catch-all"),
        (0.6, None, "code", Band.DEFAULT, "intent=code 0.60 <= 0.70"),
    ],
)
def test_a_second_opinion_is_heard_when_the_first_is_unsure(
    first: float, second: tuple[str, float] | None, route: str, band: Band, reason: str
) -> None:
    rest = {"name": "rest", "when": "true", "models": "small"}
    compiled = Policy.compile(config(UNSURE, rest), OPINIONS)
    values = {"intent": intent("code", first)} | ({"guard": SignalValue(*second)} if second else {})
    found = compiled.decide(Facts(REQUEST, SignalSet(values), "auto"))
    assert (found.route, found.band, found.reason) == (route, band, reason)
    matched = [result.route for result in compiled.explain(Facts(REQUEST, SignalSet(values), "auto")) if result.matched]
    assert matched == [route]


def test_a_second_opinion_that_does_not_exist_is_a_mistake() -> None:
    assert mistakes({**CODE, "second_opinion": "intnt"}) == [
        ("routes.0.second_opinion", "unknown signal `intnt`, did you mean `intent`?")
    ]


@pytest.mark.parametrize(
    ("route", "others"),
    [
        ({"when": 'intent.label == "code"', "second_opinion": "vip"}, "`intent`"),
        ({"when": "true", "confidence": "guard", "second_opinion": "intent"}, "`guard`"),
        ({"when": 'intent.label == "code" && guard.label == "benign"', "second_opinion": "vip"}, "`guard`, `intent`"),
        ({"when": 'intent.label == "code" && guard.label == "benign"', "second_opinion": "guard"}, ""),
        ({"when": 'intent.label == "code"', "second_opinion": "tenant"}, ""),
        ({"when": "true", "confidence": "tenant", "second_opinion": "vip"}, ""),
        ({"when": 'vip.label == "true"', "second_opinion": "intent"}, ""),
    ],
)
def test_a_second_opinion_that_can_never_agree_is_a_mistake(route: Mapping[str, Any], others: str) -> None:
    if not others:
        policy(route)
        return
    message = f"`{route['second_opinion']}` has none of the labels of {others}"
    assert mistakes(route) == [("routes.0.second_opinion", message)]


# Candidates by label, and labels that a whole plan must have

LABELLED = {
    name: {"url": "http://h", "price": PRICE, "labels": {"tier": tier, "where": where}}
    for name, tier, where in (
        ("small", "light", "here"),
        ("tiny", "light", "cloud"),
        ("mid", "middle", "here"),
        ("big", "premium", "cloud"),
    )
}


def labelled(route: Mapping[str, Any], default: str = "big") -> Policy:
    return policy({"when": 'intent.label == "code"', **route}, models=LABELLED, default=default)


def test_candidates_can_be_given_by_label() -> None:
    compiled = labelled({"models": ["mid", {"tier": "light"}], "fallback": {"tier": "premium", "where": "cloud"}})
    sure, unsure = decide(compiled, intent=intent("code", 0.99)), decide(compiled, intent=intent("code", 0.8))
    assert (sure.candidates, sure.fallbacks) == (("mid", "small", "tiny"), ("big",))
    assert unsure.candidates == ("big",)


def test_a_route_can_keep_all_of_its_plan_to_some_models() -> None:
    compiled = labelled({"models": [{"tier": "light"}], "fallback": ["big", "mid"], "require": {"where": "here"}})
    here = frozenset({"small", "mid"})
    for confidence, candidates, fallbacks in ((0.99, ("small",), ("mid",)), (0.8, ("mid",), ()), (0.1, ("mid",), ())):
        found = decide(compiled, intent=intent("code", confidence))
        assert (found.candidates, found.fallbacks, found.allowed) == (candidates, fallbacks, here)


def test_labels_that_no_model_has_are_mistakes() -> None:
    found = mistakes(
        {"when": "request.stream", "models": {"tier": "huge"}},
        {"when": "request.stream", "models": ["big"], "require": {"where": "here"}},
        models=LABELLED,
        default="big",
    )
    assert found == [
        ("routes.0.models.0", "no model has the labels tier: huge"),
        ("routes.1.require", "none of big has the labels where: here"),
    ]


# What `check` finds


A_SIGNAL = '`intent` is a signal: compare `intent.label`, for instance with "code"'


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("intent.label == ", "not valid CEL at column 17: mismatched input '<EOF>'"),
        ("intent.label ==\n ", "not valid CEL at line 2, column 2 of the expression: mismatched input '<EOF>'"),
        ("(" * 200 + "true" + ")" * 200, "not valid CEL at column 97: nested too deep"),
        ('intnt.label == "code"', "unknown signal `intnt`, did you mean `intent`?"),
        ('intent.lable == "code"', "a signal has no field `lable`: `intent` has label, confidence, value and scores"),
        ('intent == "code"', A_SIGNAL),
        ('"code" == intent', A_SIGNAL),
        ('intent in ["code"]', A_SIGNAL),
        ("request.token > 5", "`request` has no field `token`, did you mean `tokens`?"),
        ('intent.label == "coding"', "`intent` never has the label `coding`, did you mean `code`?"),
        ('"coding" != intent.label', "`intent` never has the label `coding`, did you mean `code`?"),
        ("intent.label in ['code', 'maths']", "`intent` never has the label `maths`, did you mean `math`?"),
        ('intent.scores["zz"] > 0.5', "`intent` never has the label `zz` (known: chat, code, math)"),
        ('vip.label == "yes"', "`vip` never has the label `yes` (known: false, true)"),
        ("intent.label", "must be true or false, gives code"),
        ("request.tokens", "must be true or false, gives 100"),
        ("-intent.label == 'a'", "mixes types that do not go together: No such overload"),
        ('intent.label.lowerAscii() == "x"', "unknown function `lowerAscii`"),
        ("intent", A_SIGNAL),
        ("!intent", A_SIGNAL),
        ("request.stream && intent", A_SIGNAL),
        ('"code" in intent', A_SIGNAL),
        ("tenant || request.stream", "`tenant` is a signal: compare `tenant.label`"),
        (
            'vip.label == "true" and request.stream',
            "not valid CEL at column 21: mismatched input 'and'; CEL writes `&&`",
        ),
        ('not vip.label == "true"', "not valid CEL at column 5: mismatched input 'vip'; CEL writes `!` for `not`"),
        ('vip.label = "true"', "not valid CEL at column 11: token recognition error at: '= '; CEL writes `==` for `=`"),
        ("request.stream & true", "not valid CEL at column 16: token recognition error at: '& '; CEL writes `&&`"),
        ('intent.label.startWith("c")', "unknown function `startWith`, did you mean `startsWith`?"),
    ],
)
def test_bad_rules_are_named(when: str, message: str) -> None:
    found = mistakes({"when": when})
    assert len(found) == 1
    assert found[0][0] == "routes.0.when"
    assert found[0][1].startswith(message)


@pytest.mark.parametrize(
    "when",
    [
        'intent.label in ["code", "math"] && intent.confidence > 0.5',
        '["code", "math"].exists(x, x == intent.label)',
        'tenant.label == "whatever it is"',
        'has(request.model) && request.model == "auto"',
        'intent.label.startsWith("c") ? guard.label == "benign" : vip.label == "true"',
        'intent.label == "code" // a comment with "zz"\n && true',
        'request.modalities.all(kind, kind in ["text", "image"])',
        'type(request.tokens) == int && string(request.tokens) != ""',
        'r"\\d" != tenant.label && tenant["label"] != "x"',
    ],
)
def test_good_rules_pass(when: str) -> None:
    policy({"when": when})


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_every_function_that_passes_the_check_exists(name: str) -> None:
    time = 'timestamp("2026-01-01T00:00:00Z")'
    call = {
        "size": 'size("a") == 1',
        "contains": '"ab".contains("a")',
        "startsWith": '"ab".startsWith("a")',
        "endsWith": '"ab".endsWith("b")',
        "matches": '"ab".matches("^a")',
        "bytes": 'bytes("a") == b"a"',
        "string": 'string(1) == "1"',
        "type": "type(1) == int",
        "dyn": "dyn(1) == 1",
        "int": 'int("1") == 1',
        "uint": "uint(1) == 1u",
        "double": 'double("1") == 1.0',
        "timestamp": f"{time} == {time}",
        "duration": 'duration("1s") == duration("1s")',
    }.get(name, f"{time}.{name}() >= 0")
    assert compile_rule(call, {}).constant is True


def test_names_across_sections_are_checked() -> None:
    found = mistakes(
        {"when": "false", "models": ["smal", "big", "big"], "fallback": "bigg"},
        {"when": "false", "name": "r0", "confidence": "intnt"},
        {"when": "false", "name": "default"},
        default=["big", "huge"],
        virtual_models={"auto": {"routes": ["r00"]}, "big": {"default": "smol"}},
    )
    assert found == [
        ("default.1", "unknown model `huge` (known: big, coder, safe, small, spare)"),
        ("routes.0.models.0", "unknown model `smal`, did you mean `small`?"),
        ("routes.0.models.2", "`big` stands twice in this list"),
        ("routes.0.fallback.0", "unknown model `bigg`, did you mean `big`?"),
        ("routes.1.confidence", "unknown signal `intnt`, did you mean `intent`?"),
        ("routes.1.name", "routes[0] is called `r0` too"),
        ("routes.2.name", "`default` is a reserved route name"),
        ("virtual_models.auto.routes.0", "unknown route `r00`, did you mean `r0`?"),
        ("virtual_models.big", "`big` is also a model of the catalogue"),
        ("virtual_models.big.default.0", "unknown model `smol`, did you mean `small`?"),
    ]


def test_models_do_not_share_clusters_and_signals_have_names_of_their_own() -> None:
    models = {name: {"url": "http://h", "price": PRICE, "cluster": "one"} for name in ("big", "spare")}
    models["big"]["fallback"] = "small"
    found = mistakes(models=models, signals={"request": {"type": "tokens"}})
    assert found == [
        ("signals.request", "`request` is a reserved word of the rule language: rename the signal"),
        ("models.spare.cluster", "the cluster `one` is already that of `big`"),
        ("models.big.fallback.0", "unknown model `small` (known: big, spare)"),
    ]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://h:port/v1", "`http://h:port/v1` has no usable port: it is a number from 1 to 65535"),
        ("http://h:80000", "`http://h:80000` has no usable port: it is a number from 1 to 65535"),
        ("http://h:0", "`http://h:0` has no usable port: it is a number from 1 to 65535"),
        ("http://[::1/v1", "`http://[::1/v1` has no usable host: IPv6 stands in brackets, `http://[::1]:8000`"),
        ("http://h/v1/chat/completions", "ends in the path of an API, which is added to it: write `http://h/v1`"),
        ("http://h/v1/messages/", "ends in the path of an API, which is added to it: write `http://h/v1`"),
    ],
)
def test_urls_that_cannot_be_used_are_named(url: str, message: str) -> None:
    models = {"big": {"url": url, "price": PRICE}, "my-completions": {"url": "http://completions", "price": PRICE}}
    assert mistakes(models=models, default="big") == [("models.big.url", message)]


def test_no_model_takes_a_cluster_of_the_routers_own() -> None:
    message = "`mom-sidecar` is a cluster of the router's own: give another `cluster`"
    big = {"url": "http://h", "price": PRICE}
    assert mistakes(models={"mom-sidecar": big}, default="mom-sidecar") == [("models.mom-sidecar", message)]
    models = {"big": {**big, "cluster": "mom-sidecar"}}
    assert mistakes(models=models, default="big") == [("models.big.cluster", message)]


def test_an_unknown_route_name_is_the_only_mistake_that_it_makes() -> None:
    assert mistakes({"when": "request.stream"}, virtual_models={"auto": {"routes": ["x0"]}}) == [
        ("virtual_models.auto.routes.0", "unknown route `x0` (known: r0)")
    ]


def test_routes_that_nothing_can_reach_are_named() -> None:
    assert mistakes({"when": "true"}, {"when": 'vip.label == "true"'}) == [
        ("routes.1", "`r1` can never be taken: a route before it always matches")
    ]
    assert mistakes({"when": "1 < 2"}, {"when": "request.stream"}, virtual_models={"auto": {"routes": ["r0"]}}) == [
        ("routes.1", "`r1` can never be taken: no virtual model has it in `routes`")
    ]
    policy(
        {"when": "true"}, {"when": "request.stream"}, virtual_models={"a": {"routes": ["r0"]}, "b": {"routes": ["r1"]}}
    )


def test_signals_that_could_not_be_built_may_be_named() -> None:
    broken = {name: signal for name, signal in SIGNALS.items() if name != "intent"}
    Policy.compile(config(CODE), broken)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='intevip.labl="code"&|!()[]{}?:,><+-/ \n\\rb\'1', max_size=60))
def test_no_text_breaks_the_rule_compiler(source: str) -> None:
    labels = {name: signal.labels for name, signal in SIGNALS.items()}
    messages: list[str] = []
    try:
        compile_rule(source, labels)
    except ConfigMistakes as error:
        messages = [mistake.message for mistake in error.mistakes]
    assert all(messages)


def test_a_mistake_in_a_rule_gets_its_line() -> None:
    models = "models: {m: {url: 'http://h', price: {input: 1, output: 1}}}"
    text = f"{models}\ndefault: m\nroutes:\n- name: a\n  when: b\n  models: m"
    loaded = parse(text.encode(), Path("r.yaml"))
    with pytest.raises(ConfigMistakes) as caught:
        Policy.compile(loaded.config, {})
    assert loaded.error(caught.value.mistakes).mistakes == [
        "r.yaml:5: routes[0].when: unknown signal `b` (known: request)"
    ]
