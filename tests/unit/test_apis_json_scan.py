"""The scanner accepts exactly what `json` accepts and sees the same values, however the body is cut."""

from __future__ import annotations

import itertools
import json
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from router_extproc.apis import json_scan
from router_extproc.apis.json_scan import Scanner
from router_extproc.apis.long_string import HEAD, LEFT_OUT, TAIL
from router_extproc.errors import BodyTooLarge, MalformedBody

FIELDS = frozenset({"model", "messages", "input", "a"})


class Collected:
    """A sink that puts the fields together again."""

    def __init__(self) -> None:
        self.fields: dict[str, Any] = {}

    def member(self, key: str, value: Any) -> None:
        self.fields[key] = value

    def elements(self, key: str, values: list[Any]) -> None:
        self.fields.setdefault(key, []).extend(values)


def scan(*chunks: bytes) -> tuple[dict[str, Any], Scanner]:
    sink = Collected()
    scanner = Scanner(FIELDS, sink)
    for chunk in chunks:
        scanner.feed(chunk)
    scanner.finish()
    return sink.fields, scanner


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    borders = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in itertools.pairwise(borders)]


TRICKY_TEXT = st.text(st.sampled_from('"\\{}[],: \n\u00e9\u20ac\U0001f600\ud83dabu0'), max_size=12)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TRICKY_TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TRICKY_TEXT, inner, max_size=4),
    max_leaves=12,
)
BODIES = st.dictionaries(st.sampled_from(sorted(FIELDS)) | TRICKY_TEXT, JSON_VALUES, max_size=6)
CUTS = st.lists(st.integers(0, 10_000), max_size=6)


def encode(value: Any, ascii_only: bool, indent: int | None) -> bytes:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    return text.encode("utf-8", "strict" if ascii_only else "replace")


@given(BODIES, CUTS, st.booleans(), st.sampled_from([None, 1]))
def test_sees_what_json_sees(body: dict[str, Any], cuts: list[int], ascii_only: bool, indent: int | None) -> None:
    raw = encode(body, ascii_only, indent)
    fields, scanner = scan(*split(raw, cuts))
    whole = json.loads(raw)
    assert fields == {key: value for key, value in whole.items() if key in FIELDS}
    if isinstance(whole.get("model", []), list | dict):
        assert scanner.model_span is None
    else:
        assert scanner.model_span is not None
        start, end = scanner.model_span
        assert json.loads(raw[start:end]) == whole["model"]


BODY = {
    "x": {"model": 'not "this" one'},
    "a": ["t\\", 1, 23, 4.5e6, [[]], {}, 'q"'],
    "mod\u00e9l": [],
    "model": 'auto\\"\u00e9',
    "messages": [{"role": "user", "content": '\u00e9t\u00e9 \U0001f600 {["\\'}, {"x": [1, {"y": None}]}],
    "input": "end\\",
}


@pytest.mark.parametrize("ascii_only", [True, False])
@pytest.mark.parametrize("indent", [None, 2])
def test_every_position_may_be_a_border(ascii_only: bool, indent: int | None) -> None:
    raw = encode(BODY, ascii_only, indent)
    expected = {key: value for key, value in BODY.items() if key in FIELDS}
    for cut in range(len(raw) + 1):
        fields, scanner = scan(raw[:cut], raw[cut:])
        assert fields == expected
        assert scanner.model_span is not None
        start, end = scanner.model_span
        assert json.loads(raw[start:end]) == BODY["model"]
    fields, _ = scan(*(raw[at : at + 1] for at in range(len(raw))))
    assert fields == expected


def json_accepts(raw: bytes) -> bool:
    keys: list[str] = []  # of the object that was completed last: at the end the outermost

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    def remember(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys[:] = [key for key, _ in pairs]
        return dict(pairs)

    try:
        body = json.loads(raw.decode(), parse_constant=refuse, object_pairs_hook=remember)
    except ValueError:
        return False
    return isinstance(body, dict) and not any(keys.count(key) > 1 for key in FIELDS)


PIECES = [b"", b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b".5", b"e1", b"-", b" ", b"\n", b"\x00", b"\xff"]


@given(
    BODIES,
    CUTS,
    st.lists(st.tuples(st.integers(0, 500), st.integers(0, 2), st.sampled_from(PIECES)), min_size=1, max_size=3),
)
@example({"messages": [{"a": 1}]}, [13], [(22, 0, b".5")])
@example({"a": 5}, [], [(7, 0, b"[1]")])
def test_refuses_what_json_refuses(body: dict[str, Any], cuts: list[int], edits: list[tuple[int, int, bytes]]) -> None:
    raw = encode(body, False, None)
    for at, length, piece in edits:
        at %= len(raw) + 1
        raw = raw[:at] + piece + raw[at + length :]
    try:
        scan(*split(raw, cuts))
        accepted = True
    except MalformedBody:
        accepted = False
    assert accepted == json_accepts(raw)


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "empty"),
        (b"  \n", "too early"),
        (b"[]", "not a JSON object"),
        (b'"text"', "not a JSON object"),
        (b"12", "not a JSON object"),
        (b"\xef\xbb\xbf{}", "not a JSON object"),
        (b"{}{}", "goes on"),
        (b"{} x", "goes on"),
        (b"{}\xc3", "too early"),
        (b"}", "not a JSON object"),
        (b'{"a":1', "too early"),
        (b'{"a":"x', "too early"),
        (b'{"messages":[}', "not valid JSON"),
        (b'{"messages":[{"a":1},]}', "not valid JSON"),
        (b'{"messages":[,{"a":1}]}', "not valid JSON"),
        (b'{"messages":[{"a":1}{"a":1}]}', "not valid JSON"),
        (b'{"messages":[{"a":1}"x"]}', "not valid JSON"),
        (b'{"a":5[1]}', "not valid JSON"),
        (b'{"a":[]"x":1}', "not valid JSON"),
        (b'{"a":[],}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"messages":[-Infinity]}', "-Infinity is not JSON"),
        (b'{"a":"\n"}', "control character"),
        (b'{"a":"\xff"}', "UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "UTF-8"),
        ("{}".encode("utf-16"), "not a JSON object"),
        (b'{"a":"\\x"}', "escape"),
        (b'{"a":' + b"1" * 5000 + b"}", "4300 digits"),
        (b'{"model":"a","model":"b"}', "'model' occurs twice"),
        (b'{"model":"a","x":[],"mod\\u0065l":"b"}', "'model' occurs twice"),
        (b'{"messages":[1],"messages":[2]}', "'messages' occurs twice"),
        (b'{"x":' + b"[" * 1000, "nested deeper"),
        (b'{"a":' + b'{"a":' * 200 + b"1" + b"}" * 201, "nested deeper"),
        (b"{" + b",".join(b'"k%d":1' % number for number in range(10_001)) + b"}", "10000 fields"),
    ],
)
@pytest.mark.parametrize("chunk", [29, 1 << 20])
def test_says_what_is_wrong(raw: bytes, says: str, chunk: int) -> None:
    with pytest.raises(MalformedBody, match=says):
        scan(*(raw[at : at + chunk] for at in range(0, len(raw), chunk)))


def test_errors_come_as_early_as_an_element_is_complete() -> None:
    scanner = Scanner(FIELDS, Collected())
    with pytest.raises(MalformedBody):
        scanner.feed(b'{"messages":[{"role" "user"},')


def test_the_number_of_containers_is_bounded() -> None:
    with pytest.raises(MalformedBody, match="objects and arrays"):
        scan(b'{"x":[' + b"[]," * json_scan.MAX_CONTAINERS)


def test_depth_up_to_the_limit_is_fine() -> None:
    levels = json_scan.MAX_DEPTH - 1
    fields, _ = scan(b'{"a":' + b"[" * levels + b"]" * levels + b"}")
    assert len(fields["a"]) == 1


def test_model_is_found_by_an_escaped_key_and_after_long_strings() -> None:
    long = "word \u00e9 \\ " * 40_000
    raw = json.dumps({"input": long, "a": long, "z": 1}, ensure_ascii=False).encode()
    raw = raw[:-1] + b' , "mod\\u0065l" :\n"au\\u0074o"}'
    for size in (1000, 70_001, len(raw)):
        fields, scanner = scan(*(raw[at : at + size] for at in range(0, len(raw), size)))
        assert fields["model"] == "auto"
        assert scanner.model_span is not None
        start, end = scanner.model_span
        assert raw[start:end] == b'"au\\u0074o"'


UNITS = ["plain words ", "\u00e9\u20ac\U0001f600", 'say "no" \\\\ \n\t', "\\"]


@pytest.mark.parametrize("unit", UNITS)
@pytest.mark.parametrize("size", [137, 4097, 65_536, 10_000_000])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_long_text_keeps_head_and_tail(unit: str, size: int, ascii_only: bool) -> None:
    text = unit * ((100_000 if size == 137 else 400_000) // len(unit))
    raw = json.dumps({"messages": [{"content": text}, text, 1]}, ensure_ascii=ascii_only).encode()
    fields, scanner = scan(*(raw[at : at + size] for at in range(0, len(raw), size)))
    message, second, one = fields["messages"]
    assert one == 1
    for kept in (message["content"], second):
        head, tail = kept.split(LEFT_OUT)
        head, tail = head.rstrip("\ud83d"), tail.lstrip("\ude00")  # a cut between the two escapes of one emoji is fine
        assert text.startswith(head)
        assert text.endswith(tail)
        assert HEAD <= len(json.dumps(head, ensure_ascii=ascii_only).encode()) <= HEAD + 20
        assert TAIL - 10 <= len(json.dumps(tail, ensure_ascii=ascii_only).encode()) <= 2 * TAIL + 10
    assert scanner.opaque == 0
    assert scanner.size == len(raw)


@pytest.mark.parametrize("size", [100, 4096, 100_000, 10_000_000])
def test_text_that_just_fits_is_whole(size: int) -> None:
    text = "\u00e9t\u00e9 " * (HEAD // 6) + "end " * (TAIL // 4)
    raw = json.dumps({"input": text}, ensure_ascii=False).encode()
    fields, _ = scan(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert fields["input"] == text


@pytest.mark.parametrize("bad", [b"\x01", b"\\q", b"\\u12g4", b"\xff", b"\xc3\x28", b"\n"])
@pytest.mark.parametrize("position", [10, HEAD + 30_000, 299_000])
@pytest.mark.parametrize("size", [1000, 10_000_000])
@pytest.mark.parametrize("filler", [b"words and ", b"iVBORw0KGgo+/A9"])
def test_the_middle_of_a_long_string_is_checked(bad: bytes, position: int, size: int, filler: bytes) -> None:
    content = bytearray(filler * 30_000)
    content[position:position] = bad
    raw = b'{"messages":["' + content + b'"]}'
    with pytest.raises(MalformedBody):
        scan(*(raw[at : at + size] for at in range(0, len(raw), size)))


@pytest.mark.parametrize("prefix", ["data:image/png;base64,", "data:image\\/png;base64,", ""])
@pytest.mark.parametrize("size", [113, 5000, 10_000_000])
def test_base64_is_left_out(prefix: str, size: int) -> None:
    raw = ('{"messages":[{"url":"' + prefix + "iVBORw0KGgo+/A9" * 20_000 + '"},2]}').encode()
    fields, scanner = scan(*(raw[at : at + size] for at in range(0, len(raw), size)))
    assert fields["messages"][1] == 2
    assert len(fields["messages"][0]["url"]) < 1000
    assert 298_000 < scanner.opaque < 300_000


BLOB = "iVBORw0KGgo+/A9"


@pytest.mark.parametrize(
    "before",
    [
        "data:;base64," + BLOB * 100,
        BLOB * 100,
        "data:image/png;base64," + BLOB * 20_000,
        "\r\n".join([BLOB * 5] * 400),
        "",
    ],
)
@pytest.mark.parametrize("between", [" ", "\u00e9", ".", "\\", "\t"])
@pytest.mark.parametrize("size", [113, 5000, 10_000_000])
def test_text_that_begins_like_base64_is_read(before: str, between: str, size: int) -> None:
    text = before + between + "and then words, " * 2000 + "Bluebird " + "more words, " * 2000
    raw = json.dumps({"model": "auto", "messages": [{"content": text}], "input": text, "a": True}).encode()
    fields, scanner = scan(*(raw[at : at + size] for at in range(0, len(raw), size)))
    for kept in (fields["messages"][0]["content"], fields["input"]):
        assert text.endswith(kept.partition(LEFT_OUT)[2])
        assert "words, Bluebird more" in kept
    assert fields["a"] is True
    assert scanner.opaque <= 2 * len(json.dumps(before))
    assert raw[slice(*scanner.model_span or ())] == b'"auto"'


def test_words_below_each_other_are_no_base64() -> None:
    text = BLOB * 20 + "\n" + "Tell\nme\nabout\nit\n" * 500 + "Bluebird\n" + "and\nmore\n" * 500
    raw = json.dumps({"input": text}).encode()
    fields, _ = scan(raw)
    assert "Bluebird" in fields["input"]


def test_what_stands_after_text_that_began_like_base64_is_found() -> None:
    text = BLOB * 3000 + " and words" * 20_000
    body = json.dumps({"other": text, "input": text, "model": "auto"}).encode()
    for size in (1000, 10_000_000):
        _, scanner = scan(*(body[at : at + size] for at in range(0, len(body), size)))
        assert body[slice(*scanner.model_span or ())] == b'"auto"'
        # Of `other`, which is no input, nothing counts, and each of its gaps once; of `input` the words do.
        assert 200_000 <= scanner.size - scanner.ignored - scanner.opaque < 201_500


def test_one_value_has_a_limit_and_the_body_has_none() -> None:
    element = b'{"content":[' + b'"words and words",' * 100 + b'""]},'
    scanner = Scanner(FIELDS, Collected())
    scanner.feed(b'{"messages":[')
    for _ in range(12 * 1024 * 1024 // len(element)):
        scanner.feed(element)
    scanner.feed(b'{"content":[')
    for _ in range(7):
        scanner.feed(b'"words and words",' * 65_536)
    with pytest.raises(BodyTooLarge, match="One value") as caught:
        scanner.feed(b'"words and words",' * 65_536)
    assert caught.value.param == "messages"


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"input":"half a sen', ("input", "half a sen")),
        (b'{"model":"m","input":"ab\\u00', ("input", "ab")),
        (
            b'{"messages":[{"a":1},{"content":[{"t":"x"},{"t":"half',
            ("messages", {"content": [{"t": "x"}, {"t": "half"}]}),
        ),
        (b'{"a":{"b":["\xc3\xa9 \xc3', ("a", {"b": ["\u00e9 "]})),
        (b'{"messages":[{"cont', None),
        (b'{"messages":[{"content":"whole"', None),
        (b'{"other":"half', None),
        (b"{", None),
    ],
)
def test_unfinished(raw: bytes, expected: tuple[str, Any] | None) -> None:
    scanner = Scanner(FIELDS, Collected())
    scanner.feed(raw)
    assert scanner.unfinished() == expected
