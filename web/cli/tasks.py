"""``ringback get | list | cancel | retry``: look at tasks, and steer them."""

from __future__ import annotations

from typing import Any

import click
from rich.console import Console
from rich.text import Text

from engine import Status

from .client import EXIT_CODES, Api, Refused, server_option
from .output import coloured, json_option, open_console, print_json, print_table, printable

Document = dict[str, Any]

_SHOWN_FIRST = ("taskId", "name", "status", "reason")


@click.command(epilog=EXIT_CODES)
@click.argument("task_id", metavar="ID")
@server_option
@json_option
def get(*, task_id: str, url: str, api_key: str | None, as_json: bool) -> None:
    """Show everything known of a task, and its attempts.

    With --json: one object, as the API has it, with the attempts in "attempts".
    """
    with Api(url, api_key) as api:
        task = api.get(task_id)
        attempts = api.attempts(task_id)
    if as_json:
        print_json({**task, "attempts": attempts})
        return
    console = open_console()
    _print_facts(console, task)
    if attempts:
        console.print()
        print_table(
            console,
            ("attempt", "started", "took", "outcome"),
            [_attempt_row(attempt) for attempt in attempts],
            right=("attempt", "took"),
        )


def _print_facts(console: Console, task: Document) -> None:
    """What a task has to say, one fact a line; what is not set is left out."""
    names = [*_SHOWN_FIRST, *(name for name in task if name not in _SHOWN_FIRST)]
    width = max(map(len, names))
    for name in names:
        value = task.get(name)
        if value is None or value == {}:
            continue
        text = coloured(value) if name == "status" else Text(_fact(value))
        console.print(Text(f"{name:<{width}}  ").append_text(text))


def _fact(value: Any) -> str:
    if isinstance(value, dict):
        facts = (f"{key}={_fact(item)}" for key, item in value.items() if item is not None)
        return ", ".join(facts)
    if isinstance(value, bool):
        return str(value).lower()
    return printable(value)


def _attempt_row(attempt: Document) -> list[str]:
    return [
        str(attempt["number"]),
        attempt["startedAt"],
        f"{attempt['durationSeconds'] * 1000:.0f} ms",
        outcome_of(attempt["result"]),
    ]


def outcome_of(result: Document | None) -> str:
    """What a callback brought, in a few words."""
    if result is None:
        return ""
    if result["error"]:
        return printable(result["error"])
    return f"HTTP {result['statusCode']}"


@click.command("list", epilog=EXIT_CODES)
@click.option(
    "--status", type=click.Choice([status.value for status in Status], case_sensitive=False)
)
@click.option("--name", help="only tasks of exactly this name")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, metavar="N")
@click.option("--cursor", help="where the list before this one ended")
@server_option
@json_option
def list_tasks(
    *,
    status: str | None,
    name: str | None,
    limit: int,
    cursor: str | None,
    url: str,
    api_key: str | None,
    as_json: bool,
) -> None:
    """List tasks, newest first: waiting, running and finished ones.

    What is left, and the --cursor to go on with, are told on standard error.
    """
    filters = {"status": status} if status is not None else {}
    if name is not None:
        filters["name"] = name
    tasks: list[Document] = []
    page: Document = {}
    with Api(url, api_key) as api:
        for page in api.pages(filters, limit, cursor):
            if as_json:
                for task in page["tasks"]:
                    print_json(task)
            tasks += page["tasks"]
    if not as_json:
        _print_list(tasks)
    if page.get("nextCursor"):
        text = f"{len(tasks)} of {page['totalCount']}; more: --cursor {page['nextCursor']}"
        click.echo(text, err=True)


def _print_list(tasks: list[Document]) -> None:
    rows = [
        [
            task["taskId"],
            coloured(task["status"]),
            printable(task["name"]),
            str(task["attempt"]),
            task["createdAt"],
            printable(task["reason"] or outcome_of(task["callbackResult"])),
        ]
        for task in tasks
    ]
    columns = ("id", "status", "name", "attempt", "created", "last word")
    print_table(
        open_console(), columns, rows, right=("attempt",), whole=("id", "status", "created")
    )


@click.command(epilog=EXIT_CODES)
@click.argument("task_id", metavar="ID")
@click.option("--in-flight", is_flag=True, help="also if its callback is being called: cut it off")
@server_option
def cancel(*, task_id: str, in_flight: bool, url: str, api_key: str | None) -> None:
    """Cancel a task that has not ended."""
    with Api(url, api_key) as api:
        try:
            api.cancel(task_id, in_flight=in_flight)
        except Refused as refused:
            if not in_flight and refused.problem.get("currentStatus") == Status.PROCESSING:
                raise click.ClickException(
                    f"task {task_id} is being called: add --in-flight to cut the call off"
                ) from None
            raise
    click.echo(f"{task_id} Cancelled")


@click.command(epilog=EXIT_CODES)
@click.argument("task_id", metavar="ID")
@server_option
def retry(*, task_id: str, url: str, api_key: str | None) -> None:
    """Give a failed task another round of attempts."""
    with Api(url, api_key) as api:
        state = api.retry(task_id)
    click.echo(f"{state['taskId']} {state['status']}")
