"""Guards: what they refuse, where they send requests, what they mask, and what they do when a signal is absent."""

from collections.abc import Mapping
from typing import Any

import pytest

from router_extproc.config.schema import RouterConfig
from router_extproc.domain import Band, Decision, LlmRequest, SignalSet, SignalValue
from router_extproc.errors import ConfigMistakes, GuardBlocked, ModelForbidden
from router_extproc.facts import Facts
from router_extproc.guards import Guards
from router_extproc.signals.table import build_signals
from router_extproc.validation import validate

HEADS = {"shipped": {"guard": ("benign", "harmful", "injection", "jailbreak"), "pii": ("none", "EMAIL", "PERSON")}}
PRICE = {"input": 1, "output": 1}
BASE: dict[str, Any] = {
    "models": {
        "cloud": {"url": "http://h", "price": PRICE, "labels": {"where": "cloud"}},
        "cellar": {"url": "http://h", "price": PRICE, "labels": {"where": "here"}},
        "attic": {"url": "http://h", "price": PRICE, "labels": {"where": "here"}},
    },
    "signals": {
        "guard": {"type": "classifier", "head": "guard"},
        "pii": {"type": "classifier", "head": "pii"},
        "secret": {"type": "keywords", "any": "secret"},
        "project": {"type": "keywords", "any": "Bluebird", "mark": True},
        "unmarked": {"type": "keywords", "none": "Bluebird", "mark": True},
    },
    "default": "cloud",
}
ATTACK = {
    "name": "attack",
    "when": 'guard.label in ["jailbreak", "injection"] && guard.confidence > 0.8',
    "action": "block",
}
HERE = {"name": "here", "when": 'secret.label == "true"', "action": "reroute", "models": {"where": "here"}}
MASK = {"name": "pii", "when": 'pii.label != "none"', "action": "mask"}
TAG = {"name": "odd", "when": 'guard.label != "benign"', "action": "tag"}

ROUTED = Decision("code", Band.RECOMMENDED, 0.95, ("cloud", "attic"), "why", ("cellar",))
NAMED = Decision("named", Band.NAMED, 1.0, ("cloud",), "the client named the model")
REQUEST = LlmRequest("chat_completions", "auto", None, "I am Ann, ann@example.org")

ATTACKED = {"guard": SignalValue("jailbreak", 0.95)}
PERSONAL = {"pii": SignalValue("EMAIL", 0.9, pieces=("Ann", "ann@example.org"))}
SECRET = {"secret": SignalValue("true")}
FINE = {"guard": SignalValue("benign", 0.99), "pii": SignalValue("none", 0.99), "secret": SignalValue("false")}


def guards(*given: Mapping[str, Any]) -> Guards:
    config = validate(RouterConfig, {**BASE, "guards": list(given)})
    signals, wrong = build_signals(config.signals, HEADS)
    assert not wrong
    return Guards.compile(config, signals)


def applied(given: Guards, values: Mapping[str, SignalValue], decision: Decision = ROUTED) -> Decision:
    absent = {name: "late" for name in FINE if name not in values}
    return given.apply(decision, Facts(REQUEST, SignalSet(values, absent), REQUEST.model or ""))


ALL = (ATTACK, HERE, MASK, TAG)


def test_what_was_read_in_part_is_absent_to_guards() -> None:
    partly = {**FINE, "secret": SignalValue("false", partial=True)}
    assert applied(guards(*ALL), partly) == ROUTED
    with pytest.raises(GuardBlocked) as caught:
        applied(guards({**HERE, "action": "block", "models": None, "on_error": "block"}), partly)
    assert caught.value.guards == ("here",)
    unsaid = {**HERE, "when": 'secret.label != "true"', "action": "tag", "models": None}
    assert applied(guards(unsaid), partly) == ROUTED
    assert applied(guards(unsaid), FINE).guards == ("here",)


@pytest.mark.parametrize("decision", [ROUTED, NAMED])
def test_nothing_happens_to_a_harmless_request(decision: Decision) -> None:
    assert applied(guards(*ALL), FINE, decision) == decision
    assert applied(guards(), {}, decision) == decision


@pytest.mark.parametrize("decision", [ROUTED, NAMED])
def test_block_refuses_named_models_too(decision: Decision) -> None:
    with pytest.raises(GuardBlocked) as caught:
        applied(guards(*ALL), {**FINE, **ATTACKED}, decision)
    assert (caught.value.status, caught.value.code) == (403, "blocked_by_attack")
    assert caught.value.message == "This request is not allowed here."


def test_block_says_what_it_is_told_to_say() -> None:
    with pytest.raises(GuardBlocked) as caught:
        applied(guards({**ATTACK, "status": 400, "message": "No."}), {**FINE, **ATTACKED})
    assert (caught.value.status, caught.value.message) == (400, "No.")


def test_reroute_leaves_only_its_models() -> None:
    found = applied(guards(*ALL), {**FINE, **SECRET})
    assert (found.candidates, found.fallbacks) == (("attic",), ("cellar",))
    assert found.allowed == frozenset({"cellar", "attic"})
    assert found.guards == ("here",)
    assert found.reason == "why; guard here"


def test_reroute_takes_a_named_model_to_its_own() -> None:
    found = applied(guards(HERE), {**FINE, **SECRET}, NAMED)
    assert (found.band, found.candidates) == (Band.NAMED, ("cellar", "attic"))


def test_two_reroutes_that_share_no_model_leave_nothing() -> None:
    away = {**HERE, "name": "away", "models": "cloud"}
    with pytest.raises(ModelForbidden, match="guard away"):
        applied(guards(HERE, away), {**FINE, **SECRET})


def test_mask_names_what_the_signal_points_at() -> None:
    found = applied(guards(*ALL), {**FINE, **PERSONAL})
    assert found.masked == ("Ann", "ann@example.org")
    assert "ann@" not in repr(found)
    assert found.candidates == ROUTED.candidates


EITHER = {**MASK, "when": 'pii.label != "none" || project.label == "true" || secret.label == "true"'}
NAMED_PROJECT = {"project": SignalValue("true", value=1.0, pieces=("Bluebird",))}


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({**FINE, "pii": SignalValue("PERSON", 0.9, pieces=("Ann",), more=True)}, "pii in part"),
        ({**FINE, **NAMED_PROJECT, "pii": SignalValue("none", 0.9, partial=True)}, "pii in part"),
        ({"secret": SignalValue("false"), **NAMED_PROJECT}, "pii late"),
    ],
)
def test_a_mask_that_must_not_err_has_to_know_all_that_it_masks(values: dict[str, SignalValue], why: str) -> None:
    values = {"project": SignalValue("false"), **values}
    pieces = tuple(piece for value in values.values() for piece in value.pieces)
    strict, told = guards({**EITHER, "on_error": "block"}, TAG), guards(EITHER, TAG)
    with pytest.raises(GuardBlocked) as caught:
        applied(strict, values)
    assert caught.value.code == "blocked_by_pii"
    assert applied(told, values).masked == pieces
    facts = Facts(REQUEST, SignalSet(values, {"pii": "late"}), "auto")
    for compiled, second in ((strict, "an earlier guard refused"), (told, "guard=benign 0.990")):
        first, tag = compiled.explain(facts)
        assert first.holds
        assert first.why.endswith(f"; what to mask is not known in full: {why}")
        assert tag.why in (second, "guard absent")
    # What points at nothing hides nothing, and a block needs no more than it has.
    known = {**FINE, **PERSONAL, "project": SignalValue("false"), "secret": SignalValue("true", more=True)}
    assert applied(strict, known).masked == PERSONAL["pii"].pieces
    block = {**ATTACK, "when": 'pii.label != "none"', "on_error": "block"}
    with pytest.raises(GuardBlocked):
        applied(guards(block), {**FINE, "pii": SignalValue("PERSON", 0.9, more=True)})


@pytest.mark.parametrize("when", ['secret.label == "true"', 'unmarked.label == "true"', "true", "guard.value > 0.5"])
def test_a_mask_needs_a_signal_that_points_at_something(when: str) -> None:
    with pytest.raises(ConfigMistakes) as caught:
        guards({**MASK, "when": when})
    [mistake] = caught.value.mistakes
    assert mistake.path == ("guards", 0, "when")
    assert mistake.message.startswith("nothing that this rule reads can be masked: give a keywords signal `mark: true`")
    guards({**MASK, "when": f'{when} || project.label == "true"'}, {**TAG, "when": when})


def test_what_a_signal_that_could_not_be_built_masks_is_not_known() -> None:
    config = validate(RouterConfig, {**BASE, "guards": [MASK]})
    Guards.compile(config, {})


def test_tag_only_says_so() -> None:
    found = applied(guards(TAG), {**FINE, **ATTACKED})
    assert found.guards == ("odd",)
    assert found.candidates == ROUTED.candidates


def test_an_absent_signal_lets_pass_unless_told_otherwise() -> None:
    assert applied(guards(*ALL), {}) == ROUTED
    strict = [{**guard, "on_error": "block"} for guard in ALL]
    with pytest.raises(GuardBlocked):
        applied(guards(strict[0]), {})
    with pytest.raises(GuardBlocked):
        applied(guards(strict[2]), {})
    assert applied(guards(strict[1]), {}).candidates == ("attic",)
    assert applied(guards(strict[3]), {}).guards == ("odd",)


def test_an_absent_signal_does_not_matter_where_another_decides() -> None:
    both = {**ATTACK, "when": 'secret.label == "true" && guard.label != "benign"', "on_error": "block"}
    assert applied(guards(both), {"secret": SignalValue("false")}) == ROUTED


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigMistakes) as caught:
        guards(
            {**ATTACK, "when": 'guard.label == "bad"'}, {**TAG, "name": "attack"}, {**HERE, "models": {"where": "moon"}}
        )
    assert [(mistake.path, mistake.message) for mistake in caught.value.mistakes] == [
        (("guards", 0, "when"), "`guard` never has the label `bad` (known: benign, harmful, injection, jailbreak)"),
        (("guards", 1, "name"), "another guard is called `attack` too"),
        (("guards", 2, "models", 0), "no model has the labels where: moon"),
    ]
    for wrong in ({**TAG, "models": "cloud"}, {**HERE, "models": None}):
        with pytest.raises(ConfigMistakes, match="belongs to the action reroute"):
            guards(wrong)
