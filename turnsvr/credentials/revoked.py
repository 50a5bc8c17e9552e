"""User names that are refused although their credentials are good: a bounded table, and a source that asks it."""

from __future__ import annotations

import heapq
from typing import cast

from turnsvr.credentials.api import AnySource, AsyncSource, Caller, Credential, Refusal, Source, takes_io
from turnsvr.credentials.shared_secret import parse

_MAX_REVOKED = 100_000


class Revocations:
    """Revoked time-limited user names, each until it expires by itself.

    When the table is full the name that expires first goes: it is the one that matters for the shortest time.
    """

    def __init__(self, max_names: int = _MAX_REVOKED) -> None:
        self._max_names = max_names
        self._names: set[str] = set()
        self._by_expiry: list[tuple[int, str]] = []

    def add(self, username: str, wall_time: float) -> bool:
        """Refuse this name from now on; wall_time in seconds since 1970.

        False when there is nothing to do: the name is not time-limited, or has expired.
        """
        self._forget(wall_time)
        timed = parse(username)
        if timed is None or timed.expiry <= wall_time:
            return False
        if username not in self._names:
            self._names.add(username)
            heapq.heappush(self._by_expiry, (timed.expiry, username))
            if len(self._names) > self._max_names:
                self._names.discard(heapq.heappop(self._by_expiry)[1])
        return True

    def __contains__(self, username: str) -> bool:
        return username in self._names

    def __len__(self) -> int:
        return len(self._names)

    def _forget(self, wall_time: float) -> None:
        while self._by_expiry and self._by_expiry[0][0] <= wall_time:
            self._names.discard(heapq.heappop(self._by_expiry)[1])


class Revocable:
    """A source without those names that have been revoked."""

    def __init__(self, source: Source, revocations: Revocations) -> None:
        self.anonymity, self.md5_alone = source.anonymity, source.md5_alone
        self._source = source
        self._revocations = revocations

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        return () if username in self._revocations else self._source.find(username, realm, wall_time)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return self._source.by_userhash(userhash, realm)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.REVOKED if username in self._revocations else self._source.refusal(username, wall_time)


class AsyncRevocable:
    """The same for a source that takes I/O."""

    def __init__(self, source: AsyncSource, revocations: Revocations) -> None:
        self.anonymity, self.md5_alone = source.anonymity, source.md5_alone
        self._source = source
        self._revocations = revocations

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        return () if username in self._revocations else self._source.find_now(username, realm, wall_time, caller)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        if username in self._revocations:
            return ()
        found = await self._source.find(username, realm, wall_time, caller)
        return () if username in self._revocations else found

    async def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return await self._source.by_userhash(userhash, realm)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.REVOKED if username in self._revocations else self._source.refusal(username, wall_time)


def revocable(source: AnySource, revocations: Revocations) -> AnySource:
    """The source without those names that have been revoked; immediate when it was."""
    if takes_io(source):
        return AsyncRevocable(source, revocations)
    return Revocable(cast(Source, source), revocations)
