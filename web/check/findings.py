"""What a receiver's answers mean, in plain words, and what to change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import attrs

from engine import ErrorClass
from engine.core.outcome import Answer

from .probes import Level, Probe, Wanted

SLOW_ANSWER_S: Final = 5.0  # the engine gives slower destinations only some of its executors
_BODY_SHOWN: Final = 200  # characters of an answer

_ADVICE_ON_ERRORS: Final[Mapping[ErrorClass, str]] = {
    ErrorClass.DNS: "check the host name",
    ErrorClass.EGRESS_DENIED: "Ringback does not call that address; give another",
    ErrorClass.REFUSED: "is the receiver running, and is the port right?",
    ErrorClass.CONNECT_TIMEOUT: "check the host, the port, and the firewalls between",
    ErrorClass.TLS: "it needs a certificate for this host name that this machine trusts",
    ErrorClass.TIMEOUT: "answer sooner; for long work answer 202 at once and do it afterwards",
    ErrorClass.DISCONNECTED: "answer before you close the connection; its log may say why it did not",
    ErrorClass.PROTOCOL: "is this the right port, and is it http or https?",
}
_WHEN_NOT_LET_IN: Final = "--secret must be what it verifies with, and its clock must be right"
_ADVICE_ON_STATUSES: Final[Mapping[int, str]] = {
    400: "does it want another payload? give one with --payload",
    401: _WHEN_NOT_LET_IN,
    403: _WHEN_NOT_LET_IN,
    404: "check the path of the URL",
    405: "it must take POST",
    415: "it must take application/json",
    422: "does it want another payload? give one with --payload",
}


@attrs.frozen(kw_only=True)
class Finding:
    """What came of a probe."""

    probe: Probe
    level: Level
    said: str
    advice: str = ""
    status: int | None = None
    took_s: float | None = None

    def document(self) -> dict[str, Any]:
        """For scripts."""
        return {
            "probe": self.probe.name,
            "verdict": self.level,
            "said": self.said,
            "advice": self.advice or None,
            "statusCode": self.status,
            "milliseconds": None if self.took_s is None else round(self.took_s * 1000, 1),
        }


def skipped(probe: Probe, why: str) -> Finding:
    """The probe was not sent."""
    return Finding(probe=probe, level=Level.SKIPPED, said=f"not sent: {why}")


def judge(probe: Probe, answer: Answer, took_s: float) -> Finding:
    """The verdict on an answer that came after so many seconds."""
    if probe.wanted is Wanted.ACCEPT:
        level, said, advice = _judge_where_welcome(probe, answer, took_s)
    else:
        level, said, advice = _judge_where_forged(probe, answer)
    return Finding(
        probe=probe, level=level, said=said, advice=advice, status=answer.status_code, took_s=took_s
    )


_Words = tuple[Level, str, str]


def _judge_where_welcome(probe: Probe, answer: Answer, took_s: float) -> _Words:
    status = answer.status_code
    if status is None:
        said = _joined(answer.error or "no answer", probe.otherwise)
        return Level.FAIL, said, _advice(probe, answer)
    if 200 <= status <= 299:
        return _judge_accepted(probe, status, took_s)
    if 300 <= status <= 399:
        return Level.FAIL, f"it redirects ({status}), which is not followed", "give the final URL"
    if probe.slowly and status == 408:
        return Level.OK, "refused as too slow (408), which Ringback tries again", ""
    said = _joined(f"refused with {status}", probe.otherwise) + _excerpt(answer)
    return Level.FAIL, said, _advice(probe, answer)


def _judge_accepted(probe: Probe, status: int, took_s: float) -> _Words:
    if probe.slowly:  # most of the time is ours
        return Level.OK, f"accepted with {status}", ""
    said = _joined(f"accepted with {status} in {_duration(took_s)}", probe.unseen)
    if took_s > SLOW_ANSWER_S:
        return (
            Level.WARN,
            said,
            f"answer within {SLOW_ANSWER_S:g} s: slower ones get fewer executors",
        )
    return Level.OK, said, ""


def _judge_where_forged(probe: Probe, answer: Answer) -> _Words:
    status = answer.status_code
    if status is None:
        said = _joined(
            answer.error or "no answer", "so it was not accepted, but not refused either"
        )
        return Level.WARN, said, probe.advice
    if 200 <= status <= 299:
        return probe.level, f"accepted with {status}: {probe.otherwise}", probe.advice
    if status in (408, 429) or not 400 <= status <= 499:
        said = f"answered {status}: not accepted, but not for what is wrong with it"
        return Level.WARN, said, probe.advice
    return Level.OK, f"refused with {status}", ""


def _advice(probe: Probe, answer: Answer) -> str:
    """What the probe is about, unless the answer tells of something else."""
    if probe.advice:
        return probe.advice
    if answer.error_class is not None:
        return _ADVICE_ON_ERRORS.get(answer.error_class, "")
    return _ADVICE_ON_STATUSES.get(answer.status_code or 0, "its log may say why")


def _joined(*parts: str) -> str:
    return "; ".join(part for part in parts if part)


def _duration(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _excerpt(answer: Answer) -> str:
    text = " ".join(answer.body.decode("utf-8", "replace").split())
    return f": {text[:_BODY_SHOWN]}" if text else ""
