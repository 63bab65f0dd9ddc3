"""The commands against a real server: what they print, and with which status they exit."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from click.testing import CliRunner

from tests.support.cli import NOBODY, Site, lines, open_site
from web.cli import main
from web.cli.output import printable

pytestmark = pytest.mark.slow

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with open_site(tmp_path_factory.mktemp("server")) as opened:
        yield opened


# -- submit ----------------------------------------------------------------------------------


def test_submit_prints_nothing_but_the_id(site: Site) -> None:
    result = site.run("submit", site.receiver + "/good")
    assert (result.exit_code, result.stderr) == (0, "")
    assert UUID.fullmatch(result.stdout.strip())


@pytest.mark.parametrize(
    ("path", "arguments", "code", "said"),
    [
        ("/good", ["--dispatch", "auto", "--wait"], 0, "Completed  HTTP 200"),
        ("/permanent", ["--dispatch", "auto", "--wait=20"], 1, "Failed  the callback"),
        ("/good", ["--dispatch", "manual", "--wait=0.3"], 3, "still Queued after 0.3 s"),
    ],
)
def test_submit_waits_and_tells_the_end_by_its_status(
    site: Site, path: str, arguments: list[str], code: int, said: str
) -> None:
    result = site.run("submit", site.receiver + path, *arguments)
    assert result.exit_code == code, result.output
    assert UUID.fullmatch(result.stdout.strip())
    assert said in result.stderr


def test_submit_json_gives_the_answer_and_then_the_task(site: Site) -> None:
    arguments = ["--dispatch", "auto", "--wait", "--json", "--payload", '{"n":1}']
    result = site.run("submit", site.receiver + "/good", *arguments)
    accepted, task = lines(result.stdout)
    assert accepted["status"] == "Queued"
    assert (task["taskId"], task["status"]) == (accepted["taskId"], "Completed")
    assert task["payload"] == {"n": 1}


def test_every_option_of_submit_reaches_the_task(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "payload.json"
    file.write_text('["from a file"]')
    options = (
        "--name full --priority 7 --delay 3600 --deadline 2099-01-01T00:00:00Z --timeout 3 "
        "--max-attempts 9 --dispatch manual --method put --header X-One:1 --header X-Two:b:2 "
        "--metadata team=a=b --partition-key k"
    )
    task_id = site.submit("/good", "--payload", f"@{file}", *options.split())
    task = lines(site.run("get", task_id, "--json").stdout)[0]
    expected = {
        "name": "full",
        "priority": 7,
        "deadline": "2099-01-01T00:00:00.000000Z",
        "timeoutSeconds": 3,
        "dispatch": "manual",
        "method": "PUT",
        "headers": {"X-One": "***", "X-Two": "***"},  # their values are not shown
        "metadata": {"team": "a=b"},
        "partitionKey": "k",
        "payload": ["from a file"],
    }
    assert {name: task[name] for name in expected} == expected
    assert task["retryPolicy"]["maxAttempts"] == 9
    assert task["runAt"] is not None


def test_the_payload_may_come_from_standard_input(site: Site) -> None:
    result = site.run("submit", site.receiver, "--payload", "-", stdin="[1, 2.5, null]")
    task = lines(site.run("get", result.stdout.strip(), "--json").stdout)[0]
    assert task["payload"] == [1, 2.5, None]


def test_the_same_idempotency_key_gives_the_same_task(site: Site) -> None:
    first = site.submit("/good", "--idempotency-key", "once")
    assert site.submit("/good", "--idempotency-key", "once") == first
    other = site.run("submit", site.receiver + "/broken", "--idempotency-key", "once")
    assert other.exit_code == 1
    assert "used with a different request body" in other.stderr


def test_each_wrong_field_has_a_line_and_the_name_of_its_option(site: Site) -> None:
    result = site.run("submit", "ftp://x", "--priority", "1000", "--header", "Host:x")
    assert result.exit_code == 1
    _, *fields = result.stderr.splitlines()
    assert sorted(field.split(":")[0].strip() for field in fields) == [
        "--header",
        "--priority",
        "CALLBACK_URL",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["submit"],
        ["submit", "http://x/", "--payload", "{nonsense"],
        ["submit", "http://x/", "--payload", "@/no/such/file"],
        ["submit", "http://x/", "--header", "no colon"],
        ["submit", "--wait", "http://x/"],
        ["list", "--status", "Lost"],
        ["watch", "--snapshot", "--after", "3"],
        ["get", "x", "--url", "localhost:8080"],
        ["demo", "--tasks", "1"],
    ],
)
def test_wrong_usage_exits_with_2_before_anything_is_sent(arguments: list[str]) -> None:
    result = CliRunner(env={"RINGBACK_URL": NOBODY}).invoke(main, arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.stderr


# -- get, list, cancel, retry ----------------------------------------------------------------


def test_get_shows_the_task_and_its_attempts(site: Site) -> None:
    task_id = site.submit("/good", "--dispatch", "auto", "--name", "seen", "--wait")
    result = site.run("get", task_id)
    assert result.exit_code == 0
    assert re.search(r"^name +seen$", result.stdout, re.MULTILINE)
    assert re.search(r"^status +Completed$", result.stdout, re.MULTILINE)
    assert re.search(r"^ +1  .*HTTP 200$", result.stdout, re.MULTILINE)
    task = lines(site.run("get", task_id, "--json").stdout)[0]
    assert [attempt["number"] for attempt in task["attempts"]] == [1]


def test_list_filters_and_goes_on_behind_a_cursor(site: Site) -> None:
    made = [site.submit("/good", "--name", "listed") for _ in range(3)]
    first = site.run("list", "--name", "listed", "--limit", "2", "--json")
    assert [task["taskId"] for task in lines(first.stdout)] == [made[2], made[1]]
    cursor = first.stderr.split()[-1]
    rest = site.run("list", "--name", "listed", "--cursor", cursor, "--json")
    assert [task["taskId"] for task in lines(rest.stdout)] == [made[0]]
    assert rest.stderr == ""
    none = site.run("list", "--name", "listed", "--status", "failed", "--json")
    assert (none.exit_code, none.stdout) == (0, "")


def test_list_follows_pages_until_it_has_as_many_as_asked_for(site: Site) -> None:
    result = site.run("list", "--limit", "100000")
    total = sum(1 for line in result.stdout.splitlines() if UUID.match(line))
    assert total == len(lines(site.run("list", "--limit", "100000", "--json").stdout)) > 3


def test_cancel_ends_a_waiting_task_and_says_no_to_an_ended_one(site: Site) -> None:
    task_id = site.submit("/good", "--delay", "3600")
    result = site.run("cancel", task_id)
    assert (result.exit_code, result.stdout) == (0, f"{task_id} Cancelled\n")
    again = site.run("cancel", task_id)
    assert again.exit_code == 1
    assert "is Cancelled" in again.stderr


def test_cancel_cuts_a_call_off_only_if_told_to(site: Site) -> None:
    task_id = site.submit("/hang", "--dispatch", "auto", "--timeout", "20")
    watched = site.run(
        "watch", "--after", "0", "--task", task_id, "--status", "Processing", "--count", "1"
    )
    assert watched.exit_code == 0
    refused = site.run("cancel", task_id)
    assert refused.exit_code == 1
    assert "add --in-flight" in refused.stderr
    assert site.run("cancel", task_id, "--in-flight").exit_code == 0


def test_retry_gives_a_failed_task_another_round(site: Site) -> None:
    waiting = site.run("submit", site.receiver + "/permanent", "--dispatch", "auto", "--wait")
    task_id = waiting.stdout.strip()
    result = site.run("retry", task_id)
    assert (result.exit_code, result.stdout) == (0, f"{task_id} Retrying\n")


@pytest.mark.parametrize("command", ["get", "cancel", "retry"])
@pytest.mark.parametrize("task_id", ["nonsense/../x", "00000000-0000-7000-8000-000000000000"])
def test_an_unknown_id_is_refused_with_advice(site: Site, command: str, task_id: str) -> None:
    result = site.run(command, task_id)
    assert result.exit_code == 1
    assert re.fullmatch(r"Error: no task has the id .*ringback list\n", result.stderr)


# -- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["get", "x"], ["list"], ["submit", "http://x/"], ["cancel", "x"], ["watch"]]
)
def test_without_a_server_the_error_names_its_url_and_how_to_start_one(
    arguments: list[str],
) -> None:
    result = CliRunner().invoke(main, [*arguments, "--url", NOBODY])
    assert result.exit_code == 4
    assert NOBODY in result.stderr
    assert "ringback serve" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", [["list"], ["watch"]])
def test_another_server_at_the_url_is_recognised(site: Site, command: list[str]) -> None:
    result = site.run(*command, "--url", site.receiver)
    assert result.exit_code == 1
    assert "check --url" in result.stderr


# -- what is printed -------------------------------------------------------------------------


def test_text_of_strangers_cannot_steer_the_terminal(site: Site) -> None:
    site.submit("/good", "--name", "\x1b[2Jgone\n\x07")
    assert "\x1b" not in site.run("list").stdout
    assert printable("a\x1b[31m\nü\u202e", keep="\n") == "a\\x1b[31m\nü\\u202e"


def _on_a_terminal(site: Site, **env: str) -> str:
    """What ``list`` prints on a terminal."""
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb", buffering=0) as reader:
        settings = {"TERM": "xterm-256color", "COLUMNS": "120", **env}
        process = site.start("list", stdout=theirs, stderr=theirs, env=settings)
        os.close(theirs)
        said = b""
        try:
            while data := reader.read(65536):
                said += data
        except OSError:
            pass  # how Linux says that the other side has closed
        assert process.wait(10) == 0
    return said.decode()


def test_colours_are_for_terminals_and_not_where_they_are_unwanted(site: Site) -> None:
    site.submit("/good")
    process = site.start("list")
    with ThreadPoolExecutor() as beside:  # each of them mostly starts
        first = beside.submit(_on_a_terminal, site)
        second = beside.submit(_on_a_terminal, site, NO_COLOR="1")
        wanted, unwanted = first.result(), second.result()
    piped, _ = process.communicate(timeout=10)
    assert "\x1b[" in wanted
    assert UUID.search(unwanted)
    assert "\x1b" not in unwanted
    assert UUID.search(piped)
    assert "\x1b" not in piped
    assert "│" not in piped


def test_help_tells_the_exit_codes() -> None:
    for command in ("submit", "get", "list", "watch", "cancel", "retry", "demo"):
        result = CliRunner().invoke(main, [command, "--help"])
        assert "Exit status:" in result.stdout, command
