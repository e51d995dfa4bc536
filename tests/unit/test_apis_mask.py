"""Masking: every spelling of a text inside human strings, never anything else, never another length."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.apis.body_texts import BLOCK, EDGE, LEVELS, TEXT_KEYS
from router_extproc.apis.content import BROUGHT_KEYS
from router_extproc.apis.mask import Pieces, mask
from router_extproc.apis.table import for_path
from router_extproc.words import whole_words


def masked(body: bytes, *texts: str, size: int = 1 << 20) -> bytes:
    chunks = [body[start : start + size] for start in range(0, len(body), size)]
    changed = mask(chunks, texts)
    assert all(changed[index] != chunks[index] for index in changed)
    assert all(len(changed[index]) == len(chunks[index]) for index in changed)
    return b"".join(changed.get(index, chunk) for index, chunk in enumerate(chunks))


CHAT: dict[str, Any] = {
    "model": "Ann",
    "user": "Ann",
    "messages": [
        {"role": "Ann", "name": "Ann", "content": "I am Ann.\nAnn's sister is Annette; call 555-0199."},
        {"content": None, "Ann": "Ann", "role": "Ann"},
        {"role": "user", "content": [{"type": "text", "text": "Ann"}, {"type": "image_url", "image_url": "Ann"}]},
        {
            "role": "assistant",
            "tool_calls": [{"id": "Ann", "function": {"name": "Ann", "arguments": '{"who": "Ann"}'}}],
        },
    ],
    "stop": ["Ann"],
    "input": ["Ann", ["Ann", 3, "x"], {"id": "Ann"}],
    "metadata": {"n": 1, "Ann": "Ann"},
}


@pytest.mark.parametrize("size", [1, 7, 64, 1 << 20])
def test_only_human_strings_change(size: int) -> None:
    found = json.loads(masked(json.dumps(CHAT).encode(), "Ann", "555-0199", size=size))
    expected = json.loads(json.dumps(CHAT))
    expected["messages"][0]["content"] = "I am ***.\n***'s sister is Annette; call ********."
    expected["messages"][2]["content"][0]["text"] = "***"
    expected["messages"][3]["tool_calls"][0]["function"]["arguments"] = '{"who": "***"}'
    expected["input"] = ["***", ["***", 3, "x"], {"id": "Ann"}]
    assert found == expected


@pytest.mark.parametrize(
    ("spelled", "text"),
    [
        ('"Zo\\u00eb"', "Zoë"),
        ('"Zo\\u00EB"', "Zoë"),
        ('"Zoë"', "Zoë"),
        ('"\\u005aoë"', "Zoë"),
        ('"say \\"hi\\""', '"hi"'),
        ('"a\\/b"', "a/b"),
        ('"a/b"', "a/b"),
        ('"C:\\\\temp"', "C:\\temp"),
        ('"two\\nlines"', "two\nlines"),
        ('"tab\\there"', "tab\there"),
        ('"\\ud83d\\ude00"', "😀"),
        ('"😀"', "😀"),
    ],
)
def test_every_spelling_is_found(spelled: str, text: str) -> None:
    body = f'{{"content": {spelled}}}'.encode()
    found = json.loads(masked(body, text))["content"]
    assert text not in found
    assert "*" in found


@pytest.mark.parametrize("name", ["José", "Zoë 😀", 'Jo "J" Doe', "two\nlines", "C:\\temp", "Ann"])
@pytest.mark.parametrize("outer", [False, True])
@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("before", ["", "Result: "])
def test_json_in_a_string_is_unescaped_too(name: str, outer: bool, inner: bool, before: str) -> None:
    value = [f"to:\n{name}\tand"]
    for depth in range(1, LEVELS):
        value = [json.dumps(value, ensure_ascii=inner)]
        body = json.dumps({"messages": [{"role": "tool", "content": before + value[0]}]}, ensure_ascii=outer).encode()
        found = json.loads(masked(body, name))["messages"][0]["content"].removeprefix(before)
        for _ in range(depth):
            [found] = json.loads(found)
        assert re.fullmatch(r"to:\n\*+\tand", found)


def test_backslashes_that_escape_nothing_stay() -> None:
    before = ["C:\\", "Ann", "\\u", "000Ann", "\\u00", "Ann\\", r"\d \qAnn \uAnn \n"]
    after = ["C:\\", "***", "\\u", "000Ann", "\\u00", "***\\", r"\d \qAnn \uAnn \n"]
    assert json.loads(masked(json.dumps({"input": before}).encode(), "Ann"))["input"] == after


def test_words_stay_whole() -> None:
    body = b'{"content": "Ann Annette Joann\\nAnn\\u0041nn xAnn Ann7"}'
    assert masked(body, "Ann") == b'{"content": "*** Annette Joann\\nAnn\\u0041nn xAnn Ann7"}'


@given(st.text(alphabet="aZ7é😀- \n\\n", max_size=12), st.integers(0, 12), st.integers(0, 12), st.booleans())
def test_wherever_a_signal_points_something_is_masked(text: str, start: int, end: int, ascii_only: bool) -> None:
    pieces = list(whole_words(text, [(min(start, len(text)), min(end, len(text)))]))
    body = json.dumps({"content": text}, ensure_ascii=ascii_only).encode()
    assert bool(pieces) == bool(text[start:end].strip())
    assert (masked(body, *pieces) != body) == bool(pieces)


def test_nothing_to_do_changes_nothing() -> None:
    assert mask([b'{"content": "x"}'], []) == {}
    assert mask([b'{"content": "x"}'], ["", " ", "y"]) == {}


def test_an_escape_is_one_character() -> None:
    body = b'{"content": "a\\nb u0041 \\u0041 \\\\n n"}'
    assert masked(body, "n", "u0041") == b'{"content": "a\\nb ***** \\u0041 \\\\* *"}'


def test_what_is_masked_may_overlap() -> None:
    assert masked(b'{"content": "Ann Lee May, Lee"}', "Ann Lee", "Lee May") == b'{"content": "***********, Lee"}'


def test_arguments_of_tools_stay_json() -> None:
    arguments = {"number": 5550199, "at": -12.5, "text": "call 5550199 or 555-0199", "other": 55501990}
    body = {"messages": [{"tool_calls": [{"function": {"arguments": json.dumps(arguments)}}], "content": "5550199"}]}
    found = json.loads(masked(json.dumps(body).encode(), "5550199", "12.5", "555-0199"))["messages"][0]
    assert json.loads(found["tool_calls"][0]["function"]["arguments"]) == {
        "number": 1111111,
        "at": -1111,
        "text": "call 1111111 or ********",
        "other": 55501990,
    }
    assert found["content"] == "*******"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('{"source": {"type": "text", "data": "a,Ann,1"}}', '{"source": {"type": "text", "data": "a,***,1"}}'),
        (
            '{"source": {"data": "a,Ann,1", "type": "te\\u0078t"}}',
            '{"source": {"data": "a,***,1", "type": "te\\u0078t"}}',
        ),
        ('{"source": {"type": "base64", "data": "/Ann/"}}', '{"source": {"type": "base64", "data": "/Ann/"}}'),
        ('{"type": "program_output", "result": "Ann"}', '{"type": "program_output", "result": "***"}'),
        (
            '{"result": "/Ann/", "type": "image_generation_call"}',
            '{"result": "/Ann/", "type": "image_generation_call"}',
        ),
        (
            '{"documents": ["Ann", {"text": "Ann", "id": "Ann"}]}',
            '{"documents": ["***", {"text": "***", "id": "Ann"}]}',
        ),
        (
            '{"prompt": {"id": "Ann", "variables": {"Ann": "Ann"}}}',
            '{"prompt": {"id": "Ann", "variables": {"Ann": "***"}}}',
        ),
        ('{"tools": [{"variables": {"x": "Ann"}}]}', '{"tools": [{"variables": {"x": "Ann"}}]}'),
        (
            '{"messages": [{"content": [{"input": {"a": "Ann", "b": [{"c": ["Ann"]}]}, "id": "Ann", "type": "x"}]}]}',
            '{"messages": [{"content": [{"input": {"a": "***", "b": [{"c": ["***"]}]}, "id": "Ann", "type": "x"}]}]}',
        ),
        (
            '{"input": [{"type": "function_call", "arguments": {"who": {"x": "Ann"}}, "id": "Ann"}]}',
            '{"input": [{"type": "function_call", "arguments": {"who": {"x": "***"}}, "id": "Ann"}]}',
        ),
        (
            '{"input": [{"tools": [{"input_schema": {"properties": {"input": {"enum": ["Ann"]}}}}]}]}',
            '{"input": [{"tools": [{"input_schema": {"properties": {"input": {"enum": ["Ann"]}}}}]}]}',
        ),
        ('{"tools": [{"settings": {"input": {"x": "Ann"}}}]}', '{"tools": [{"settings": {"input": {"x": "Ann"}}}]}'),
        ('{"con\\u0074ent" : "Ann"}', '{"con\\u0074ent" : "***"}'),
        ('{"type": "refusal", "refusal": "Ann"}', '{"type": "refusal", "refusal": "***"}'),
        ('{"type": "thinking", "thinking": "Ann"}', '{"type": "thinking", "thinking": "***"}'),
        ('{"thinking": "Ann", "signature": ""}', '{"thinking": "***", "signature": ""}'),
        ('{"thinking": "Ann", "signature": "x"}', '{"thinking": "Ann", "signature": "x"}'),
        ('{"signature": "x", "thinking": "Ann"}', '{"signature": "x", "thinking": "Ann"}'),
        ('{"reasoning": "Ann", "reasoning_content": "Ann"}', '{"reasoning": "***", "reasoning_content": "***"}'),
        ('{"reasoning": "Ann", "signature": "x"}', '{"reasoning": "Ann", "signature": "x"}'),
        ('{"reasoning": {"effort": "Ann"}}', '{"reasoning": {"effort": "Ann"}}'),
        (
            '{"type": "reasoning", "summary": [{"text": "Ann"}], "encrypted_content": "Ann"}',
            '{"type": "reasoning", "summary": [{"text": "***"}], "encrypted_content": "Ann"}',
        ),
        ('{"type": "reasoning", "content": [{"text": "Ann"}]}', '{"type": "reasoning", "content": [{"text": "***"}]}'),
        ('{"prompt": "Ann", "suffix": "Ann"}', '{"prompt": "***", "suffix": "***"}'),
    ],
)
def test_where_a_text_is_told_from_what_is_none(before: str, after: str) -> None:
    assert masked(before.encode(), "Ann") == after.encode()


@pytest.mark.parametrize("spelled", ["Zo\u00eb", "Zo\\u00eb \\ud83d\\ude00", 'Zo\u00eb \\"\\\\'])
def test_a_string_of_several_blocks_is_masked_throughout(spelled: str) -> None:
    text = f'{{"content": "{f"{spelled} is Zoey " * (3 * BLOCK // len(spelled))}"}}'
    found = json.loads(masked(text.encode(), "Zo\u00eb", size=100_000))["content"]
    whole = json.loads(text)["content"]
    assert "Zo\u00eb" in whole
    assert found == whole.replace("Zo\u00eb", "****" if "\\u00eb" not in spelled else "*" * 8)


def test_a_piece_that_lies_across_a_cut_is_found_once_and_whole() -> None:
    for shift in range(-12, 3):
        body = b'{"content": "' + b"-" * (BLOCK + shift) + b'Ann Lee" , "x": 1}'
        assert masked(body, "Ann Lee") == body.replace(b"Ann Lee", b"*******")
        # Not within a word, though the word is cut.
        assert mask([body.replace(b"Ann Lee", b"xAnn Leex")], ["Ann Lee"]) == {}


def test_json_in_a_string_that_is_cut_is_unescaped_too() -> None:
    for spelled in (rb"\\u0041\\u006e\\u006e", rb"\\\\u0041\\\\u006e\\\\u006e", rb"\\\\nAnn\\\\n"):
        for shift in range(-len(spelled), 1):
            body = b'{"content": "' + b"-" * (BLOCK + shift) + spelled + rb' - " , "x": 1}'
            assert masked(body, "Ann") == body.replace(spelled, re.sub(rb"Ann|\\+u.{4}", _stars, spelled))


def _stars(found: re.Match[bytes]) -> bytes:
    return b"*" * len(found[0])


def test_all_texts_are_masked_however_many() -> None:
    words = [f"user{number:04d}" for number in range(3_000)]
    assert b"user" not in masked(json.dumps({"content": words}).encode(), *words)


def test_many_texts_are_looked_for_at_once() -> None:
    text = EDGE + b"plain words of a text with an unusual user0007.name in it, " * 5_000 + EDGE
    one = Pieces(["user0007.name"])
    many = Pieces([f"user{number:04d}.name" for number in range(1_000)])
    assert len(many.candidates(text)) == len(one.candidates(text)) == 5_000 * 1
    assert list(many.find(text)) == list(one.find(text))


KINDS = st.sampled_from(["tool_result", "document", "search_result", "image", "unknown", "mcp_call", "reasoning"])
WORDS = st.integers(0, 9).map("Zq{}".format)
TEXTS = st.lists(
    WORDS | st.sampled_from(["\u00e9", '"', "\\", "\n", "<rules>", "\U0001f600"]), min_size=1, max_size=4
).map(" ".join)
BROUGHT = st.sampled_from(sorted(BROUGHT_KEYS - {"text"}))


def objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    sources = st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "content", "base64"])}, optional={"data": TEXTS, "content": inner}
    )
    others = st.fixed_dictionaries({}, optional={"source": sources, "data": TEXTS, "type": KINDS, "id": WORDS})
    return st.builds(lambda one, more: {**one, **more}, others, st.dictionaries(BROUGHT, inner, max_size=2))


VALUES: st.SearchStrategy[Any] = st.recursive(
    TEXTS, lambda inner: st.lists(inner, max_size=3) | objects(inner), max_leaves=6
)
PART = TEXTS | TEXTS.map(lambda text: {"type": "text", "text": text}) | objects(VALUES)
CONTENT = TEXTS | st.lists(PART, max_size=3)
SAID = st.fixed_dictionaries({"role": st.sampled_from(["user", "user", "assistant"]), "content": CONTENT})
TOLD = st.fixed_dictionaries({"role": st.just("tool"), "content": VALUES})
ITEM = st.builds(
    lambda kind, item: {**item, "type": kind},
    st.sampled_from(["function_call_output", "mcp_call", "program_output", "image_generation_call"]),
    objects(VALUES),
)
PROMPT = st.fixed_dictionaries({"variables": st.dictionaries(WORDS, PART, max_size=2)})
REQUESTS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "/v1/chat/completions": st.fixed_dictionaries(
        {"messages": st.lists(SAID | TOLD, min_size=1, max_size=3)},
        optional={"documents": st.lists(VALUES, max_size=2)},
    ),
    "/v1/messages": st.fixed_dictionaries({"messages": st.lists(SAID, min_size=1, max_size=3)}),
    "/v1/responses": st.fixed_dictionaries(
        {"input": TEXTS | st.lists(SAID | ITEM, min_size=1, max_size=3)}, optional={"prompt": PROMPT}
    ),
    "/v1/completions": st.fixed_dictionaries({"prompt": TEXTS | st.lists(TEXTS)}),
    "/v1/embeddings": st.fixed_dictionaries({"input": TEXTS | st.lists(TEXTS)}),
}


@pytest.mark.parametrize("path", REQUESTS)
@given(st.data(), st.booleans())
def test_nothing_that_is_read_stays(path: str, data: st.DataObject, ascii_only: bool) -> None:
    raw = json.dumps({"model": "auto", **data.draw(REQUESTS[path])}, ensure_ascii=ascii_only).encode()
    found = words_read(path, raw)
    assert words_read(path, masked(raw, *found)) == set()


def words_read(path: str, raw: bytes) -> set[str]:
    api = for_path(path)
    assert api is not None
    reader = api.reader()
    reader.feed(raw)
    request = reader.finish()
    return set(re.findall(r"Zq\d", " ".join([request.prompt, *request.written])))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet='aA"\\b é\n', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["content", "text", "role", "a", "x"]), inner, max_size=3)
    ),
    max_leaves=12,
)


def expected_of(value: Any, text: str, human: bool = False) -> bool:
    """Whether `text`, as a whole string, may still stand somewhere that is masked."""
    if isinstance(value, dict):
        return any(expected_of(item, text, key.encode() in TEXT_KEYS) for key, item in value.items())
    if isinstance(value, list):
        return any(expected_of(item, text, human) for item in value)
    return human and value == text


@given(json_values, st.sampled_from(["a", "A", 'a"', "é", "\\b"]), st.booleans(), st.integers(1, 9))
def test_any_document_stays_a_document_of_the_same_shape(value: Any, text: str, ascii_only: bool, size: int) -> None:
    body = json.dumps(value, ensure_ascii=ascii_only).encode()
    after = masked(body, text, size=size)
    assert len(after) == len(body)
    assert shape(json.loads(after)) == shape(value)
    assert not expected_of(json.loads(after), text)


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return str if isinstance(value, str) else value
