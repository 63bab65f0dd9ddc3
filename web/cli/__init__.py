"""The command line: ``ringback COMMAND``."""

from __future__ import annotations

from typing import Any

import click

from engine.core.redact import masked

from .check_target import check_target
from .demo import demo
from .keys import keys
from .secrets import secrets
from .serve import migrate, serve
from .submit import submit
from .tasks import cancel, get, list_tasks, retry
from .watch import watch


class _Commands(click.Group):
    """Complaints show no secrets: people paste keys where they do not belong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.ClickException as error:
            error.message = masked(error.message)  # type: ignore[misc]  # click says Final
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            error.message = masked(error.message)  # type: ignore[misc]  # click says Final
            raise


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringback")
def main() -> None:
    """Ringback: POST a task with a URL; it is stored, queued, called back, retried and archived."""


for command in (
    *(serve, demo, submit, get, list_tasks, watch, cancel, retry, migrate),
    *(check_target, secrets, keys),
):
    main.add_command(command)
