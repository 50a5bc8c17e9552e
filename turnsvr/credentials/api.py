"""Who may relay: what every source of credentials promises to the rules.

A source gives candidates and never proves anything itself: the rules check MESSAGE-INTEGRITY against each candidate's
key, in constant time (RFC 8489 section 9.2.4).
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

from turnsvr.credentials.shown import shown

MAX_USERNAME_BYTES = 508
"""USERNAME holds fewer than 509 bytes of UTF-8 (RFC 8489 section 14.3)."""


class Refusal(Enum):
    """Why a source has no credential for a user name; for the log, never for the client."""

    UNKNOWN = "unknown user"
    EXPIRED = "expired credential"
    NOT_IN_SECONDS = "expiry is not in seconds"
    REVOKED = "revoked credential"
    INVALID = "token not accepted"
    INSECURE = "token from a client without TLS"
    KEY = "key of the token is not in force"
    UNAVAILABLE = "credential store unavailable"


@dataclass(frozen=True, slots=True)
class Credential:
    """One set of keys that may prove a user name.

    A key that the source cannot give is None: a stored MD5 key serves no SHA-256 request, nor the reverse.
    `quota_user` is the name that limits count by: for `EXPIRY:user` it is `user`.
    """

    username: str
    md5_key: bytes | None = field(repr=False)
    sha256_key: bytes | None = field(repr=False)
    quota_user: str
    quota: int | None = None
    """Allocations that this user may hold at once, in place of the limit of the settings."""
    label: str | None = None
    """What logs and lists show in place of the user name, where the source knows better."""
    realm: str | None = None
    """The realm whose rules hold for this user, where it is not the one that was asked for."""
    valid_for: float | None = None
    """Seconds, from when it was found, that an allocation may live; of an access token alone (RFC 7635)."""

    @property
    def shown(self) -> str:
        """The user name as logs and lists show it: without what is a secret in it, such as a token."""
        return shown(self.username) if self.label is None else self.label


@dataclass(frozen=True, slots=True)
class Caller:
    """The client that asks: its IP address, whether it came through TLS, and the ACCESS-TOKEN it shows (RFC 7635)."""

    host: str
    secure: bool
    token: bytes | None = field(default=None, repr=False)


class Traits(Protocol):
    """What is known of all of a source's credentials before any request names a user."""

    @property
    def anonymity(self) -> bool:
        """Whether every user can be found by USERHASH, so that the server may offer it (RFC 8489 section 9.2)."""
        ...

    @property
    def md5_alone(self) -> bool:
        """Whether some user may have an MD5 key and no other, so that the server had better offer MD5 first."""
        ...


@runtime_checkable
class Source(Traits, Protocol):
    """A place that credentials come from: the settings file, a secret, a database, a web hook, or several in a chain.

    The engine calls find_now, which never blocks, and awaits find only after that gave None. A source that takes I/O
    bounds how long and for how many users it waits, and what it remembers.
    """

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        """Candidates in the order to try them, () when unknown, None when only `find` can tell.

        wall_time in seconds since 1970.
        """
        ...

    def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> Awaitable[tuple[Credential, ...]]:
        """The same, later and always; raises Unavailable, and then the request gets error 500."""
        ...

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        """The user name whose USERHASH this is (RFC 8489 section 14.4), None when unknown. Never blocks."""
        ...

    def refusal(self, username: str, wall_time: float) -> Refusal:
        """Why there was no candidate for this name at this time."""
        ...


class Unavailable(Exception):
    """A source cannot answer now; the text names the store or service, never its password."""


async def answered(found: tuple[Credential, ...]) -> tuple[Credential, ...]:
    """What `find` of a source without I/O returns."""
    return found
