"""Signatures of Standard Webhooks: a receiver can tell our calls from forged and altered ones.

A signature covers the id, the timestamp and the exact bytes of the body. With several secrets
there are several signatures, and a receiver accepts any that it can verify: so a new secret can
be given to receivers one after the other while they still know the old one.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Iterable

from engine.secret import Secret


def signature(message_id: str, timestamp: str, body: bytes, secrets: Iterable[Secret]) -> str:
    """The value of ``webhook-signature``: one ``v1,…`` per secret, in their order."""
    signed = f"{message_id}.{timestamp}.".encode() + body
    digests = (hmac.digest(secret.key, signed, "sha256") for secret in secrets)
    return " ".join(f"v1,{b64encode(digest).decode()}" for digest in digests)
