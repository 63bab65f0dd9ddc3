"""The files of a database are its owner's alone, as they hold payloads and credentials."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from engine.adapters.storage import migrate, open_store
from engine.errors import StoreUnavailable


def modes(place: Path) -> dict[str, str]:
    return {file.name: oct(stat.S_IMODE(file.stat().st_mode)) for file in place.iterdir()}


async def test_new_files_can_be_read_by_their_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_store(f"sqlite:///{tmp_path}/tasks.db"):
            found = modes(tmp_path)
    finally:
        os.umask(before)
    assert set(found) == {"tasks.db", "tasks.db-wal", "tasks.db-shm", "tasks.db.lock"}
    assert set(found.values()) == {"0o600"}


def test_so_can_a_file_that_migrate_makes(tmp_path: Path) -> None:
    migrate(f"sqlite:///{tmp_path}/tasks.db")
    assert modes(tmp_path)["tasks.db"] == "0o600"


async def test_a_file_that_is_there_keeps_the_mode_somebody_has_chosen(tmp_path: Path) -> None:
    file = tmp_path / "tasks.db"
    file.touch()
    file.chmod(0o640)
    async with open_store(f"sqlite:///{file}"):
        assert modes(tmp_path)["tasks.db"] == "0o640"
        assert modes(tmp_path)["tasks.db-wal"] == "0o640"


async def test_a_file_that_cannot_be_made_is_an_error_that_names_it(tmp_path: Path) -> None:
    file = tmp_path / ("x" * 250)  # its lock would fit nowhere
    with pytest.raises(StoreUnavailable, match="xxx"):
        async with open_store(f"sqlite:///{file}"):
            raise AssertionError
