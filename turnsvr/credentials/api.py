"""Who may relay: what every source of credentials promises to the rules.

A source answers from what it holds and never proves anything itself: the rules check MESSAGE-INTEGRITY
against each candidate's key, in constant time (RFC 8489 section 9.2.4).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from inspect import iscoroutinefunction
from typing import Protocol, TypeGuard, runtime_checkable

MAX_USERNAME_BYTES = 508
"""USERNAME holds fewer than 509 bytes of UTF-8 (RFC 8489 section 14.3)."""


class Refusal(Enum):
    """Why a source has no credential for a user name; for the log, never for the client."""

    UNKNOWN = "unknown user"
    EXPIRED = "expired credential"
    REVOKED = "revoked credential"
    INVALID = "token not accepted"
    INSECURE = "token from a client without TLS"
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
    shown: str | None = None
    """What logs and lists show in place of a user name that is itself a secret, such as a token."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Where a request came from: the client's IP address, and whether nobody between could read it (TLS)."""

    host: str
    secure: bool


class Traits(Protocol):
    """What is to be known of all of a source's credentials before anybody says who he is."""

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
    """Credentials that are in memory: every answer is immediate and no method blocks."""

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        """Candidates in the order to try them, () when unknown; wall_time in seconds since 1970."""
        ...

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        """The user name whose USERHASH this is (RFC 8489 section 14.4), None when unknown."""
        ...

    def refusal(self, username: str, wall_time: float) -> Refusal:
        """Why `find` gave nothing for this name at this time."""
        ...


@runtime_checkable
class AsyncSource(Traits, Protocol):
    """Credentials that take I/O (a database, a web hook): the same answers, later.

    The engine awaits `find` while the request waits and carries on with others. The source bounds its own
    waiting and what it keeps; when it cannot answer it raises Unavailable, and the request gets error 500.
    """

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        """What `find` would say, when nobody needs to be asked for it; None when somebody does."""
        ...

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]: ...

    async def by_userhash(self, userhash: bytes, realm: str) -> str | None: ...

    def refusal(self, username: str, wall_time: float) -> Refusal: ...


AnySource = Source | AsyncSource


def takes_io(source: AnySource) -> TypeGuard[AsyncSource]:
    """Whether its answers come later."""
    return iscoroutinefunction(source.find)


class Unavailable(Exception):
    """An AsyncSource cannot answer now; the text names the store, never its password."""
