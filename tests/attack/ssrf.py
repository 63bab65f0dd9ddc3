"""SSRF: the corpus of URLs that fooled others, in both profiles, names that change their address, and
redirects; a spy in place of the connect counts where they lead.

``tests/adapters/test_egress_corpus.py`` is the form in the suite; the cases are the same.
"""

from __future__ import annotations

import random
from typing import Final, NoReturn

import click

from engine.core.egress import EgressPolicy, Listener, Profile
from tests.adapters.test_egress_corpus import CORPUS, NOT_CALLED, test_no_redirect_is_followed
from tests.attack.verdict import RECORD, Came, conclude
from tests.support.egress import ScriptedNames, Spy, call, destinations, goes, host_of, net_with
from tests.support.url_corpus import GOOD, METADATA, OWN_PORT

BAR: Final = "SSRF"
REBINDINGS: Final = 100
REDIRECTS: Final = (300, 301, 302, 303, 304, 305, 307, 308)
SEED: Final = 20260102
FORBIDDEN: Final = {
    Profile.INTERNAL: (METADATA, "0.0.0.0", "224.0.0.1"),
    Profile.PUBLIC: (METADATA, "0.0.0.0", "224.0.0.1", "127.0.0.1", "10.0.0.1", "192.168.1.1"),
}


async def attack() -> Came:
    """Try them all."""
    forbidden: list[str] = []
    for profile in Profile:
        forbidden += await _corpus(profile)
        forbidden += await _rebinding(profile)
    forbidden += await _redirects()
    return Came(
        tried=f"{len(CORPUS)} URLs in {len(Profile)} profiles, {REBINDINGS} names that change their "
        f"address in both, {len(REDIRECTS)} redirects to 4 places",
        seen=f"{len(forbidden)} connects to forbidden addresses",
        misses=forbidden[:5],
    )


async def _corpus(profile: Profile) -> list[str]:
    policy = EgressPolicy(profile=profile, listeners=(Listener("127.0.0.1", OWN_PORT),))
    names, spy = ScriptedNames(), Spy()
    net, wrong = net_with(policy, names, spy), []
    for case in CORPUS:
        spy.seen.clear()
        names.answers = {host_of(case.url): [case.answers]} if case.is_named else {}
        found = await call(net, case.url)
        allowed = destinations(case) if goes(case, profile) else set()
        refused = found.error_class in NOT_CALLED
        if spy.addresses != allowed or refused is bool(allowed):
            wrong.append(f"{profile.value}: {case.url} led to {sorted(spy.addresses)}")
    return wrong


async def _rebinding(profile: Profile) -> list[str]:
    """Each time, the address that was checked is connected to, or none. Every name has answers of
    its own: some good ones, and some forbidden ones between them."""
    chance, wrong = random.Random(f"{SEED} {profile}"), []
    scripts = {
        f"rebind-{number}.example.com": _changing(chance, profile) for number in range(REBINDINGS)
    }
    names, spy = ScriptedNames(scripts), Spy()
    net = net_with(EgressPolicy(profile=profile), names, spy)
    for name, answers in scripts.items():
        spy.seen.clear()
        for _ in answers:
            await call(net, f"http://{name}/")
        if [address for address, _ in spy.seen] != [GOOD] * answers.count([GOOD]):
            wrong.append(f"{profile.value}: {name} led to {spy.seen}")
    return wrong


def _changing(chance: random.Random, profile: Profile) -> list[list[str]]:
    """What a name is answered with, one after the other; at least once each of both kinds."""
    answers = [[GOOD]] * chance.randint(1, 3)
    answers += [[chance.choice(FORBIDDEN[profile])] for _ in range(chance.randint(1, 3))]
    chance.shuffle(answers)
    return answers


async def _redirects() -> list[str]:
    wrong = []
    for status in REDIRECTS:
        try:
            await test_no_redirect_is_followed(status)
        except AssertionError:
            wrong.append(f"a {status} was followed")
    return wrong


@click.command()
@RECORD
def command(*, record: bool) -> NoReturn:
    """Try to be led to addresses that no callback may go to."""
    conclude(BAR, "ssrf", attack, record=record)


if __name__ == "__main__":
    command()
