"""Plain requests: nothing is read here that h11 would read otherwise, or not at all."""

from __future__ import annotations

import re

import h11
import pytest
from hypothesis import example, given, settings, strategies as st

from web.plain import Answer, Plain, read_head

MOST = 8192
PLAIN = (
    b"POST /api/v1/tasks?x=1 HTTP/1.1\r\nHost: localhost:8080\r\nAccept: */*\r\n"
    b"content-length: 3\r\nX-Empty:\r\nX-Blanks: \t a \t b\t\r\n\r\nabc"
)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n"


def as_h11_reads(data: bytes) -> h11.Request | None:
    """The request that h11 finds complete at the beginning."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=MOST)
    connection.receive_data(data)
    try:
        event = connection.next_event()
    except h11.RemoteProtocolError:
        return None
    return event if isinstance(event, h11.Request) else None


def check(data: bytes) -> Plain | None:
    """What is read, which must be what h11 reads."""
    plain = read_head(data, MOST)
    if plain is not None:
        request = as_h11_reads(data)
        assert request is not None
        assert request.http_version == b"1.1"
        assert request.method == plain.method.encode()
        assert (
            request.target == plain.path + (b"?" if b"?" in request.target else b"") + plain.query
        )
        assert dict(request.headers) == plain.headers
        assert len(list(request.headers)) == len(plain.headers)
        assert data[plain.size - 4 : plain.size] == b"\r\n\r\n"
        assert data.index(b"\r\n\r\n") == plain.size - 4
        assert int(plain.headers.get(b"content-length", b"0")) == plain.length
    return plain


def test_a_plain_head_is_read() -> None:
    assert check(PLAIN) == Plain(
        method="POST",
        path=b"/api/v1/tasks",
        query=b"x=1",
        headers={
            b"host": b"localhost:8080",
            b"accept": b"*/*",
            b"content-length": b"3",
            b"x-empty": b"",
            b"x-blanks": b"a \t b",
        },
        length=3,
        kept=True,
        size=len(PLAIN) - 3,
    )


@pytest.mark.parametrize(
    ("line", "kept"), [(b"", True), (b"Connection: Keep-Alive", True), (b"connection:close", False)]
)
def test_who_wants_to_be_kept(line: bytes, kept: bool) -> None:
    plain = check(GET + (line + b"\r\n" if line else b"") + b"\r\n")
    assert plain is not None
    assert plain.kept is kept


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GET,
        GET + b"\r",
        PLAIN[: PLAIN.index(b"\r\n\r\n") + 2],
        b"\r\n" + PLAIN,
        PLAIN.replace(b"\r\n", b"\n"),
        PLAIN.replace(b"\r\n\r\n", b"\r\n\n"),
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / http/1.1\r\nHost: a\r\n\r\n",
        b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        GET + b"Host: a\r\n\r\n",
        GET + b"X: a\r\n b\r\n\r\n",
        GET + b" X: a\r\n\r\n",
        GET + b"X : a\r\n\r\n",
        GET + b"X\r\n\r\n",
        GET + b": a\r\n\r\n",
        GET + b"X(: a\r\n\r\n",
        GET + b"X: a\rY: b\r\n\r\n",
        GET + b"X: a\nY: b\r\n\r\n",
        GET + b"X: a\0b\r\n\r\n",
        GET + b"X: a\x0bb\r\n\r\n",
        GET + b"X: a\x7fb\r\n\r\n",
        GET + b"X: \xe9\r\n\r\n",
        GET + b"X: a\r\nx: a\r\n\r\n",
        GET + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
        GET + b"Content-Length: 3, 3\r\n\r\n",
        GET + b"Content-Length: +3\r\n\r\n",
        GET + b"Content-Length: -1\r\n\r\n",
        GET + b"Content-Length: 0x3\r\n\r\n",
        GET + b"Content-Length: 3 4\r\n\r\n",
        GET + b"Content-Length:\r\n\r\n",
        GET + b"Content-Length: 9999999999\r\n\r\n",
        GET + b"Transfer-Encoding: chunked\r\n\r\n",
        GET + b"Transfer-Encoding: identity\r\n\r\n",
        GET + b"Expect: 100-continue\r\n\r\n",
        GET + b"Upgrade: websocket\r\n\r\n",
        GET + b"Upgrade: h2c\r\n\r\n",
        GET + b"Prefer: wait=10\r\n\r\n",
        GET + b"Connection: keep-alive, close\r\n\r\n",
        GET + b"Connection: Upgrade\r\n\r\n",
        GET + b"X: " + b"x" * MOST + b"\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_odd_incomplete_or_special_is_left_to_h11(data: bytes) -> None:
    assert read_head(data, MOST) is None


_ODD = [b"\r\n ", b"\n", b"\r", b"\0", b"\xff", b"chunked", b"Transfer-Encoding: ", b"close"]
_PIECES = st.sampled_from([*re.findall(rb"\w+|\W", PLAIN), b"\r\n", *_ODD])


@settings(max_examples=300)
@given(
    cut=st.integers(0, len(PLAIN)), length=st.integers(0, 4), pieces=st.lists(_PIECES, max_size=3)
)
@example(cut=15, length=0, pieces=[b"\r\n"])
def test_whatever_is_read_h11_reads_alike(cut: int, length: int, pieces: list[bytes]) -> None:
    check(PLAIN[:cut] + b"".join(pieces) + PLAIN[cut + length :])


@given(st.binary(max_size=60))
def test_whatever_stands_in_a_header_h11_reads_alike(value: bytes) -> None:
    check(GET + b"X: " + value + b"\r\n\r\n")


# -- answers ---------------------------------------------------------------------------------


def test_an_answer_is_written_in_one_piece() -> None:
    text = Answer(201, [("Location", "/x")], b"{}").text("date: today\r\n")
    assert text == (b"HTTP/1.1 201 \r\nlocation: /x\r\ncontent-length: 2\r\ndate: today\r\n\r\n{}")


@pytest.mark.parametrize("value", ["a\r\nX: b", "a\nb", "a\0b", "\u2028", "\u017e"])
def test_a_header_that_would_split_the_answer_is_not_sent(value: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be sent|latin-1"):
        Answer(200, [("X", value)], b"").text("")
