"""``ringback watch``: the live stream of status changes."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click
import trio
from rich.console import Console
from rich.text import Text

from engine import Status

from .client import EXIT_CODES, server_option
from .output import coloured, json_option, open_console, print_json, printable, stop_printing
from .tasks import outcome_of
from .watching import Message, Subscription, cancelled_by_signals, follow


class _Display:
    """Prints messages as they come, and knows when it has printed enough."""

    def __init__(self, console: Console, count: int | None, *, as_json: bool) -> None:
        self._console = console
        self._left = count
        self._as_json = as_json

    def handle(self, message: Message) -> bool:
        """True when no more is wanted: enough was shown, or nobody reads."""
        try:
            self._print(message)
            sys.stdout.flush()
        except BrokenPipeError:
            stop_printing()
            return True
        if "taskId" in message and self._left is not None:
            self._left -= 1
        return self._left == 0

    def _print(self, message: Message) -> None:
        if "taskId" in message or "snapshot" in message:
            if self._as_json:
                print_json(message)
            elif "snapshot" in message:
                self._print_snapshot(message)
            else:
                self._console.print(_event_line(message))
        elif "subscribed" in message:
            click.echo(f"watching from event {message['seq']}", err=True)

    def _print_snapshot(self, message: Message) -> None:
        for task in message["snapshot"]:
            line = Text(f"{'now':>7}  {task['updatedAt']}  {task['taskId']}  ")
            line.append_text(coloured(task["status"])).append(f"  {printable(task['name'])}")
            self._console.print(line)
        if not message["complete"]:
            click.echo("there are more tasks than a snapshot holds", err=True)


def _event_line(event: Message) -> Text:
    line = Text(f"{event['seq']:>7}  {event['at']}  {event['taskId']}  ")
    line.append_text(coloured(event["from"])).append(" → " if event["from"] else "")
    line.append_text(coloured(event["to"])).append(f"  {printable(event['name'])}")
    said = outcome_of(event.get("callbackResult")) or printable(event.get("reason") or "")
    attempt = f"attempt {event['attempt']}" if event["attempt"] else ""
    rest = ", ".join(part for part in (attempt, said) if part)
    return line.append(f"  ({rest})") if rest else line


@click.command(epilog=EXIT_CODES)
@click.option("--task", "task_ids", multiple=True, metavar="ID", help="only this task; repeatable")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([status.value for status in Status], case_sensitive=False),
    help="only changes to this status; repeatable",
)
@click.option("--name", "names", multiple=True, help="only tasks of this name; repeatable")
@click.option("--after", type=click.IntRange(0), metavar="SEQ", help="begin behind this event")
@click.option("--snapshot", is_flag=True, help="begin with all tasks as they are now")
@click.option("--count", type=click.IntRange(1), metavar="N", help="stop after so many events")
@click.option(
    "--reconnect",
    "reconnect_s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="how long to look for a server that has gone",
)
@server_option
@json_option
def watch(
    *,
    task_ids: Sequence[str],
    statuses: Sequence[str],
    names: Sequence[str],
    after: int | None,
    snapshot: bool,
    count: int | None,
    reconnect_s: float,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """Print every change of a task's status as it happens, until Ctrl-C.

    When the server restarts, or this program cannot keep up, it connects again and goes on behind
    the last event it has shown: nothing is left out or shown twice. Ctrl-C ends with status 0.
    """
    if snapshot and after is not None:
        raise click.UsageError("--snapshot and --after are two different beginnings: give one")
    wanted = Subscription(
        task_ids=task_ids,
        statuses=statuses,
        names=names,
        after=after,
        snapshot=snapshot,
    )
    display = _Display(open_console(), count, as_json=as_json)
    trio.run(_watch, url, api_key, wanted, display, reconnect_s)


async def _watch(
    url: str,
    api_key: str | None,
    wanted: Subscription,
    display: _Display,
    reconnect_s: float,
) -> None:
    with cancelled_by_signals():
        await follow(
            url,
            wanted,
            display.handle,
            note=lambda text: click.echo(text, err=True),
            reconnect_s=reconnect_s,
            api_key=api_key,
        )
