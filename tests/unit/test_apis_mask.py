"""Masking: every spelling of a text inside human strings, never anything else, never another length."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_extproc.apis.mask import TEXT_KEYS, mask


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


def test_words_stay_whole() -> None:
    body = b'{"content": "Ann Annette Joann\\nAnn\\u0041nn xAnn Ann7"}'
    assert masked(body, "Ann") == b'{"content": "*** Annette Joann\\n***\\u0041nn xAnn Ann7"}'


def test_nothing_to_do_changes_nothing() -> None:
    assert mask([b'{"content": "x"}'], []) == {}
    assert mask([b'{"content": "x"}'], ["", " ", "y"]) == {}


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
