"""``ringback check-target`` against real receivers: what each does wrong is found, and only that."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trustme
from click.testing import CliRunner

from engine import EngineConfig, ErrorClass, Ports, Secret, system_ports
from engine.core.outcome import Answer
from tests.support.cli import lines, start
from tests.support.fakes import FINE, Held, ScriptedNet
from tests.support.raw_server import Connection, Script, hang, raw_server
from tests.support.receivers import (
    Good,
    accepts_all,
    answers,
    crashes_on_forged_calls,
    fails_on_duplicates,
    headers_of,
    ignores_timestamps,
    impatient,
    knows_the_first_signature_only,
    says,
    tls_server,
    wants_a_header_only,
)
from web.check.findings import Finding, judge
from web.check.probes import PROBES, TASK_NAME, Level, Target
from web.check.run import check
from web.cli import main

SECRET = Secret(bytes(range(32)))
TEXT = SECRET.reveal()
PROBE = {probe.name: probe for probe in PROBES}
ALL_OK = dict.fromkeys(PROBE, Level.OK)
ONLY_THE_FIRST = {**dict.fromkeys(PROBE, Level.SKIPPED), "call": Level.FAIL}


@attrs.frozen
class Findings:
    levels: dict[str, Level]
    said: dict[str, str]
    advice: dict[str, str]


async def findings_of(
    url: str,
    *,
    secrets: tuple[Secret, ...] = (SECRET,),
    ports: Ports | None = None,
    whole_s: float = 30.0,
    **settings: Any,
) -> Findings:
    found: list[Finding] = []
    target = Target(**{"url": url, "secrets": secrets, "timeout_s": 5.0, "slow_s": 0.3, **settings})
    ports = ports or system_ports(EngineConfig(), "memory:")
    await check(target, ports, found.append, whole_s=whole_s)
    assert [finding.probe for finding in found] == list(PROBES)
    return Findings(
        {finding.probe.name: finding.level for finding in found},
        {finding.probe.name: finding.said for finding in found},
        {finding.probe.name: finding.advice for finding in found},
    )


async def findings_on(script: Script, **settings: Any) -> Findings:
    async with raw_server(script) as server:
        return await findings_of(server.url, **settings)


# -- receivers -------------------------------------------------------------------------------


async def test_a_receiver_that_verifies_and_deduplicates_passes_everything() -> None:
    good = Good(TEXT)
    found = await findings_on(answers(good))
    assert found.levels == ALL_OK
    assert set(found.advice.values()) == {""}
    assert len(good.done) == 3  # the call and its duplicate are one; rotation; the slow body


WRONG: dict[str, tuple[Script, dict[str, Level]]] = {
    "accepts everything": (
        answers(accepts_all),
        {
            "wrong-signature": Level.FAIL,
            "no-signature": Level.FAIL,
            "old-timestamp": Level.WARN,
        },
    ),
    "ignores timestamps": (answers(ignores_timestamps(TEXT)), {"old-timestamp": Level.WARN}),
    "fails on duplicates": (answers(fails_on_duplicates(TEXT)), {"duplicate": Level.FAIL}),
    "knows the first signature only": (
        answers(knows_the_first_signature_only(TEXT)),
        {"rotation": Level.FAIL},
    ),
    "does not look what the signature is": (
        answers(wants_a_header_only(TEXT)),
        {"wrong-signature": Level.FAIL, "old-timestamp": Level.WARN},
    ),
    "crashes on forged calls": (
        answers(crashes_on_forged_calls(TEXT)),
        {
            "wrong-signature": Level.WARN,
            "no-signature": Level.WARN,
            "old-timestamp": Level.WARN,
        },
    ),
    "resets while a slow body comes": (
        impatient(Good(TEXT), 0.15, Connection.reset),
        {"slow-body": Level.FAIL},
    ),
    "says 408 to a slow body": (impatient(Good(TEXT), 0.15, says(408)), {}),
    "says 400 to a slow body": (
        impatient(Good(TEXT), 0.15, says(400)),
        {"slow-body": Level.FAIL},
    ),
}


@pytest.mark.parametrize(("script", "differs"), WRONG.values(), ids=WRONG)
async def test_what_a_receiver_does_wrong_is_found_and_nothing_else(
    script: Script, differs: dict[str, Level]
) -> None:
    found = await findings_on(script)
    assert found.levels == {**ALL_OK, **differs}
    assert {name for name, advice in found.advice.items() if advice} == set(differs)


async def test_a_receiver_that_hangs_on_the_slow_body_only_is_found() -> None:
    found = await findings_on(impatient(Good(TEXT), 0.15, hang), timeout_s=0.5)
    assert found.levels == {**ALL_OK, "slow-body": Level.FAIL}
    assert found.said["slow-body"].startswith("no answer within 0.5 s of the end of the body")


# -- when the first call fails ----------------------------------------------------------------


async def test_a_redirect_is_not_followed_and_ends_the_check() -> None:
    async with raw_server(answers(accepts_all)) as elsewhere:
        redirects = answers(lambda _headers, _body: 302, more={"Location": elsewhere.url})
        found = await findings_on(redirects)
        assert elsewhere.seen == []
    assert found.levels == ONLY_THE_FIRST
    assert found.said["call"] == "it redirects (302), which is not followed"
    assert found.advice["call"] == "give the final URL"


async def test_a_receiver_that_never_answers_is_asked_once_and_not_for_ever() -> None:
    async with raw_server(hang) as server:
        found = await findings_of(server.url, timeout_s=0.3)
        assert server.connections == 1
    assert found.levels == ONLY_THE_FIRST
    assert found.said["call"] == "no complete answer within 0.3 s"


async def test_a_port_where_nobody_listens_is_told() -> None:
    with trio.socket.socket() as sock:
        await sock.bind(("127.0.0.1", 0))
        found = await findings_of(f"http://127.0.0.1:{sock.getsockname()[1]}/")
    assert found.levels == ONLY_THE_FIRST
    assert found.said["call"].startswith("the connection could not be made: Connection refused")
    assert "is the receiver running" in found.advice["call"]


async def test_a_certificate_that_nobody_trusts_is_told() -> None:
    certificate = trustme.CA().issue_cert("127.0.0.1")
    async with tls_server(answers(accepts_all), certificate) as url:
        found = await findings_of(url)
    assert found.levels == ONLY_THE_FIRST
    assert found.said["call"].startswith("TLS failed: unable to get local issuer certificate")
    assert "certificate" in found.advice["call"]


async def test_a_receiver_with_another_secret_is_asked_for_its_secret() -> None:
    found = await findings_on(
        answers(Good(Secret(bytes(32)).reveal()), body=b"bad\x1b[2J signature")
    )
    assert found.levels == ONLY_THE_FIRST
    assert found.said["call"] == "refused with 401: bad\x1b[2J signature"
    assert "--secret must be what it verifies with" in found.advice["call"]


async def test_an_address_that_must_not_be_called_is_told() -> None:
    url, net = "http://169.254.169.254/latest", ScriptedNet()
    net.script(url, Answer(error_class=ErrorClass.EGRESS_DENIED, error="it is link-local"))
    ports = attrs.evolve(system_ports(EngineConfig(), "memory:"), net=net)
    found = await findings_of(url, ports=ports)
    assert found.levels == ONLY_THE_FIRST
    assert found.said["call"] == "it is link-local"
    assert "does not call that address" in found.advice["call"]


async def test_the_whole_check_has_an_end(autojump_clock: trio.abc.Clock) -> None:
    net = ScriptedNet()
    url = net.script("http://127.0.0.1:1/", FINE, Held())
    ports = attrs.evolve(system_ports(EngineConfig(), "memory:"), net=net)
    found = await findings_of(url, ports=ports, timeout_s=60.0, whole_s=20.0)
    assert trio.current_time() < 21
    assert found.levels["duplicate"] is Level.FAIL
    later = list(PROBE)[2:]
    assert {found.said[name] for name in later} == {"not sent: the check took too long"}


# -- what is sent ------------------------------------------------------------------------------


async def test_the_calls_differ_from_an_honest_one_in_one_thing_each() -> None:
    async with raw_server(answers(accepts_all)) as server:
        await findings_of(server.url, payload={"a": 1}, headers={"Authorization": "Bearer x"})
        calls = [headers_of(seen) for seen in server.seen]
        bodies = [seen.body for seen in server.seen]
    assert len(calls) == len(PROBES)
    names = {frozenset(headers) for headers in calls[:2]}
    assert len(names) == 1
    assert {headers["authorization"] for headers in calls} == {"Bearer x"}
    assert {headers["content-length"] for headers in calls} == {str(len(bodies[0]))}
    ids = [headers["webhook-id"] for headers in calls]
    assert ids[0] == ids[1]
    assert len(set(ids)) == len(ids) - 1
    assert [headers["x-task-attempt"] for headers in calls] == ["1", "2", "1", "1", "1", "1", "1"]
    signed = [len(headers.get("webhook-signature", "").split()) for headers in calls]
    assert signed == [1, 1, 2, 1, 0, 1, 1]
    now = datetime.fromtimestamp(int(calls[0]["webhook-timestamp"]), UTC)
    ages = [int(now.timestamp()) - int(headers["webhook-timestamp"]) for headers in calls]
    assert [age > 3000 for age in ages] == [name == "old-timestamp" for name in PROBE]
    assert all(f'"taskName":"{TASK_NAME}","payload":{{"a":1}}'.encode() in body for body in bodies)


async def test_without_a_secret_only_what_needs_none_is_sent_and_unsigned() -> None:
    async with raw_server(answers(accepts_all)) as server:
        found = await findings_of(server.url, secrets=())
        assert all("webhook-signature" not in headers_of(seen) for seen in server.seen)
        assert len(server.seen) == 3
    sent = {name for name, level in found.levels.items() if level is not Level.SKIPPED}
    assert sent == {"call", "duplicate", "slow-body"}
    assert found.said["no-signature"] == "not sent: there is no secret to sign with"


# -- verdicts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("took_s", "level"), [(5.0, Level.OK), (5.1, Level.WARN)])
def test_a_slow_answer_is_worth_a_warning(took_s: float, level: Level) -> None:
    assert judge(PROBE["call"], Answer(status_code=200), took_s).level is level
    assert judge(PROBE["slow-body"], Answer(status_code=200), took_s).level is Level.OK


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (200, Level.FAIL), (204, Level.FAIL), (302, Level.WARN), (400, Level.OK), (401, Level.OK),
        (403, Level.OK), (422, Level.OK), (408, Level.WARN), (429, Level.WARN), (500, Level.WARN),
    ],
)  # fmt: skip
def test_a_forged_call_must_be_refused_for_what_it_is(status: int, level: Level) -> None:
    assert judge(PROBE["wrong-signature"], Answer(status_code=status), 0.1).level is level


def test_no_answer_to_a_forged_call_is_worth_a_warning() -> None:
    cut = Answer(error_class=ErrorClass.DISCONNECTED, error="cut off")
    assert judge(PROBE["wrong-signature"], cut, 0.1).level is Level.WARN


@pytest.mark.parametrize("error_class", list(ErrorClass))
def test_every_kind_of_failure_of_the_first_call_is_told(error_class: ErrorClass) -> None:
    found = judge(PROBE["call"], Answer(error_class=error_class, error="what happened"), 0.1)
    assert (found.level, found.said) == (Level.FAIL, "what happened")


# -- the command -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Missing argument 'URL'"),
        (["ftp://127.0.0.1/"], "URL must begin with http:// or https://"),
        (["http://127.0.0.1:1/", "--secret", "whsec_c2hvcnQ="], "signing secret 1 must hold 24"),
        (["http://127.0.0.1:1/", "--secret", f"{TEXT},s3cr3t"], "signing secret 2 must begin"),
        (["http://127.0.0.1:1/", "--secret", "@/no/such/file"], "cannot read /no/such/file"),
        (["http://127.0.0.1:1/", "--payload", "{nonsense"], "is not JSON"),
        (["http://127.0.0.1:1/", "--header", "no colon"], "must be NAME:VALUE"),
        (["http://127.0.0.1:1/", "--header", "webhook-id: 1"], "cannot be overridden"),
        (["http://127.0.0.1:1/", "--timeout", "0"], "--timeout"),
    ],
)
def test_wrong_usage_exits_with_2_and_shows_no_secret(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["check-target", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr
    assert "s3cr3t" not in result.stderr
    assert TEXT not in result.stderr


def test_a_file_that_is_no_text_is_wrong_usage(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(b"\xff\xfe")
    result = CliRunner().invoke(
        main, ["check-target", "http://127.0.0.1:1/", "--secret", f"@{file}"]
    )
    assert result.exit_code == 2
    assert "is not a text file" in result.stderr


@attrs.frozen
class Said:
    code: int
    out: str
    err: str


async def check_as_a_process(url: str, *arguments: str, **env: str) -> Said:
    process = start("check-target", url, *arguments, url="", env=env)
    try:
        out, err = await trio.to_thread.run_sync(partial(process.communicate, timeout=60))
    finally:
        process.kill()
    return Said(process.returncode, out, err)


async def check_everybody(place: Path) -> dict[str, Said]:
    """The command against four receivers, side by side: it mostly waits."""
    said: dict[str, Said] = {}

    async def note(name: str, url: str, *arguments: str, **env: str) -> None:
        said[name] = await check_as_a_process(url, *arguments, **env)

    file, trusted, authority = place / "secret", place / "trusted.pem", trustme.CA()
    file.write_text(TEXT + "\n")
    authority.cert_pem.write_to_path(str(trusted))
    refuses = answers(lambda _headers, _body: 500, body=b"\x1b[2Jgone")
    async with (
        raw_server(answers(accepts_all)) as takes_all,
        raw_server(answers(Good(TEXT))) as good,
        tls_server(answers(Good(TEXT)), authority.issue_cert("127.0.0.1")) as good_by_tls,
        raw_server(refuses) as rude,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(note, "takes all", takes_all.url, "--secret", f"@{file}")
        signing = partial(note, "good", good.url, "--json", RINGBACK_SIGNING_SECRETS=TEXT)
        nursery.start_soon(signing)
        trusting = partial(note, "good by TLS", good_by_tls, "--secret", TEXT)
        nursery.start_soon(partial(trusting, SSL_CERT_FILE=str(trusted)))
        nursery.start_soon(note, "rude", rude.url)
    return said


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Said]:
    return trio.run(check_everybody, tmp_path_factory.mktemp("check"))


@pytest.mark.slow
def test_the_command_tells_in_plain_words_and_exits_with_1(said: dict[str, Said]) -> None:
    told = said["takes all"]
    assert told.code == 1
    assert told.err.startswith("Up to 7 real calls to http://127.0.0.1:")
    assert f'a task named "{TASK_NAME}", signed, key id {SECRET.key_id}' in told.err
    rows = told.out.splitlines()
    at = next(place for place, row in enumerate(rows) if "a wrong signature" in row)
    assert rows[at].startswith("fail ")
    assert rows[at].endswith("accepted with 200: it accepts forged calls")
    assert rows[at + 1].strip() == (
        "→ verify the signature before anything else, and answer 401 if it is wrong"
    )
    assert rows[-1] == "4 ok, 1 to think about, 2 to mend"
    assert "\x1b" not in told.out
    assert TEXT not in told.out + told.err


@pytest.mark.slow
def test_the_command_speaks_json_and_exits_with_0_when_all_is_well(said: dict[str, Said]) -> None:
    told = said["good"]
    assert told.code == 0, told
    found = lines(told.out)
    assert [(line["probe"], line["verdict"]) for line in found] == list(ALL_OK.items())
    assert [line["statusCode"] for line in found] == [200, 200, 200, 401, 401, 401, 200]
    assert all(line["milliseconds"] > 0 and line["advice"] is None for line in found)


@pytest.mark.slow
def test_a_receiver_with_a_certificate_of_an_authority_of_ones_own_passes(
    said: dict[str, Said],
) -> None:
    told = said["good by TLS"]
    assert told.code == 0, told
    assert told.out.endswith("\n7 ok\n")


@pytest.mark.slow
def test_words_of_the_receiver_cannot_steer_the_terminal(said: dict[str, Said]) -> None:
    told = said["rude"]
    assert told.code == 1
    assert "refused with 500: \\x1b[2Jgone" in told.out
