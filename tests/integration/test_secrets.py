"""Twenty secrets go into a real server by every way in; none comes out of it by any way out."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from click.testing import CliRunner, Result

from engine import Secret
from tests.support.echo import SPELLINGS, Echo, echoing
from tests.support.secrets import Haul, spellings
from tests.support.server import ServerProcess, environment, running_server
from web.auth import Scope, key_text, known_as
from web.cli import main
from web.cli.watching import Message, Subscription, follow

V1 = "/api/v1"
CONTROL = "control-value-that-may-be-seen-4711"
ENDED = ("Completed", "Failed", "Cancelled")


def made(number: int) -> bytes:
    """Bytes of a secret, different for each."""
    return bytes((number * 37 + place * 11) % 256 for place in range(32))


KEYS = {
    name: key_text(name, made(number))
    for number, name in enumerate(
        ["reader", "writer", "admin", "stranger", "pasted-entry", "pasted-port", "in-query",
         "handshake", "rejected"]
    )
}  # fmt: skip
SIGNING = [Secret(made(20)), Secret(made(21))]
BROKEN_SIGNING = "whsec_" + base64.b64encode(made(22)).decode().replace("=", "!")
PASSWORDS = {
    "bearer": "tok.en-of_the~callee/12345",
    "basic": "correct horse battery",
    "cookie": "session8f3a9c2e7b",
    "api-key": "key-d41d8cd98f00b204",
    "custom": 'p&ss/"w<rd>+ of=8;x',
    "userinfo": "userinfo-pa55word",
    "query": "query-pa55word",
    "own-basic": "own-basic-pa55word",
    "own-bearer": "own-bearer-t0ken-x",
    "crlf": "crlf-header-pa55word",
    "batch": "batch-header-pa55word",
    "patch": "patch-header-pa55word",
    "cli-header": "cli-header-pa55word",
    "cli-colon": "cli:colon:pa55word",
    "named": "header-name-pa55word",
}
SECRETS = [
    *(key[-43:] for key in KEYS.values()),
    *(secret.reveal().removeprefix("whsec_") for secret in SIGNING),
    *(secret.key.hex() for secret in SIGNING),
    BROKEN_SIGNING.removeprefix("whsec_").rstrip("!"),
    *PASSWORDS.values(),
    PASSWORDS["custom"][:8],  # what the end of an answer that is too long leaves of it
]
HEADERS = {
    "bearer": {"Authorization": f"Bearer {PASSWORDS['bearer']}"},
    "basic": {
        "Authorization": "Basic " + base64.b64encode(f"anna:{PASSWORDS['basic']}".encode()).decode()
    },
    "others": {
        "Cookie": f"theme=dark; sid={PASSWORDS['cookie']}",
        "X-Api-Key": PASSWORDS["api-key"],
        "X-Custom": PASSWORDS["custom"],
    },
}


class Client:
    """Asks a server over HTTP, and keeps all it answers."""

    def __init__(self, server: ServerProcess, haul: Haul, key: str) -> None:
        self.server, self.haul, self.key = server, haul, key

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = "",
        raw: bytes | None = None,
    ) -> tuple[int, Any]:
        """The status and the document; ``key`` instead of the client's own, or none at all."""
        sent = {"Content-Type": "application/json"} if body is not None or raw else {}
        if key is not None:
            sent["Authorization"] = f"Bearer {key or self.key}"
        sent |= headers or {}
        data = raw if raw is not None else json.dumps(body).encode() if body is not None else None
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request(method, path, body=data, headers=sent)
            response = connection.getresponse()
            text = self.haul.add(f"{method} {path}", response.read())
            self.haul.add(f"headers of {method} {path}", str(response.getheaders()))
        finally:
            connection.close()
        is_json = "json" in (response.getheader("Content-Type") or "")
        return response.status, json.loads(text) if is_json else text

    def create(self, url: str, headers: Mapping[str, str], **fields: Any) -> str:
        """A task; its id."""
        body = {"name": "t", "callbackUrl": url, "headers": dict(headers), "payload": CONTROL}
        policy = {"maxAttempts": 2, "initialIntervalSeconds": 0}
        status, document = self.ask(
            "POST", f"{V1}/tasks", {**body, "retryPolicy": policy, **fields}
        )
        assert status == 201, document
        return str(document["taskId"])

    def look(self, task_id: str) -> None:
        """At everything that is known of a task."""
        for part in ("", "/attempts", "/events", "/explain"):
            assert self.ask("GET", f"{V1}/tasks/{task_id}{part}")[0] == 200
        self.ask("GET", f"{V1}/archive/{task_id}")
        self.ask("GET", f"/api/tasks/{task_id}")

    def until_ended(self, task_ids: list[str]) -> None:
        """Wait until all of them have."""
        deadline = time.monotonic() + 60
        for task_id in task_ids:
            while self.ask("GET", f"{V1}/tasks/{task_id}")[1]["status"] not in ENDED:
                assert time.monotonic() < deadline, task_id
                trio.run(trio.sleep, 0.05)

    def raw(self, where: str, request: str) -> str:
        """What is answered to these bytes, at first."""
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=10) as sock:
            sock.sendall(request.replace("\n", "\r\n").encode() + b"\r\n\r\n")
            return self.haul.add(where, sock.recv(65536))

    def stream(self, path: str) -> None:
        """What comes by server-sent events, up to the newest there is now."""
        newest = self.ask("GET", f"{V1}/stats")[1]["newestEvent"]
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self.key}"
        with socket.create_connection(("127.0.0.1", self.server.port), timeout=30) as sock:
            sock.sendall(request.encode() + b"\r\n\r\n")
            said = b""
            while (at := said.find(f"id: {newest}\n".encode())) < 0 or b"\n\n" not in said[at:]:
                data = sock.recv(65536)
                assert data, "the stream has ended"
                said += data
        self.haul.add(path, said)
        assert b"event: status" in said


def run(haul: Haul, *arguments: str, env: Mapping[str, str]) -> Result:
    """The command line, and all it prints."""
    ended = CliRunner(env=env).invoke(main, arguments, prog_name="ringback")
    haul.add(f"output of {arguments[0]}", ended.output)
    haul.add(f"error of {arguments[0]}", repr(ended.exception))
    return ended


def run_process(haul: Haul, *arguments: str, env: Mapping[str, str]) -> int:
    """The same in a process of its own, where a server may come to its start."""
    ended = subprocess.run(
        [sys.executable, "-m", "web", *arguments],
        env=environment(env),
        capture_output=True,
        timeout=60,
        check=False,
    )
    haul.add(f"output of {arguments[0]}", ended.stdout + ended.stderr)
    return ended.returncode


SERVER_ENV = {
    "RINGBACK_API_KEYS": "\n".join(
        known_as(KEYS[name], Scope[scope]).entry()
        for name, scope in (("reader", "READ"), ("writer", "WRITE"), ("admin", "ADMIN"))
    ),
    "RINGBACK_SIGNING_SECRETS": ",".join(secret.reveal() for secret in SIGNING),
    "RINGBACK_LOG_LEVEL": "debug",
}
ARGUMENTS = ("--dispatch", "auto", "--breaker-ratio", "2", "--store-retry", "0.1")


# -- the ways in -----------------------------------------------------------------------------


def drive_callbacks(client: Client, echo: Echo) -> list[str]:
    """Callees that repeat what they got, in every spelling, with every outcome."""
    ids = []
    for headers in HEADERS.values():
        unfit = "/decoded" if "X-Custom" in headers else "/cut"
        for path in SPELLINGS.keys() - {unfit}:
            ids += [client.create(f"{echo.url}{at}{path}", headers) for at in ("", "/500", "/400")]
        for path in ("/head", "/illegal", "/status", "/cut-off"):
            ids.append(client.create(echo.url + path, headers))
        ids.append(client.create(echo.url.replace("http:", "https:") + "/tls", headers))
        ids.append(client.create("http://127.0.0.1:1/refused", headers))
    client.until_ended(ids)
    return ids


def drive_refusals(client: Client) -> None:
    """Requests that are wrong, and say a secret on the way."""
    tasks, task = f"{V1}/tasks", {"name": "t", "callbackUrl": "http://127.0.0.1:1/"}
    password = PASSWORDS["userinfo"]
    for url in (
        f"http://anna:{password}@127.0.0.1/", f"http://anna:{password}/x@127.0.0.1/",
        f"http://{password}:80:80/", f"http://anna:{password}", f"http://[{password}]/",
        f"ftp://anna:{password}@127.0.0.1/", f"http://anna:{password}@[::1/",
    ):  # fmt: skip
        assert client.ask("POST", tasks, {**task, "callbackUrl": url})[0] == 400
        assert client.ask("POST", "/api/tasks", {"callbackUrl": url})[0] == 400
    for headers in (
        {"X-Custom": PASSWORDS["crlf"] + "\r\nX: y"}, {"Host": PASSWORDS["crlf"]},
        {"webhook-signature": PASSWORDS["crlf"]}, {"X": PASSWORDS["crlf"] * 999},
        {"X": [PASSWORDS["crlf"]]}, [PASSWORDS["crlf"]], PASSWORDS["crlf"],
        {"A": PASSWORDS["crlf"], "a": PASSWORDS["crlf"]},
        {f"Authorization: Bearer {PASSWORDS['named']}": ""},
    ):  # fmt: skip
        assert client.ask("POST", tasks, {**task, "headers": headers})[0] == 400
    bad = {"name": "", "callbackUrl": "x", "headers": {"X-Api-Key": PASSWORDS["batch"]}}
    assert client.ask("POST", f"{tasks}/batch", {"tasks": [bad]})[0] == 400
    assert client.ask("POST", tasks, raw=json.dumps(bad).encode() + b"}")[0] == 400
    assert client.ask("PATCH", f"{tasks}/x", {"headers": {"X": PASSWORDS["patch"]}})[0] == 400
    for query in (f"password={PASSWORDS['query']}", f"status={PASSWORDS['query']}"):
        assert client.ask("GET", f"{tasks}?{query}")[0] == 400
        assert client.ask("GET", f"{V1}/events?{query}")[0] == 400
    assert client.ask("GET", f"{tasks}?access_token={KEYS['in-query']}", key=None)[0] == 401
    assert client.ask("GET", f"{tasks}?{KEYS['in-query']}=1")[0] == 400


def drive_credentials(client: Client) -> None:
    """Keys that are not known, and other credentials in their place."""
    own_basic = base64.b64encode(f"anna:{PASSWORDS['own-basic']}".encode()).decode()
    for path in (f"{V1}/tasks", f"{V1}/stats", f"{V1}/events", "/metrics", "/nothing"):
        assert client.ask("GET", path, key=KEYS["stranger"])[0] == 401
        assert client.ask("GET", path, key=PASSWORDS["own-bearer"])[0] == 401
        basic = {"Authorization": f"Basic {own_basic}", "X-Note": PASSWORDS["own-basic"]}
        assert client.ask("GET", path, key=None, headers=basic)[0] == 401
    assert client.ask("POST", f"{V1}/tasks", {}, key=KEYS["reader"])[0] == 403
    foreign = {"Origin": f"https://{PASSWORDS['own-bearer']}.example"}
    assert client.ask("POST", f"{V1}/tasks", {}, headers=foreign)[0] == 403
    handshake = (
        f"GET {V1}/tasks/stream HTTP/1.1\nHost: localhost\nConnection: Upgrade\nUpgrade: websocket\n"
        "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    )
    for more in (f"\nAuthorization: Bearer {KEYS['handshake']}", f"\nX: {KEYS['handshake']}"):
        assert " 401 " in client.raw("handshake", handshake + more)
    forged = "GET /x%0aFORGED%0d%1b[2J HTTP/1.1\nHost: localhost\nConnection: close"
    assert " 401 " in client.raw("forged", forged)
    client.raw("nonsense", f"GET /x\x00 HTTP/1.1\nAuthorization: Bearer {KEYS['rejected']}")
    client.raw("nonsense", f"{KEYS['rejected']} / HTTP/1.1\nHost: localhost")


def drive_a_locked_store(client: Client, database: Path) -> None:
    """The store cannot be written for a while; the log tells of it."""
    holder = sqlite3.connect(database, isolation_level=None)
    try:
        holder.execute("BEGIN IMMEDIATE")
        body = {"name": "t", "callbackUrl": "http://127.0.0.1:1/", "headers": HEADERS["others"]}
        assert client.ask("POST", f"{V1}/tasks", body)[0] == 503
    finally:
        holder.close()


def drive_the_command_line(server: ServerProcess, echo: Echo, haul: Haul) -> None:
    """Every command, as it is meant and with secrets where they do not belong."""
    env = {"RINGBACK_URL": server.url, "RINGBACK_API_KEY": KEYS["writer"], **SERVER_ENV}
    for name in main.commands:
        assert run(haul, name, "--help", env=env).exit_code == 0
    header = f"X-Cli: {PASSWORDS['cli-colon']}"
    ended = run(haul, "submit", f"{echo.url}/json", "--header", header, "--wait", env=env)
    assert ended.exit_code == 0, ended.output
    assert any(got.get("x-cli") == PASSWORDS["cli-colon"] for got in echo.got)
    task_id = ended.stdout.split()[0]
    for arguments in (["get", task_id], ["get", task_id, "--json"], ["list"], ["list", "--json"]):
        assert run(haul, *arguments, env=env).exit_code == 0
    assert run(haul, "watch", "--json", "--after=0", "--count=100", env=env).exit_code == 0
    trio.run(partial(follow_a_snapshot, server.url, haul))
    stranger = {**env, "RINGBACK_API_KEY": KEYS["stranger"]}
    for wrong, its_env in (
        (["list"], stranger),
        (["watch", "--count=1"], stranger),
        (["list", "--api-key", PASSWORDS["own-bearer"]], env),
        (["list", "--url", f"http://anna:{PASSWORDS['userinfo']}@{server.url[7:]}"], env),
        (["submit", echo.url, "--header", PASSWORDS["cli-header"]], env),
        (["submit", f"http://anna:{PASSWORDS['userinfo']}@127.0.0.1/"], env),
        (["serve", "--api-keys", KEYS["pasted-entry"]], env),
        (["serve", "--api-keys", f"a:read:{KEYS['pasted-entry']}"], env),
        (["serve", "--api-keys", "@" + KEYS["pasted-entry"]], env),
        (["serve", "--port", KEYS["pasted-port"]], env),
        (["serve", "--signing-secrets", BROKEN_SIGNING], env),
        (["serve", "--port", SIGNING[0].reveal()], env),
        (["serve", f"--{KEYS['pasted-port']}"], env),
        ([KEYS["pasted-port"]], env),
    ):
        assert run(haul, *wrong, env=its_env).exit_code != 0, wrong[0]


@contextmanager
def commands_of_their_own(echo: Echo, haul: Haul) -> Iterator[None]:
    """Commands that need none of our servers, beside what is done with those."""
    header = f"X-Check: {PASSWORDS['cli-colon']}"
    check = ("check-target", f"{echo.url}/json", "--header", header, "--timeout=1")
    url = f"postgresql://anna:{PASSWORDS['userinfo']}@127.0.0.1/x"
    env = {"RINGBACK_API_KEY": KEYS["writer"], **SERVER_ENV}
    signing = env | {"RINGBACK_SIGNING_SECRETS": SIGNING[0].reveal()}
    with ThreadPoolExecutor() as beside:
        ended = [
            beside.submit(run_process, haul, *check, env=signing),
            *(
                beside.submit(run_process, haul, command, "--database", url, env=env)
                for command in ("migrate", "serve")
            ),
        ]
        yield
        checked, *refused = [each.result() for each in ended]
    assert checked == 1  # the echo takes forged calls, too
    assert all(refused)


async def follow_a_snapshot(url: str, haul: Haul) -> None:
    """All tasks in one message of a websocket."""

    def handle(message: Message) -> bool:
        haul.add("snapshot", json.dumps(message))
        return "snapshot" in message

    wanted, key = Subscription(snapshot=True), KEYS["reader"]
    await follow(url, wanted, handle, note=print, reconnect_s=0, api_key=key)


def look_everywhere(client: Client, task_ids: list[str]) -> None:
    """All there is to read."""
    for task_id in task_ids:
        client.look(task_id)
    for path in (
        *(f"{V1}/tasks?size=250", f"{V1}/archive?size=250", f"{V1}/dead-letters?size=250"),
        *(f"{V1}/stats", "/metrics", "/openapi.json", "/docs", "/healthz"),
    ):
        assert client.ask("GET", path)[0] == 200, path
    deadline = time.monotonic() + 60  # it takes two seconds without trouble, and a sweep
    while client.ask("GET", "/readyz")[0] != 200:
        assert time.monotonic() < deadline
        trio.run(trio.sleep, 0.05)
    client.stream(f"{V1}/events?after=0&snapshot=false")
    client.ask("POST", f"{V1}/dead-letters/redrive", {"limit": 3}, key=KEYS["admin"])


def read_logs(place: Path, haul: Haul) -> str:
    haul.add("standard output", (place / "server.out").read_bytes())
    return haul.add("standard error", (place / "server.err").read_bytes())


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_planted_secret_comes_out_by_any_way(tmp_path: Path) -> None:
    haul = Haul()
    with echoing() as echo, commands_of_their_own(echo, haul):
        with running_server(tmp_path, *ARGUMENTS, env=SERVER_ENV) as server:
            client = Client(server, haul, KEYS["writer"])
            task_ids = drive_callbacks(client, echo)
            drive_refusals(client)
            drive_credentials(client)
            drive_a_locked_store(client, tmp_path / "ringback.db")
            look_everywhere(client, task_ids)
            drive_the_command_line(server, echo, haul)
            task_ids += [client.create(f"{echo.url}/json", HEADERS["others"]) for _ in range(9)]
            server.kill()
        assert "DEBUG" in read_logs(tmp_path, haul)
        with running_server(tmp_path, *ARGUMENTS, env=SERVER_ENV) as server:
            client = Client(server, haul, KEYS["writer"])
            client.until_ended(task_ids)
            look_everywhere(client, task_ids[-9:])
        log = read_logs(tmp_path, haul)
        assert "the store does not answer" in log
        assert r"refused /x\nFORGED\r\x1b[2J: unauthenticated" in log
        assert_it_was_a_real_search(haul, echo)
    assert haul.search(SECRETS) == []


def assert_it_was_a_real_search(haul: Haul, echo: Echo) -> None:
    """The secrets were there to be seen; and what may be seen is found, in every spelling."""
    assert len(set(SECRETS)) >= 20
    sent = [value for got in echo.got for value in got.values()]
    for headers in HEADERS.values():
        assert set(headers.values()) <= set(sent)
    assert any(got.get("webhook-signature", "").count("v1,") == 2 for got in echo.got)
    seen = {spelled for _, text in haul.said for spelled in spellings(CONTROL) if spelled in text}
    assert {CONTROL, CONTROL.encode().hex()} < seen
    assert len(seen) >= 3, "base64"
    assert len([text for _, text in haul.said if "***" in text]) > 100


@pytest.mark.parametrize("spelled", sorted(spellings(PASSWORDS["custom"])))
def test_the_search_finds_every_spelling(spelled: str) -> None:
    haul = Haul([("somewhere", f"before {spelled} after")])
    assert haul.search(SECRETS)


def test_the_database_holds_them_and_is_its_owners_alone(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        with echoing() as echo, running_server(tmp_path, env=SERVER_ENV) as server:
            Client(server, Haul(), KEYS["writer"]).create(f"{echo.url}/json", HEADERS["others"])
            files = list(tmp_path.glob("ringback.db*"))
            stored = b"".join(file.read_bytes() for file in files)
    finally:
        os.umask(umask)
    assert PASSWORDS["api-key"].encode() in stored
    assert len(files) == 4
    assert {file.stat().st_mode & 0o777 for file in files if file.exists()} == {0o600}
