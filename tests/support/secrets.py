"""Looks for planted secrets in everything that was said, however it is spelled."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Iterable
from urllib.parse import quote

import attrs

PLANTED = "planted-in-every-task-1f9c8e"
"""What the tasks of ``tests.support.app`` carry in a header. It must show nowhere: the clients
there look at every answer, and ``tests/conftest.py`` at what every test prints and logs."""

SHORTEST = 8  # what is shorter is found by chance


def spellings(secret: str) -> frozenset[str]:
    """The secret plain, in JSON, in JSON as a text within JSON, in HTML, percent-encoded, in
    hexadecimal, and what shows of it in the base64 of any text that it stands in."""
    raw = secret.encode()
    in_json = json.dumps(secret)[1:-1]
    found = {secret, in_json, json.dumps(in_json)[1:-1], html.escape(secret)}
    found |= {quote(secret, safe=""), raw.hex(), raw.hex().upper()}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + raw)
        middle = encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4].decode()
        found |= {middle, middle.replace("+", "-").replace("/", "_")}
    return frozenset(text for text in found if len(text) >= SHORTEST)


@attrs.define
class Haul:
    """Everything that was said, with where."""

    said: list[tuple[str, str]] = attrs.field(factory=list)

    def add(self, where: str, text: str | bytes) -> str:
        """Keep it; the text again."""
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        self.said.append((where, plain))
        return plain

    def search(self, secrets: Iterable[str]) -> list[str]:
        """Where which of them shows."""
        return [
            f"{secret!r} as {spelled!r} in {where}: …{text[max(0, at - 60) : at + 60]!r}…"
            for secret in secrets
            for spelled in sorted(spellings(secret))
            for where, text in self.said
            if (at := text.find(spelled)) >= 0
        ]
