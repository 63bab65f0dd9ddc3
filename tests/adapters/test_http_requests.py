"""The bytes that go out, and the requests that do not."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from engine.adapters.http.wire import Wire, connect_tcp
from engine.core.task import ErrorClass
from tests.support.callbacks import (
    ScriptedNames,
    SpyingConnect,
    failed,
    open_caller,
    open_net,
    request,
)
from tests.support.raw_server import always, answer, raw_server


async def test_exactly_the_requests_bytes_go_out() -> None:
    setting = always(answer(Set_Cookie="a=1; Path=/"))
    async with raw_server(setting) as server, open_caller() as caller:
        for _ in range(2):  # the second shows that no cookie is kept
            await caller.call(request(server.url + "?q=1"))
    for seen in server.seen:
        line, *headers = seen.head.split(b"\r\n")
        assert line == b"POST /hook?q=1 HTTP/1.1"
        assert sorted(headers) == [
            b"Content-Length: 7",
            b"Content-Type: application/json",
            b"Host: 127.0.0.1:%d" % server.port,
            b"User-Agent: Ringback/test",
        ]
        assert seen.body == b'{"a":1}'


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_request_without_a_body_has_no_length(method: str) -> None:
    async with raw_server(always(answer())) as server, open_caller() as caller:
        bare = attrs.evolve(request(server.url), method=method, body=b"", headers={})
        assert (await caller.call(bare)).status_code == 200
    assert server.seen[0].head.split(b"\r\n") == [
        b"%s /hook HTTP/1.1" % method.encode(),
        b"Host: 127.0.0.1:%d" % server.port,
    ]


async def test_proxies_and_netrc_of_the_environment_are_not_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with raw_server(always(answer())) as server, open_caller() as caller:
        assert (await caller.call(request(server.url))).status_code == 200
    assert b"authorization" not in server.seen[0].head.lower()


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/",
        "http://" + "a" * 64 + ".example/",
        "http://xn--a/",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:65536/",
        "http://127.0.0.1:-1/",
        "http://127.0.0.1:abc/",
        "http://[::1/",
        "http://[zz]/",
        "http:///path",
        "http://",
        "",
        "/path",
        "ftp://127.0.0.1/",
        "file:///etc/passwd",
        "http://exa\nmple/",
        "http://x/" + "a" * 70_000,
        "http://user:pass@127.0.0.1/",
        "http://h\\@127.0.0.1/",
        "http://ex\u00e4mple/",
        "http://127\u30020\u30020\u30021/",
        "http://exa mple/",
        "http://x/a b",
        "http://x/\r\nInjected: yes",
        "http://x/\x00",
        "http://%31/",
        "http://a,b/",
        "http://" + ".".join(["long" * 15] * 5) + "/",
        "http://./",
        "https://.example/",
        "http://[fe80::1%25lo]/",
        "http://[fe80::1%lo]/",
        "http:127.0.0.1",
        "//127.0.0.1/",
    ],
    ids=lambda url: url[:30],
)
async def test_a_url_that_cannot_be_called(url: str) -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        assert failed(await caller.call(request(url)), ErrorClass.INVALID_REQUEST)
        assert (await caller.call(request(server.url))).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Bad Name": "x"},
        {"X": "secret\r\nInjected: yes"},
        {"X": "secret\x00"},
        {"X": "secret \u20ac"},
        {"Content-Length": "999"},
        {"Content-Length": "secret"},
        {"": "secret"},
        {"X: secret\r\nY": "a"},
        {"X\n": "a"},
        {"X": "secret\nY: b"},
        {"X": "secret\x7f"},
        {"H\u00f6st": "a"},
        {"host": "secret"},
        {"Transfer-Encoding": "chunked"},
        {"CONNECTION": "close"},
        {"Expect": "100-continue"},
    ],
)
async def test_a_header_that_cannot_be_sent(headers: dict[str, str]) -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        found = await caller.call(attrs.evolve(request(server.url, 0.3), headers=headers))
        assert failed(found, ErrorClass.INVALID_REQUEST)
        assert "secret" not in str(found.error)
        assert (await caller.call(request(server.url))).status_code == 200


async def test_an_error_text_holds_no_secret_of_the_url() -> None:
    net = open_net(resolver=ScriptedNames({}))
    async with net.open_caller() as caller:
        for host in ("a..b", "127.0.0.1:1", "127.0.0.1:x", "[secret", "no-such-host.invalid"):
            for user in ("", "user:secret@", "secret@"):
                found = await caller.call(request(f"http://{user}{host}/secret?key=secret#secret"))
                assert found.error_class is not None
                assert "secret" not in str(found.error)


@pytest.mark.parametrize("method", ["HEAD", "CONNECT", "post", "GET /forged HTTP/1.1\r\nX:", ""])
async def test_a_method_that_is_not_one_of_ours(method: str) -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        found = await caller.call(attrs.evolve(request(server.url), method=method))
        assert failed(found, ErrorClass.INVALID_REQUEST)
        assert server.connections == 0


async def test_a_header_value_may_hold_a_tab_and_a_name_every_character_of_a_token() -> None:
    headers = {"!#$%&'*+-.^_`|~09azAZ": "a\tb c"}
    async with open_caller() as caller, raw_server(always(answer())) as server:
        found = await caller.call(attrs.evolve(request(server.url), headers=headers))
    assert found.status_code == 200
    assert b"\r\n!#$%&'*+-.^_`|~09azAZ: a\tb c\r\n" in server.seen[0].head


async def test_an_empty_body_has_a_length_where_one_is_usual() -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        await caller.call(request(server.url, body=b""))
    assert b"\r\nContent-Length: 0" in server.seen[0].head


@pytest.mark.parametrize(
    ("rest", "target"),
    [
        ("", b"/"),
        ("?a=b", b"/?a=b"),
        ("#part", b"/"),
        ("/a/../b//./c", b"/a/../b//./c"),
        ("/%7e%2F%zz?q=[a]|b^&c=%", b"/%7e%2F%zz?q=[a]|b^&c=%"),
        ("/a?b#c?d", b"/a?b"),
        ("/http://other/", b"/http://other/"),
        ("/@other:80/", b"/@other:80/"),
    ],
)
async def test_path_and_query_go_out_exactly_as_given(rest: str, target: bytes) -> None:
    async with open_caller() as caller, raw_server(always(answer())) as server:
        await caller.call(request(f"http://127.0.0.1:{server.port}{rest}"))
    assert server.seen[0].head.split(b"\r\n")[0] == b"POST %s HTTP/1.1" % target


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("[::1]", b"[::1]"),
        ("[::ffff:1.2.3.4]", b"[::ffff:1.2.3.4]"),
        ("EXAMPLE.test", b"example.test"),
        ("example.test.", b"example.test."),
        ("in_house", b"in_house"),
        ("xn--mnchen-3ya.test", b"xn--mnchen-3ya.test"),
    ],
)
async def test_the_host_header_names_the_host_and_an_unusual_port(host: str, shown: bytes) -> None:
    names = ScriptedNames({shown.decode().strip("[]"): [["127.0.0.1"]]})
    spy = SpyingConnect()
    net = open_net(resolver=names, connect=spy)
    async with net.open_caller() as caller, raw_server(always(answer())) as server:
        found = await caller.call(request(f"http://{host}:{server.port}/"))
    assert found.status_code == 200
    assert b"\r\nHost: %s:%d\r\n" % (shown, server.port) in server.seen[0].head


async def test_the_usual_port_is_not_shown() -> None:
    server_port = 0

    async def connect(address: str, port: int) -> Wire:
        assert port == 80
        return await connect_tcp(address, server_port)

    net = open_net(connect=connect)
    async with net.open_caller() as caller, raw_server(always(answer())) as server:
        server_port = server.port
        for url in ("http://127.0.0.1/", "http://127.0.0.1:80/", "http://127.0.0.1:/"):
            assert (await caller.call(request(url))).status_code == 200
    assert {seen.head.split(b"\r\n")[1] for seen in server.seen} == {b"Host: 127.0.0.1"}
    assert server.connections == 1  # it is one origin, however it is written
