"""The users and time-limited credentials of a database, as the rules ask for them."""

from __future__ import annotations

import time
from collections.abc import Callable

from turnsvr.credentials.api import Caller, Credential, Refusal, Unavailable
from turnsvr.credentials.questions import Memory, Questions, may_be_asked
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.credentials.timedname import TimedNames
from turnsvr.stores.api import Reader, Tables, UserKeys

_MAX_KNOWN = 20_000
"""Users whose keys are remembered; the oldest goes. A name gets here only if the database has it."""
_MAX_UNKNOWN = 5_000
"""Names that are remembered as unknown, apart, so that made-up ones push no user out."""
_UNKNOWN_SECONDS = 10.0
"""How long at most a name is remembered as unknown: a new user waits no longer."""

_Key = tuple[str, str]
"""Realm and user name."""


class StoreSource:
    """A Source over a store.

    A user's keys are remembered for `cache` seconds. While the database is away they serve for as long once more, and
    no longer: a user who was removed is refused at most twice that time later. Time-limited names are checked with
    every secret of their realm, without asking the database.

    USERHASH cannot be resolved: that would take every name of a realm.
    """

    anonymity = False
    md5_alone = True

    def __init__(
        self, reader: Reader, questions: Questions, *, cache: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """cache in seconds, 0 to ask every time."""
        self._reader = reader
        self._questions = questions
        self._cache = cache
        self._names = TimedNames()
        self._tables: Tables | None = None
        self._clock = clock
        self._known: Memory[_Key, UserKeys] = Memory(_MAX_KNOWN)
        self._unknown: Memory[_Key, bool] = Memory(_MAX_UNKNOWN)
        self._secrets: dict[str, SharedSecrets] | None = None
        self._changes = 0

    def take(self, tables: Tables) -> None:
        """Go by these secrets from now on; until the first the time-limited names cannot be judged."""
        self._tables = tables
        self._secrets = {
            name: SharedSecrets(realm.secrets, self._names) for name, realm in tables.realms.items() if realm.secrets
        }

    def read_names(self, names: TimedNames) -> None:
        """Read time-limited names in this way from now on."""
        self._names = names
        if self._tables is not None:
            self.take(self._tables)

    def forget(self) -> None:
        """Users may have changed: ask anew, also where an answer is under way."""
        self._changes += 1
        self._questions.forget()
        self._known.clear()
        self._unknown.clear()

    def forget_user(self, realm: str, username: str) -> None:
        """The same for this user alone."""
        self._changes += 1
        self._questions.forget()
        self._known.discard((realm, username))

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        if not may_be_asked(username):
            return ()
        if self._is_live(username, wall_time):
            if self._secrets is None:
                return None
            if realm in self._secrets:
                return self._secrets[realm].find_now(username, realm, wall_time, caller)
        key, now = (realm, username), self._clock()
        if self._unknown.get(key, now):
            return ()
        keys = self._known.get(key, now)
        if keys is None and not self._questions.health.available:
            keys = self._left_over(key)
        return None if keys is None else _credentials(username, keys)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        if (found := self.find_now(username, realm, wall_time, caller)) is not None:
            return found
        if self._secrets is None and self._is_live(username, wall_time):
            raise Unavailable(f"{self._reader.name}: its secrets are not known yet")
        return _credentials(username, await self._keys((realm, username)))

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return self._names.refusal(username, wall_time)

    def _is_live(self, username: str, wall_time: float) -> bool:
        """Whether it is a time-limited name that has not expired."""
        timed = self._names.parse(username)
        return timed is not None and timed.expiry > wall_time

    async def _keys(self, key: _Key) -> UserKeys | None:
        """The user's keys, None when there is no such user; asks the database. Raises Unavailable."""
        changes = self._changes
        try:
            found = await self._questions.ask(key, lambda: self._reader.user(*key))
        except Unavailable:
            if (known := self._left_over(key)) is not None:
                return known
            raise
        if changes == self._changes:
            self._remember(key, found)
        return found

    def _left_over(self, key: _Key) -> UserKeys | None:
        """What went out of date no longer than `cache` ago."""
        return self._known.get(key, self._clock() - self._cache)

    def _remember(self, key: _Key, found: UserKeys | None) -> None:
        now = self._clock()
        if found is None:
            self._known.discard(key)
            self._unknown.put(key, True, now + min(self._cache, _UNKNOWN_SECONDS))
        else:
            self._known.put(key, found, now + self._cache)


def _credentials(username: str, keys: UserKeys | None) -> tuple[Credential, ...]:
    return () if keys is None or not keys.known else (Credential(username, keys.md5, keys.sha256, username),)
