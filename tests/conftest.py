"""What holds for every test of the suite."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.secrets import PLANTED


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test fails if what was printed or logged meanwhile shows the planted secret."""
    report = yield
    shown = [title for title, text in report.sections if PLANTED in text]
    if shown:
        report.outcome = "failed"
        report.longrepr = f"a secret shows in: {', '.join(shown)}"
    return report
