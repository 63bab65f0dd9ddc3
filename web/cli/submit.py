"""``ringback submit``: create a task, and wait for its end if asked to."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import click
import trio

from engine import Dispatch, Method, Status
from web import strict_json

from .client import EXIT_CODES, EXIT_REFUSED, EXIT_UNFINISHED, Api, CutOff, Refused, server_option
from .output import coloured, json_option, open_console, print_json, printable
from .tasks import outcome_of
from .watching import Message, Subscription, follow

Document = dict[str, Any]

DEPTH_MAX: Final = 64
WAIT_S: Final = 60.0
_ENDS: Final = {Status.COMPLETED: 0, Status.FAILED: EXIT_REFUSED, Status.CANCELLED: EXIT_REFUSED}

# How the options are called in the API.
_NAMES: Final = {
    "/callbackUrl": "CALLBACK_URL",
    "/name": "--name",
    "/payload": "--payload",
    "/priority": "--priority",
    "/dispatch": "--dispatch",
    "/delaySeconds": "--delay",
    "/runAt": "--run-at",
    "/deadline": "--deadline",
    "/timeoutSeconds": "--timeout",
    "/retryPolicy/maxAttempts": "--max-attempts",
    "/method": "--method",
    "/headers": "--header",
    "/metadata": "--metadata",
    "/partitionKey": "--partition-key",
}


class _Seconds(click.ParamType[float]):
    name = "seconds"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not 0 <= seconds < math.inf:
            self.fail(f"{value!r} is not a number of seconds; put it as --wait=10", param, ctx)
        return seconds


class _Pair(click.ParamType[tuple[str, str]]):
    def __init__(self, separator: str) -> None:
        self.name = f"name{separator}value"
        self.separator = separator

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str]:
        name, found, text = str(value).partition(self.separator)
        if not found or not name:  # not shown: what misses its colon may be a password
            self.fail(f"must be NAME{self.separator}VALUE", param, ctx)
        return name.strip(), text.strip()


def _payload(_: click.Context, __: click.Parameter, value: str | None) -> Any:
    """JSON from the command line, from ``@file``, or from standard input (``-``)."""
    if value is None:
        return None
    try:
        if value == "-":
            raw = sys.stdin.buffer.read()
        elif value.startswith("@"):
            raw = Path(value[1:]).read_bytes()
        else:
            raw = value.encode("utf-8", "surrogateescape")
        return strict_json.loads(raw, DEPTH_MAX)
    except OSError as error:
        raise click.BadParameter(f"cannot read {value[1:]}: {error.strerror}") from None
    except strict_json.BadJson as error:
        raise click.BadParameter(f"{error}; text needs its own quotes: '\"text\"'") from None


@click.command(epilog=EXIT_CODES)
@click.argument("callback_url")
@click.option("--name", default="task", show_default=True, help="what to call it")
@click.option(
    "--payload", callback=_payload, metavar="JSON|@FILE|-", help="JSON to send to the callback"
)
@click.option(
    "--priority", type=int, metavar="N", help="-100 to 100, higher is sooner; 0 if absent"
)
@click.option("--delay", "delay_s", type=float, metavar="SECONDS", help="not before so long")
@click.option("--run-at", metavar="TIME", help="not before, such as 2026-01-02T03:04:05Z")
@click.option("--deadline", metavar="TIME", help="no attempt may begin after this")
@click.option("--timeout", "timeout_s", type=float, metavar="SECONDS", help="of one attempt; 10")
@click.option("--max-attempts", type=int, metavar="N", help="3 if absent")
@click.option(
    "--dispatch",
    type=click.Choice([dispatch.value for dispatch in Dispatch]),
    help="who takes it: executors (auto) or a client (manual); else as the server is set",
)
@click.option(
    "--method",
    type=click.Choice([method.value for method in Method], case_sensitive=False),
    help="POST",
)
@click.option("--header", "headers", type=_Pair(":"), multiple=True, metavar="NAME:VALUE")
@click.option("--metadata", type=_Pair("="), multiple=True, metavar="KEY=VALUE")
@click.option("--partition-key", metavar="KEY", help="one at a time and in order, per key")
@click.option("--idempotency-key", metavar="KEY", help="the same key never creates a second task")
@click.option(
    "--wait",
    "wait_s",
    type=_Seconds(),
    is_flag=False,
    flag_value=WAIT_S,
    metavar="[=SECONDS]",
    help=f"follow it to its end, at most so long ({WAIT_S:g} if not said)",
)
@server_option
@json_option
def submit(
    *,
    idempotency_key: str | None,
    wait_s: float | None,
    url: str,
    api_key: str | None,
    as_json: bool,
    **fields: Any,
) -> None:
    """Create a task that calls CALLBACK_URL, and print its id.

    With --wait its way is told on standard error, and the exit status is 0 if it was Completed,
    1 if it Failed or was Cancelled, 3 if it has not ended in time. With --json the first line is
    what the server answered, and with --wait the last is the task as it is then.
    """
    with Api(url, api_key) as api:
        created = _create(api, _task(fields), idempotency_key)
        if as_json:
            print_json(created)
        else:
            click.echo(created["taskId"])
        sys.stdout.flush()
        if wait_s is None:
            return
        trio.run(partial(_wait, url, api_key, created["taskId"], wait_s))
        task = api.get(created["taskId"])
        if as_json:
            print_json(task)
        exit_code = _ENDS.get(task["status"], EXIT_UNFINISHED)
        if exit_code == EXIT_UNFINISHED:
            why = api.explain(task["taskId"])
            click.echo(f"still {task['status']} after {wait_s:g} s: {why}", err=True)
    sys.exit(exit_code)


def _create(api: Api, task: Document, idempotency_key: str | None) -> Document:
    """With a key of our own where none is given: then to ask again cannot create it twice."""
    key = idempotency_key or f"cli-{uuid4()}"
    try:
        try:
            return api.create(task, key)
        except CutOff:
            return api.create(task, key)
    except Refused as refused:
        raise click.ClickException(refused.text(_NAMES)) from None


def _task(fields: dict[str, Any]) -> Document:
    """The task as the API wants it; what was not given is left to the server."""
    task: Document = {
        "name": fields["name"],
        "callbackUrl": fields["callback_url"],
        "payload": fields["payload"],
        "priority": fields["priority"],
        "dispatch": fields["dispatch"],
        "delaySeconds": fields["delay_s"],
        "runAt": fields["run_at"],
        "deadline": fields["deadline"],
        "timeoutSeconds": fields["timeout_s"],
        "method": fields["method"],
        "headers": dict(fields["headers"]) or None,
        "metadata": dict(fields["metadata"]) or None,
        "partitionKey": fields["partition_key"],
    }
    if fields["max_attempts"] is not None:
        task["retryPolicy"] = {"maxAttempts": fields["max_attempts"]}
    return {name: value for name, value in task.items() if value is not None}


async def _wait(url: str, api_key: str | None, task_id: str, wait_s: float) -> None:
    """Tell the way of a task on standard error until it ends or the time is over."""
    console = open_console(stderr=True)
    ended = False

    def tell(status: str, about: Document) -> None:
        said = outcome_of(about.get("callbackResult")) or printable(about.get("reason") or "")
        console.print(coloured(status).append(f"  {said}" if said else "", "none"))

    def handle(message: Message) -> bool:
        nonlocal ended
        for task in message.get("snapshot", ()):
            if ended := task["status"] in _ENDS:
                tell(task["status"], task)
        if "taskId" in message:
            tell(message["to"], message)
            ended = message["to"] in _ENDS
        return ended

    with trio.move_on_after(wait_s):
        await follow(
            url,
            Subscription(task_ids=[task_id], snapshot=True),
            handle,
            note=lambda text: click.echo(text, err=True),
            reconnect_s=wait_s,
            api_key=api_key,
        )
