"""What the long proofs say: one line for each bar they tried, and the table of them all.

A *bar* is a figure that the promise of the README has to reach (``tests/README.md`` lists them).
The commands behind ``make sim``, ``kill``, ``attack`` and ``soak`` each print a ``Seen`` for every
bar; with ``--record`` they also keep it in ``tests/bars.json``, from which
``python -m tests.bars`` writes the table into ``tests/README.md``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

import attrs

HERE: Final = Path(__file__).parent
RECORD: Final = HERE / "bars.json"
PAGE: Final = HERE / "README.md"
_START: Final = "<!-- bars -->\n"
_END: Final = "<!-- /bars -->\n"
_HEAD: Final = "| bar | tried | seen | held | shown by |\n|---|---|---|---|---|\n"


@attrs.frozen(kw_only=True)
class Seen:
    """What came of trying one bar."""

    bar: str  # a short name, the same at every run: "kill -9"
    tried: str  # what was done, how often: "200 rounds, 61,402 tasks"
    seen: str  # what was lost and measured: "0 lost, 0 stuck, 312 duplicates, all in flight"
    held: bool
    command: str  # the command that reproduces it: "make kill ROUNDS=200"

    def __str__(self) -> str:
        return f"{'held' if self.held else 'MISSED':<7} {self.bar}: {self.tried}: {self.seen}"


def say(seen: Seen, *, record: bool) -> None:
    """Print the line of one bar; keep it for the table if ``record``."""
    sys.stdout.write(f"{seen}\n")
    sys.stdout.flush()
    if record:
        kept = recorded()
        kept[seen.bar] = seen
        ordered = [attrs.asdict(kept[bar]) for bar in sorted(kept)]
        RECORD.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", "utf-8")


def recorded() -> dict[str, Seen]:
    """The last kept line of every bar."""
    if not RECORD.exists():
        return {}
    return {entry["bar"]: Seen(**entry) for entry in json.loads(RECORD.read_text("utf-8"))}


def page() -> str:
    """The page with the table as it has to be."""
    before, _, rest = PAGE.read_text("utf-8").partition(_START)
    _, _, after = rest.partition(_END)
    rows = (
        f"| {s.bar} | {s.tried} | {s.seen} | {'yes' if s.held else '**no**'} | `{s.command}` |\n"
        for s in recorded().values()
    )
    return f"{before}{_START}{_HEAD}{''.join(rows)}{_END}{after}"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
