"""Rooms in which a few peers find each other. Pure: time and randomness are arguments, deliveries are values.

What members say to each other is passed on and not kept; a room is there as long as it has members.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from turnsvr.config.websettings import SignallingSettings
from turnsvr.limits import TokenBucket

JOIN, LEAVE = "join", "leave"
PASSED_ON = ("offer", "answer", "candidate")
"""Kinds of messages that go to one member, named by `to`, or else to everyone else in the room."""

_ROOM = re.compile(r"[A-Za-z0-9_-]{20,64}", re.ASCII)
_LEAST_DIFFERENT = 8
_ROOM_BYTES = 16
_MEMBER_BYTES = 8
_BURST_SECONDS = 5.0
_RESERVED = ("from", "to", "type")

SignallingMessage = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message for one member."""

    to: str
    kind: str
    message: SignallingMessage


@dataclass(slots=True)
class _Member:
    bucket: TokenBucket | None
    alone_since: float
    room: str | None = None


class SignallingRooms:
    """All rooms and members. Times are seconds on any monotonic clock; random(n) gives n unpredictable bytes."""

    def __init__(self, bounds: SignallingSettings, random: Callable[[int], bytes]) -> None:
        self._bounds = bounds
        self._random = random
        self._members: dict[str, _Member] = {}
        self._rooms: dict[str, list[str]] = {}
        self.messages = 0
        """Messages taken from members."""

    @property
    def rooms(self) -> int:
        return len(self._rooms)

    @property
    def members(self) -> int:
        """Connected peers, in a room or not yet."""
        return len(self._members)

    def connect(self, now: float) -> str:
        """A new member's name; the connections that the listener takes bound how many there are."""
        rate = self._bounds.messages
        name = self._random(_MEMBER_BYTES).hex()
        self._members[name] = _Member(TokenBucket(rate, rate * _BURST_SECONDS, now) if rate else None, now)
        return name

    def receive(self, name: str, kind: object, message: object, now: float) -> list[Delivery]:
        """What a member said, and who is to hear of it: an `error` goes back to the member itself."""
        member = self._members.get(name)
        if member is None:
            return []
        if member.bucket is not None and not member.bucket.allow(1.0, now):
            return [_error(name, "too-fast", "fewer messages a second, please")]
        self.messages += 1
        if not isinstance(message, dict):
            return [_error(name, "bad-message", "a message is a JSON object")]
        if kind == JOIN:
            return self._join(name, member, message, now)
        if kind == LEAVE:
            return [*self._leave(name, member, now), Delivery(name, "left", {})]
        if isinstance(kind, str) and kind in PASSED_ON:
            return self._pass_on(name, member, kind, message)
        return [_error(name, "bad-message", f"a message is one of {', '.join((JOIN, *PASSED_ON, LEAVE))}")]

    def disconnect(self, name: str, now: float) -> list[Delivery]:
        """The member is gone; an unknown one is fine."""
        member = self._members.pop(name, None)
        return [] if member is None else self._leave(name, member, now)

    def company(self, name: str) -> tuple[bool, float]:
        """Whether a member is alone in its room, and since when; a session that is no member has always been alone."""
        member = self._members.get(name)
        return (True, 0.0) if member is None else (self._alone(member), member.alone_since)

    def idle(self, now: float) -> list[str]:
        """Members to be disconnected: too long alone in their room."""
        limit = now - self._bounds.idle_timeout
        return [name for name, member in self._members.items() if member.alone_since <= limit and self._alone(member)]

    def _join(self, name: str, member: _Member, message: SignallingMessage, now: float) -> list[Delivery]:
        room = message.get("room") or self._random(_ROOM_BYTES).hex()
        if not isinstance(room, str) or not _ROOM.fullmatch(room) or len(set(room)) < _LEAST_DIFFERENT:
            text = "a room is named by 20 to 64 random letters, digits, - or _; join without a name to be given one"
            return [_error(name, "bad-room", text)]
        if member.room is not None and member.room != room:
            return [_error(name, "in-a-room", "leave the other room first")]
        others = self._rooms.get(room, [])
        if name in others:
            return [Delivery(name, "joined", self._joined(name, room))]
        if len(others) >= self._bounds.members:
            return [_error(name, "room-full", f"a room has at most {self._bounds.members} members")]
        if not others and len(self._rooms) >= self._bounds.rooms:
            return [_error(name, "no-room", "all rooms of this server are taken")]
        self._rooms[room] = [*others, name]
        member.room = room
        member.alone_since = now
        news = [Delivery(other, "peer-joined", {"id": name}) for other in others]
        return [Delivery(name, "joined", self._joined(name, room)), *news]

    def _joined(self, name: str, room: str) -> SignallingMessage:
        return {"room": room, "id": name, "members": [other for other in self._rooms[room] if other != name]}

    def _leave(self, name: str, member: _Member, now: float) -> list[Delivery]:
        room, member.room, member.alone_since = member.room, None, now
        if room is None:
            return []
        others = [other for other in self._rooms[room] if other != name]
        if others:
            self._rooms[room] = others
        else:
            del self._rooms[room]
        for other in others:
            self._members[other].alone_since = now
        return [Delivery(other, "peer-left", {"id": name}) for other in others]

    def _pass_on(self, name: str, member: _Member, kind: str, message: SignallingMessage) -> list[Delivery]:
        if member.room is None:
            return [_error(name, "no-room", "join a room first")]
        content = {key: value for key, value in message.items() if key not in _RESERVED}
        content["from"] = name
        wanted = message.get("to")
        recipients = [other for other in self._others(name, member.room) if wanted in (None, other)]
        if wanted is not None and not recipients:
            return [_error(name, "no-peer", "that member is not in the room")]
        return [Delivery(other, kind, content) for other in recipients]

    def _others(self, name: str, room: str) -> Iterator[str]:
        return (other for other in self._rooms[room] if other != name)

    def _alone(self, member: _Member) -> bool:
        return member.room is None or len(self._rooms[member.room]) < 2


def _error(name: str, code: str, text: str) -> Delivery:
    return Delivery(name, "error", {"code": code, "message": text})
