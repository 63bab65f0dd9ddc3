"""The real ``ringback``, which on SIGUSR1 says how many Trio tasks live in it.

``python -m tests.attack.target_serve [--files N] serve …``: everything behind ``serve`` is the
program's own. The answer is a line on standard output: it needs no descriptor, so it comes also when
there is none left.
"""

from __future__ import annotations

import os
import resource
import signal
from types import FrameType
from typing import Final

import click
import trio

from web.cli import main as ringback

TASKS: Final = "tasks living: "


def tell(_number: int, _frame: FrameType | None) -> None:
    """In the main thread, and so in Trio's, between two of its steps or in its wait for I/O."""
    living = trio.lowlevel.current_statistics().tasks_living
    os.write(1, f"{TASKS}{living}\n".encode())


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": []})
@click.option("--files", type=int, help="Let the process have only so many open files.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def main(*, files: int | None, arguments: tuple[str, ...]) -> None:
    """Be the real program."""
    if files is not None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    signal.signal(signal.SIGUSR1, tell)
    ringback(list(arguments))


if __name__ == "__main__":
    main()
