"""What a power loss could leave: files rebuilt from a trace, with writes that were not synced
dropped or torn."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import trio

from engine.adapters.storage import open_store
from engine.core.queries import TaskQuery
from engine.errors import StoreError
from tests.murder.trace_log import Call
from tests.murder.trace_order import Told

_SECTOR: Final = 512
_SYNCS: Final = ("fdatasync", "fsync")
_FILES: Final = ("", "-wal", ".lock")


@attrs.frozen
class Loss:
    """What one image has lost, or why it does not open."""

    cut: int
    missing: tuple[str, ...]
    refused: str | None

    def __str__(self) -> str:
        what = self.refused or f"{len(self.missing)} accepted tasks are missing"
        return f"power lost at call {self.cut}: {what}"


def lose_power(
    calls: Sequence[Call], database: str, cut: int, dice: random.Random
) -> Mapping[str, bytes]:
    """The files as they may be if the power fails at this place of the trace."""
    return {suffix: _content(calls, f"{database}{suffix}", cut, dice) for suffix in _FILES}


def _content(calls: Sequence[Call], path: str, cut: int, dice: random.Random) -> bytes:
    """Everything up to the last sync that had returned is there. Of what came later each write may
    be there, or some sectors of it, or nothing, as if the disk had written them in any order."""
    changes = [call for call in calls if call.on == path and call.begun < cut]
    syncs = [call.begun for call in changes if call.name in _SYNCS and call.ended < cut]
    synced = max(syncs, default=-1)
    content = bytearray()
    for call in changes:
        sure = call.ended < synced
        if call.name == "pwrite64":
            _write(content, call, sure=sure, dice=dice)
        elif call.name == "ftruncate" and (sure or dice.random() < 0.5):
            del content[call.offset :]
            content.extend(bytes(call.offset - len(content)))
    return bytes(content)


def _write(content: bytearray, call: Call, *, sure: bool, dice: random.Random) -> None:
    fate = "whole" if sure else dice.choice(("whole", "torn", "gone"))
    if fate == "gone":
        return
    content.extend(bytes(max(0, call.offset + len(call.data) - len(content))))
    for start in range(0, len(call.data), _SECTOR):
        if fate == "whole" or dice.random() < 0.5:
            part = call.data[start : start + _SECTOR]
            content[call.offset + start : call.offset + start + len(part)] = part


def open_image(
    files: Mapping[str, bytes], place: Path, cut: int, told: Sequence[Told]
) -> Loss | None:
    """Open an image with the real store. Every task whose 201 had begun to leave has to be there."""
    place.mkdir()
    database = place / "image.db"
    for suffix, content in files.items():
        if content:
            database.with_name(database.name + suffix).write_bytes(content)
    promised = {one.task_id for one in told if one.begun < cut}
    try:
        kept = trio.run(_ids, f"sqlite:///{database}", len(told) + 100)
    except StoreError as error:
        return Loss(cut, (), str(error))
    missing = tuple(sorted(promised - kept))
    return Loss(cut, missing, None) if missing else None


async def _ids(url: str, limit: int) -> set[str]:
    async with open_store(url) as store:
        return {task.id for task in await store.tasks(TaskQuery(), limit)}
