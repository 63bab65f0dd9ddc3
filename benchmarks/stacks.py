"""Sampled stacks: whose layer each one is, and where in a layer the time goes.

``python -m benchmarks.stacks FILE.folded`` shows the second for what the question "layers" wrote.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Final, TypeAlias

import click

ROOT: Final = Path(__file__).parent.parent

Stack: TypeAlias = tuple[str, ...]
"""Frames as ``path:function``, outermost first; paths begin at the project or the package."""

LOOP: Final = "trio/_core/_run.py:run"
COLLECTOR: Final = "benchmarks/profiled_serve.py:Clocks.collector"
"""A signal that comes during a garbage collection is handled when its end is told."""

THREADS: Final = "[store's threads]"
"""The outermost frame of what is no sample, but measured; the only other frame is the layer."""

SERVER: Final = "server: connection, parser"
FRAMEWORK: Final = "server: ASGI framework"
ROUTE: Final = "route: web code, JSON, validation"
HOPS: Final = "actor hops"
CORE: Final = "core rules"
STORE: Final = "store: Python"
SQLITE: Final = "store: SQLite in C"
TRANSPORT: Final = "transport: callback client"
SCHEDULER: Final = "trio's scheduler"
GARBAGE: Final = "garbage collection"
OTHER: Final = "other"

ALL_LAYERS: Final = (
    SERVER, FRAMEWORK, ROUTE, HOPS, CORE, STORE, SQLITE, TRANSPORT, SCHEDULER, GARBAGE, OTHER,
)  # fmt: skip

LAYERS: Final[Mapping[str, str]] = {
    "web/server.py": SERVER,
    "web/connection.py": SERVER,
    "web/protocol.py": SERVER,
    "web/plain.py": SERVER,
    "hypercorn/": SERVER,
    "h11/": SERVER,
    "wsproto/": SERVER,
    "web/quart_lane.py": FRAMEWORK,
    "quart/": FRAMEWORK,
    "quart_trio/": FRAMEWORK,
    "werkzeug/": FRAMEWORK,
    "web/": ROUTE,
    "engine/core/": CORE,
    "engine/": HOPS,
    "engine/adapters/storage/": STORE,
    "engine/adapters/codec.py": STORE,
    "engine/adapters/errors.py": STORE,
    "engine/adapters/threads.py": STORE,
    "sqlalchemy/": STORE,
    "engine/adapters/http/": TRANSPORT,
    LOOP: SCHEDULER,
    COLLECTOR: GARBAGE,
}
"""Which layer a frame is in, by the beginning of its name; the longest that fits counts."""

_GENERATED: Final = re.compile(r"<attrs generated \w+ (?P<module>[\w.]+)\.\w+>")
_LIBRARY: Final = re.compile(r".*/lib/python[\d.]+/(?P<path>.*)")


def frame_name(path: str, function: str) -> str:
    """A frame's name, wherever the project and its packages lie; generated methods are where their
    class is."""
    return f"{_short(path)}:{function}".replace(";", ",").replace(" ", "_")


def _short(path: str) -> str:
    generated = _GENERATED.fullmatch(path)
    if generated:
        return generated["module"].replace(".", "/") + ".py"
    for mark in ("/site-packages/", f"{ROOT}/"):
        if mark in path:
            return path.rpartition(mark)[2]
    library = _LIBRARY.fullmatch(path)
    return f"python/{library['path']}" if library else path


@lru_cache(maxsize=65536)
def layer_of(stack: Stack) -> str:
    """The layer of the innermost frame that is in one: what libraries do, they do for a caller."""
    if stack[0] == THREADS:
        return stack[1]
    for frame in reversed(stack):
        fitting = [begin for begin in LAYERS if frame.startswith(begin)]
        if fitting:
            return LAYERS[max(fitting, key=len)]
    return OTHER


def by_layer(stacks: Mapping[Stack, int]) -> Counter[str]:
    """How often each layer was met."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        found[layer_of(stack)] += count
    return found


def hottest(stacks: Mapping[Stack, int], layer: str, most: int) -> list[tuple[str, int]]:
    """Where a layer was met, the most frequent first: the innermost frame, and what called it in
    our own code if that is another."""
    found: Counter[str] = Counter()
    for stack, count in stacks.items():
        if layer_of(stack) == layer:
            found[_place(stack)] += count
    return found.most_common(most)


def _place(stack: Stack) -> str:
    own = next((frame for frame in reversed(stack) if frame.startswith(("engine/", "web/"))), "")
    return stack[-1] if own in ("", stack[-1]) else f"{stack[-1]} <- {own}"


def fold(stacks: Mapping[Stack, int]) -> str:
    """One line a stack, as tools that draw flame graphs read it."""
    return "".join(f"{';'.join(stack)} {count}\n" for stack, count in sorted(stacks.items()))


def unfold(lines: Iterable[str]) -> Counter[Stack]:
    """What ``fold`` made. Lines of the same stack add up; the last line is left out if cut off."""
    found: Counter[Stack] = Counter()
    for line in lines:
        if line.endswith("\n"):
            frames, _, count = line.rstrip("\n").rpartition(" ")
            found[tuple(frames.split(";"))] += int(count)
    return found


@click.command()
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--most", default=12, show_default=True, help="Places shown of each layer.")
def main(path: Path, most: int) -> None:
    """Show the layers of a folded file, and where in each of them the time goes."""
    with path.open(encoding="utf-8") as lines:
        stacks = unfold(lines)
    total = sum(stacks.values())
    for layer, count in by_layer(stacks).most_common():
        click.echo(f"{100 * count / total:5.1f} %  {layer}")
        for place, often in hottest(stacks, layer, most):
            click.echo(f"        {100 * often / total:5.1f} %  {place}")


if __name__ == "__main__":
    main()
