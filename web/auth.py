"""API keys: who may use the API, and for what.

A key is ``rbk_ID_SECRET``; the server knows only the SHA-256 of it. A plain hash is enough here: a
slow one protects passwords, which can be guessed, while the secret is 256 random bits, and a slow
one would have to be computed for every request.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

import attrs

from .problems import Problem

SECRET_BYTES: Final = 32
KEYS_MAX: Final = 1000
NO_KEY: Final = "this is not an API key: those look like rbk_ID_ and 43 characters"

_ID: Final = "[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?"  # no underscore: it ends the id
_KEY: Final = re.compile(rf"rbk_({_ID})_[A-Za-z0-9_-]{{43}}")
_ENTRY: Final = re.compile(rf"({_ID}):([a-z]+):([0-9a-fA-F]{{64}})")


class Scope(enum.IntEnum):
    """What a request needs and a key allows; each includes those before it."""

    OPEN = 0  # what anybody may ask
    READ = 1
    WRITE = 2
    ADMIN = 3

    @property
    def spelled(self) -> str:
        """As people write it."""
        return self.name.lower()


@attrs.frozen
class ApiKey:
    """What the server knows of a key: not the key itself."""

    id: str
    scope: Scope
    digest: bytes = attrs.field(default=bytes(32), repr=False)

    def entry(self) -> str:
        """As it is configured."""
        return f"{self.id}:{self.scope.spelled}:{self.digest.hex()}"


ANYBODY: Final = ApiKey("", Scope.ADMIN)
"""Who asks a server that has no keys."""

VISITOR: Final = ApiKey("", Scope.OPEN)
"""Who asks for what is open to all."""

KEY: Final = "ringback.key"
"""Where the ASGI scope of a request holds its ``ApiKey``."""

_UNKNOWN: Final = ApiKey("", Scope.OPEN)  # no text is known whose SHA-256 is all zeros


def key_text(key_id: str, secret: bytes) -> str:
    """The key itself, of 32 random bytes. Raises ``ValueError`` for an id that cannot be one."""
    if not re.fullmatch(_ID, key_id):
        raise ValueError("an id has 1 to 32 characters a-z, 0-9 and '-', and '-' only inside")
    return f"rbk_{key_id}_{urlsafe_b64encode(secret).rstrip(b'=').decode()}"


def is_key(text: str) -> bool:
    """Whether the text has the form of a key."""
    return _KEY.fullmatch(text) is not None


def known_as(key: str, scope: Scope) -> ApiKey:
    """What a server must know of this key. Raises ``ValueError``, in which the key is not shown."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise ValueError(NO_KEY)
    return ApiKey(found[1], scope, hashlib.sha256(key.encode()).digest())


class Keyring:
    """The keys a server knows. Several of one client are how a key is changed without a gap."""

    def __init__(self, keys: Sequence[ApiKey] = ()) -> None:
        self._keys: Mapping[str, ApiKey] = MappingProxyType({key.id: key for key in keys})

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<Keyring {self.names() or 'empty'}>"

    def names(self) -> str:
        """Which keys there are, for people."""
        return ", ".join(f"{key.id} ({key.scope.spelled})" for key in self._keys.values())

    def find(self, text: str) -> ApiKey | None:
        """The key with this text. One whose id is unknown takes as long as one that is wrong."""
        match = _KEY.fullmatch(text)
        known = self._keys.get(match[1], _UNKNOWN) if match else _UNKNOWN
        digest = hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()
        same = hmac.compare_digest(digest, known.digest)
        return known if same and known is not _UNKNOWN else None


def parse_keys(value: str | Keyring) -> Keyring:
    """The keys of a setting: entries ``ID:SCOPE:SHA256``, separated by commas or lines; what
    follows a ``#`` on a line is a comment.

    Raises ``ValueError``, which counts entries from 1 and repeats nothing of them: people paste
    the key where its hash belongs.
    """
    if isinstance(value, Keyring):
        return value
    lines = (line.partition("#")[0] for line in value.splitlines())
    entries = [entry.strip() for line in lines for entry in line.split(",") if entry.strip()]
    if value.strip() and not entries:
        raise ValueError("API keys: no key is named; leave the setting out to have none")
    if len(entries) > KEYS_MAX:
        raise ValueError(f"API keys: there may be {KEYS_MAX}, not {len(entries)}")
    keys: list[ApiKey] = []
    for number, entry in enumerate(entries, 1):
        key = _parse_entry(number, entry)
        for before, other in enumerate(keys, 1):
            if other.id == key.id:
                raise ValueError(f"API keys: entry {number} has the id of entry {before}")
        keys.append(key)
    return Keyring(keys)


def _parse_entry(number: int, entry: str) -> ApiKey:
    """One entry. Everything it complains of is named by its number."""
    where = f"API keys: entry {number}"
    if "rbk_" in entry:
        raise ValueError(
            f"{where} holds a key itself; the server must get its entry instead, which "
            "`ringback keys hash` makes of a key. Consider this key known, and make another"
        )
    found = _ENTRY.fullmatch(entry)
    if found is None:
        raise ValueError(
            f"{where} must be ID:SCOPE:HASH, the hash being 64 hexadecimal digits; "
            "`ringback keys new` makes one"
        )
    key_id, scope, digest = found.groups()
    if scope not in _SCOPES:
        raise ValueError(f"{where} must have the scope read, write or admin")
    return ApiKey(key_id, _SCOPES[scope], bytes.fromhex(digest))


_SCOPES: Final = MappingProxyType({scope.spelled: scope for scope in Scope if scope})


# -- requests --------------------------------------------------------------------------------


def authenticate(keys: Keyring, values: Sequence[bytes]) -> ApiKey:
    """Whose request this is, by its ``Authorization`` headers (RFC 6750 §2.1). Raises a 401."""
    if not values:
        raise _unauthenticated("this needs an API key: send it as Authorization: Bearer KEY")
    scheme, _, credentials = values[0].decode("latin-1").partition(" ")
    if scheme.lower() != "bearer":
        raise _unauthenticated("an API key is sent as Authorization: Bearer KEY")
    key = keys.find(credentials.strip()) if len(values) == 1 else None
    if key is None:
        raise _unauthenticated("this API key is not known here", "invalid_token")
    return key


def authorise(key: ApiKey, needed: Scope) -> None:
    """Raise a 401 or 403 unless the key allows what needs this scope."""
    if key.scope >= needed:
        return
    if key.scope is Scope.OPEN:
        raise _unauthenticated("this needs an API key: send it as Authorization: Bearer KEY")
    raise Problem(
        status=403,
        kind="insufficient-scope",
        detail=f"this needs a key with the scope {needed.spelled}; "
        f"the key {key.id} has {key.scope.spelled}",
        headers={"WWW-Authenticate": f'{_CHALLENGE}, {_error("insufficient_scope")}, '
                 f'scope="{needed.spelled}"'},
    )  # fmt: skip


_CHALLENGE: Final = 'Bearer realm="ringback"'


def _error(code: str) -> str:
    return f'error="{code}"'


def _unauthenticated(detail: str, code: str | None = None) -> Problem:
    challenge = f"{_CHALLENGE}, {_error(code)}" if code else _CHALLENGE
    return Problem(
        status=401, kind="unauthenticated", detail=detail, headers={"WWW-Authenticate": challenge}
    )
