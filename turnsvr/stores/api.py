"""What every store promises: coturn's data, wherever it is kept.

A store is used by the server, which reads, and by the commands that change it. Every method that takes I/O raises
Unavailable (credentials.api) when the database does not answer in time; its text names the store, never a password.
Methods that write raise NotStorable. Any text may be asked for; one that no store can hold is simply not there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from turnsvr.config.ranges import AddressRange
from turnsvr.credentials.accesstokenkeys import AccessTokenKey

MAX_REALMS = 10_000
"""Realms that are taken from a store; further ones are left out, and the log says so."""

EVERY_REALM = ""
"""The realm whose peer ranges hold for every other realm, too."""

MAX_NAMES = 100_000
"""User names that are taken of one realm, and entries of one table; further ones are left out."""

RealmOption = Literal["max-bps", "total-quota", "user-quota"]
"""coturn's names of a realm's limits: bytes a second each way of an allocation, allocations of the realm, of a user."""


class NotStorable(ValueError):
    """Text that this store cannot hold; the message says which and why, without repeating it."""


@dataclass(frozen=True, slots=True)
class UserKeys:
    """What is kept of a user's password; one that the store does not have is None."""

    md5: bytes | None = field(default=None, repr=False)
    """MD5 of user:realm:password (RFC 8489 section 18.5.1.1)."""
    sha256: bytes | None = field(default=None, repr=False)
    """SHA-256 of the same (section 18.5.1.2)."""

    @property
    def known(self) -> bool:
        return self.md5 is not None or self.sha256 is not None


@dataclass(frozen=True, slots=True)
class RealmTable:
    """What a store says of one realm. A limit that it does not name is None, one without bound is 0."""

    secrets: tuple[str, ...] = field(default=(), repr=False)
    allowed: tuple[AddressRange, ...] = ()
    denied: tuple[AddressRange, ...] = ()
    max_bps: int | None = None
    """Bytes a second each way of one allocation."""
    total_quota: int | None = None
    user_quota: int | None = None


@dataclass(frozen=True, slots=True)
class Tables:
    """What a store says of all realms, but for their users.

    EVERY_REALM is among the realms when there are peer ranges for all of them.
    """

    realms: Mapping[str, RealmTable] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    """Realm by the value of ORIGIN."""
    keys: Mapping[str, AccessTokenKey] = field(default_factory=dict)
    """Keys of access tokens by their name, where they were asked for."""
    mistakes: tuple[str, ...] = ()
    """Entries that mean nothing and were left out, for the log; none repeats a secret."""


class Reader(Protocol):
    """What the server asks of a store."""

    @property
    def name(self) -> str:
        """For people: kind, host and database."""

    async def user(self, realm: str, name: str) -> UserKeys | None:
        """The keys of exactly this name, None when there are none."""

    async def tables(self, *, keys: bool = False) -> Tables:
        """keys: those of access tokens as well, which the oldest of coturn's databases have no table for."""

    def changes(self) -> AsyncIterator[None] | None:
        """Yields when tables or users may have changed, several changes at once as one.

        It outlives the database's absence: it waits, and yields when the database is back. None, or an iterator that
        ends, where the store cannot tell and is to be polled.
        """

    async def close(self) -> None:
        """Give up every connection. Closing twice is fine."""


class Store(Reader, Protocol):
    """What the commands ask besides."""

    async def prepare(self) -> None:
        """Make what tables are missing; those that are there stay as they are."""

    async def set_user(self, realm: str, name: str, keys: UserKeys) -> bool:
        """Add a user or change the keys; whether it is new."""

    async def remove_user(self, realm: str, name: str) -> bool: ...

    async def users(self, realm: str | None = None) -> Sequence[tuple[str, str]]:
        """Realm and name of every user, in order, at most MAX_NAMES a realm."""

    async def add_secret(self, realm: str, secret: str) -> bool:
        """Whether it is new."""

    async def remove_secret(self, realm: str, secret: str) -> bool: ...

    async def set_key(self, key: AccessTokenKey) -> bool:
        """Add a key of access tokens, or change the one of this name; whether it is new."""

    async def remove_key(self, kid: str) -> bool: ...

    async def set_option(self, realm: str, option: RealmOption, value: int | None) -> None:
        """Set a limit; None takes it back."""

    async def set_origin(self, origin: str, realm: str | None) -> bool:
        """Let an ORIGIN choose a realm, with None no longer; returns whether something changed."""

    async def set_range(self, realm: str, kind: Literal["allowed", "denied"], text: str, present: bool) -> bool:
        """Add or remove a peer range, in the text that it was given in; whether something changed."""
