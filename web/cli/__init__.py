"""The command line: ``ringback COMMAND``."""

from __future__ import annotations

import click

from .demo import demo
from .serve import migrate, serve
from .submit import submit
from .tasks import cancel, get, list_tasks, retry
from .watch import watch


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ringback")
def main() -> None:
    """Ringback: POST a task with a URL; it is stored, queued, called back, retried and archived."""


for command in (serve, demo, submit, get, list_tasks, watch, cancel, retry, migrate):
    main.add_command(command)
