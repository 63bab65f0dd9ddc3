"""What a database keeps as text has a checksum of its own: it has none of values."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, strategies as st

from engine.adapters.codec import encode_result, encode_spec
from engine.adapters.storage import rows
from engine.core.task import CallbackResult
from engine.errors import StoreDamaged
from tests.support.builders import a_spec, a_task, an_attempt

SPEC = a_spec(payload={"amount": "100 €", "to": [1, 2]}, headers={"x": "y"})


def row_of(text: str) -> rows.Row:
    return rows.task_row(a_task(1), text, None)


def test_a_text_is_still_json_and_says_the_same():
    assert rows.task_from(row_of(rows.spec_text(SPEC))).spec == SPEC
    sealed = json.loads(rows.spec_text(SPEC))
    assert len(sealed.pop("crc32")) == 8
    assert sealed == json.loads(encode_spec(SPEC))


@given(st.data())
def test_no_changed_character_gets_past_it(data):
    text = rows.spec_text(SPEC)
    at = data.draw(st.integers(0, len(text) - 20))
    other = data.draw(st.characters(codec="utf-8").filter(lambda one: one != text[at]))
    with pytest.raises(StoreDamaged, match="cannot be read"):
        rows.task_from(row_of(text[:at] + other + text[at + 1 :]))


def test_nor_a_changed_checksum():
    text = rows.spec_text(SPEC)
    digit = "0" if text[-5] != "0" else "1"
    with pytest.raises(StoreDamaged, match="its checksum is wrong"):
        rows.task_from(row_of(text[:-5] + digit + text[-4:]))


@pytest.mark.parametrize("result", [CallbackResult(), CallbackResult(status_code=200, body="ok")])
def test_results_have_one_too(result: CallbackResult):
    attempt = an_attempt(a_task(1).id, result=result)
    text = rows.result_text(result)
    assert text is not None
    assert rows.attempt_from(rows.attempt_row(attempt, text)) == attempt
    with pytest.raises(StoreDamaged, match="cannot be read"):
        rows.attempt_from(rows.attempt_row(attempt, text[:-3] + '?"}'))


def test_texts_of_earlier_versions_have_none():
    assert rows.task_from(row_of(encode_spec(SPEC))).spec == SPEC
    attempt = an_attempt(a_task(1).id)
    assert rows.attempt_from(rows.attempt_row(attempt, encode_result(attempt.result))) == attempt
