"""``python -m tests.attack NAME``: one attack on the real server, or ``all``; a line for each bar."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

from benchmarks.interrupted import EXIT_INTERRUPTED

ATTACKS: Final = (
    "bytes", "loris", "watchers", "storm", "descriptors",
    "poison", "bomb", "dead-host", "cancel-leak", "herd", "overload",
    "schema", "secrets", "ssrf", "idempotent",
)  # fmt: skip
"""Each is the module ``tests.attack.NAME``, with ``_`` for ``-``, and in it the click command
``command``."""


class Attacks(click.Group):
    """Imports an attack when it is asked for: some need more than the others."""

    def list_commands(self, _: click.Context) -> list[str]:
        """In the order in which ``all`` runs them."""
        return [*ATTACKS, "all"]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The attack of that name."""
        if name not in ATTACKS:
            return super().get_command(ctx, name)
        found: click.Command = importlib.import_module(
            f"tests.attack.{name.replace('-', '_')}"
        ).command
        return found


@click.group(cls=Attacks)
def main() -> None:
    """Attack the real server, in its long forms. Exit 1 if a bar is missed."""


@main.command("all")
@click.option("--record", is_flag=True, help="Keep the lines for the table of bars.")
@click.pass_context
def everything(ctx: click.Context, *, record: bool) -> None:
    """One attack after the other. One that fails does not keep the others from being tried; one that
    is interrupted does."""
    failed = []
    for place, name in enumerate(ATTACKS, start=1):
        click.echo(f"[{place}/{len(ATTACKS)}] {name}", err=True)
        attack = main.get_command(ctx, name)
        assert attack is not None
        if code := _exit_code(attack, name, record=record):
            if code == EXIT_INTERRUPTED:
                sys.exit(EXIT_INTERRUPTED)
            failed.append(name)
            click.echo(f"  {name} ended with {code}", err=True)
    sys.exit(1 if failed else 0)


def _exit_code(attack: click.Command, name: str, *, record: bool) -> int | str | None:
    try:
        attack.main(["--record"] if record else [], prog_name=name, standalone_mode=False)
    except SystemExit as left:
        return left.code
    except (click.Abort, KeyboardInterrupt):  # Ctrl-C, as click has it
        return EXIT_INTERRUPTED
    except Exception as error:  # told, and counted as missed
        return f"{type(error).__name__}: {error}"
    return 0


if __name__ == "__main__":
    main(prog_name="python -m tests.attack")
