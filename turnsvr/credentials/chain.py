"""Several sources side by side: the first that knows a name answers for it.

For a time-limited name all that can answer at once do, since nothing in it tells whose secret it was made with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from turnsvr.credentials.api import Caller, Credential, Refusal, Source, Traits, Unavailable
from turnsvr.credentials.timedname import TimedNames


class Chain:
    """Sources in the order to ask them; a chain of none knows no user.

    One that is unavailable hides no later one that knows the name; when none knows it, Unavailable is raised.
    """

    def __init__(self, sources: Iterable[Source], names: TimedNames | None = None) -> None:
        """names tells which user names are time-limited; with the default separator when absent."""
        self._sources = tuple(sources)
        self._names = names or TimedNames()
        self.anonymity, self.md5_alone = _traits(self._sources)

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        found: tuple[Credential, ...] = ()
        told = True
        for source in self._sources:
            here = source.find_now(username, realm, wall_time, caller)
            told = told and here is not None
            found += here or ()
            if (found or not told) and self._names.parse(username) is None:
                break
        return found if found or told else None

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        if found := self.find_now(username, realm, wall_time, caller):
            return found
        unavailable = None
        for source in self._sources:
            try:
                if found := await source.find(username, realm, wall_time, caller):
                    return found
            except Unavailable as error:
                unavailable = unavailable or error
        if unavailable is not None:
            raise unavailable
        return ()

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        for source in self._sources:
            if (username := source.by_userhash(userhash, realm)) is not None:
                return username
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return _most_telling(self._sources, username, wall_time)


class ByRealm:
    """A source for each realm; a realm that is not named has no users."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)
        self.anonymity, self.md5_alone = _traits(self._sources.values())

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        source = self._sources.get(realm)
        return () if source is None else source.find_now(username, realm, wall_time, caller)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        source = self._sources.get(realm)
        return () if source is None else await source.find(username, realm, wall_time, caller)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        source = self._sources.get(realm)
        return None if source is None else source.by_userhash(userhash, realm)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return _most_telling(self._sources.values(), username, wall_time)


def _traits(sources: Collection[Traits]) -> tuple[bool, bool]:
    """anonymity and md5_alone of several sources together."""
    anonymity = bool(sources) and all(source.anonymity for source in sources)
    return anonymity, any(source.md5_alone for source in sources)


def _most_telling(sources: Iterable[Source], username: str, wall_time: float) -> Refusal:
    """The first reason other than UNKNOWN."""
    reasons = (source.refusal(username, wall_time) for source in sources)
    return next((reason for reason in reasons if reason is not Refusal.UNKNOWN), Refusal.UNKNOWN)
