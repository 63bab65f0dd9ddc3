"""The system calls of a server that matter for what is on disk and what clients were told."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import attrs

_CALLS: Final = "pwrite64,write,writev,fdatasync,fsync,ftruncate,unlink,sendto,sendmsg"
_LINE: Final = re.compile(r"(?P<thread>\d+) +(?P<rest>.*)\n")
_CALL: Final = re.compile(
    r"(?P<name>\w+)\((?:\d+<(?P<on>[^>]*(?:->[^>]*)?)>|\"(?P<path>[^\"]*)\")(?P<more>.*)"
)
_RESUMED: Final = re.compile(r"<\.\.\. (?P<name>\w+) resumed>(?P<more>.*)")
_STRING: Final = re.compile(r'"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?')
_NUMBERS: Final = re.compile(r", (-?\d+)")
_RESULT: Final = re.compile(r"\) += (-?\d+)")


@attrs.frozen
class Call:
    """One system call that succeeded. ``begun`` and ``ended`` are places in the trace: what ended
    before another began did so in the traced program too."""

    name: str
    on: str  # the file's path, or "TCP:[from->to]"
    begun: int
    ended: int
    data: bytes = b""
    offset: int = 0  # of a write; the new size of a truncation


def why_not() -> str | None:
    """Why nothing can be traced here, if that is so."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    try:
        tried = subprocess.run(
            ["strace", "-D", "-f", "-yy", "-xx", "-o", "/dev/null", "true"],
            capture_output=True,
            timeout=20,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "strace does not work here"
    return None if tried.returncode == 0 else f"strace does not work here: {tried.stderr.decode()}"


def traced(program: Sequence[str], log: Path) -> Sequence[str]:
    """How to start a program so that its system calls are written to ``log``. It is our own child
    all the same: the tracer is not between."""
    size = str(1 << 20)
    options = ("-D", "-f", "-yy", "-xx", "-s", size, "-e", f"trace={_CALLS}", "-e", "signal=none")
    return ("strace", *options, "-o", str(log), *program)


def wait_until_written(log: Path, pid: int) -> None:
    """Until the tracer has written down the end of this process."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 4096))
            if re.search(rb"(^|\n)%d +\+\+\+ " % pid, file.read()):
                return
        time.sleep(0.05)  # noqa: TID251
    raise AssertionError(f"{sys.executable} has ended, but its trace has not")


def calls_in(log: Path) -> Iterator[Call]:
    """The calls of a trace in the order in which they ended."""
    pending: dict[str, tuple[int, str]] = {}
    with log.open(encoding="ascii") as file:
        for place, line in enumerate(file):
            found = _LINE.fullmatch(line)
            if found is None:
                continue
            thread, text = found["thread"], found["rest"]
            begun = place
            if text.endswith("<unfinished ...>"):
                pending[thread] = (place, text.removesuffix("<unfinished ...>"))
                continue
            resumed = _RESUMED.fullmatch(text)
            if resumed is not None:
                begun, start = pending.pop(thread)
                text = start + resumed["more"]
            call = _call(text, begun, place)
            if call is not None:
                yield call


def _call(text: str, begun: int, ended: int) -> Call | None:
    found, result = _CALL.match(text), _RESULT.search(text[-120:])
    if found is None or result is None or int(result[1]) < 0:
        return None
    name, on, more = found["name"], _text(found["on"] or found["path"] or ""), found["more"]
    if name == "ftruncate":
        return Call(name, on, begun, ended, offset=int(_NUMBERS.findall(more)[0]))
    strings = list(_STRING.finditer(more))
    if any(cut for _, cut in (one.groups() for one in strings)):
        raise AssertionError(f"the trace is cut off: {text[:80]}")
    data = b"".join(_bytes(one[1]) for one in strings)
    offset = 0
    if name == "pwrite64":
        assert int(result[1]) == len(data), "a write was short"
        offset = int(_NUMBERS.findall(more[strings[-1].end() :])[1])
    return Call(name, on, begun, ended, data, offset)


def _bytes(escaped: str) -> bytes:
    return bytes.fromhex(escaped.replace("\\x", ""))


def _text(name: str) -> str:
    return _bytes(name).decode() if name.startswith("\\x") else name
