import threading
import time
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from router_extproc.config.policy import SignalSpec
from router_extproc.domain import MAX_PIECES, LlmRequest, SignalValue, Turn
from router_extproc.errors import ConfigMistakes
from router_extproc.inference.base import Classified, HeadResult, Span
from router_extproc.signals.base import Signal, SignalInputs
from router_extproc.signals.keywords import REGEX_SECONDS
from router_extproc.signals.table import SIGNALS, build, build_signals

HEADS = {
    "shipped": {
        "intent": ("code_generation", "small_talk"),
        "language": ("de", "en"),
        "complexity": ("low", "high"),
    },
    "own": {"topic": ("a", "b")},
}


SLOW, SLOWLY = "(a+)+b", "a" * 5_000
"""An expression and a text that it would never have read."""


def signal(**spec: Any) -> Signal:
    return build("it", SignalSpec(**spec), HEADS)


def inputs(
    prompt: str = "hello",
    *,
    headers: Mapping[str, str] | None = None,
    now: str = "2026-11-23T12:00:00+00:00",
    classified: Mapping[str, Classified] | None = None,
    **request: Any,
) -> SignalInputs:
    return SignalInputs(
        LlmRequest("chat_completions", "auto", None, prompt, **request),
        headers or {},
        datetime.fromisoformat(now).astimezone(UTC),
        classified or {},
    )


def label(built: Signal, given: SignalInputs) -> str:
    value = built.evaluate(given)
    assert value is not None
    assert built.labels is None or value.label in built.labels
    return value.label


def wrong(**spec: Any) -> list[tuple[tuple[str | int, ...], str]]:
    with pytest.raises(ConfigMistakes) as caught:
        signal(**spec)
    return [(mistake.path, mistake.message) for mistake in caught.value.mistakes]


def passed(**heads: HeadResult) -> dict[str, Classified]:
    return {"shipped": Classified(heads, tokens=3, version="v")}


def test_every_type_has_typed_closed_described_parameters() -> None:
    for name, plugin in SIGNALS.table.items():
        assert plugin.__doc__, name
        schema = plugin.Params.model_json_schema()
        assert schema["additionalProperties"] is False, name
        assert all("description" in field for field in schema.get("properties", {}).values()), name


# classifier, language, complexity


def test_a_classifier_signal_is_its_head() -> None:
    built = signal(type="classifier", head="intent")
    assert built.classifier == "shipped"
    assert built.labels == ("code_generation", "small_talk")
    head = HeadResult("small_talk", 0.8, {"code_generation": 0.2, "small_talk": 0.8})
    assert built.evaluate(inputs(classified=passed(intent=head))) == SignalValue("small_talk", 0.8, 0.0, head.probs)
    assert built.evaluate(inputs()) is None
    assert built.evaluate(inputs(classified=passed())) is None


def test_language_is_a_head_too() -> None:
    built = signal(type="language")
    assert built.classifier == "shipped"
    assert label(built, inputs(classified=passed(language=HeadResult("de", 0.9, {})))) == "de"


@pytest.mark.parametrize(("value", "expected"), [(0.0, "low"), (0.4, "medium"), (0.7, "high"), (1.0, "high")])
def test_complexity_is_a_certain_number_with_a_label(value: float, expected: str) -> None:
    built = signal(type="complexity", medium=0.4, high=0.7)
    found = built.evaluate(inputs(classified=passed(complexity=HeadResult("low", 0.6, {}, value=value))))
    assert found == SignalValue(expected, 1.0, value)
    assert built.evaluate(inputs()) is None


def test_unknown_classifiers_and_heads_are_mistakes() -> None:
    assert wrong(type="classifier", head="intnt") == [
        (("signals", "it", "head"), "the classifier `shipped` has no head `intnt`, did you mean `intent`?")
    ]
    assert wrong(type="classifier", head="topic", classifier="owm") == [
        (("signals", "it", "classifier"), "unknown classifier `owm`, did you mean `own`?")
    ]
    assert wrong(type="complexity", classifier="own")[0][0] == ("signals", "it", "head")
    assert wrong(type="complexity", medium=0.9) == [(("signals", "it"), "medium must not be above high")]


def test_types_and_parameters_are_checked() -> None:
    assert wrong(type="keyword", any=["x"]) == [
        (("signals", "it", "type"), "unknown signal type `keyword`, did you mean `keywords`?")
    ]
    assert wrong(type="keywords", anny=["x"])[0] == (
        ("signals", "it", "anny"),
        "unknown field `anny`, did you mean `any`?",
    )


def test_all_signals_are_built_and_all_mistakes_kept() -> None:
    specs = {"a": SignalSpec(type="tokens"), "b": SignalSpec(type="tokenz"), "c": SignalSpec(type="header")}
    signals, mistakes = build_signals(specs, HEADS)
    assert list(signals) == ["a"]
    assert [mistake.path for mistake in mistakes] == [("signals", "b", "type"), ("signals", "c", "name")]


# facts


def test_tokens_and_turns_are_numbers() -> None:
    assert signal(type="tokens").evaluate(inputs(tokens=4321)) == SignalValue("4321", value=4321.0)
    assert signal(type="turns").evaluate(inputs(turns=7)) == SignalValue("7", value=7.0)


def test_tools_is_a_truth() -> None:
    assert label(signal(type="tools"), inputs(has_tools=True)) == "true"
    assert label(signal(type="tools"), inputs()) == "false"


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [({"text"}, "text"), ({"text", "image"}, "image"), ({"image", "audio", "text"}, "audio"), (set(), "text")],
)
def test_modality_is_the_rarest_kind(kinds: set[str], expected: str) -> None:
    found = signal(type="modality").evaluate(inputs(modalities=frozenset(kinds)))
    assert found is not None
    assert found.label == expected
    assert {kind for kind, score in found.scores.items() if score} == kinds


def test_header_gives_its_value_cut_and_trimmed() -> None:
    built = signal(type="header", name="X-Tenant", otherwise="nobody")
    assert label(built, inputs(headers={"x-tenant": " acme "})) == "acme"
    assert label(built, inputs(headers={"x-tenant": "a" * 1000})) == "a" * 256
    assert label(built, inputs()) == "nobody"
    assert built.labels is None


def test_bytes_of_a_header_that_are_no_text_leave_it_a_value_that_rules_can_read() -> None:
    built = signal(type="header", name="x-team")
    sent = b"sales\xff \xe9quipe".decode("utf-8", "surrogateescape")
    assert label(built, inputs(headers={"x-team": sent})) == "sales\ufffd \ufffdquipe"


def test_header_with_known_values_and_a_map() -> None:
    built = signal(type="header", name="x-tenant", values=["acme"], map={"umbrella": "premium"}, otherwise="free")
    assert built.labels == ("acme", "premium", "free")
    assert [label(built, inputs(headers={"x-tenant": name})) for name in ("acme", "umbrella", "evil")] == [
        "acme",
        "premium",
        "free",
    ]
    assert wrong(type="header", name="not a header")[0][0] == ("signals", "it", "name")


# keywords


@pytest.mark.parametrize(
    ("spec", "prompt", "expected"),
    [
        ({"any": "refund"}, "I want a REFUND!", True),
        ({"any": "refund"}, "refundable?", False),
        ({"any": ["exchange", "money back"]}, "give me my money back", True),
        ({"any": "C++"}, "is C++ fast", True),
        ({"any": "C++"}, "is C+ fast", False),
        ({"any": "straße"}, "Welche STRASSE? Die Straße.", True),
        ({"any": "退款"}, "我想要退款谢谢", True),
        ({"any": "คืนเงิน"}, "ขอคืนเงินหน่อย", True),
        ({"any": "환불"}, "환불해 주세요", True),
        ({"any": "refund", "case_sensitive": True}, "Refund", False),
        ({"all": ["return", "broken"]}, "the broken one: can I return it", True),
        ({"all": ["return", "broken"]}, "can I return it", False),
        ({"none": ["joke"]}, "tell me a joke", False),
        ({"none": ["joke"]}, "tell me a story", True),
        ({"any": "order", "none": "cancel"}, "cancel my order", False),
        ({"any": r"\border #?\d{4,9}\b", "regex": True}, "where is Order #12345?", True),
        ({"any": r"\border #?\d{4,9}\b", "regex": True}, "where is order 12?", False),
        ({"any": r"^Order", "regex": True, "case_sensitive": True}, "order", False),
        ({"any": "end"}, "bend " * 100_000 + "end", True),
        ({"any": "end"}, "bend " * 100_000 + "ends", False),
        ({"any": "in"}, "\u0130\u0130 in", True),
        ({"any": r"en\d{1,9}", "regex": True}, "x " * 32_000 + "en1", True),
        ({"any": ".+end", "regex": True}, "x\n" * 32_000 + "a end", True),
        ({"any": SLOW, "regex": True}, SLOWLY, False),
        ({"any": [SLOW, "never there"], "regex": True}, SLOWLY, False),
    ],
)
def test_keywords(spec: dict[str, Any], prompt: str, expected: bool) -> None:
    assert label(signal(type="keywords", **spec), inputs(prompt)) == str(expected).lower()


@pytest.mark.parametrize(("where", "expected"), [("prompt", "p"), ("context", "ct"), ("system", "s"), ("all", "pcst")])
def test_keywords_look_where_they_are_told(where: str, expected: str) -> None:
    turns = (Turn("user", "word-c"), Turn("assistant", "x"))
    given = inputs("word-p", context=turns, system="word-s", thoughts=("word-t",))
    found = [n for n in "pcst" if label(signal(type="keywords", any=f"word-{n}", where=where), given) == "true"]
    assert "".join(found) == expected


def test_keywords_point_at_what_they_found_when_told_to() -> None:
    built = signal(type="keywords", any=["Apollo", "blue whale"], none="public", where="all", mark=True)
    given = inputs("APOLLO and Apollonia", system="apollo, not a Blue Whale")
    found = built.evaluate(given)
    assert found is not None
    assert found.pieces == ("APOLLO", "apollo", "Blue Whale")
    assert "APOLLO" not in repr(found)
    assert built.evaluate(inputs("public Apollo")) == SignalValue("false")
    numbered = signal(type="keywords", any=r"PRJ-\d{3,6}", regex=True, mark=True).evaluate(inputs("prj-1234, PRJ-1"))
    assert numbered is not None
    assert numbered.pieces == ("prj-1234",)
    written = ("x " * 60_000 + "We call it BLUEBİRD or Apollo.",)
    far = signal(type="keywords", any=["Apollo", "bluebird"], where="conversation", mark=True).evaluate(
        inputs("İ " * 30_000 + "translate it", written=written)
    )
    assert far is not None
    assert far.pieces == ("Apollo", "BLUEBİRD")


@pytest.mark.parametrize(
    ("spec", "prompt", "expected"),
    [
        ({"any": SLOW}, SLOWLY, SignalValue("false", partial=True)),
        ({"all": ["a", SLOW]}, SLOWLY, SignalValue("false", partial=True)),
        ({"any": SLOW}, "x" * 40, SignalValue("false")),
        ({"any": ["Bluebird", SLOW]}, "a Bluebird " + SLOWLY, SignalValue("true", value=1.0)),
        ({"any": "a", "none": SLOW}, SLOWLY, SignalValue("true", value=1.0)),
        ({"any": "a", "none": "a+"}, SLOWLY, SignalValue("false")),
        ({"any": "y", "none": SLOW}, SLOWLY, SignalValue("false")),
        ({"none": SLOW}, SLOWLY, SignalValue("true", value=1.0, partial=True)),
        ({"none": SLOW}, "x" * 40, SignalValue("true", value=1.0)),
    ],
)
def test_a_regular_expression_that_read_a_part_and_found_nothing_says_so(
    spec: dict[str, Any], prompt: str, expected: SignalValue
) -> None:
    assert signal(type="keywords", regex=True, **spec).evaluate(inputs(prompt)) == expected


def test_keywords_that_are_not_found_may_stand_in_what_is_no_text() -> None:
    built = signal(type="keywords", any="Bluebird", mark=True)
    assert built.evaluate(inputs("hello", unread=True)) == SignalValue("false", partial=True)
    assert built.evaluate(inputs("hello")) == SignalValue("false")
    found = built.evaluate(inputs("Bluebird", unread=True))
    assert found is not None
    assert (found.label, found.partial, found.more) == ("true", False, True)


@pytest.mark.parametrize(
    ("spec", "prompt", "pieces", "more"),
    [
        ({"any": [r"sk-\w+", SLOW]}, "sk-xyz " + SLOWLY, 1, True),
        ({"any": r"sk-\w+"}, "sk-abc " + "x " * 20_000 + "sk-xyz", 2, False),
        ({"any": r"sk-\w+", "none": SLOW}, "sk-xyz " + SLOWLY, 1, False),
        ({"any": r"n\d{1,9}"}, " ".join(f"n{number}" for number in range(MAX_PIECES)), MAX_PIECES, False),
        ({"any": r"n\d{1,9}"}, " ".join(f"n{number}" for number in range(MAX_PIECES + 1)), MAX_PIECES, True),
    ],
)
def test_a_signal_says_where_there_may_be_more_than_it_points_at(
    spec: dict[str, Any], prompt: str, pieces: int, more: bool
) -> None:
    value = signal(type="keywords", regex=True, mark=True, **spec).evaluate(inputs(prompt))
    assert value is not None
    assert (value.label, len(value.pieces), value.partial, value.more) == ("true", pieces, False, more)


def test_a_token_head_points_at_its_spans() -> None:
    spans = (Span(5, 8, "PERSON", 0.9), Span(10, 13, "PERSON", 0.8))
    heads = {"shipped": {"pii": ("none", "PERSON")}}
    built = build("pii", SignalSpec(type="classifier", head="pii"), heads)
    value = built.evaluate(inputs("I am Ann, Bob", classified=passed(pii=HeadResult("PERSON", 0.9, {}, 0.0, spans))))
    assert value is not None
    assert value.pieces == ("Ann", "Bob")
    assert not value.more


KEY = "a8f3Kd92jDq7Zx41" * 3


@pytest.mark.parametrize(
    ("text", "spans", "pieces"),
    [
        ("I am Swaminathan, Ann", [(5, 14), (16, 21)], ("Swaminathan", ", Ann")),
        (f"with sk-{KEY}.", [(5, 24), (24, 56)], (f"sk-{KEY}", KEY)),
        ("I am Ann Lee\n and", [(4, 14)], ("Ann Lee",)),
        ("Jo\u00e3ozinho, Zo\u00eb", [(3, 6), (11, 14)], ("ozinho", "Zo\u00eb")),
        ('["I am\\nAnnabel"]', [(9, 12)], ("Annabel",)),
        (r"json \u0041bc x", [(10, 12)], ("Abc",)),
        (r"json \u00fcbc x", [(11, 13)], ("bc",)),
        ('["I am\\nAnnabel\\nLee"]', [(8, 20)], ("\\nAnnabel\\nLee",)),
        ("I am", [(1, 2), (4, 4)], ()),
    ],
)
def test_what_a_token_head_points_at_is_whole_words_without_blanks(
    text: str, spans: list[tuple[int, int]], pieces: tuple[str, ...]
) -> None:
    found = HeadResult("ID", 0.9, {}, 0.0, tuple(Span(start, end, "ID", 0.9) for start, end in spans))
    built = build("pii", SignalSpec(type="classifier", head="pii"), {"shipped": {"pii": ("none", "ID")}})
    value = built.evaluate(inputs(text, classified=passed(pii=found)))
    assert value is not None
    assert value.pieces == pieces


def test_expressions_point_at_whole_words() -> None:
    built = signal(type="keywords", any=[r"sk-\w{1,40}", r"\s[a-c]\d"], regex=True, mark=True)
    value = built.evaluate(inputs(f"sk-{KEY}, then b12 and\tc3"))
    assert value is not None
    assert value.pieces == (f"sk-{KEY}", "b12", "c3")


def test_a_token_head_points_at_a_bounded_number_of_texts() -> None:
    text = "".join(f"{number:04d}," for number in range(MAX_PIECES + 1))
    spans = tuple(Span(at, at + 4, "ID", 0.9) for at in range(0, len(text), 5))
    built = build("pii", SignalSpec(type="classifier", head="pii"), {"shipped": {"pii": ("none", "ID")}})
    for repeated, more in ((text[:-5] + text[:5], False), (text, True)):
        value = built.evaluate(inputs(repeated, classified=passed(pii=HeadResult("ID", 0.9, {}, 0.0, spans))))
        assert value is not None
        assert (len(value.pieces), value.more) == (MAX_PIECES, more)


@pytest.mark.parametrize(
    "counts", ["(a{1000}){1000}", "((a{,100}){100}){100,}", "(?:a{1,400}){400}", r"([)]{500}\({500}){500}", "a{999999}"]
)
def test_expressions_that_would_take_much_memory_are_refused(counts: str) -> None:
    assert "multiply to more than 100,000" in wrong(type="keywords", any=counts, regex=True)[0][1]


def test_other_threads_take_no_time_from_expressions() -> None:
    built = signal(type="keywords", any=[r"\b[A-Z]{2}\d{2}(?: ?\w{4}){3,7}\b", r"\w+\s\w+[:=]{2}"], regex=True)
    text = inputs("ordinary words of a harmless text, again and again; " * 1_000)
    spent = time.process_time()
    assert built.evaluate(text) == SignalValue("false")
    spent = time.process_time() - spent
    stop = threading.Event()

    def burn() -> None:
        while not stop.is_set():
            zlib.compress(bytes(1_000_000), 9)

    others = [threading.Thread(target=burn) for _ in range(3)]
    for other in others:
        other.start()
    try:
        found = [built.evaluate(text) for _ in range(8)]
    finally:
        stop.set()
        for other in others:
            other.join()
    assert found == [SignalValue("false")] * 8, f"{spent:.3f} s alone"


def test_hundreds_of_quick_expressions_have_time_enough() -> None:
    words = [f"word{number}" for number in range(200)]
    spec = {
        "any": [*(f"never{number}" for number in range(199)), "word"],
        "all": words,
        "none": ["x"] * 199 + ["secret"],
    }
    found = signal(type="keywords", regex=True, **spec).evaluate(inputs(" ".join(words) + " secret"))
    assert found == SignalValue("false")


def test_slow_expressions_have_a_bounded_time_together() -> None:
    built = signal(type="keywords", any=[f"{SLOW}{number}" for number in range(100)], regex=True)
    began = time.process_time()
    assert built.evaluate(inputs(SLOWLY)) == SignalValue("false", partial=True)
    assert time.process_time() - began < 20 * REGEX_SECONDS, "a hundred times as long without a common bound"


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        (r"https?://\S+", "see https://example.com/x"),
        (r"(?:password|secret)\s*[:=]\s*\S+", "the password : hunter2"),
        (r"\w+@\w+", "ann@example"),
        ("secret.*plan", "a secret and cunning plan"),
        (r"(a)\1", "baa"),
        (r"\p{Lu}{3}", "xÄÖÜ"),
        (r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9.-]{1,255}\.[A-Za-z]{2,63}", "ann@example.com"),
        (r"eyJ[\w-]{10,500}\.[\w-]{10,500}\.[\w-]{10,500}", "eyJhbGciOiJIUzI.eyJzdWIiOiIx.SflKxwRJSMeKKF"),
        ("{} and {,}", "{} and {,}"),
    ],
)
def test_expressions_see_all_of_a_long_text(expression: str, text: str) -> None:
    assert label(signal(type="keywords", any=expression, regex=True), inputs("x " * 100_000 + text)) == "true"


def test_what_is_no_regular_expression_is_named() -> None:
    assert "`(` is not a regular expression" in wrong(type="keywords", any="(", regex=True)[0][1]
    assert wrong(type="keywords") == [(("signals", "it"), "give at least one of any, all, none")]


# time

PARIS = {
    "type": "time",
    "timezone": "Europe/Paris",
    "windows": {
        "office": {"days": ["mon", "tue", "wed", "thu", "fri"], "from": "09:00", "to": "17:30"},
        "night": {"days": ["fri"], "from": "22:00", "to": "06:00"},
    },
}


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2026-11-23T08:00:00+01:00", "none"),
        ("2026-11-23T09:00:00+01:00", "office"),
        ("2026-11-23T17:29:59+01:00", "office"),
        ("2026-11-23T17:30:00+01:00", "none"),
        ("2026-11-28T10:00:00+01:00", "none"),  # a Saturday
        ("2026-11-27T22:00:00+01:00", "night"),  # Friday evening
        ("2026-11-28T05:59:00+01:00", "night"),  # still Friday's night
        ("2026-11-28T06:00:00+01:00", "none"),
        ("2026-11-28T22:00:00+01:00", "none"),  # Saturday evening begins none
        ("2026-11-27T05:00:00+01:00", "none"),  # Thursday's night is none
        # The same wall clock in summer is another hour of UTC: daylight saving.
        ("2026-01-05T08:30:00+00:00", "office"),
        ("2026-07-06T08:30:00+00:00", "office"),
        ("2026-01-05T07:30:00+00:00", "none"),
        ("2026-07-06T07:30:00+00:00", "office"),
        # Clocks go back on Sunday 2026-10-25 at 3:00: the hour from 2:00 comes twice.
        ("2026-10-23T23:00:00+02:00", "night"),
    ],
)
def test_time_windows(now: str, expected: str) -> None:
    assert label(signal(**PARIS), inputs(now=now)) == expected


@pytest.mark.parametrize(
    ("now", "inside"),
    [
        ("2026-10-24T23:59:00+00:00", False),  # 1:59 summer time
        ("2026-10-25T00:30:00+00:00", True),  # 2:30 summer time
        ("2026-10-25T01:30:00+00:00", True),  # 2:30 again, winter time
        ("2026-10-25T02:00:00+00:00", False),  # 3:00
        ("2026-03-29T00:59:00+00:00", False),  # 1:59, the next minute is 3:00: the window does not exist that day
        ("2026-03-29T01:00:00+00:00", False),
    ],
)
def test_a_window_follows_the_wall_clock_when_the_clocks_change(now: str, inside: bool) -> None:
    built = signal(type="time", timezone="Europe/Paris", windows={"odd": {"from": "02:00", "to": "03:00"}})
    assert label(built, inputs(now=now)) == ("odd" if inside else "none")


def test_a_whole_day_and_the_defaults() -> None:
    built = signal(type="time", windows={"weekend": {"days": ["sat", "sun"]}}, otherwise="week")
    assert built.labels == ("weekend", "week")
    assert label(built, inputs(now="2026-11-28T23:59:59+00:00")) == "weekend"
    assert label(built, inputs(now="2026-11-30T00:00:00+00:00")) == "week"


def test_time_parameters_are_checked() -> None:
    assert "unknown timezone `Europe/Pari`" in wrong(type="time", timezone="Europe/Pari", windows={"a": {}})[0][1]
    assert wrong(type="time", windows={"a": {"from": "25:00"}})[0][0] == ("signals", "it", "windows", "a", "from")
    assert wrong(type="time", windows={"a": {"day": []}})[0][1] == "unknown field `day`, did you mean `days`?"
    assert wrong(type="time", timezone="../../etc/passwd", windows={"a": {}})[0][0] == ("signals", "it", "timezone")
