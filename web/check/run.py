"""Sends the probes, one after the other, and hands on what came of each."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version
from secrets import token_bytes
from typing import Final

import attrs
import trio

from engine import Ports, Secret, TaskId
from engine.core.callback import CallbackRequest
from engine.core.outcome import Answer
from engine.ports.callback_net import Caller

from .findings import Finding, judge, skipped
from .probes import PROBES, Level, Probe, Target, request_for
from .slow import send_slowly

WHOLE_S: Final = 90.0  # no probe begins later
_TIMEOUT_MIN_S: Final = 0.1


async def check(
    target: Target, ports: Ports, tell: Callable[[Finding], None], *, whole_s: float = WHOLE_S
) -> None:
    """Send the probes and ``tell`` each finding as it comes; one per probe, in their order.

    Once the first call is not accepted the others mean nothing and are not sent.
    """
    sender = _Sender(target, ports, trio.current_time() + whole_s)
    async with ports.net.open_caller() as caller:
        for probe in PROBES:
            tell(await sender.find_out(probe, caller))


@attrs.define
class _Sender:
    """Knows the first task, and whether there is a reason to send no more."""

    target: Target
    ports: Ports
    ends_at: float
    first_id: TaskId = ""
    reason: str = ""
    foreign: Secret = attrs.field(init=False, factory=lambda: Secret(token_bytes(32)))

    async def find_out(self, probe: Probe, caller: Caller) -> Finding:
        """The finding of one probe."""
        began = trio.current_time()
        if not self.target.secrets and probe.needs_secret:
            return skipped(probe, "there is no secret to sign with")
        if not self.reason and self.ends_at - began < _TIMEOUT_MIN_S:
            self.reason = "the check took too long"
        if self.reason:
            return skipped(probe, self.reason)
        request = self._request(probe)
        answer = await self._send(probe, request, caller)
        finding = judge(probe, answer, trio.current_time() - began)
        if probe is PROBES[0] and finding.level is Level.FAIL:
            self.reason = "it says nothing as long as the first call fails"
        return finding

    async def _send(self, probe: Probe, request: CallbackRequest, caller: Caller) -> Answer:
        if probe.slowly:
            return await send_slowly(request, self.target.slow_s)
        return await caller.call(request)

    def _request(self, probe: Probe) -> CallbackRequest:
        task_id = self.first_id if probe.again else self.ports.ids.task_id()
        self.first_id = self.first_id or task_id
        request = request_for(
            probe,
            self.target,
            task_id=task_id,
            now=self.ports.clock.now(),
            foreign=self.foreign,
            span_id=f"{self.ports.rng.getrandbits(64):016x}",
            user_agent=f"Ringback/{version('ringback')}",
        )
        left_s = self.ends_at - trio.current_time()
        return attrs.evolve(request, timeout_s=min(request.timeout_s, left_s))
