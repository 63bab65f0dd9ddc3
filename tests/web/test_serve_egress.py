"""Where the callbacks of a real server may go: what it says at its start, and keeps to."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from click.testing import CliRunner

from tests.support.server import ServerProcess, running_server
from web.cli import main

pytestmark = pytest.mark.slow


def create(server: ServerProcess, url: str) -> tuple[int, Any]:
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}/api/v1/tasks",
        json={"name": "a", "callbackUrl": url},
        trust_env=False,
    )
    return answer.status_code, answer.json()


def reach(server: ServerProcess) -> str:
    """What it says at its start, a moment after the line that says where it listens."""
    deadline = time.monotonic() + 60
    while not (lines := [s for s in server.out.read_text().splitlines() if "may go to" in s]):
        assert time.monotonic() < deadline
        trio.run(trio.sleep, 0.02)
    (line,) = lines
    return line.removeprefix("ringback: callbacks may go to ")


def test_a_server_on_loopback_calls_inner_addresses_but_not_itself(tmp_path: Path) -> None:
    with running_server(tmp_path) as server:
        assert reach(server) == "global, private and loopback addresses (--egress internal)"
        assert create(server, "http://127.0.0.1:9/")[0] == 201
        assert create(server, "http://10.1.2.3/")[0] == 201
        for host in ("127.0.0.1", "[::ffff:127.0.0.1]"):
            status, problem = create(server, f"http://{host}:{server.port}/api/tasks")
            assert status == 400
            assert "is this server itself" in problem["errors"][0]["detail"]
        assert create(server, "http://169.254.169.254/latest/meta-data")[0] == 400


def test_a_server_that_others_can_reach_calls_global_addresses_only(tmp_path: Path) -> None:
    with running_server(tmp_path, "--host", "0.0.0.0", "--insecure-no-auth") as server:
        assert reach(server) == "global addresses only (--egress public)"
        assert create(server, "http://1.1.1.1/")[0] == 201
        status, problem = create(server, "http://127.0.0.1:9/")
        assert (status, problem["errors"][0]["pointer"]) == (400, "/callbackUrl")
        assert create(server, "http://10.1.2.3/")[0] == 400


def test_options_and_variables_say_where_callbacks_may_go(tmp_path: Path) -> None:
    arguments = ["--host", "0.0.0.0", "--insecure-no-auth", "--egress", "internal"]
    with running_server(tmp_path, *arguments) as server:
        assert reach(server) == "global, private and loopback addresses (--egress internal)"
        # Behind a wildcard all of loopback is ourselves.
        assert create(server, f"http://127.7.7.7:{server.port}/")[0] == 400
        assert create(server, "http://127.7.7.7:9/")[0] == 201
    env = {"RINGBACK_EGRESS": "public", "RINGBACK_ALLOW_NETWORK": "10.0.0.0/8,127.0.0.1"}
    with running_server(tmp_path, env=env) as server:
        assert reach(server) == "global addresses and 10.0.0.0/8, 127.0.0.1/32 (--egress public)"
        assert create(server, "http://10.1.2.3/")[0] == 201
        assert create(server, "http://127.0.0.2:9/")[0] == 400


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--egress", "all"], "egress must be internal or public, not 'all'"),
        (["--allow-network", "10.0.0.1/8"], "10.0.0.1/8 has host bits set"),
    ],
)
def test_a_wrong_setting_is_a_wrong_usage(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["serve", "--database", "memory:", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_help_says_what_the_default_depends_on() -> None:
    text = " ".join(CliRunner().invoke(main, ["serve", "--help"]).stdout.split())
    assert "`internal` while `--host` is loopback, else `public`" in text
