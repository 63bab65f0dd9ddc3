"""API keys: how they are made, configured, checked and limited; and who may do what with them."""

from __future__ import annotations

import hashlib
import json
import math
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, strategies as st

from tests.support.app import HOOK, NOBODY, V1, Answer, Api, open_api
from tests.support.fakes import ScriptedNet
from tests.support.server import ServerProcess, environment, running_server
from web.auth import Keyring, Scope, authenticate, is_key, key_text, known_as, parse_keys
from web.cli import main
from web.problems import Problem
from web.rates import Rates
from web.settings import WebSettings

READER, WRITER, ADMIN, STRANGER = (
    key_text(name, bytes([number]) * 32)
    for number, name in enumerate(["reader", "writer", "admin", "stranger"])
)
KEYS = ",".join(
    known_as(key, scope).entry()
    for key, scope in ((READER, Scope.READ), (WRITER, Scope.WRITE), (ADMIN, Scope.ADMIN))
)


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with open_api(net=ScriptedNet(), settings=WebSettings(api_keys=KEYS)) as opened:
        yield opened


async def ask(api: Api, method: str, path: str, key: str | None, **more: Any) -> Answer:
    return await api.call(method, path, headers=bearer(key) if key else {}, **more)


# -- making and configuring them -------------------------------------------------------------


@given(
    st.binary(min_size=32, max_size=32),
    st.from_regex(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", fullmatch=True),
)
def test_a_key_is_known_by_its_hash_and_by_nothing_else(secret: bytes, key_id: str) -> None:
    key = key_text(key_id, secret)
    known = known_as(key, Scope.WRITE)
    assert re.fullmatch(rf"rbk_{key_id}_[A-Za-z0-9_-]{{43}}", key)
    assert known.entry() == f"{key_id}:write:{hashlib.sha256(key.encode()).hexdigest()}"
    ring = parse_keys(known.entry())
    assert ring.find(key) == known
    assert ring.find(key[:-1]) is None
    assert ring.find(key[:-2] + ("A" if key[-2] != "A" else "B") + key[-1]) is None
    assert ring.find(known.entry()) is None
    assert key[-43:] not in repr(ring) + repr(known)


@pytest.mark.parametrize("key_id", ["", "a_b", "A", "-a", "a-", "a" * 33, "a b", "ä"])
def test_an_id_that_would_be_ambiguous_is_refused(key_id: str) -> None:
    with pytest.raises(ValueError, match="an id has 1 to 32"):
        key_text(key_id, bytes(32))


def test_a_file_of_keys_may_have_comments_and_blank_lines() -> None:
    first, second, third = KEYS.split(",")
    text = f"# who may\n\n  {first}  # the dashboard\r\n{second},{third},\n"
    assert len(parse_keys(text)) == 3


@pytest.mark.parametrize("text", ["", "  \n"])
def test_no_text_means_no_keys(text: str) -> None:
    assert len(parse_keys(text)) == 0


_HASH = "0" * 64


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# all commented out", "no key is named"),
        (",", "no key is named"),
        (f"a:write:{_HASH},{STRANGER}", "entry 2 holds a key itself"),
        (f"a:write:{STRANGER}", "entry 1 holds a key itself"),
        (f"a:write:{_HASH},a:read:{_HASH[:-1]}1", "entry 2 has the id of entry 1"),
        (f"a:owner:{_HASH}", "entry 1 must have the scope read, write or admin"),
        (f"a:open:{_HASH}", "entry 1 must have the scope read, write or admin"),
        ("hunter2hunter2", "entry 1 must be ID:SCOPE:HASH"),
        (f"a:write:{_HASH[1:]}", "entry 1 must be ID:SCOPE:HASH"),
        (f"a:write:{_HASH[1:]}g", "entry 1 must be ID:SCOPE:HASH"),
        (f"a_b:write:{_HASH}", "entry 1 must be ID:SCOPE:HASH"),
        (",".join(f"k{n}:read:{_HASH}" for n in range(1001)), "there may be 1000, not 1001"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named_by_its_place_and_not_repeated(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as raised:
        WebSettings(api_keys=text)
    for word in ("hunter2", STRANGER[-43:], _HASH[1:]):
        assert word not in str(raised.value)


def test_all_zeros_as_a_hash_let_nobody_in() -> None:
    ring = parse_keys(f"a:admin:{_HASH}")
    assert ring.find(STRANGER) is None
    assert Keyring().find(STRANGER) is None


# -- requests --------------------------------------------------------------------------------

RING = parse_keys(KEYS)


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_name_of_the_scheme_may_be_in_any_case(scheme: str) -> None:
    assert authenticate(RING, [f"{scheme} {READER}".encode()]).id == "reader"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ([], None),
        ([b"Basic YTpi"], None),
        ([READER.encode()], None),
        ([b""], None),
        ([b"Bearer"], "invalid_token"),
        ([b"Bearer " + STRANGER.encode()], "invalid_token"),
        ([b"Bearer " + READER.encode() + b"x"], "invalid_token"),
        ([b"Bearer " + READER.encode() + b", Bearer x"], "invalid_token"),
        ([b"Bearer \xff\xfe"], "invalid_token"),
        ([b"Bearer " + READER.encode()] * 2, "invalid_token"),
    ],
)
def test_who_gives_no_known_key_is_told_how_and_sees_nothing_of_what_was_given(
    values: list[bytes], code: str | None
) -> None:
    with pytest.raises(Problem) as raised:
        authenticate(RING, values)
    problem = raised.value
    assert (problem.status, problem.kind) == (401, "unauthenticated")
    challenge = problem.headers["WWW-Authenticate"]
    assert challenge == 'Bearer realm="ringback"' + (f', error="{code}"' if code else "")
    assert STRANGER not in problem.text()
    assert READER not in problem.text()


@pytest.mark.parametrize(
    ("method", "path", "least"),
    [
        ("GET", f"{V1}/tasks", "read"),
        ("GET", f"{V1}/stats", "read"),
        ("GET", "/metrics", "read"),
        ("HEAD", f"{V1}/tasks", "read"),
        ("GET", f"{V1}/nothing-here", "read"),
        ("POST", f"{V1}/tasks", "write"),
        ("DELETE", f"{V1}/tasks/{NOBODY}", "write"),
        ("POST", f"{V1}/tasks/{NOBODY}/retry", "write"),
        ("POST", "/api/tasks", "write"),
        ("GET", "/api/tasks/dequeue", "write"),
        ("HEAD", "/api/tasks/dequeue", "write"),
        ("POST", f"{V1}/dead-letters/redrive", "admin"),
    ],
)
async def test_a_key_may_do_what_its_scope_includes(
    api: Api, method: str, path: str, least: str
) -> None:
    for key, scope in ((READER, "read"), (WRITER, "write"), (ADMIN, "admin")):
        answer = await ask(api, method, path, key, documented=method != "HEAD")
        if Scope[scope.upper()] >= Scope[least.upper()]:
            assert answer.status not in (401, 403), scope
        else:
            assert answer.status == 403, scope
            challenge = answer.headers["WWW-Authenticate"]
            assert 'error="insufficient_scope"' in challenge
            assert f'scope="{least}"' in challenge
            if method != "HEAD":
                assert answer.kind == "insufficient-scope"
                assert f"the scope {least}; the key {scope}er has" in answer.text.replace(
                    "reader", "reader").replace("writer", "writeer")  # fmt: skip


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/openapi.json", "/docs"])
async def test_health_and_description_are_open(api: Api, path: str) -> None:
    assert (await ask(api, "GET", path, None)).status == 200
    assert (await ask(api, "GET", path, STRANGER)).status == 200


async def test_a_refused_request_changes_nothing(api: Api) -> None:
    body = json.dumps({"name": "invoice", "callbackUrl": HOOK}).encode()
    for key in (None, STRANGER, READER):
        answer = await ask(api, "POST", f"{V1}/tasks", key, data=body)
        assert answer.status in (401, 403)
    assert (await ask(api, "GET", f"{V1}/tasks", READER)).json["totalCount"] == 0


async def test_two_clients_may_use_the_same_idempotency_key() -> None:
    other = known_as(STRANGER, Scope.WRITE).entry()
    settings = WebSettings(api_keys=f"{KEYS},{other}")
    async with open_api(net=ScriptedNet(), settings=settings) as api:
        ids = []
        for key in (WRITER, STRANGER, WRITER):
            answer = await api.call(
                "POST",
                f"{V1}/tasks",
                {"name": "invoice", "callbackUrl": HOOK},
                headers={**bearer(key), "Idempotency-Key": "one"},
            )
            assert answer.status == 201
            ids.append(answer.json["taskId"])
        assert ids[0] == ids[2] != ids[1]


async def test_openapi_names_the_scope_of_every_operation(api: Api) -> None:
    document = (await ask(api, "GET", "/openapi.json", None)).json
    scheme = document["components"]["securitySchemes"]["apiKey"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert "read < write < admin" in scheme["description"]
    paths = document["paths"]
    assert paths["/healthz"]["get"]["security"] == []
    assert paths[f"{V1}/tasks"]["get"]["security"] == [{"apiKey": ["read"]}, {}]
    assert paths["/api/tasks/dequeue"]["get"]["security"] == [{"apiKey": ["write"]}, {}]
    assert paths[f"{V1}/dead-letters/redrive"]["post"]["security"] == [{"apiKey": ["admin"]}, {}]
    for operations in paths.values():
        for operation in operations.values():
            assert ("401" in operation["responses"]) == bool(operation["security"])


# -- how fast --------------------------------------------------------------------------------


def test_without_a_limit_nothing_waits() -> None:
    rates = Rates(0)
    assert [rates.wait_s("a", 0.0) for _ in range(1000)] == [0.0] * 1000


def test_a_burst_of_a_seconds_worth_goes_through_and_then_the_rate_holds() -> None:
    rates = Rates(4)
    assert [rates.wait_s("a", 10.0) for _ in range(5)] == [0, 0, 0, 0, 0.25]
    assert rates.wait_s("a", 10.125) == 0.125
    assert rates.wait_s("a", 10.25) == 0
    assert rates.wait_s("a", 10.25) == 0.25
    assert [rates.wait_s("a", 1000.0) for _ in range(5)] == [0, 0, 0, 0, 0.25]


def test_less_than_one_a_second_is_possible() -> None:
    rates = Rates(0.5)
    assert [rates.wait_s("a", now) for now in (0.0, 1.0, 2.0)] == [0, 1, 0]


def test_keys_do_not_share_their_rate() -> None:
    rates = Rates(1)
    assert [rates.wait_s(key, 0.0) for key in "aabb"] == [0, 1, 0, 1]


@given(st.floats(0.1, 50), st.lists(st.floats(0, 1), max_size=200))
def test_never_more_than_the_rate_and_one_burst(per_s: float, pauses: list[float]) -> None:
    rates, now, taken = Rates(per_s), 0.0, 0
    for pause in pauses:
        now += pause
        taken += rates.wait_s("a", now) == 0
    assert taken <= math.floor(now * per_s + max(1, per_s) + 1e-6)


async def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    settings = WebSettings(api_keys=KEYS, key_requests_per_second=0.2)
    async with open_api(net=ScriptedNet(), settings=settings) as api:
        assert (await ask(api, "GET", f"{V1}/stats", READER)).status == 200
        answer = await ask(api, "GET", f"{V1}/stats", READER)
        assert (answer.status, answer.kind) == (429, "too-many-requests")
        assert 1 <= int(answer.headers["Retry-After"]) <= 5
        assert "the key reader" in answer.json["detail"]
        assert (await ask(api, "GET", f"{V1}/stats", WRITER)).status == 200
        assert (await ask(api, "GET", "/healthz", READER)).status == 200


@pytest.mark.parametrize("rate", [-1, -0.1])
def test_a_rate_below_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="key_requests_per_second"):
        WebSettings(key_requests_per_second=rate)


# -- the command line ------------------------------------------------------------------------


def run(*arguments: str, stdin: str | None = None, **env: str) -> Result:
    return CliRunner(env=env).invoke(main, arguments, input=stdin, prog_name="ringback")


def test_keys_new_prints_a_key_and_the_entry_that_lets_it_in() -> None:
    result = run("keys", "new", "--id", "ci", "--scope", "write")
    assert result.exit_code == 0, result.output
    found = re.fullmatch(r"key    (rbk_ci_\S{43})\nentry  (ci:write:\S{64})\n", result.stdout)
    assert found is not None
    known = parse_keys(found[2]).find(found[1])
    assert known is not None
    assert known.scope is Scope.WRITE
    again = run("keys", "hash", "--scope", "write", stdin=found[1] + "\n")
    assert again.stdout == found[2] + "\n"


def test_keys_new_makes_up_an_id_and_never_the_same_key_twice() -> None:
    made = [json.loads(run("keys", "new", "--scope", "read", "--json").stdout) for _ in range(3)]
    assert len({one["key"] for one in made}) == 3
    assert all(is_key(one["key"]) and one["key"].split("_")[1] == one["id"] for one in made)


@pytest.mark.parametrize(
    "arguments",
    [
        ("keys", "new", "--id", "A_B", "--scope", "read"),
        ("keys", "new", "--id", "a"),
        ("keys", "new", "--id", "a", "--scope", "open"),
        ("keys", "hash", "--scope", "read"),
    ],
)
def test_keys_that_cannot_be_made_are_refused(arguments: tuple[str, ...]) -> None:
    assert run(*arguments, stdin="hunter2").exit_code != 0
    assert "hunter2" not in run(*arguments, stdin="hunter2").output


@pytest.mark.parametrize(
    "arguments",
    [
        ("list", "--api-key", "hunter2"),
        ("list", "--api-key", STRANGER + "x"),
        ("serve", "--port", STRANGER),
        ("serve", "--api-keys", STRANGER),
        ("serve", "--api-keys", "@" + STRANGER),
        ("serve", f"--{STRANGER}"),
        (STRANGER,),
        (f"--{STRANGER}",),
        ("get", "--url", f"http://anna:{STRANGER}@127.0.0.1:1", "x"),
        ("get", "--url", "ftp://anna:hunter2@127.0.0.1:1", "x"),
        ("submit", HOOK, "--header", "X-Api-Key hunter2"),
        ("submit", HOOK, "--priority", STRANGER),
        ("migrate", "--database", "postgresql://anna:hunter2@127.0.0.1/x"),
    ],
)
def test_complaints_do_not_repeat_keys_and_passwords(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code != 0
    assert STRANGER[-43:] not in result.output
    assert "hunter2" not in result.output


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "tasks.example.com", ""])
def test_listening_for_other_machines_without_keys_is_refused(host: str) -> None:
    result = run("serve", "--host", host)
    assert result.exit_code == 2
    assert "ringback keys new" in result.output
    assert "--insecure-no-auth" in result.output


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real one. It reads its keys from a file."""
    place = tmp_path_factory.mktemp("auth")
    file = place / "keys"
    file.write_text("# who may\n" + KEYS.replace(",", "\n"))
    with running_server(place, "--api-keys", f"@{file}") as running:
        yield running


def test_commands_send_the_key_they_are_given(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text(WRITER + "\n")
    created = run("submit", HOOK, "--api-key", f"@{file}", RINGBACK_URL=server.url)
    assert created.exit_code == 0, created.output
    task_id = created.stdout.strip()
    env = {"RINGBACK_URL": server.url, "RINGBACK_API_KEY": READER}
    assert task_id in run("list", **env).stdout
    assert task_id in run("get", task_id, **env).stdout
    watched = run("watch", "--after", "0", "--count", "1", "--json", **env)
    assert json.loads(watched.stdout)["taskId"] == task_id
    waited = run("submit", HOOK, "--wait=0.2", **{**env, "RINGBACK_API_KEY": WRITER})
    assert waited.exit_code == 3, waited.output
    assert run("cancel", task_id, **{**env, "RINGBACK_API_KEY": WRITER}).exit_code == 0
    assert run("retry", task_id, **{**env, "RINGBACK_API_KEY": WRITER}).exit_code == 1


@pytest.mark.parametrize("arguments", [["list"], ["submit", HOOK], ["watch"], ["get", NOBODY]])
@pytest.mark.parametrize("key", [None, STRANGER])
def test_commands_without_a_known_key_say_what_to_do(
    server: ServerProcess, arguments: list[str], key: str | None
) -> None:
    env = {"RINGBACK_API_KEY": key} if key else {}
    result = run(*arguments, RINGBACK_URL=server.url, **env)
    assert result.exit_code == 1
    assert "API key" in result.stderr
    assert "RINGBACK_API_KEY" in result.stderr
    assert STRANGER[-43:] not in result.output


def test_a_command_beyond_the_scope_of_its_key_names_the_scope(server: ServerProcess) -> None:
    result = run("submit", HOOK, RINGBACK_URL=server.url, RINGBACK_API_KEY=READER)
    assert result.exit_code == 1
    assert "needs a key with the scope write" in result.stderr


def test_a_server_with_keys_says_whose(server: ServerProcess) -> None:
    said = server.out.read_text()
    assert "API keys: known are reader (read), writer (write), admin (admin)" in said


@pytest.mark.parametrize("more", [["--api-keys", KEYS], ["--insecure-no-auth"]])
def test_with_keys_a_server_may_listen_for_other_machines(more: list[str]) -> None:
    # No machine has this address (RFC 5737): to be told so, it must have tried to listen there.
    address = ["--host", "192.0.2.1", "--port", "0", "--database", "memory:"]
    ended = subprocess.run(
        [sys.executable, "-m", "web", "serve", *address, *more],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert "assign requested address" in ended.stderr
