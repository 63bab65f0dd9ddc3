"""`python -m web.receiver`: the receiver in a process of its own; its first line is its URL."""

from __future__ import annotations

import signal
from functools import partial

import click
import trio

from web.receiver.server import CALLS_MAX, open_receiver


async def run(host: str, port: int, calls_max: int) -> None:
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async with open_receiver(host, port, calls_max=calls_max) as receiver:
            click.echo(receiver.url)
            async for _ in signals:
                break


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=0, show_default=True, help="0 takes a free one.")
@click.option("--calls-max", default=CALLS_MAX, show_default=True, help="Calls remembered.")
def main(host: str, port: int, calls_max: int) -> None:
    """Answer callbacks, well or badly as their path asks, until SIGTERM."""
    trio.run(partial(run, host, port, calls_max))


if __name__ == "__main__":
    main()
