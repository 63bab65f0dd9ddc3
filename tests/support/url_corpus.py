"""URLs that have fooled others, each with the verdict it must get. The verdicts are data, made from
the registries of IANA and from published SSRF tricks, not by the code that is tested."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from ipaddress import IPv4Address

import attrs

OWN_PORT = 8080
"""Where the server of these tests is said to listen, at 127.0.0.1."""


class Verdict(enum.Enum):
    """What becomes of a URL."""

    MALFORMED = enum.auto()  # a 400 in both profiles
    NEVER = enum.auto()  # refused in both profiles
    INNER = enum.auto()  # called in internal, refused in public
    FREE = enum.auto()  # called in both


@attrs.frozen
class Case:
    """A URL; what its host resolves to, if it is a name; and who may be connected to."""

    url: str
    verdict: Verdict
    answers: tuple[str, ...] = ()

    @property
    def is_named(self) -> bool:
        """Whether only resolving shows where it leads."""
        return bool(self.answers)


def words(text: str) -> list[str]:
    """The words of a text."""
    return text.split()


# -- literal addresses -------------------------------------------------------------------------

FREE = words("""
1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255
192.0.1.0 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
2000:: 2001:200:: 2001:4860:4860::8888 2001:db7:ffff:: 2001:db9:: 2003:: 2606:4700:4700::1111
2a00:1450:4001::1 3ffe:ffff:: 3fff:1000:: 3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
64:ff9b::8.8.8.8 64:ff9b::1.1.1.1 ::ffff:8.8.8.8 ::ffff:1.1.1.1
2606:4700:0:1:0:5efe:808:808
""")
"""Global ones, many just beside a special prefix."""

INNER = words("""
10.0.0.0 10.1.2.3 10.255.255.255 100.64.0.0 100.127.255.255 127.0.0.0 127.0.0.1 127.1.2.3
127.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.1.1 192.168.255.255
::1 fc00:: fc00::1 fd00::1 fd12:3456:789a::1 fdff:ffff::1 fec0::1 fec0:0:0:ffff::1
::8.8.8.8 ::127.0.0.1 ::10.0.0.1 ::ffff:0:8.8.8.8 ::ffff:0:127.0.0.1
::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:192.168.0.1 ::ffff:100.64.0.1
64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b::192.168.0.1 64:ff9b::172.16.0.1
64:ff9b:1::8.8.8.8 64:ff9b:1::10.0.0.1 64:ff9b:1:0808:8:800:: 64:ff9b:1:0a00:0:100::
2001:0:808:808::f7f7:f7f7 2001:0:a00:1::f7f7:f7f7 2001:0:808:808::80ff:fffe
2002:808:808:: 2002:7f00:1:: 2002:a00:1::1 2606:4700:0:1:0:5efe:a00:1 2606:4700:0:1:200:5efe:7f00:1
""")
"""Private ones, loopback, and what tunnels to some network."""

NEVER = words("""
0.0.0.0 0.0.0.1 0.255.255.255 100.100.100.200 168.63.129.16 169.254.0.0 169.254.0.23 169.254.42.42
169.254.169.254 169.254.170.2 169.254.170.23 169.254.255.255 192.0.0.0 192.0.0.8 192.0.0.170
192.0.0.192 192.0.0.255 192.0.2.0 192.0.2.255 192.88.99.0 192.88.99.1 192.88.99.255 198.18.0.0
198.19.255.255 198.51.100.0 198.51.100.255 203.0.113.0 203.0.113.255 224.0.0.0 224.0.0.251
239.255.255.255 240.0.0.0 250.1.2.3 255.255.255.254 255.255.255.255
:: ::2 ::1:0:0:0 1:: 64:: 64:ff9b:2:: 64:ff9b:0:0:0:1:: 100:: 100::1 100:0:0:1::1 1ff:: 200::1
3ff:: 400::1 800::1 1000::1 1fff::1 4000::1 5f00::1 5fff:: 6000::1 8000::1 a000::1 c000::1 e000::1
f000::1 f800::1 fbff::1 fd00:42::42 fd00:100::100:200 fd00:a9fe:a9fe::1 fd00:c1::a9fe:a9fe
fd00:ec2::254 fd00:ec2::253 fd00:ec2::23 fd20:ce::254 fe00::1 fe7f::1 fe80:: fe80::1
fe80::a9fe:a9fe febf::1 ff00:: ff02::1 ff05::2 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
2001:1::1 2001:2::1 2001:4:112::1 2001:10::1 2001:20::1 2001:1ff:ffff::1 2001:db8:: 2001:db8::1
3fff:: 3fff:fff::1
::169.254.169.254 ::ffff:169.254.169.254 ::ffff:0.0.0.0 ::ffff:224.0.0.1 ::ffff:255.255.255.255
::ffff:100.100.100.200 ::ffff:0:169.254.169.254 64:ff9b::169.254.169.254 64:ff9b::0.0.0.0
64:ff9b::192.0.2.1 64:ff9b:1::169.254.169.254 64:ff9b:1::0.0.0.0 64:ff9b:1:a9fe:a9:fe00::
64:ff9b:1:a9:fe:a9fe:: 64:ff9b:1:0:a9:fea9:fe00:: 2001:0:a9fe:a9fe::f7f7:f7f7
2001:0:808:808::5601:5601 2002:a9fe:a9fe:: 2002:e000:1:: 2002:0:1::
2606:4700:0:1:0:5efe:a9fe:a9fe 2606:4700:0:1:200:5efe:a9fe:a9fe fd12::5efe:a9fe:a9fe
""")
"""Link-local, metadata of clouds, unspecified, multicast, reserved; also hidden in IPv6."""

_SHAPES = ("http://{}/", "https://{}", "http://{}:81/hook?a=b", "HTTPS://{}:8443/#x")

# -- the same IPv4 address, spelt so that it does not look like one ----------------------------


def spellings(address: str) -> Iterator[str]:
    """What programs read as this address, or almost."""
    a, b, c, d = octets = [int(part) for part in address.split(".")]
    number = int(IPv4Address(address))
    yield f"{number}"
    yield f"{number:#x}"
    yield f"0X{number:X}"
    yield f"0x0000{number:x}"
    yield f"0{number:o}"
    yield f"0000{number:o}"
    yield f"{number + 2**32}"
    yield f"{number}."
    yield ".".join(f"{octet:#x}" for octet in octets)
    yield ".".join(f"0{octet:o}" for octet in octets)
    yield ".".join(f"000{octet:o}" for octet in octets)
    yield f"{a:#x}.{b}.0{c:o}.{d}"
    yield f"{a}.{b}.{c * 256 + d}"
    yield f"{a}.{b * 65536 + c * 256 + d}"
    yield f"{a:#x}.{b * 65536 + c * 256 + d}"
    yield f"{a + 256}.{b}.{c}.{d}"
    yield f"{a}.{b}.{c}.{d}."
    yield f"0{a}.{b}.{c}.{d}"
    yield f"{a}.{b}.{c}.{d}.0"
    yield f"{a}.{b}.{c}.0x{d:02x}"


_RESPELT = words("169.254.169.254 127.0.0.1 10.0.0.1 192.168.1.1 0.0.0.0 100.100.100.200")

# -- URLs that programs read in different ways -------------------------------------------------

MALFORMED = [
    # whose host is it?
    "http://example.com@169.254.169.254/",
    "http://169.254.169.254@example.com/",
    "http://example.com:80@169.254.169.254:80/",
    "http://user:pass@example.com/",
    "http://user@[::1]/",
    "http://@169.254.169.254/",
    "http://:@169.254.169.254/",
    "http://a@b@169.254.169.254/",
    "http://example.com%40169.254.169.254/",
    "http://169.254.169.254%2523@example.com/",
    "http://example.com\\@169.254.169.254/",
    "http://169.254.169.254\\@example.com/",
    "http://169.254.169.254\\.example.com/",
    "http:\\\\169.254.169.254\\",
    "http:/\\169.254.169.254/",
    "http://example.com&@169.254.169.254#@example.com/",
    "http://169.254.169.254;example.com/",
    "http://example.com,169.254.169.254/",
    "http://{169.254.169.254}/",
    "http://(169.254.169.254)/",
    "http://169.254.169.254!/",
    "http://169.254.169.254'/",
    "http://*/",
    "http://169.254.169.254|example.com/",
    "http://example.com:80:169.254.169.254/",
    # blanks and control characters
    " http://169.254.169.254/",
    "http://169.254.169.254 /",
    "http://169.254.169.254\t/",
    "http://169.254.169.254\n.example.com/",
    "http://169.254.169.254\r\nHost: example.com/",
    "http://example.com/\r\nX-Injected: 1",
    "ht\ttp://169.254.169.254/",
    "http://169.254.\n169.254/",
    "http://169.254.169.254\x00.example.com/",
    "http://169.254.169.254\x0b/",
    "http://169.254.169.254\x1f/",
    "http://169.254.169.254\x7f/",
    "http://169.254.169.254\u00a0/",
    "http://169.254.169.254\u2028/",
    "http://169.254.169.254\ufeff/",
    "http://169.254.169.254\u200b/",
    "\ufeffhttp://169.254.169.254/",
    "\x00http://169.254.169.254/",
    # digits, dots and letters of other scripts
    "http://169。254。169。254/",
    "http://169．254．169．254/",
    "http://169｡254｡169｡254/",
    "http://１６９.２５４.１６９.２５４/",
    "http://①⑥⑨.②⑤④.①⑥⑨.②⑤④/",
    "http://१६९.२५४.१६९.२५४/",
    "http://⑯⑨.254.169.254/",
    "http://0ⅹa9fea9fe/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/",
    "http://lo\u00adcalhost/",
    "http://localhoſt/",
    "http://münchen.example/",
    "http://example.com／@169.254.169.254/",
    "http://example.com：80/",
    "http://example.com:８０/",
    "http://169.254.169.254℀.example.com/",
    # percent signs
    "http://%31%36%39.254.169.254/",
    "http://169.254.169.254%00.example.com/",
    "http://169.254.169.254%20/",
    "http://169.254.169.254%0d%0a/",
    "http://169%2e254%2e169%2e254/",
    "http://169.254.169.254%2f@example.com/",
    "http://%6c%6f%63%61%6c%68%6f%73%74/",
    "http://%5b::1%5d/",
    "http://example.com%3a80/",
    "http://%EF%BC%91%EF%BC%96%EF%BC%99.254.169.254/",
    # addresses in brackets that are none
    "http://[169.254.169.254]/",
    "http://[::ffff:169.254.43518]/",
    "http://[::ffff:2852039166]/",
    "http://[::ffff:0xa9.254.169.254]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://[fe80::a9fe:a9fe%252]/",
    "http://[::1%lo]/",
    "http://[v1.fe80::1]/",
    "http://[vA.169.254.169.254]/",
    "http://[::1/",
    "http://::1]/",
    "http://::1/",
    "http://::ffff:169.254.169.254/",
    "http://fe80::1:80/",
    "http://[[::1]]/",
    "http://[::1]]/",
    "http://[::1].example.com/",
    "http://[::1]169.254.169.254/",
    "http://example.com[::1]/",
    "http://[::1]@169.254.169.254/",
    "http://[0:0:0:0:0:0:0:0:1]/",
    "http://[::g]/",
    "http://[]/",
    "http://[localhost]/",
    # ports
    "http://example.com:0/",
    "http://example.com:65536/",
    "http://example.com:99999999999999999999/",
    "http://example.com:-80/",
    "http://example.com:+80/",
    "http://example.com:/",
    "http://example.com:80a/",
    "http://example.com:0x50/",
    "http://example.com:80.0/",
    "http://example.com:8_0/",
    "http://example.com:%38%30/",
    "http://[fe80::1]:/",
    "http://[::1]:0/",
    "http://127.0.0.1:65617/",  # 65536 + 81
    # schemes
    "file:///etc/passwd",
    "gopher://169.254.169.254:80/_GET",
    "dict://127.0.0.1:6379/info",
    "ftp://169.254.169.254/",
    "ldap://127.0.0.1/",
    "javascript:alert(1)",
    "data:text/plain,x",
    "jar:http://169.254.169.254!/",
    "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/info",
    "ws://169.254.169.254/",
    "view-source:http://169.254.169.254/",
    "url:http://169.254.169.254/",
    "//169.254.169.254/",
    "///169.254.169.254/",
    "/latest/meta-data",
    "169.254.169.254",
    "localhost:80",
    "http:169.254.169.254",
    "http:/169.254.169.254/",
    "http:///169.254.169.254/",
    "http:////169.254.169.254/",
    "http://",
    "http:",
    "http://?169.254.169.254",
    "http://#169.254.169.254",
    "http://:80/",
    "httpx://169.254.169.254/",
    "h\u0442tp://169.254.169.254/",
    # names
    "http://.169.254.169.254/",
    "http://169.254.169.254../",
    "http://a..example.com/",
    "http://./",
    "http://../",
    "http://example.123/",
    "http://example.0xa9/",
    "http://xn--/",
    "http://xn--a/",
    "http://xn--example-.com/",
    "http://" + "a" * 64 + ".example.com/",
    "http://" + "a." * 127 + "com/",
    "http://example.com/" + "a" * 2048,
    "",
]

# -- names, and what they resolve to -----------------------------------------------------------

METADATA, GOOD, ALSO_GOOD = "169.254.169.254", "93.184.216.34", "2606:2800:220:1::1"

NAMED: dict[str, tuple[Verdict, str]] = {
    "example.com": (Verdict.FREE, GOOD),
    "two.example.com": (Verdict.FREE, f"{GOOD} {ALSO_GOOD}"),
    "example.com.": (Verdict.FREE, GOOD),
    "EXAMPLE.NET": (Verdict.FREE, GOOD),
    "xn--mnchen-3ya.example": (Verdict.FREE, GOOD),
    "under_score.example": (Verdict.FREE, GOOD),
    "169.254.169.254.example.com": (Verdict.FREE, GOOD),
    "0xa9fea9fe.example.com": (Verdict.FREE, GOOD),
    "nat64.example.com": (Verdict.FREE, "64:ff9b::8.8.8.8"),
    "localhost": (Verdict.INNER, "127.0.0.1 ::1"),
    "localhost.": (Verdict.INNER, "127.0.0.1"),
    "LOCALHOST": (Verdict.INNER, "::1"),
    "localhost.localdomain": (Verdict.INNER, "127.0.0.1"),
    "localhost6": (Verdict.INNER, "::1"),
    "ip6-localhost": (Verdict.INNER, "::1"),
    "ip6-loopback": (Verdict.INNER, "::1"),
    "foo.localhost": (Verdict.INNER, "127.0.0.1"),
    "localtest.me": (Verdict.INNER, "127.0.0.1"),
    "lvh.me": (Verdict.INNER, "127.0.0.1"),
    "vcap.me": (Verdict.INNER, "127.0.0.1"),
    "spoofed.burpcollaborator.net": (Verdict.INNER, "127.0.0.1"),
    "127.0.0.1.nip.io": (Verdict.INNER, "127.0.0.1"),
    "7f000001.nip.io": (Verdict.INNER, "127.0.0.1"),
    "127-0-0-1.sslip.io": (Verdict.INNER, "127.0.0.1"),
    "10.0.0.1.nip.io": (Verdict.INNER, "10.0.0.1"),
    "customer1.app.localhost.my.company.127.0.0.1.nip.io": (Verdict.INNER, "127.0.0.1"),
    "the-hostname-of-this-machine": (Verdict.INNER, "127.0.1.1"),
    "db.internal": (Verdict.INNER, "10.1.2.3 10.1.2.4"),
    "kubernetes.default.svc": (Verdict.INNER, "10.96.0.1"),
    "host.docker.internal": (Verdict.INNER, "192.168.65.2"),
    "gateway.docker.internal": (Verdict.INNER, "172.17.0.1"),
    "mixed.example.com": (Verdict.INNER, f"{GOOD} 10.0.0.1"),
    "mixed-last.example.com": (Verdict.INNER, f"{GOOD} {ALSO_GOOD} 127.0.0.1"),
    "mixed-first.example.com": (Verdict.INNER, f"192.168.0.1 {GOOD}"),
    "mapped.example.com": (Verdict.INNER, "::ffff:127.0.0.1"),
    "sixtofour.example.com": (Verdict.INNER, "2002:808:808::1"),
    "carrier.example.com": (Verdict.INNER, "100.64.3.2"),
    "169.254.169.254.nip.io": (Verdict.NEVER, METADATA),
    "a9fea9fe.nip.io": (Verdict.NEVER, METADATA),
    "metadata.google.internal": (Verdict.NEVER, METADATA),
    "metadata": (Verdict.NEVER, METADATA),
    "instance-data": (Verdict.NEVER, METADATA),
    "instance-data.ec2.internal": (Verdict.NEVER, METADATA),
    "metadata.google6.internal": (Verdict.NEVER, "fd20:ce::254"),
    "imds6.example.com": (Verdict.NEVER, "fd00:ec2::254"),
    "aliyun.example.com": (Verdict.NEVER, "100.100.100.200"),
    "wireserver.example.com": (Verdict.NEVER, "168.63.129.16"),
    "last-is-bad.example.com": (Verdict.NEVER, f"{GOOD} {ALSO_GOOD} {METADATA}"),
    "first-is-bad.example.com": (Verdict.NEVER, f"{METADATA} {GOOD}"),
    "middle-is-bad.example.com": (Verdict.NEVER, f"{GOOD} fe80::1 {ALSO_GOOD}"),
    "private-and-bad.example.com": (Verdict.NEVER, f"10.0.0.1 {METADATA}"),
    "mapped-bad.example.com": (Verdict.NEVER, f"{GOOD} ::ffff:169.254.169.254"),
    "nat64-bad.example.com": (Verdict.NEVER, "64:ff9b::169.254.169.254"),
    "sixtofour-bad.example.com": (Verdict.NEVER, "2002:a9fe:a9fe::"),
    "teredo-bad.example.com": (Verdict.NEVER, "2001:0:808:808::5601:5601"),
    "zero.example.com": (Verdict.NEVER, "0.0.0.0"),
    "zero6.example.com": (Verdict.NEVER, "::"),
    "zone.example.com": (Verdict.NEVER, "fe80::1%2"),
    "broadcast.example.com": (Verdict.NEVER, "255.255.255.255"),
    "multicast.example.com": (Verdict.NEVER, "224.0.0.1"),
    "documentation.example.com": (Verdict.NEVER, "192.0.2.1"),
    "nonsense.example.com": (Verdict.NEVER, "2852039166"),
}

SELF = [
    Case(f"http://127.0.0.1:{OWN_PORT}/api/tasks", Verdict.NEVER),
    Case(f"http://[::ffff:127.0.0.1]:{OWN_PORT}/", Verdict.NEVER),
    Case(f"https://127.0.0.1:{OWN_PORT}/", Verdict.NEVER),
    Case(f"http://localhost:{OWN_PORT}/", Verdict.NEVER, ("::1", "127.0.0.1")),
    Case(f"http://me.example.com:{OWN_PORT}/", Verdict.NEVER, ("127.0.0.1",)),
    Case(f"http://127.0.0.2:{OWN_PORT}/", Verdict.INNER),
    Case(f"http://127.0.0.1:{OWN_PORT + 1}/", Verdict.INNER),
]

PARTS_THAT_SAY_NOTHING = [
    Case("http://example.com/@169.254.169.254/", Verdict.FREE, (GOOD,)),
    Case("http://example.com?@169.254.169.254/", Verdict.FREE, (GOOD,)),
    Case("http://example.com#@169.254.169.254/", Verdict.FREE, (GOOD,)),
    Case("http://example.com/?u=http://169.254.169.254/", Verdict.FREE, (GOOD,)),
    Case("http://example.com//169.254.169.254/", Verdict.FREE, (GOOD,)),
    Case("http://example.com/..//169.254.169.254", Verdict.FREE, (GOOD,)),
    Case("http://example.com/[::1]:80/", Verdict.FREE, (GOOD,)),
    Case("http://169.254.169.254#@example.com/", Verdict.NEVER),
    Case("http://169.254.169.254?@example.com/", Verdict.NEVER),
    Case("http://169.254.169.254/@example.com/", Verdict.NEVER),
    Case("http://169.254.169.254/?http://example.com", Verdict.NEVER),
    Case("HtTp://169.254.169.254:00080/", Verdict.NEVER),
    Case("http://[::FFFF:A9FE:A9FE]/", Verdict.NEVER),
    Case("http://[0:0:0:0:0:ffff:a9fe:a9fe]/", Verdict.NEVER),
    Case("http://[0000:0000:0000:0000:0000:FFFF:169.254.169.254]/", Verdict.NEVER),
    Case("http://[FE80:0:0:0:0:0:0:1]/", Verdict.NEVER),
    Case("http://[0:0:0:0:0:0:0:1]/", Verdict.INNER),
    Case("http://[0000::0001]/", Verdict.INNER),
    Case("http://[fd00:0ec2::0254]/", Verdict.NEVER),
]


def corpus() -> list[Case]:
    """All of them, each URL once."""
    cases = [Case(url, Verdict.MALFORMED) for url in MALFORMED]
    for address in _RESPELT:
        cases += [Case(f"http://{host}/", Verdict.MALFORMED) for host in spellings(address)]
    literals = [(FREE, Verdict.FREE), (INNER, Verdict.INNER), (NEVER, Verdict.NEVER)]
    for addresses, verdict in literals:
        for index, address in enumerate(addresses):
            host = f"[{address}]" if ":" in address else address
            cases.append(Case(_SHAPES[index % len(_SHAPES)].format(host), verdict))
    for index, (name, (verdict, answers)) in enumerate(NAMED.items()):
        url = _SHAPES[index % len(_SHAPES)].format(name)
        cases.append(Case(url, verdict, tuple(answers.split())))
    cases += [*SELF, *PARTS_THAT_SAY_NOTHING]
    return list({case.url: case for case in cases}.values())
