"""The table of the bars says what was recorded."""

from __future__ import annotations

import pytest

from tests import bars


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(bars, "RECORD", tmp_path / "bars.json")


def seen(bar: str, *, held: bool = True) -> bars.Seen:
    return bars.Seen(bar=bar, tried="20 rounds", seen="0 lost", held=held, command="make kill")


def test_the_page_shows_the_last_record():
    assert bars.PAGE.read_text("utf-8") == bars.page()


def test_a_line_is_said_and_kept_only_if_asked_for(record, capsys):
    bars.say(seen("drain"), record=False)
    assert bars.recorded() == {}
    bars.say(seen("kill -9", held=False), record=True)
    bars.say(seen("drain"), record=True)
    bars.say(seen("kill -9"), record=True)
    assert list(bars.recorded()) == ["drain", "kill -9"]
    assert bars.recorded()["kill -9"].held
    assert capsys.readouterr().out.splitlines() == [
        "held    drain: 20 rounds: 0 lost",
        "MISSED  kill -9: 20 rounds: 0 lost",
        "held    drain: 20 rounds: 0 lost",
        "held    kill -9: 20 rounds: 0 lost",
    ]


def test_what_was_missed_stands_out_in_the_table(record):
    bars.say(seen("drain", held=False), record=True)
    assert "| drain | 20 rounds | 0 lost | **no** | `make kill` |\n" in bars.page()
