"""The README says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

from engine.core.lifecycle import diagram
from web.cli.serve import settings_table

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*?)\n<!-- /{name} -->", README, re.DOTALL)
    assert found is not None
    return found[1]


def test_the_diagram_is_drawn_from_the_table():
    assert section("diagram") == f"```mermaid\n{diagram()}\n```"


def test_the_configuration_table_lists_every_setting():
    assert section("settings") == settings_table()
