"""User names and access tokens that are refused although they are good: a bounded table, and a source that asks it.

A name stays until it expires by itself. None is forgotten before: a table that is full takes no further one, and of
each caller it takes no more than that caller's share.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from turnsvr.credentials.api import Caller, Credential, Refusal, Source
from turnsvr.credentials.timedname import TimedNames

MAX_REVOKED = 100_000
"""Names that are revoked at once, by all callers together."""


class TooManyRevoked(Exception):
    """One more name cannot be revoked; `retry_after` is in how many seconds there will be room, at least 1."""

    def __init__(self, reason: str, retry_after: int) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class Revocations:
    """Revoked time-limited user names and access tokens, each until it expires by itself.

    Times are in seconds since 1970.
    """

    def __init__(self, names: TimedNames | None = None, max_names: int = MAX_REVOKED) -> None:
        """names reads the user names; with the default separator when absent."""
        self.names = names or TimedNames()
        self._max_names = max_names
        self._revoked: set[str] = set()
        self.heard: list[Callable[[str, str, int], None]] = []
        """Each is called with every name that was not revoked before: on whose account, which, and until when."""
        self._by_owner: dict[str, list[tuple[int, str]]] = {}
        """A heap for each caller: expiry and name, the first to expire first."""

    def share_of(self, owners: int) -> int:
        """How many names each of so many callers may have revoked, while the operator has as much room left."""
        return max(1, self._max_names // (owners + 1))

    def add(
        self,
        username: str,
        wall_time: float,
        *,
        owner: str = "",
        share: int | None = None,
        expiry: int | None = None,
    ) -> bool:
        """Refuse this name from now on, on account of `owner`, who may have `share` names revoked at once.

        expiry: of an access token, whose id username is; a user name says it itself. False when there is nothing to do:
        the name is not time-limited, or has expired. Raises TooManyRevoked.
        """
        self._forget(wall_time)
        if expiry is None:
            timed = self.names.parse(username)
            expiry = None if timed is None else timed.expiry
        if expiry is None or expiry <= wall_time:
            return False
        if username not in self._revoked:
            self._check_room(owner, share, wall_time)
            self._revoked.add(username)
            heapq.heappush(self._by_owner.setdefault(owner, []), (expiry, username))
            for hear in self.heard:
                hear(owner, username, expiry)
        return True

    def held(self) -> list[tuple[str, str, int]]:
        """On whose account, which name, and until when, of every one."""
        return [(owner, name, expiry) for owner, names in self._by_owner.items() for expiry, name in names]

    def __contains__(self, username: str) -> bool:
        return username in self._revoked

    def __len__(self) -> int:
        return len(self._revoked)

    def _check_room(self, owner: str, share: int | None, wall_time: float) -> None:
        held = self._by_owner.get(owner, [])
        if share is not None and len(held) >= share:
            raise TooManyRevoked(f"{share} user names are revoked already", _seconds_until(held[0][0], wall_time))
        if len(self._revoked) >= self._max_names:
            first = min(names[0][0] for names in self._by_owner.values())
            raise TooManyRevoked("the table of revoked user names is full", _seconds_until(first, wall_time))

    def _forget(self, wall_time: float) -> None:
        for owner, names in list(self._by_owner.items()):
            while names and names[0][0] <= wall_time:
                self._revoked.discard(heapq.heappop(names)[1])
            if not names:
                del self._by_owner[owner]


class Revocable:
    """A source without those names and access tokens that have been revoked."""

    def __init__(self, source: Source, revocations: Revocations) -> None:
        self.anonymity, self.md5_alone = source.anonymity, source.md5_alone
        self._source = source
        self._revocations = revocations
        self._refused: str | None = None
        """Whose revoked token was shown last, for `refusal`, which is asked right behind."""

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        if username in self._revocations:
            return ()
        found = self._source.find_now(username, realm, wall_time, caller)
        return found if found is None else self._left(found)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        if username in self._revocations:
            return ()
        found = await self._source.find(username, realm, wall_time, caller)
        return () if username in self._revocations else self._left(found)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return self._source.by_userhash(userhash, realm)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        if username in self._revocations or username == self._refused:
            return Refusal.REVOKED
        return self._source.refusal(username, wall_time)

    def _left(self, found: tuple[Credential, ...]) -> tuple[Credential, ...]:
        """Those whose access token, if they have one, is not revoked."""
        revoked = any(each.valid_for is not None and each.quota_user in self._revocations for each in found)
        self._refused = found[0].username if revoked else None
        return () if revoked else found


def _seconds_until(expiry: float, wall_time: float) -> int:
    return max(1, math.ceil(expiry - wall_time))
