"""The egress guard as clients of the engine meet it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from trio.testing import MockClock

from engine import EngineConfig, ErrorClass, RetryPolicy, Status, TaskSpec, open_engine
from engine.core.egress import Profile
from engine.errors import InvalidTask
from engine.runtime import egress_policy
from engine.service import Engine
from tests.support.app import ports_for_tests
from tests.support.builders import a_spec
from tests.support.egress import ScriptedNames, Spy, goes, net_with
from tests.support.engine import submit_one, until
from tests.support.url_corpus import GOOD, METADATA, OWN_PORT, corpus

OWN = [("127.0.0.1", OWN_PORT)]
NAME = "http://rebind.example.com/"


@asynccontextmanager
async def engine_with(
    names: ScriptedNames | None = None, spy: Spy | None = None, egress: str = "internal"
) -> AsyncIterator[Engine]:
    config = EngineConfig(executors=2, egress=egress)
    net = net_with(egress_policy(config, OWN), names or ScriptedNames(), spy or Spy())
    async with open_engine(config, ports=ports_for_tests(net=net), own_listeners=OWN) as engine:
        yield engine


@pytest.mark.slow
@pytest.mark.parametrize("profile", list(Profile))
async def test_what_the_url_alone_tells_is_refused_when_the_task_is_created(
    autojump_clock: MockClock, profile: Profile
) -> None:
    wrong = {}
    async with engine_with(egress=profile.value) as engine:
        for case in corpus():
            said: list[object] = []
            try:
                await engine.submit([TaskSpec(name="a", callback_url=case.url)])
            except InvalidTask as error:
                said = [path for path, _ in error.problems]
            fine = goes(case, profile) or case.is_named
            if said != ([] if fine else [(0, "callback_url")]):
                wrong[case.url] = (case.verdict, said)
    assert wrong == {}


async def test_the_refusal_of_a_url_says_why(autojump_clock: MockClock) -> None:
    async with engine_with() as engine:
        with pytest.raises(InvalidTask) as caught:
            await engine.submit([a_spec(), a_spec(callback_url=f"http://{METADATA}/latest")])
    ((path, detail),) = caught.value.problems
    assert path == (1, "callback_url")
    assert detail == (
        f"leads where callbacks may not go: {METADATA} is link-local (cloud metadata)"
    )


async def test_a_task_cannot_be_changed_to_lead_where_it_may_not(autojump_clock: MockClock) -> None:
    async with engine_with() as engine:
        created = await engine.submit([TaskSpec(name="a", callback_url="http://127.0.0.1:9/")])
        task_id = created.receipts[0].task_id
        for url in (f"http://{METADATA}/", f"http://127.0.0.1:{OWN_PORT}/", "http://127.1/"):
            with pytest.raises(InvalidTask):
                await engine.update(task_id, {"callback_url": url})
        task = await engine.update(task_id, {"callback_url": "http://127.0.0.1:10/"})
        assert task.spec.callback_url == "http://127.0.0.1:10/"


async def test_how_many_hops_led_to_a_task_cannot_be_changed(autojump_clock: MockClock) -> None:
    async with engine_with() as engine:
        task_id = await submit_one(engine, "http://127.0.0.1:9/", hops=3)
        with pytest.raises(InvalidTask, match="cannot be changed"):
            await engine.update(task_id, {"hops": 0})


async def test_a_name_that_leads_to_a_refused_address_fails_the_attempt(
    autojump_clock: MockClock,
) -> None:
    spy = Spy()
    async with engine_with(spy=spy) as engine:
        task_id = await submit_one(engine, NAME, retry_policy=RetryPolicy(max_attempts=2))
        await until(engine, [task_id])
        attempts = await engine.attempts(task_id)
        assert (await engine.get(task_id)).status is Status.FAILED
    assert [attempt.result.error_class for attempt in attempts] == [ErrorClass.EGRESS_DENIED] * 2
    assert attempts[0].result.error == (
        f"callbacks may not go there: {METADATA} is link-local (cloud metadata)"
    )
    assert spy.seen == []


async def test_every_attempt_is_checked_anew(autojump_clock: MockClock) -> None:
    spy = Spy()
    names = ScriptedNames({"rebind.example.com": [[GOOD], [METADATA], [GOOD, METADATA], [GOOD]]})
    async with engine_with(names, spy) as engine:
        task_id = await submit_one(engine, NAME, retry_policy=RetryPolicy(max_attempts=4))
        await until(engine, [task_id])
        found = [attempt.result.error_class for attempt in await engine.attempts(task_id)]
    assert [str(error_class) for error_class in found] == [
        "refused", "egress_denied", "egress_denied", "refused",
    ]  # fmt: skip
    assert spy.seen == [(GOOD, 80), (GOOD, 80)]


async def test_public_lets_pass_what_is_allowed_by_name(autojump_clock: MockClock) -> None:
    config = EngineConfig(egress="public", allow_network="10.1.0.0/16, fd12::/32")
    ports = ports_for_tests(net=net_with(egress_policy(config), ScriptedNames(), Spy()))
    async with open_engine(config, ports=ports) as engine:
        for url in ("http://10.1.2.3/", "http://[fd12::1]/", f"http://{GOOD}/"):
            await engine.submit([TaskSpec(name="a", callback_url=url)])
        for url in ("http://10.2.0.1/", "http://[fd13::1]/", "http://127.0.0.1/"):
            with pytest.raises(InvalidTask, match="only global addresses and allowed networks"):
                await engine.submit([TaskSpec(name="a", callback_url=url)])


# -- settings ----------------------------------------------------------------------------------


def test_a_policy_is_made_of_the_settings() -> None:
    policy = egress_policy(EngineConfig(egress="public", allow_network="10.0.0.0/8"), OWN)
    assert (policy.profile, [str(network) for network in policy.allowed]) == (
        Profile.PUBLIC,
        ["10.0.0.0/8"],
    )
    assert policy.refusal("127.0.0.1", OWN_PORT) is not None
    assert egress_policy(EngineConfig()).profile is Profile.INTERNAL


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ({"egress": "none"}, "egress must be internal or public, not 'none'"),
        ({"allow_network": "10.0.0.1/8"}, "10.0.0.1/8 has host bits set"),
        ({"allow_network": "10.0.0.0/8 nonsense"}, "'nonsense' does not appear to be"),
        ({"allow_network": "10.0.0.0/33"}, "write an allowed network as 10.1.0.0/16"),
    ],
)
def test_wrong_settings_say_what_is_wrong(setting: dict[str, str], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        EngineConfig(**setting)  # type: ignore[arg-type]
