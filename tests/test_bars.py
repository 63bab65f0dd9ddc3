"""The table of the bars says what was recorded."""

from __future__ import annotations

import json

import attrs
import pytest
import trio

from tests import bars


@pytest.fixture
def record(tmp_path, monkeypatch):
    monkeypatch.setattr(bars, "RECORD", tmp_path / "bars.json")
    monkeypatch.setattr(bars, "revision", lambda: "59b9a61+")


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
    line = "| drain | 20 rounds | 0 lost | **no** | 59b9a61+ | `make kill` |\n"
    assert line in bars.page()


def test_a_line_says_which_product_it_is_of_as_soon_as_it_is_kept(record):
    bars.say(seen("drain"), record=True)
    assert bars.recorded()["drain"] == attrs.evolve(seen("drain"), revision="59b9a61+")


def test_a_line_that_says_nothing_of_the_product_can_still_be_read(record):
    older = attrs.asdict(seen("drain"))
    del older["revision"]
    bars.RECORD.write_text(json.dumps([older]), "utf-8")
    assert bars.recorded() == {"drain": seen("drain")}


def test_where_there_is_no_git_there_is_no_revision(tmp_path, monkeypatch):
    monkeypatch.setattr(bars, "HERE", tmp_path / "tests")  # not even the folder is there
    assert bars.revision() == ""


async def test_what_breaks_off_has_missed_its_bar_whatever_it_had_shown(record, capsys):
    bars.say(seen("drain"), record=True)
    with pytest.RaisesGroup(pytest.RaisesExc(AssertionError)):
        with bars.told("drain", "20 rounds", "make kill", record=True):
            async with trio.open_nursery():
                raise AssertionError("no 201 | no 503\nand so on")
    missed = bars.recorded()["drain"]
    assert (missed.tried, missed.held, missed.command) == ("20 rounds", False, "make kill")
    assert missed.seen == "broke off: AssertionError: no 201 | no 503"
    assert "MISSED  drain: 20 rounds: broke off" in capsys.readouterr().out
    assert "no 201 \\| no 503 | **no** |" in bars.page()


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_what_is_interrupted_leaves_the_line_as_it_was(record, stop):
    bars.say(seen("drain"), record=True)
    with pytest.raises(stop), bars.told("drain", "20 rounds", "make kill", record=True):
        raise stop
    assert bars.recorded()["drain"].held


def test_what_breaks_off_is_kept_only_if_asked_for(record):
    with pytest.raises(KeyError), bars.told("drain", "20 rounds", "make kill", record=False):
        raise KeyError
    assert bars.recorded() == {}
