"""Several sources side by side: the first that knows a name answers for it."""

from __future__ import annotations

from collections.abc import Iterable

from turnsvr.credentials.api import Credential, Refusal, Source


class Chain:
    """Sources in the order to ask them; none at all knows nobody."""

    def __init__(self, sources: Iterable[Source]) -> None:
        self._sources = tuple(sources)

    @property
    def anonymity(self) -> bool:
        return bool(self._sources) and all(source.anonymity for source in self._sources)

    def find(self, username: str, realm: str, wall_time: float) -> tuple[Credential, ...]:
        for source in self._sources:
            if found := source.find(username, realm, wall_time):
                return found
        return ()

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        for source in self._sources:
            if (username := source.by_userhash(userhash, realm)) is not None:
                return username
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        """The most telling reason among the sources: anything but UNKNOWN."""
        reasons = (source.refusal(username, wall_time) for source in self._sources)
        return next((reason for reason in reasons if reason is not Refusal.UNKNOWN), Refusal.UNKNOWN)
