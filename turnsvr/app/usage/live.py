"""What usage records are made of: the sessions of the server, and whose key made a user name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from turnsvr.relay.counts import Counters
from turnsvr.turn.allocation import Allocation
from turnsvr.web.callers import PUBLIC

if TYPE_CHECKING:
    from turnsvr.app.rooms import Rooms

_TAG_END = ":"
"""After the tag in the user part of a name that the ICE-server API made."""


class LiveSessions:
    """As they are when asked, with the settings as they are then."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    @property
    def run(self) -> str:
        """Names the run of the server, with its successors."""
        return self._rooms.run

    @property
    def path(self) -> str:
        """What moves the packets."""
        return self._rooms.pump.name

    def allocations(self) -> Iterator[Allocation]:
        return self._rooms.server.allocations()

    def allocation(self, number: int) -> Allocation | None:
        return self._rooms.server.allocation(number)

    def counters(self, number: int) -> Counters:
        return self._rooms.pump.counters(number)

    def tag_of(self, username: str) -> str | None:
        """The tag of the API key that made this name; None for a name that came from elsewhere."""
        web = self._rooms.settings.web
        timed = self._rooms.revocations.names.parse(username)
        if web is None or timed is None:
            return None
        tag = timed.user.partition(_TAG_END)[0]
        is_known = (web.public and tag == PUBLIC) or any(tag == (key.tag or key.name) for key in web.keys)
        return tag if is_known else None
