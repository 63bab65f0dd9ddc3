"""`python -m tests.murder` finds every question it lists, and tells what each of them is."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from tests.murder.__main__ import QUESTIONS, main


def test_all_questions_are_listed():
    listed = CliRunner().invoke(main, ["--help"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in QUESTIONS)


@pytest.mark.parametrize("name", QUESTIONS)
def test_each_question_can_be_asked_and_recorded(name):
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0, shown.output
    assert "--record" in shown.output


def test_a_question_that_is_none_is_refused():
    assert CliRunner().invoke(main, ["nothing"]).exit_code == 2
