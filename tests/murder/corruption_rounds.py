"""What becomes of a damaged database: opened by the real store, and served by a real process."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import attrs
import httpx
import trio

from engine.adapters.storage import open_store
from engine.errors import StoreError
from tests.murder.corruption_damage import Damage
from tests.murder.corruption_image import Image, Rows, rows_of
from tests.support.server import environment, running_server

REFUSED: Final = "refused"
INTACT: Final = "intact"
ALTERED: Final = "task altered"
HISTORY: Final = "history altered"
"""A time or a word of a past attempt or event, of which neither SQLite nor we have a checksum."""
LOST: Final = "lost in silence"
CRASHED: Final = "crashed"
_END_S: Final = 20.0
_LIVES_S: Final = 1.0


@attrs.frozen
class Verdict:
    """How one round ended."""

    damage: Damage
    outcome: str
    words: str

    @property
    def held(self) -> bool:
        return self.outcome in (REFUSED, INTACT, HISTORY)

    def __str__(self) -> str:
        return f"{self.damage}: {self.outcome}: {self.words}"


def open_damaged(image: Image, damage: Damage, place: Path) -> Verdict:
    """Open a damaged copy with the store, read every task through it, and compare all rows."""
    database = image.copied_to(place)
    damage.apply(database)
    try:
        try:
            trio.run(_read_all, f"sqlite:///{database}", image.ids)
        except StoreError as error:
            return _refusal(damage, database, str(error))
        except Exception as error:
            return Verdict(damage, CRASHED, repr(error))
        return _compared(damage, image.rows, rows_of(database))
    finally:
        shutil.rmtree(place)


async def _read_all(url: str, ids: list[str]) -> None:
    async with open_store(url) as store:
        for task_id in ids:
            await store.get(task_id)
            await store.attempts(task_id)
        oldest, newest = await store.event_range()
        await store.events(oldest - 1, newest)


def _refusal(damage: Damage, database: Path, words: str) -> Verdict:
    """A refusal has to name the file and to say what to do."""
    says_what_to_do = any(advice in words for advice in ("restore", "--accept-loss", "put the"))
    left_alone = "left as it is" in words
    if str(database) in words and (says_what_to_do or left_alone):
        return Verdict(damage, REFUSED, words)
    return Verdict(damage, CRASHED, f"not clear: {words}")


def _compared(damage: Damage, before: Rows, after: Rows) -> Verdict:
    if before == after:
        return Verdict(damage, INTACT, f"{len(after)} rows")
    missing = before.keys() - after.keys()
    if missing or len(after) < len(before):
        return Verdict(damage, LOST, f"{len(missing)} of {len(before)} rows")
    changed = [key for key in before if before[key] != after[key]]
    if damage.suffix:  # what is in the other files either counts as a whole or not at all
        return Verdict(damage, LOST, f"{len(changed)} rows are older")
    tables = {table for table, _ in changed}
    words = ", ".join(
        f"{key}: {old!r} became {new!r}"
        for key in changed[:3]
        for old, new in zip(before[key], after[key], strict=True)
        if old != new
    )
    return Verdict(damage, HISTORY if tables <= {"attempt", "event"} else ALTERED, words)


def serve_damaged(image: Image, damage: Damage, place: Path) -> Verdict:
    """Start a real server, twice if it refuses: it has to serve every task and go on, or to refuse
    both times in the same words."""
    database = image.copied_to(place)
    damage.apply(database)
    try:
        first = _start(place)
        if first is None:
            return _served(image, damage, place)
        code, words = first
        if code != 1 or "Traceback" in words or len(words.splitlines()) > 3:
            return Verdict(damage, CRASHED, f"exit {code}: {words}")
        if _start(place) != first:
            return Verdict(damage, CRASHED, f"the second start differs from {words}")
        return _refusal(damage, database, words)
    finally:
        shutil.rmtree(place)


def _start(place: Path) -> tuple[int, str] | None:
    """How a server that does not start ends, and its words; ``None`` if it starts."""
    out, err = place / "try.out", place / "try.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "web", "serve", "--port", "0"),
                *("--database", f"sqlite:///{place}/ringback.db"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            cwd=place,
            env=environment(),
        )
        try:
            deadline = time.monotonic() + _END_S
            while time.monotonic() < deadline:
                if process.poll() is not None:
                    return process.returncode, err.read_text()
                if out.stat().st_size:
                    return None
                time.sleep(0.02)  # noqa: TID251
            raise AssertionError("neither started nor ended")
        finally:
            process.kill()
            process.wait()


def _served(image: Image, damage: Damage, place: Path) -> Verdict:
    """Every task is answered; one of the archive that cannot be read with a 500, and words in the
    log that name the file."""
    try:
        with (
            running_server(place) as server,
            httpx.Client(base_url=server.url, timeout=30) as client,
        ):
            answers = Counter(client.get(f"/api/v1/tasks/{i}").status_code for i in image.ids)
            time.sleep(_LIVES_S)  # noqa: TID251  # whatever runs has now met the damage
            if server.process.poll() is not None:
                return Verdict(damage, CRASHED, server.log())
    except AssertionError as error:  # it did not stop as it should
        return Verdict(damage, CRASHED, str(error))
    if answers == {200: len(image.ids)}:
        return Verdict(damage, INTACT, f"{len(image.ids)} tasks served")
    told = f"{place}/ringback.db: it is damaged" in server.log()
    if answers.keys() == {200, 500} and told:
        return Verdict(damage, REFUSED, f"{answers[500]} tasks, the others are served")
    return Verdict(damage, LOST, f"answers by status: {dict(answers)}")
