"""The door: no URL is without it, and what it checks cannot be talked around."""

from __future__ import annotations

import re
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trio

from tests.support.app import HOOK, NOBODY, V1, Answer, Api, open_api
from tests.support.fakes import ScriptedNet
from tests.support.server import ServerProcess, running_server
from web.app import operations
from web.auth import Scope, key_text, known_as
from web.hosts import Hosts, Origins, parse_hosts, parse_origins
from web.metrics import Metrics
from web.problems import Problem
from web.settings import WebSettings

KEY = key_text("ci", bytes(32))
ENTRY = known_as(KEY, Scope.ADMIN).entry()
STREAM = f"{V1}/tasks/stream"


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with open_api(net=ScriptedNet()) as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """A real one, with a key."""
    with running_server(tmp_path_factory.mktemp("door"), "--api-keys", ENTRY) as running:
        yield running


def exchange(server: ServerProcess, request: str, body: bytes = b"") -> str:
    """What a real server answers to these bytes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(request.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    return answer.decode()


# -- every URL there is ----------------------------------------------------------------------

ROUTES = [(one.method, one.path) for one in operations(Metrics())]
BEYOND = [
    ("GET", "/"),
    ("GET", f"{V1}/nothing"),
    ("PUT", f"{V1}/tasks"),
    ("OPTIONS", f"{V1}/tasks"),
    ("HEAD", f"{V1}/tasks"),
    ("POST", "/healthz/"),
    ("GET", "//healthz"),
]
OPEN = {"/healthz", "/readyz", "/openapi.json", "/docs"}


def of(route: str) -> str:
    return re.sub(r"{\w+}", NOBODY, route)


def test_the_list_of_routes_is_the_apps() -> None:
    assert len(ROUTES) > 20
    assert {path for method, path in ROUTES if method == "GET"} >= OPEN


async def ask(api: Api, method: str, path: str, **headers: str) -> Answer:
    known = (method, path) in ROUTES
    return await api.call(method, of(path), headers=headers, documented=known)


async def test_no_url_answers_to_a_foreign_host(api: Api) -> None:
    for method, path in (*ROUTES, *BEYOND):
        answer = await ask(api, method, path, Host="evil.example")
        assert answer.status == 421, path
        assert method == "HEAD" or answer.kind == "misdirected"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_no_url_answers_without_a_key_but_those_that_are_open() -> None:
    settings = WebSettings(api_keys=ENTRY)
    async with open_api(net=ScriptedNet(), settings=settings) as api:
        for method, path in (*ROUTES, *BEYOND):
            answer = await ask(api, method, path)
            assert (answer.status == 401) == (path not in OPEN), path


CHANGING = [
    (method, path)
    for method, path in ROUTES + BEYOND
    if method not in ("GET", "HEAD", "OPTIONS") or path == "/api/tasks/dequeue"
]


async def test_no_page_from_elsewhere_changes_anything(api: Api) -> None:
    for method, path in CHANGING:
        answer = await ask(api, method, path, Origin="https://evil.example")
        assert (answer.status, answer.kind) == (403, "forbidden-origin"), path


def test_every_operation_that_needs_more_than_reading_is_among_these() -> None:
    changing = {(one.method, one.path) for one in operations(Metrics()) if one.needs > Scope.READ}
    assert changing <= set(CHANGING)


async def test_a_page_from_elsewhere_may_ask_for_what_its_browser_will_not_show_it(
    api: Api,
) -> None:
    answer = await api.get(f"{V1}/tasks", Origin="https://evil.example")
    assert answer.status == 200
    assert not [name for name in answer.headers if name[0].lower().startswith("access-control")]


async def test_an_image_on_a_page_from_elsewhere_dequeues_nothing(api: Api) -> None:
    await api.create()
    for site in ("cross-site", "same-site"):
        assert (await api.get("/api/tasks/dequeue", Sec_Fetch_Site=site)).status == 403
    for site in ("none", "same-origin"):
        answer = await api.get("/api/tasks/dequeue", Sec_Fetch_Site=site)
        assert answer.status in (200, 404)


# -- names -----------------------------------------------------------------------------------


def host_status(hosts: Hosts, host: str) -> int:
    try:
        hosts.check(host.encode("latin-1"))
    except Problem as problem:
        return problem.status
    return 200


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LocalHost:8080",
        "localhost.",
        "127.0.0.1:8080",
        "192.0.2.7",
        "[::1]",
        "[::1]:8080",
        "[FE80::1]:80",
        "box",
        "BOX:1",
        "tasks.example.com",
        "tasks.example.com.:443",
        "below.example.org",
        "far.below.example.org",
        "example.org",
    ],
)
def test_own_names_and_all_addresses_are_answered_to(host: str) -> None:
    allowed = parse_hosts("tasks.example.com, .example.org")
    assert host_status(Hosts(["box"], allowed), host) == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "evil-localhost",
        "127.0.0.1.evil.example",
        "127.1",
        "2130706433",
        "0x7f000001",
        "nottasks.example.com",
        "x.tasks.example.com",
        "evilexample.org",
        "example.org.evil.example",
        "*",
    ],
)
def test_other_names_are_not(host: str) -> None:
    allowed = parse_hosts("tasks.example.com, .example.org")
    assert host_status(Hosts(["box"], allowed), host) in (400, 421)


@pytest.mark.parametrize(
    "host",
    [
        "", ":80", "a b", "a@localhost", "localhost/", "localhost:80:80", "localhost:x",
        "localhost:123456", "[::1", "::1", "[1.2.3.4]", "[::1]x", "[]", "local\xe9", "a" * 254,
        "x" * 100_000, "localhost,localhost", "localhost#", "localhost\\",
    ],
)  # fmt: skip
def test_what_is_no_host_is_malformed_also_where_any_is_allowed(host: str) -> None:
    assert host_status(Hosts([], ["*"]), host) == 400


def test_any_name_may_be_allowed() -> None:
    assert host_status(Hosts([], parse_hosts("*")), "evil.example") == 200


def test_a_refused_name_is_told_what_to_set() -> None:
    with pytest.raises(Problem) as raised:
        Hosts([], []).check(b"Tasks.Example.com:80")
    assert "the name tasks.example.com" in raised.value.detail
    assert "--allowed-hosts" in raised.value.detail


@pytest.mark.parametrize(
    "text", ["tasks.example.com:80", "https://x", "a/b", "*.example.com", ".", "..", "a@b"]
)
def test_allowed_hosts_that_would_match_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entry 2"):
        WebSettings(allowed_hosts=f"good.example, {text}")


# -- origins ---------------------------------------------------------------------------------


def is_foreign(origins: Origins, origin: str | None, host: str | None, site: str = "") -> bool:
    given = None if origin is None else origin.encode("latin-1")
    try:
        origins.check(given, site.encode() or None, None if host is None else host.encode())
    except Problem as problem:
        return problem.kind == "forbidden-origin"
    return False


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        (None, "localhost:8080"),
        (None, None),
        ("http://localhost:8080", "localhost:8080"),
        ("http://LOCALHOST:8080", "localhost:8080"),
        ("http://localhost", "localhost:80"),
        ("http://localhost:80", "localhost"),
        ("https://tasks.example.com", "tasks.example.com"),
        ("https://tasks.example.com", "tasks.example.com:443"),
        ("http://[::1]:8080", "[::1]:8080"),
        ("https://admin.example.com", "localhost:8080"),
        ("app://admin", "localhost:8080"),
    ],
)
def test_the_same_server_and_allowed_pages_are_not_foreign(
    origin: str | None, host: str | None
) -> None:
    origins = Origins(parse_origins("https://admin.example.com app://admin"))
    assert not is_foreign(origins, origin, host)


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("null", "localhost:8080"),
        ("", "localhost:8080"),
        ("http://localhost:3000", "localhost:8080"),
        ("http://localhost", "localhost:8080"),
        ("http://localhost:443", "localhost"),
        ("https://evil.example", "localhost:8080"),
        ("http://admin.example.com", "localhost:8080"),
        ("https://admin.example.com.evil.example", "localhost:8080"),
        ("https://admin.example.com:444", "localhost:8080"),
        ("localhost:8080", "localhost:8080"),
        ("http://localhost:8080/", "localhost:8080"),
        ("http://evil.example@localhost:8080", "localhost:8080"),
        ("http://localhost:8080 http://evil.example", "localhost:8080"),
        ("http://localhost", None),
        ("x" * 100_000, "localhost"),
    ],
)
def test_other_pages_are_foreign(origin: str, host: str | None) -> None:
    assert is_foreign(Origins(parse_origins("https://admin.example.com")), origin, host)


def test_any_origin_may_be_allowed() -> None:
    origins = Origins(parse_origins("*"))
    assert not is_foreign(origins, "null", "localhost")
    assert not is_foreign(origins, None, "localhost", "cross-site")


@pytest.mark.parametrize("text", ["https://a/", "a.example", "https://", "null", "https://a?b"])
def test_allowed_origins_that_browsers_never_send_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="entry 1"):
        WebSettings(allowed_origins=text)


async def test_settings_reach_the_door() -> None:
    settings = WebSettings(
        allowed_hosts="tasks.example.com",
        allowed_origins="https://admin.example.com",
    )
    async with open_api(net=ScriptedNet(), settings=settings) as api:
        headers = {"Host": "tasks.example.com", "Origin": "https://admin.example.com"}
        body = {"name": "invoice", "callbackUrl": HOOK}
        assert (await api.call("POST", f"{V1}/tasks", body, headers=headers)).status == 201
        async with api.websocket(**headers) as stream:
            assert (await stream.subscribe())["subscribed"]


# -- websockets and streams ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "status", "kind"),
    [
        ({"Host": "evil.example", "Origin": "http://evil.example"}, 421, "misdirected"),
        ({"Origin": "https://evil.example"}, 403, "forbidden-origin"),
        ({"Origin": "null"}, 403, "forbidden-origin"),
    ],
)
async def test_a_foreign_page_gets_no_websocket(
    api: Api, headers: dict[str, str], status: int, kind: str
) -> None:
    async with api.websocket(**headers) as stream:
        assert (stream.refusal.status, stream.refusal.kind) == (status, kind)


async def test_a_page_of_this_server_gets_one(api: Api) -> None:
    async with api.websocket(Origin="http://localhost") as stream:
        assert (await stream.subscribe())["subscribed"]


async def test_a_server_that_cannot_answer_a_handshake_closes_it(api: Api) -> None:
    sent: list[Any] = []

    async def send(message: Any) -> None:  # noqa: ASYNC910
        sent.append(message)

    scope = {
        "type": "websocket",
        "http_version": "1.1",
        "path": STREAM,
        "raw_path": STREAM.encode(),
        "headers": [(b"host", b"evil.example")],
    }
    await api.app(scope, trio.sleep_forever, send)  # type: ignore[arg-type]
    assert sent == [{"type": "websocket.close"}]


HANDSHAKE = (
    f"GET {STREAM} HTTP/1.1\nHost: localhost\nConnection: Upgrade\nUpgrade: websocket\n"
    "Sec-WebSocket-Version: 13\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
)


def test_a_real_handshake_needs_a_key_in_its_header(server: ServerProcess) -> None:
    for more in ("", "\nAuthorization: Bearer nonsense"):
        refused = exchange(server, HANDSHAKE + more + "\nConnection: close")
        assert refused.startswith("HTTP/1.1 401 ")
        assert "urn:ringback:problem:unauthenticated" in refused
    asked = HANDSHAKE.replace(STREAM, f"{STREAM}?access_token={KEY}&api_key={KEY}")
    assert exchange(server, asked).startswith("HTTP/1.1 401 ")


def test_a_real_handshake_with_a_key_is_accepted(server: ServerProcess) -> None:
    request = f"{HANDSHAKE}\nAuthorization: Bearer {KEY}\n\n".replace("\n", "\r\n").encode()
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as sock:
        sock.sendall(request)
        assert sock.recv(100).startswith(b"HTTP/1.1 101 ")


def test_a_real_event_stream_needs_a_key(server: ServerProcess) -> None:
    asked = f"GET {V1}/events HTTP/1.1\nHost: localhost\nConnection: close"
    assert exchange(server, asked).startswith("HTTP/1.1 401 ")
    by_query = asked.replace("/events", f"/events?access_token={KEY}")
    assert exchange(server, by_query).startswith("HTTP/1.1 401 ")


# -- requests, byte for byte -----------------------------------------------------------------


def test_a_large_body_that_nobody_reads_does_not_hide_the_refusal(server: ServerProcess) -> None:
    size = 8 * 1024 * 1024
    asked = f"POST {V1}/tasks HTTP/1.1\nHost: localhost\nContent-Length: {size}"
    assert exchange(server, asked, bytes(1024 * 64)).startswith("HTTP/1.1 401 ")


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ("GET /healthz HTTP/1.1", 400),
        ("GET /healthz HTTP/1.1\nHost:", 400),
        ("GET /healthz HTTP/1.1\nHost: localhost\nHost: localhost", 400),
        ("GET /healthz HTTP/1.1\nHost: evil.example", 421),
        ("GET /healthz HTTP/1.0", 200),
        ("GET /healthz HTTP/1.0\nHost: evil.example", 421),
        ("GET http://localhost/healthz HTTP/1.1\nHost: localhost", 200),
        ("GET http://localhost:99/healthz HTTP/1.1\nHost: localhost", 200),
        ("GET http://evil.example/healthz HTTP/1.1\nHost: localhost", 421),
        ("GET http://localhost/healthz HTTP/1.1\nHost: evil.example", 421),
        ("GET http://localhost@evil.example/healthz HTTP/1.1\nHost: localhost", 400),
        ("GET http://evil.example#@localhost/healthz HTTP/1.1\nHost: localhost", 400),
        ("GET http:%2f%2f[x//localhost/ HTTP/1.1\nHost: localhost", 400),  # a host after all
        (f"GET http://localhost{V1}/tasks HTTP/1.1\nHost: localhost", 401),
        (f"GET http://localhost//healthz/..{V1}/tasks HTTP/1.1\nHost: localhost", 401),
        ("GET /healthz/../metrics HTTP/1.1\nHost: localhost", 401),
        ("GET /%68ealthz HTTP/1.1\nHost: localhost", 200),
        (f"GET /healthz%3f/..{V1}/tasks HTTP/1.1\nHost: localhost", 401),
        ("GET /healthz;x HTTP/1.1\nHost: localhost", 401),
        (f"GET {V1}/tasks?/healthz HTTP/1.1\nHost: localhost", 401),
        ("OPTIONS * HTTP/1.1\nHost: localhost", 401),
        ("OPTIONS * HTTP/1.1\nHost: evil.example", 421),
        (f"GET {V1}/stats HTTP/1.1\nHost: localhost\nAuthorization: bearer {KEY}", 200),
        (f"GET {V1}/stats HTTP/1.1\nHost: localhost\nAUTHORIZATION: Bearer {KEY}", 200),
        (f"GET {V1}/stats?access_token={KEY} HTTP/1.1\nHost: localhost", 401),
        (f"POST {V1}/tasks HTTP/1.1\nHost: localhost\nContent-Length: 0\nOrigin: null", 403),
        (
            f"POST {V1}/tasks HTTP/1.1\nHost: localhost\nContent-Length: 0\nOrigin: http://a\nOrigin: x",
            400,
        ),
    ],
)
def test_requests_byte_for_byte(server: ServerProcess, asked: str, status: int) -> None:
    answer = exchange(server, asked + "\nConnection: close")
    assert answer.startswith(f"HTTP/1.1 {status} ")


# -- bodies ----------------------------------------------------------------------------------

BODILESS = [
    (one.method, one.path)
    for one in operations(Metrics())
    if one.body is None and one.method != "GET"
]
WITH_BODY = [(one.method, one.path) for one in operations(Metrics()) if one.body is not None]
NOT_JSON = [
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "application/json-patch+json",
    "text/json",
    "application/json; charset=utf-16",
    "application/json; charset=latin-1",
    "application/jsonx",
    "",
]


async def send(api: Api, method: str, path: str, kind: str, data: bytes = b"{}") -> Answer:
    return await api.call(method, of(path), data=data, headers={"Content-Type": kind})


def test_there_are_operations_of_both_kinds() -> None:
    assert len(BODILESS) >= 4
    assert len(WITH_BODY) >= 5


@pytest.mark.parametrize("kind", NOT_JSON)
async def test_what_is_not_said_to_be_json_is_refused_by_every_operation(
    api: Api, kind: str
) -> None:
    for method, path in (*WITH_BODY, *BODILESS):
        answer = await send(api, method, path, kind)
        assert (answer.status, answer.kind) == (415, "unsupported-media-type"), path


@pytest.mark.parametrize(
    "kind", ["application/json", "APPLICATION/JSON;charset=UTF-8", 'application/json; charset="utf8"']
)  # fmt: skip
async def test_json_is_taken_by_every_operation(api: Api, kind: str) -> None:
    for method, path in (*WITH_BODY, *BODILESS):
        assert (await send(api, method, path, kind)).status != 415, path


@pytest.mark.parametrize("kind", ["text/plain", "multipart/form-data; boundary=x"])
async def test_an_empty_body_needs_no_type_where_none_is_needed(api: Api, kind: str) -> None:
    for method, path in BODILESS:
        assert (await send(api, method, path, kind, b"")).status == 404
    assert (await send(api, "POST", f"{V1}/tasks/dequeue", kind, b"")).status == 404
    assert (await send(api, "POST", f"{V1}/tasks", kind, b"")).status == 415


@pytest.mark.parametrize(
    ("kind", "status"), [("", 404), ("application/json", 404), ("text/plain", 415)]
)
def test_a_chunked_body_that_nobody_reads(server: ServerProcess, kind: str, status: int) -> None:
    typed = f"\nContent-Type: {kind}" if kind else ""
    asked = (
        f"POST {V1}/tasks/{NOBODY}/retry HTTP/1.1\nHost: localhost\nConnection: close\n"
        f"Authorization: Bearer {KEY}\nTransfer-Encoding: chunked{typed}"
    )
    assert exchange(server, asked, b"0\r\n\r\n").startswith(f"HTTP/1.1 {status} ")
