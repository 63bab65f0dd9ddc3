"""``ringback demo``: see the whole thing work."""

from __future__ import annotations

import sys

import click
import trio

from .output import open_console

_EXIT_FAILED = 1
_TASKS_MIN = 40

_EPILOG = """\b
Exit status:
    0  every task ended as it should
    1  at least one did not, or the server failed
    2  wrong usage
  130  interrupted
"""


@click.command(epilog=_EPILOG)
@click.option(
    "--tasks", type=click.IntRange(_TASKS_MIN, 100_000), default=400, show_default=True, metavar="N"
)
@click.option("--kill", is_flag=True, help="kill -9 the server in the middle, and start it again")
@click.option("--keep", is_flag=True, help="keep the database file, and say where it is")
def demo(*, tasks: int, kill: bool, keep: bool) -> None:
    """Start a real server and a real receiver, run some hundred tasks, and account for each.

    The receiver has good, flaky, slow and broken endpoints. Tasks are created one by one and in a
    batch; some are scheduled, some share a partition key, one is cancelled, one is driven by hand.
    What happens is followed over the status stream, and in the end every task is looked up: it
    must have ended as its kind demands, called as often as it should be, and in order.
    """
    # Imported here: the demo uses this package's stream client, and other commands need no demo.
    from web.cli.client import Unreachable
    from web.cli.watching import leaf_of
    from web.demo.load import RefusedError
    from web.demo.run import DemoOptions, run_demo
    from web.demo.server import ServerFailed

    options = DemoOptions(tasks=tasks, kill=kill, keep=keep)
    code = _EXIT_FAILED
    try:
        code = trio.run(run_demo, options, open_console())
    except* (ServerFailed, RefusedError, Unreachable, trio.TooSlowError) as group:
        click.echo(f"ringback demo: {leaf_of(group)}", err=True)
    sys.exit(code)
