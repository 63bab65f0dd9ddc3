"""What the long proofs say: one line for each bar they tried, and the table of them all.

A *bar* is a figure that the promise of the README has to reach (``tests/README.md`` lists them).
The commands behind ``make sim``, ``kill``, ``attack`` and ``soak`` each print a ``Seen`` for every
bar; with ``--record`` they also keep it in ``tests/bars.json``, from which
``python -m tests.bars`` writes the table into ``tests/README.md``. Each runs inside ``told``: what
breaks off has missed its bar, whatever an earlier run had shown.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs

HERE: Final = Path(__file__).parent
RECORD: Final = HERE / "bars.json"
PAGE: Final = HERE / "README.md"
PRODUCT: Final = ("engine", "web")
_REASON_MAX: Final = 200  # characters
_START: Final = "<!-- bars -->\n"
_END: Final = "<!-- /bars -->\n"
_HEAD: Final = "| bar | tried | seen | held | commit | shown by |\n|---|---|---|---|---|---|\n"


@attrs.frozen(kw_only=True)
class Seen:
    """What came of trying one bar."""

    bar: str  # a short name, the same at every run: "kill -9"
    tried: str  # what was done, how often: "200 rounds, 61,402 tasks"
    seen: str  # what was lost and measured: "0 lost, 0 stuck, 312 duplicates, all in flight"
    held: bool
    command: str  # the command that reproduces it: "python -m tests.murder kill --rounds 200"
    revision: str = ""  # of the product, when it was kept: "59b9a61", "59b9a61+" if changed since

    def __str__(self) -> str:
        return f"{'held' if self.held else 'MISSED':<7} {self.bar}: {self.tried}: {self.seen}"


def say(seen: Seen, *, record: bool) -> None:
    """Print the line of one bar; keep it for the table if ``record``."""
    sys.stdout.write(f"{seen}\n")
    sys.stdout.flush()
    if record:
        kept = recorded()
        kept[seen.bar] = attrs.evolve(seen, revision=revision())
        ordered = [attrs.asdict(kept[bar]) for bar in sorted(kept)]
        RECORD.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


@contextmanager
def told(bar: str, tried: str, command: str, *, record: bool) -> Iterator[None]:
    """If the block breaks off, that is what is said of the bar. An interruption from outside says
    nothing."""
    try:
        yield
    except Exception as error:
        seen = f"broke off: {_reason(error)}"
        say(Seen(bar=bar, tried=tried, seen=seen, held=False, command=command), record=record)
        raise


def recorded() -> dict[str, Seen]:
    """The last kept line of every bar."""
    if not RECORD.exists():
        return {}
    return {entry["bar"]: Seen(**entry) for entry in json.loads(RECORD.read_text("utf-8"))}


def revision() -> str:
    """The last commit that changed the product, with a plus if it was changed since; nothing where
    there is no git."""
    last = _git("log", "-1", "--format=%h")
    return f"{last}+" if last and _git("status", "--porcelain") else last


def page() -> str:
    """The page with the table as it has to be."""
    before, _, rest = PAGE.read_text("utf-8").partition(_START)
    _, _, after = rest.partition(_END)
    rows = "".join(map(_row, recorded().values()))
    return f"{before}{_START}{_HEAD}{rows}{_END}{after}"


def _row(seen: Seen) -> str:
    held = "yes" if seen.held else "**no**"
    cells = (seen.bar, seen.tried, seen.seen, held, seen.revision, f"`{seen.command}`")
    return "".join(f"| {_escaped(cell)} " for cell in cells) + "|\n"


def _escaped(cell: str) -> str:
    """Without what would end it. The words of an error may hold anything."""
    return cell.replace("|", "\\|")


def _reason(error: BaseException) -> str:
    """The first line of the first error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    line = " ".join(f"{type(error).__name__}: {error}".partition("\n")[0].split())
    return line.removesuffix(":")[:_REASON_MAX]


def _git(*arguments: str) -> str:
    """What git says of the product."""
    try:
        done = subprocess.run(
            ["git", *arguments, "--", *PRODUCT],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
