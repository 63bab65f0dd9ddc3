"""`python -m tests.murder`: the long forms of what is done to a real server by force.

Each question is a module beside this one, with a click command named ``command``; it prints one
line for each of its bars and exits with 1 if one was missed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Final

import click

QUESTIONS: Final[Mapping[str, str]] = {
    "kill": "SIGKILL under load, again and again, on one database.",
    "drain": "SIGTERM with callbacks in flight and watchers that never read.",
    "stop": "SIGSTOP for longer than every lease, of the server and of a receiver.",
    "poison": "A task whose callback kills the server.",
    "disk": "A disk that is full.",
    "corruption": "A database or WAL with damaged bytes.",
    "trace": "The system calls between a commit and its answer.",
    "startup": "SIGKILL with callbacks in flight and a deep queue: how soon it goes on.",
}


class Questions(click.Group):
    """Imports the module of a question only when it is asked."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(QUESTIONS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in QUESTIONS:
            return None
        found = importlib.import_module(f"tests.murder.{cmd_name}").command
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(QUESTIONS.items()))


@click.command(cls=Questions, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """What the promise is worth when the server is killed, stopped and starved."""


if __name__ == "__main__":
    main()
