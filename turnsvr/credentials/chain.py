"""Several sources side by side: the first that knows a name answers for it.

For a time-limited name all that can answer at once do, since nothing in it tells whose secret it was made with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from typing import TypeVar, cast

from turnsvr.credentials import shared_secret
from turnsvr.credentials.api import (
    AnySource,
    AsyncSource,
    Caller,
    Credential,
    Refusal,
    Source,
    Traits,
    Unavailable,
    takes_io,
)

T = TypeVar("T")


def chain(sources: Iterable[AnySource]) -> AnySource:
    """The sources in the order to ask them; immediate when all of them are."""
    listed = tuple(sources)
    if any(map(takes_io, listed)):
        return AsyncChain(listed)
    immediate = cast(tuple[Source, ...], listed)
    return immediate[0] if len(immediate) == 1 else Chain(immediate)


class Chain:
    """Sources in the order to ask them; none at all knows nobody."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)
        self.anonymity, self.md5_alone = _traits(self._sources)

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        found: tuple[Credential, ...] = ()
        for source in self._sources:
            found += source.find(username, realm, wall_time)
            if found and not _is_timed(username):
                break
        return found

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        for source in self._sources:
            if (username := source.by_userhash(userhash, realm)) is not None:
                return username
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return _most_telling(self._sources, username, wall_time)


class AsyncChain:
    """A Chain some of whose sources take I/O.

    One that is unavailable hides no later one that knows the name; when nobody knows it, Unavailable is raised.
    """

    def __init__(self, sources: Iterable[AnySource]) -> None:
        self._sources = tuple(map(_later, sources))
        self.anonymity, self.md5_alone = _traits(self._sources)

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        found: tuple[Credential, ...] = ()
        told = True
        for source in self._sources:
            here = source.find_now(username, realm, wall_time, caller)
            told = told and here is not None
            found += here or ()
            if (found or not told) and not _is_timed(username):
                break
        return found if found or told else None

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        if found := self.find_now(username, realm, wall_time, caller):
            return found
        return await self._first(lambda source: source.find(username, realm, wall_time, caller)) or ()

    async def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return await self._first(lambda source: source.by_userhash(userhash, realm))

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return _most_telling(self._sources, username, wall_time)

    async def _first(self, ask: Callable[[AsyncSource], Awaitable[T]]) -> T | None:
        """The first answer that says something."""
        unavailable = None
        for source in self._sources:
            try:
                if answer := await ask(source):
                    return answer
            except Unavailable as error:
                unavailable = unavailable or error
        if unavailable is not None:
            raise unavailable
        return None


class _Later:
    """An immediate source that is asked like one that takes I/O."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.anonymity, self.md5_alone = source.anonymity, source.md5_alone
        self.refusal = source.refusal

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return self._source.find(username, realm, wall_time)

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return self._source.find(username, realm, wall_time)

    async def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return self._source.by_userhash(userhash, realm)


def _later(source: AnySource) -> AsyncSource:
    return source if takes_io(source) else _Later(cast(Source, source))


class ByRealm:
    """A source for each realm; a realm that is not named has nobody."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = dict(sources)
        self.anonymity, self.md5_alone = _traits(self._sources.values())

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        source = self._sources.get(realm)
        return () if source is None else source.find(username, realm, wall_time)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        source = self._sources.get(realm)
        return None if source is None else source.by_userhash(userhash, realm)

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return _most_telling(self._sources.values(), username, wall_time)


def _traits(sources: Collection[Traits]) -> tuple[bool, bool]:
    """anonymity and md5_alone of several sources together."""
    anonymity = bool(sources) and all(source.anonymity for source in sources)
    return anonymity, any(source.md5_alone for source in sources)


def _is_timed(username: str) -> bool:
    return shared_secret.parse(username) is not None


def _most_telling(sources: Iterable[AnySource], username: str, wall_time: float) -> Refusal:
    """The first reason other than UNKNOWN."""
    reasons = (source.refusal(username, wall_time) for source in sources)
    return next((reason for reason in reasons if reason is not Refusal.UNKNOWN), Refusal.UNKNOWN)
