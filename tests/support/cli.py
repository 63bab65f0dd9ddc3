"""The command line against a real server, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import attrs
from click.testing import CliRunner, Result

from tests.support.server import ServerProcess, environment, running_server
from web.cli import main

NOBODY = "http://127.0.0.1:1"  # tcpmux: nothing listens there


@attrs.frozen
class Site:
    """A server, and something to call back."""

    server: ServerProcess
    receiver: str

    def run(self, *arguments: str, stdin: str | None = None) -> Result:
        runner = CliRunner(env={"RINGBACK_URL": self.server.url, "NO_COLOR": None})
        return runner.invoke(main, list(arguments), input=stdin, prog_name="ringback")

    def submit(self, path: str, *arguments: str) -> str:
        result = self.run("submit", self.receiver + path, *arguments)
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    def start(self, *arguments: str, **settings: Any) -> subprocess.Popen[str]:
        return start(*arguments, url=self.server.url, **settings)


def start(*arguments: str, url: str, **settings: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "web", *arguments],
        env=environment({"RINGBACK_URL": url, **settings.pop("env", {})}),
        text=True,
        **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **settings},
    )


@contextmanager
def open_site(place: Path) -> Iterator[Site]:
    """A fresh server with its database in ``place``, and a receiver."""
    receiver = subprocess.Popen(
        [sys.executable, "-m", "web.receiver"], stdout=subprocess.PIPE, env=environment(), text=True
    )
    try:
        assert receiver.stdout is not None
        with receiver.stdout, running_server(place) as server:
            yield Site(server, receiver.stdout.readline().strip())
    finally:
        receiver.terminate()
        receiver.wait(10)


def lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
