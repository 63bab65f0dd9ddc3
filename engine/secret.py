"""Secrets that callbacks are signed with, as Standard Webhooks has them: ``whsec_`` and base64.

What a secret holds shows nowhere, neither in a ``repr`` nor in an error. Logs name it by its
``key_id``.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any, Final

import attrs

PREFIX: Final = "whsec_"
KEY_BYTES_MIN: Final = 24
KEY_BYTES_MAX: Final = 64
SECRETS_MAX: Final = 10  # each makes a header 48 bytes longer, and servers limit headers


@attrs.frozen(repr=False)
class Secret:
    """One key of 24 to 64 random bytes. Another length raises ``ValueError``."""

    key: bytes = attrs.field()
    key_id: str = attrs.field(init=False, eq=False)  # 8 hexadecimal digits, safe to show

    @classmethod
    def parse(cls, text: str) -> Secret:
        """The secret of its text form. Raises ``ValueError``, in which the text does not show."""
        if not text.startswith(PREFIX):
            raise ValueError(f"must begin with {PREFIX}")
        try:
            # Strict: verifiers differ in what they make of other characters.
            key = base64.b64decode(text.removeprefix(PREFIX), validate=True)
        except ValueError:
            raise ValueError(f"must be base64 after {PREFIX}") from None
        return cls(key)

    def reveal(self) -> str:
        """The text form, which whoever verifies our calls must be given."""
        return PREFIX + base64.b64encode(self.key).decode()

    def __repr__(self) -> str:
        return f"<Secret {self.key_id}>"

    @key.validator
    def _check_key(self, _attribute: attrs.Attribute[Any], value: bytes) -> None:
        if not KEY_BYTES_MIN <= len(value) <= KEY_BYTES_MAX:
            raise ValueError(
                f"must hold {KEY_BYTES_MIN} to {KEY_BYTES_MAX} bytes, not {len(value)}"
            )

    @key_id.default
    def _make_key_id(self) -> str:
        return hashlib.sha256(self.key).hexdigest()[:8]


def parse_secrets(value: str | Iterable[Secret | str]) -> tuple[Secret, ...]:
    """Secrets from a text with commas or blanks between them, or from a sequence.

    Raises ``ValueError``, which says which of them is wrong (the first is 1) and never its text.
    """
    entries = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    if len(entries) > SECRETS_MAX:
        raise ValueError(f"there can be at most {SECRETS_MAX} signing secrets, not {len(entries)}")
    secrets: list[Secret] = []
    for number, entry in enumerate(entries, 1):
        try:
            secret = Secret.parse(entry) if isinstance(entry, str) else entry
        except ValueError as error:
            raise ValueError(f"signing secret {number} {error}") from None
        if secret in secrets:
            raise ValueError(f"signing secret {number} is also number {secrets.index(secret) + 1}")
        secrets.append(secret)
    return tuple(secrets)
