"""The rules of single fields, with what they say when broken."""

from __future__ import annotations

from typing import Annotated, Any, get_type_hints

import attrs
import pytest
from hypothesis import given, strategies as st

from engine.core.rules import (
    HEADERS,
    Rule,
    between,
    items,
    problems_of,
    rules_of,
    string_map,
    text,
)
from engine.core.task import RetryPolicy, TaskSpec


def said(rule: Rule, value: object) -> str:
    return rule.broken(value) or ""


# -- text, numbers, maps -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("ab", ""),
        ("größe", ""),
        ("\U0001f600" * 5, ""),
        ("a", "must have 2 to 5 characters, not 1"),
        ("abcdef", "must have 2 to 5 characters, not 6"),
        ("a\x00b", "must not contain NUL"),
        ("a\ud800b", "must not contain lone surrogates"),
    ],
)
def test_text(value: str, problem: str) -> None:
    assert said(text(2, 5), value) == problem


@given(st.text(st.characters(codec=None), max_size=10))
def test_text_that_passes_can_be_stored_anywhere(value: str) -> None:
    if text(0, 10).broken(value) is None:
        value.encode()
        assert "\x00" not in value


@pytest.mark.parametrize(
    ("value", "fine"),
    [(1, True), (2.5, True), (3, True), (0.9, False), (3.1, False), (float("nan"), False)],
)
def test_between(value: float, fine: bool) -> None:
    assert (between(1, 3).broken(value) is None) is fine


def test_between_names_its_bounds() -> None:
    assert said(between(0.1, 1800), 5000) == "must be from 0.1 to 1800, not 5000"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({}, ""),
        ({"a": "b", "c": ""}, ""),
        ({"a": "", "b": "", "c": ""}, "must have at most 2 entries, not 3"),
        ({"": "b"}, "'' must have 1 to 100 characters, not 0"),
        ({"k" * 101: "b"}, f"'{'k' * 100}' must have 1 to 100 characters, not 101"),
        ({"a": "12345"}, "'a' must have 0 to 4 characters, not 5"),
        ({"a": "\x00"}, "'a' must not contain NUL"),
    ],
)
def test_string_map(value: dict[str, str], problem: str) -> None:
    assert said(string_map(2, 4), value) == problem


def test_rules_show_in_the_schema() -> None:
    assert text(1, 2).schema == {"minLength": 1, "maxLength": 2}
    assert between(1, 2).schema == {"minimum": 1, "maximum": 2}
    assert string_map(3, 4).schema["maxProperties"] == 3


# -- headers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer abc=="},
        {"X-Empty": ""},
        {"X-Inner": "a \t b"},
        {"!#$%&'*+.^_`|~": "~"},
        {"a" * 100: "x" * 4096},
        {f"X-{n}": "v" for n in range(20)},
    ],
    ids=lambda headers: str(headers)[:30],
)
def test_headers_that_may_go_out(headers: dict[str, str]) -> None:
    assert HEADERS.broken(headers) is None


@pytest.mark.parametrize(
    ("headers", "part"),
    [
        ({f"X-{n}": "v" for n in range(21)}, "at most 20 headers, not 21"),
        ({"X-A": "1", "x-a": "2"}, "names the same header twice"),
        ({"": "v"}, "is not a header name"),
        ({"a b": "v"}, "is not a header name"),
        ({"a:": "v"}, "is not a header name"),
        ({"a\n": "v"}, "is not a header name"),
        ({"ä": "v"}, "is not a header name"),
        ({"a" * 101: "v"}, "is not a header name"),
        ({"X": "a\r\nInjected: b"}, "visible ASCII"),
        ({"X": "a\n"}, "visible ASCII"),
        ({"X": "a\x00"}, "visible ASCII"),
        ({"X": "ä"}, "visible ASCII"),
        ({"X": " a"}, "visible ASCII"),
        ({"X": "a\t"}, "visible ASCII"),
        ({"X": "x" * 4097}, "at most 4096 characters"),
        ({"Host": "v"}, "cannot be overridden"),
        ({"CONTENT-LENGTH": "1"}, "cannot be overridden"),
        ({"Transfer-Encoding": "chunked"}, "cannot be overridden"),
        ({"Connection": "close"}, "cannot be overridden"),
        ({"User-Agent": "v"}, "cannot be overridden"),
        ({"Idempotency-Key": "v"}, "cannot be overridden"),
        ({"Webhook-Signature": "v"}, "cannot be overridden"),
        ({"X-Task-Hops": "0"}, "cannot be overridden"),
        ({"Proxy-Authorization": "v"}, "cannot be overridden"),
        ({"Good": "v", "Bad ": "v"}, "not a header name"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_headers_that_may_not(headers: dict[str, str], part: str) -> None:
    assert part in said(HEADERS, headers)


# -- finding the rules of a class --------------------------------------------------------------

SHORT = text(0, 1)


@attrs.frozen
class Inner:
    word: Annotated[str, SHORT]


@attrs.frozen
class Outer:
    plain: int
    word: Annotated[str, SHORT, "a note"]
    maybe: Annotated[str, SHORT] | None
    inner: Inner | None


def test_rules_stand_in_the_annotation() -> None:
    assert rules_of(Annotated[str, SHORT, "a note"]) == (SHORT,)
    assert rules_of(Annotated[str, SHORT] | None) == (SHORT,)
    assert rules_of(int) == ()


def test_problems_are_found_at_any_depth() -> None:
    assert list(problems_of(Outer(1, "a", None, None))) == []
    found = problems_of(Outer(1, "ab", "cd", Inner("ef")))
    assert [path for path, _ in found] == [("word",), ("maybe",), ("inner", "word")]


def test_a_default_is_not_looked_at() -> None:
    @attrs.frozen
    class Lenient:
        word: Annotated[str, SHORT] = "far too long, but nobody has given it"

    assert list(problems_of(Lenient())) == []
    assert [path for path, _ in problems_of(Lenient("given"))] == [("word",)]


@pytest.mark.parametrize("record", [TaskSpec, RetryPolicy])
def test_the_defaults_of_our_own_records_break_no_rule(record: Any) -> None:
    hints = get_type_hints(record, include_extras=True)
    defaults = [
        (rule, field.default)
        for field in attrs.fields(record)
        for rule in rules_of(hints[field.name])
        if isinstance(field.default, int | float | str)
    ]
    assert len(defaults) >= 3
    assert [default for rule, default in defaults if rule.broken(default)] == []


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (items(2, 3), [2, 2, None, None, 3]),
        (items(1), [1, None, None, None, None]),
    ],
)
def test_a_list_has_as_many_items_as_it_may(rule, said):
    for length, limit in enumerate(said):
        broken = rule.broken(["x"] * length)
        if limit is None:
            assert broken is None
        else:
            most = "at least" if length < limit else "at most"
            assert broken == f"must have {most} {limit} items, not {length}"
    assert rule.schema["minItems"] == said[0]
