"""What a round damages, chosen by its seed."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Final

import attrs

_WEIGHTS: Final = {"": 8, "-wal": 8, "-shm": 1, ".lock": 2}
_ACTIONS: Final = {"flip": 10, "garble": 3, "zero": 2, "truncate": 3, "delete": 2}
_SECTOR: Final = 512


@attrs.frozen
class Damage:
    """One act of damage to one of the files of a database."""

    suffix: str  # of the file's name, behind the database's
    action: str
    offset: int = 0
    bits: int = 0  # to change in one byte

    def __str__(self) -> str:
        where = "" if self.action == "delete" else f" at {self.offset}"
        return f"{self.action} {self.suffix or 'database'}{where}"

    def apply(self, database: Path) -> None:
        """Do it."""
        path = database.with_name(database.name + self.suffix)
        if self.action == "delete":
            path.unlink()
            return
        if self.action == "truncate":
            os.truncate(path, self.offset)
            return
        content = bytearray(path.read_bytes())
        end = min(self.offset + _SECTOR, len(content))
        if self.action == "flip":
            content[self.offset] ^= self.bits
        elif self.action == "zero":
            content[self.offset : end] = bytes(end - self.offset)
        else:
            dice = random.Random(self.offset)
            content[self.offset : end] = dice.randbytes(end - self.offset)
        path.write_bytes(content)


def damage_of(seed: int, database: Path) -> Damage:
    """What this seed does to these files."""
    dice = random.Random(seed)
    suffix = dice.choices(list(_WEIGHTS), list(_WEIGHTS.values()))[0]
    action = dice.choices(list(_ACTIONS), list(_ACTIONS.values()))[0]
    size = database.with_name(database.name + suffix).stat().st_size
    offset = dice.randrange(size)
    if dice.random() < 0.2:
        offset = dice.randrange(min(size, 200))  # where the headers are
    return Damage(suffix, action, offset, 1 << dice.randrange(8))
