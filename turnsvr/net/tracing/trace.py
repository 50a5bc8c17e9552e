"""One trace: what it follows, and what it has of that until it is read. Bounded; what finds no room is counted."""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from turnsvr.credentials.shown import shown
from turnsvr.net.tracing.decode import masked, values
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.integrity import userhash

MAX_EVENTS: Final = 2_000
"""Messages and packets that wait to be read."""
MAX_BYTES: Final = 2 * 1_048_576
"""Bytes of them."""
_MAX_OPEN: Final = 1_024
"""Requests whose answers are followed; of more, the oldest one's answer is not."""
_MAX_STRANGERS: Final = 256
_MAX_BEFORE: Final = 4
"""Clients that may turn out to be the user, and messages that are kept of each until then; the oldest go."""


class User(Protocol):
    """Who made an allocation: a turnsvr.turn.authentication.Key."""

    @property
    def username(self) -> str: ...
    @property
    def quota_user(self) -> str: ...


class About(Protocol):
    """What a trace reads of an allocation (turnsvr.turn.allocation)."""

    @property
    def number(self) -> int: ...
    @property
    def key(self) -> User: ...
    @property
    def shown(self) -> str: ...


class Wanted(NamedTuple):
    """What a trace follows: exactly one of the first three."""

    user: str | None = None
    """The user name, as it is or as it is shown, or the name that limits count by."""
    session: int | None = None
    client: tuple[str, int | None] | None = None
    """IP address, and the port where one is meant."""
    data: bool = False
    """Whether relayed data are wanted as well."""


@dataclass(frozen=True, slots=True)
class TracedMessage:
    """A message of a client or to it, without secrets."""

    at: float
    """Seconds since 1970."""
    five_tuple: FiveTuple
    from_client: bool
    session: int | None
    message: bytes
    proven: bool | None = None
    """Of an answer: whether the request's MESSAGE-INTEGRITY was right; None where there was nothing to judge."""


@dataclass(frozen=True, slots=True)
class TracedPacket:
    """Application data, between a relayed transport address and a peer."""

    at: float
    relayed: Address
    peer: Address
    from_client: bool
    session: int
    data: bytes
    """The first bytes."""
    size: int


Traced = TracedMessage | TracedPacket


class Trace:
    """What is followed for one reader."""

    def __init__(self, wanted: Wanted) -> None:
        self.wanted: Final = wanted
        self.left_out = 0
        """Messages and packets that found no room since the last pop_events()."""
        self.ended = ""
        """Why nothing more comes; empty while something may."""
        self.sessions: set[int] = set()
        """Sessions whose packets the pump reports for this trace."""
        self.changed: Final = asyncio.Event()
        """Set when there is something to read, or the trace has ended."""
        self._events: deque[Traced] = deque()
        self._bytes = 0
        self._open: OrderedDict[tuple[FiveTuple, bytes], bool] = OrderedDict()
        """Requests that were taken, and whether each had an integrity attribute."""
        self._before: OrderedDict[FiveTuple, list[TracedMessage]] = OrderedDict()
        user = "" if wanted.user is None else re.escape(wanted.user)
        self._names = re.compile(rf"(?:[0-9]{{1,20}}[^0-9])?{user}(?:[^0-9][0-9]{{1,20}})?", re.DOTALL)

    def pop_events(self) -> tuple[list[Traced], int]:
        """What has come since the last time, and how much found no room."""
        taken, left_out = list(self._events), self.left_out
        self._events.clear()
        self._bytes = self.left_out = 0
        if not self.ended:
            self.changed.clear()
        return taken, left_out

    def end(self, reason: str) -> None:
        self.ended = self.ended or reason
        self.changed.set()

    def received(self, at: float, five_tuple: FiveTuple, data: bytes, about: About | None) -> None:
        """A client's message, and the allocation that it is about."""
        message = TracedMessage(
            at, five_tuple, True, None if about is None else about.number, masked(data, keeps_data=self.wanted.data)
        )
        if self._follows(five_tuple, data, about):
            self._put_before(five_tuple)
            self._put(message)
            self._open[five_tuple, data[4:20]] = _is_signed(data)
            if len(self._open) > _MAX_OPEN:
                self._open.popitem(last=False)
        elif self.wanted.user is not None and about is None:
            self._remember(message)

    def sent(self, at: float, five_tuple: FiveTuple, data: bytes, about: About | None) -> None:
        """A message to a client; about: its allocation."""
        request = self._open.pop((five_tuple, data[4:20]), None)
        is_answer = len(data) > 1 and data[0] & 0x01 == 1
        proven = None
        if is_answer and request:
            proven = _is_signed(data)
        session = None if about is None else about.number
        message = TracedMessage(at, five_tuple, False, session, masked(data, keeps_data=self.wanted.data), proven)
        if request is not None or (not is_answer and self._follows(five_tuple, data, about)):
            self._put(message)
        elif five_tuple in self._before:
            self._remember(message)

    def relayed(self, packet: TracedPacket, untold: int) -> None:
        self.left_out += untold
        self._put(packet)

    def covers(self, about: About, five_tuple: FiveTuple) -> bool:
        """Whether it follows an allocation, whose client is there."""
        wanted = self.wanted
        if wanted.session is not None:
            return about.number == wanted.session
        if wanted.client is not None:
            return _is_at(wanted.client, five_tuple.client)
        return wanted.user in (about.key.username, about.key.quota_user, about.shown)

    def _follows(self, five_tuple: FiveTuple, data: bytes, about: About | None) -> bool:
        if self.wanted.client is not None:
            return _is_at(self.wanted.client, five_tuple.client)
        if about is not None and self.covers(about, five_tuple):
            return True
        return self.wanted.user is not None and self._names_the_user(data)

    def _names_the_user(self, data: bytes) -> bool:
        user = self.wanted.user or ""
        for name in values(data, a.USERNAME):
            if self._names.fullmatch(name) or shown(name) == user:
                return True
        realm = next(values(data, a.REALM), "")
        return any(userhash(user, realm) == each for each in values(data, a.USERHASH))

    def _remember(self, message: TracedMessage) -> None:
        """Keep what a client says before it says who it is."""
        kept = self._before.setdefault(message.five_tuple, [])
        self._before.move_to_end(message.five_tuple)
        kept.append(message)
        del kept[:-_MAX_BEFORE]
        if len(self._before) > _MAX_STRANGERS:
            self._before.popitem(last=False)

    def _put_before(self, five_tuple: FiveTuple) -> None:
        for each in self._before.pop(five_tuple, ()):
            self._put(each)

    def _put(self, event: Traced) -> None:
        size = len(event.message if isinstance(event, TracedMessage) else event.data)
        if self.ended:
            return
        if len(self._events) >= MAX_EVENTS or self._bytes + size > MAX_BYTES:
            self.left_out += 1
            return
        self._events.append(event)
        self._bytes += size
        self.changed.set()


def _is_signed(data: bytes) -> bool:
    return any(True for each in (a.MESSAGE_INTEGRITY, a.MESSAGE_INTEGRITY_SHA256) for _ in values(data, each))


def _is_at(wanted: tuple[str, int | None], client: Address) -> bool:
    return client.host == wanted[0] and wanted[1] in (None, client.port)
