"""What is accepted as JSON, and what is refused at the door."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, strategies as st

from web.strict_json import BadJson, loads

DEPTH = 64


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("{}", {}),
        ("null", None),
        (' [1, 2.5, "x", true, null] ', [1, 2.5, "x", True, None]),
        ('{"a": {"a": 1}, "b": {"a": 2}}', {"a": {"a": 1}, "b": {"a": 2}}),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("1e308", 1e308),
        ("1e-999", 0.0),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\\\u0000"', "\\u0000"),
        ('"žluťoučký 鈴"', "žluťoučký 鈴"),
    ],
)
def test_good_json_is_read_as_it_is(text: str, value: Any) -> None:
    assert loads(text.encode(), DEPTH) == value


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not JSON: Expecting value at line 1 column 1"),
        (b"{", "is not JSON"),
        (b"{} {}", "is not JSON: Extra data"),
        (b"{'a': 1}", "is not JSON"),
        (b"\xef\xbb\xbf{}", "is not JSON"),
        (b'"\x00"', "is not JSON"),
        (b'{"a": "\xff"}', "is not UTF-8 at byte 7"),
        (b'"\xed\xa0\x80"', "is not UTF-8"),
        (b"NaN", "holds NaN"),
        (b"[Infinity]", "holds Infinity"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b"9223372036854775808", "beyond 64 bits"),
        (b"-9223372036854775809", "beyond 64 bits"),
        (b"1" * 5000, "beyond 64 bits"),
        (b"1e309", "too large for a double"),
        (b"[-1e999]", "too large for a double"),
        (b'{"a": 1, "a": 1}', "has the key 'a' twice"),
        (b'[{"x": {"b": 1, "c": 2, "b": 3}}]', "has the key 'b' twice"),
        # Many before it: what compared each with all would take hours.
        (
            b"{%s, %s}" % (b", ".join(b'"%d": 0' % n for n in range(50_000)), b'"9": 1'),
            "the key '9' twice",
        ),
        (b'"\\u0000"', "holds the character NUL"),
        (b'{"a\\u0000": 1}', "holds the character NUL"),
        (b'[["\\ud800"]]', "holds a lone surrogate"),
        (b'{"\\udfff": 1}', "holds a lone surrogate"),
        (b'{"a": {"b": "\\ude00\\ud83d"}}', "holds a lone surrogate"),
    ],
)
def test_what_parsers_disagree_on_is_refused_with_its_reason(body: bytes, says: str) -> None:
    with pytest.raises(BadJson, match=r"^(is|has|holds)") as caught:
        loads(body, DEPTH)
    assert says in str(caught.value)


def test_a_repeated_key_is_shown_only_in_part() -> None:
    key = b"k" * 10_000
    with pytest.raises(BadJson) as caught:
        loads(b'{"' + key + b'": 1, "' + key + b'": 2}', DEPTH)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("pair", [("[", "]"), ('{"a":', "}")])
def test_nesting_up_to_the_limit_is_read_and_beyond_it_refused(pair: tuple[str, str]) -> None:
    def nested(depth: int) -> bytes:
        return (pair[0] * depth + "1" + pair[1] * depth).encode()

    loads(nested(DEPTH), DEPTH)
    for depth in (DEPTH + 1, 100_000):
        with pytest.raises(BadJson, match="nested deeper than 64 levels"):
            loads(nested(depth), DEPTH)


def test_many_brackets_side_by_side_or_in_texts_are_not_depth() -> None:
    assert loads(b"[" + b"[]," * 1000 + b"[]]", DEPTH) == [[]] * 1001
    text = '[{"\\' * 1000
    assert loads(json.dumps({"a": text}).encode(), DEPTH) == {"a": text}


@pytest.mark.parametrize("body", [b'"' + b"[" * 1000, b'"\\' + b"[" * 1000, b"]" * 100 + b"[" * 70])
def test_broken_texts_full_of_brackets_are_refused_too(body: bytes) -> None:
    with pytest.raises(BadJson):
        loads(body, DEPTH)


_texts = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]))
_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | _texts,
    lambda inner: st.lists(inner) | st.dictionaries(_texts, inner),
    max_leaves=20,
)


@pytest.mark.slow
@given(value=_values, ascii_only=st.booleans())
def test_what_is_written_is_read_back(value: Any, ascii_only: bool) -> None:
    assert loads(json.dumps(value, ensure_ascii=ascii_only).encode(), DEPTH) == value


@given(body=st.binary() | st.text(alphabet='[]{}":,\\u0d81e.-tfn ').map(str.encode))
def test_any_bytes_are_read_or_refused_and_never_crash(body: bytes) -> None:
    try:
        value = loads(body, DEPTH)
    except BadJson:
        return
    json.dumps(value).encode()
