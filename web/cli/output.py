"""What commands print: coloured for people, plain for pipes, JSON lines for scripts."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import click
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

COLOURS: Final[Mapping[str, str]] = {
    "Queued": "blue",
    "Pending": "cyan",
    "Processing": "cyan",
    "Retrying": "yellow",
    "Completed": "green",
    "Failed": "red",
    "Cancelled": "magenta",
}

json_option = click.option(
    "--json", "as_json", is_flag=True, help="print JSON, one object per line"
)


class _Console(Console):
    """Says when nobody reads any more, instead of ending the process by itself."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads")


def open_console(*, stderr: bool = False) -> Console:
    """Where to print. Made when it is needed: tests and pipes change the streams.

    With ``NO_COLOR`` there are no styles at all, also none that are not colours.
    """
    plain = {"color_system": None} if os.environ.get("NO_COLOR") else {}
    return _Console(stderr=stderr, highlight=False, soft_wrap=True, **plain)  # type: ignore[arg-type]


def printable(text: object, keep: str = "") -> str:
    """Text that cannot steer the terminal: names and answers come from strangers."""
    return "".join(
        char if char.isprintable() or char in keep else repr(char)[1:-1] for char in str(text)
    )


def coloured(status: str | None) -> Text:
    """A status in its colour."""
    return Text(printable(status or ""), COLOURS.get(status or "", ""))


def print_json(document: Any) -> None:
    """One line of JSON. Flushed: a script may wait for it."""
    click.echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
    sys.stdout.flush()


def print_table(
    console: Console,
    columns: Sequence[str],
    rows: Sequence[Sequence[str | Text]],
    *,
    right: Collection[str] = (),
    whole: Collection[str] = (),
) -> None:
    """A table: ``right`` columns hold numbers, ``whole`` ones are never broken over lines. In a
    pipe nothing is broken or cut short."""
    texts = [[cell if isinstance(cell, Text) else Text(cell) for cell in row] for row in rows]
    if console.is_terminal:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in columns:
            justify: JustifyMethod = "right" if name in right else "left"
            table.add_column(name, justify=justify, no_wrap=name in whole, overflow="fold")
        for row in texts:
            table.add_row(*row)
        console.print(table, soft_wrap=False)
        return
    lines = [list(columns), *([cell.plain for cell in row] for row in texts)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        cells = (
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(columns, line, widths, strict=True)
        )
        console.print(Text("  ".join(cells).rstrip()))


def stop_printing() -> None:
    """The reader of our pipe has left: what is buffered goes nowhere, silently."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
