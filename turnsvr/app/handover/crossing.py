"""What crosses beside sessions: figures, revoked user names, HTTP listeners. It also says that a session moves."""

from __future__ import annotations

import os
import time
from typing import Protocol

from turnsvr.app.handover.document import MovedSession
from turnsvr.app.rooms import Rooms
from turnsvr.credentials.revoked import TooManyRevoked
from turnsvr.stun.address import Address
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import AllocationStarted, EndReason
from turnsvr.turn.snapshot import Document, Value, read_document, read_int, read_list, read_str


class HttpServer(Protocol):
    """HTTP on listeners that can be passed on."""

    def descriptors(self) -> dict[tuple[str, int], int]: ...


class Crossing:
    """The Outgoing of a giver, and the Incoming of a taker."""

    def __init__(self, rooms: Rooms) -> None:
        self.http: dict[str, HttpServer] = {}
        """By the name that its sockets have: web, admin."""
        self._held: list[tuple[Value, int]] = []
        self._rooms = rooms
        self._sessions = rooms.sessions
        self._revocations = rooms.revocations

    # The giver

    def write(self) -> Document:
        revoked: list[Value] = [list(each) for each in self._revocations.held()]
        return {"figures": self._sessions.write(), "revoked": revoked, "run": self._rooms.run}

    def handed_over(self, written: Document) -> None:
        self._sessions.forget(read_document(written["figures"], "figures"))

    def hold(self) -> None:
        """Keep the present HTTP listeners open until release(), even if their servers stop."""
        self._held = [(what, os.dup(descriptor)) for what, descriptor in self.sockets()]
        self.http.clear()

    def release(self) -> None:
        """Close what hold() has kept open."""
        for _, descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def sockets(self) -> list[tuple[Value, int]]:
        return self._held + [
            ([name, *where], descriptor)
            for name, server in self.http.items()
            for where, descriptor in server.descriptors().items()
        ]

    def forget(self, number: int) -> None:
        self.left(number)

    # The taker

    def read(self, value: Document) -> None:
        self._sessions.read(read_document(value.get("figures"), "figures"))
        self.revoke(value)

    def revoke(self, value: Document) -> None:
        now = time.time()
        for each in read_list(value.get("revoked"), "revoked"):
            owner, name, *expiry = read_list(each, "revoked")
            until = read_int(expiry[0], "revoked") if expiry else None  # a user name says it itself
            try:
                self._revocations.add(read_str(name, "revoked"), now, owner=read_str(owner, "revoked"), expiry=until)
            except TooManyRevoked:
                return

    def adopted(self, allocation: Allocation, now: float) -> None:
        relayed = tuple(allocation.relayed.values())
        self._sessions.adopted(allocation.number, allocation.five_tuple, relayed, allocation.realm)
        if self._rooms.session_status is not None:
            counters = self._rooms.pump.counters(allocation.number)
            self._rooms.session_status.adopted(_started(allocation, relayed, now), counters)

    def refused(self, allocation: Allocation, session: MovedSession, now: float) -> None:
        self.adopted(allocation, now)
        self._rooms.events.ended(allocation.ended(EndReason.REVOKED, now), session.state.counters)

    def left(self, number: int) -> None:
        self._sessions.left(number)
        if self._rooms.session_status is not None:
            self._rooms.session_status.left(number)


def _started(allocation: Allocation, relayed: tuple[Address, ...], now: float) -> AllocationStarted:
    return AllocationStarted(
        allocation.number,
        allocation.shown,
        allocation.five_tuple,
        relayed,
        max(1, round(max(allocation.expires.values()) - now)),
        allocation.realm,
        took=0.0,
    )
