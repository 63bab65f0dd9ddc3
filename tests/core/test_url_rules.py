"""Which URLs a callback may have, by their form."""

from __future__ import annotations

import pytest
from hypothesis import example, given, strategies as st

from engine.core.rules import HTTP_URL
from engine.core.url_rules import broken_url


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "https://example.com/a/b?c=d&e=%20#f",
        "HTTP://EXAMPLE.COM/",
        "http://example.com./",
        "http://127.0.0.1:8080/",
        "http://255.255.255.255/",
        "http://[::1]:65535/",
        "http://[2001:DB8::1]",
        "http://[::ffff:127.0.0.1]/",
        "http://h:00080/",
        "http://_dmarc.my_service/",
        "http://3com.example/",
        "http://1.2.3.4.example/",
        "http://0x7f.example/",
        "http://a-b--c.example/",
        "http://" + "a" * 63 + ".example/",
        "http://" + "a." * 126 + "a/",
        "http://xn--mnchen-3ya.example/",
        "http://XN--MNCHEN-3YA.example/",
        "http://h/@:/[]%zz?@#@",
        "http://h?x",
        "http://h#x",
        "http://h/" + "x" * 2039,
    ],
    ids=lambda url: url[:40],
)
def test_urls_that_may_be_called(url: str) -> None:
    assert broken_url(url) is None


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "1 to 2048 characters"),
        ("http://h/" + "x" * 2040, "1 to 2048 characters"),
        ("http://h/a b", "without blanks"),
        ("http://h/\n", "without blanks"),
        (" http://h/", "without blanks"),
        ("http://h\t/", "without blanks"),
        ("http://h\\@x/", "backslashes"),
        ("http:\\\\h/", "backslashes"),
        ("http://h/\x7f", "control characters"),
        ("http://h/\x00", "control characters"),
        ("http://münchen.example/", "xn--"),
        ("http://h/ü", "percent-encode"),
        ("http://127。0。0。1/", "must be ASCII"),
        ("http://h:８０/", "must be ASCII"),
        ("ftp://h/", "http:// or https://"),
        ("file:///etc/passwd", "http:// or https://"),
        ("javascript:alert(1)", "http:// or https://"),
        ("gopher://h/", "http:// or https://"),
        ("//h/", "http:// or https://"),
        ("h/path", "http:// or https://"),
        ("http:/h/", "http:// or https://"),
        ("http:h", "http:// or https://"),
        ("http://user@h/", "user name or password"),
        ("http://user:pw@h/", "user name or password"),
        ("http://@h/", "user name or password"),
        ("http://h@", "user name or password"),
        ("http:///path", "must name a host"),
        ("http://", "must name a host"),
        ("http://?x", "must name a host"),
        ("http://:80/", "must name a host"),
        ("http://./", "must name a host"),
        ("http://a..b/", "must name a host"),
        ("http://.a/", "must name a host"),
        ("http://a../", "must name a host"),
        ("http://h:65536/", "a port from 1 to 65535"),
        ("http://h:-1/", "a port from 1 to 65535"),
        ("http://h:abc/", "a port from 1 to 65535"),
        ("http://h:0/", "a port from 1 to 65535"),
        ("http://h:/", "a port from 1 to 65535"),
        ("http://h:+80/", "a port from 1 to 65535"),
        ("http://h:000080/", "a port from 1 to 65535"),
        ("http://[::1]:/", "a port from 1 to 65535"),
        ("http://h:80:80/", "malformed host or port"),
        ("http://::1/", "in brackets"),
        ("http://[::1/", "in brackets"),
        ("http://::1]/", "in brackets"),
        ("http://[::1]x/", "in brackets"),
        ("http://x[::1]/", "in brackets"),
        ("http://[]/", "without an IPv6 address"),
        ("http://[127.0.0.1]/", "without an IPv6 address"),
        ("http://[1:2:3]/", "without an IPv6 address"),
        ("http://[::12345]/", "without an IPv6 address"),
        ("http://[::ffff:127.1]/", "without an IPv6 address"),
        ("http://[v1.fe80::a]/", "without an IPv6 address"),
        ("http://[h]/", "without an IPv6 address"),
        ("http://[fe80::1%25eth0]/", "network zone"),
        ("http://[fe80::1%eth0]/", "network zone"),
        ("http://127.0.0.1%2f/", "must not have % in its host"),
        ("http://%31/", "must not have % in its host"),
        ("http://a*b/", "'*' in its host"),
        ("http://a,b/", "',' in its host"),
        ("http://$HOST/", "'$' in its host"),
        ("http://{host}/", "'{' in its host"),
        ("http://" + "a" * 64 + ".example/", "too long"),
        ("http://" + "a." * 127 + "a/", "too long"),
        ("http://127.1/", "reads as a number"),
        ("http://127.0.1/", "reads as a number"),
        ("http://0/", "reads as a number"),
        ("http://2130706433/", "reads as a number"),
        ("http://0x7f000001/", "reads as a number"),
        ("http://0X7F.1/", "reads as a number"),
        ("http://0x/", "reads as a number"),
        ("http://017700000001/", "reads as a number"),
        ("http://0177.0.0.1/", "reads as a number"),
        ("http://127.0.0.01/", "reads as a number"),
        ("http://127.0.0.256/", "reads as a number"),
        ("http://127.0.0.1./", "reads as a number"),
        ("http://1.2.3.4.5/", "reads as a number"),
        ("http://example.0x1/", "reads as a number"),
        ("http://example.1:80/", "reads as a number"),
        ("http://xn--/", "xn--"),
        ("http://xn--a/", "xn--"),
        ("http://xn--a-/", "xn--"),
        ("http://a.xn--9999999999.b/", "xn--"),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_urls_that_may_not(url: str, part: str) -> None:
    assert part in (broken_url(url) or "")


@given(st.text(max_size=50) | st.text(max_size=50).map(lambda rest: f"http://{rest}"))
@example("http://[" + "[" * 20)
@example("http://" + "xn--9" * 10)
def test_any_text_is_a_url_or_refused(url: str) -> None:
    HTTP_URL.broken(url)  # never raises
