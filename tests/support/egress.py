"""A network in which nothing is connected to: who would have been is noted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import trio

from engine.adapters.http import HttpCallbackNet
from engine.adapters.http.names import Names
from engine.adapters.http.wire import Wire
from engine.core.callback import CallbackRequest
from engine.core.egress import EgressPolicy, Profile
from engine.core.outcome import Answer
from tests.support.url_corpus import METADATA, Case, Verdict

MY_ADDRESS = "10.9.8.7"


class ScriptedNames:
    """A resolver with a script: the n-th question for a name gets its n-th answer, later ones the
    last. Addresses are themselves; every other name leads to the metadata of a cloud."""

    def __init__(self, answers: Mapping[str, Sequence[Sequence[str]]] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[str] = []

    async def addresses(self, host: str) -> Sequence[str]:
        await trio.lowlevel.checkpoint()
        self.asked.append(host)
        script = self.answers.get(host.lower(), [[METADATA]])
        try:
            return [str(ip_address(host))]
        except ValueError:
            return script[min(self.asked.count(host), len(script)) - 1]

    def forget(self, host: str) -> None:
        pass


class Spy:
    """Takes the place of the connect: notes where it would have gone, and nobody is there."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []

    @property
    def addresses(self) -> set[str]:
        return {str(ip_address(address)) for address, _ in self.seen}

    async def __call__(self, address: str, port: int) -> Wire:
        await trio.lowlevel.checkpoint()
        self.seen.append((address, port))
        raise ConnectionRefusedError("nobody is there")


def net_with(policy: EgressPolicy, names: Names, spy: Spy) -> HttpCallbackNet:
    """The real network up to its resolver and its connect, on a machine with ``MY_ADDRESS``."""
    return HttpCallbackNet(
        body_bytes_max=1000,
        connect_timeout_s=5,
        egress=policy,
        resolver=names,
        connect=spy,
        own_address=lambda address: address == MY_ADDRESS,
    )


async def call(net: HttpCallbackNet, url: str) -> Answer:
    """The outcome of one call."""
    request = CallbackRequest(method="POST", url=url, headers={}, body=b"{}", timeout_s=5)
    async with net.open_caller() as caller:
        return await caller.call(request)


def host_of(url: str) -> str:
    """The host of a URL, or nothing."""
    return urlsplit(url).hostname or ""


def goes(case: Case, profile: Profile) -> bool:
    """Whether a URL is called in this profile."""
    return case.verdict is Verdict.FREE or (
        case.verdict is Verdict.INNER and profile is Profile.INTERNAL
    )


def destinations(case: Case) -> set[str]:
    """The addresses a URL leads to."""
    hosts = case.answers or [host_of(case.url)]
    return {str(ip_address(host)) for host in hosts}
