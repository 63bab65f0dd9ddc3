"""SSRF: the corpus of URLs that fooled others, in both profiles, names that change their address, and
redirects; a spy in place of the connect counts where they lead.

``tests/adapters/test_egress_corpus.py`` is the form in the suite; the cases are the same.
"""

from __future__ import annotations

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
NAME: Final = "rebind.example.com"


async def attack() -> Came:
    """Try them all."""
    forbidden: list[str] = []
    for profile in Profile:
        forbidden += await _corpus(profile)
    forbidden += await _rebinding()
    forbidden += await _redirects()
    return Came(
        tried=f"{len(CORPUS)} URLs in {len(Profile)} profiles, {REBINDINGS} names that change their address, "
        f"{len(REDIRECTS)} redirects to 4 places",
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


async def _rebinding() -> list[str]:
    """Each time, the address that was checked is connected to, or none."""
    wrong = []
    for number in range(REBINDINGS):
        answers = [[GOOD], [METADATA]] if number % 2 else [[METADATA], [GOOD]]
        spy = Spy()
        net = net_with(EgressPolicy(), ScriptedNames({NAME: answers}), spy)
        for _ in answers:
            await call(net, f"http://{NAME}/")
        if spy.addresses != {GOOD}:
            wrong.append(f"rebinding led to {sorted(spy.addresses)}")
    return wrong


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
