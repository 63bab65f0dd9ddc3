"""Texts and tasks have checksums of their own: databases have none of values."""

from __future__ import annotations

import json

import attrs
import pytest
from hypothesis import given, strategies as st

from engine.adapters.codec import encode_result, encode_spec
from engine.adapters.storage import rows
from engine.core.task import CallbackResult, Status
from engine.errors import StoreDamaged
from tests.support.builders import a_spec, a_task, an_attempt, at

SPEC = a_spec(payload={"amount": "100 €", "to": [1, 2]}, headers={"x": "y"})


def row_of(text: str) -> rows.Row:
    return (*rows.task_row(a_task(1), text, None), None, None, None)


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


TASK = a_task(
    1,
    name="ключ",
    partition_key="k",
    status=Status.PROCESSING,
    attempt=2,
    failures=1,
    owner="host-1",
    expires_at=at(60),
    executed_at=at(1),
    reason="again",
)
LIVE = rows.live_row(TASK, rows.spec_text(TASK.spec), None)
MOVED = attrs.evolve(TASK, archived_at=at(9))
ARCHIVED = rows.archived_row(MOVED, rows.spec_text(TASK.spec), None)
READ = (*LIVE[:23], LIVE[24], LIVE[23], None)


def test_a_row_with_its_seal_says_what_was_written():
    assert rows.task_from(READ) == TASK
    assert rows.task_from((*ARCHIVED[:23], ARCHIVED[24], None, ARCHIVED[23])) == MOVED


def test_a_changed_row_has_the_seal_of_the_whole():
    assert rows.changed_row(TASK, None)[-1] == LIVE[-1]


def test_every_python_makes_the_same_seal():
    """Their tables of Unicode differ: the last of these is a character since 15.0."""
    named = attrs.evolve(TASK, spec=a_spec(name="é ключ 🫨"))
    assert rows.live_row(named, "", None)[-1] == 3023401097


@pytest.mark.parametrize("name", rows.READ_COLUMNS[1:])
def test_no_changed_value_gets_past_it(name: str):
    """But for the turn, which is not read, and a wait that SQL may change alone."""
    n = rows.READ_COLUMNS.index(name)
    changed = READ[n] + 1 if isinstance(READ[n], int) else "scheduled"
    row = (*READ[:n], changed, *READ[n + 1 :])
    if name in ("wait", "turn"):
        assert rows.task_from(row).version == TASK.version
    else:
        with pytest.raises(StoreDamaged, match=f"the row of '{row[0]}' cannot be read"):
            rows.task_from(row)


def test_rows_of_earlier_versions_have_none():
    assert rows.task_from((*READ[:23], None, None, None)) == TASK
