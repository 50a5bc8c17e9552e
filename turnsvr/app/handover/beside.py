"""What crosses beside the rooms that serve, as each of the two processes asks for it: crossing.py is both."""

from __future__ import annotations

from typing import Protocol

from turnsvr.app.handover.document import MovedSession
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.snapshot import Document, Value


class Outgoing(Protocol):
    """What the giver writes."""

    def write(self) -> Document:
        """Figures and revocations, as of now."""

    def sockets(self) -> list[tuple[Value, int]]:
        """HTTP listeners: what each is, and its descriptor."""

    def forget(self, number: int) -> None:
        """Another process has this session now."""

    def handed_over(self, written: Document) -> None:
        """Another process goes on with the figures that write() returned; what has been counted since stays here."""


class Incoming(Protocol):
    """What the taker reads."""

    def read(self, value: Document) -> None:
        """Adopt figures and revocations, once all that is read before them is in place. Raises Unreadable."""

    def revoke(self, value: Document) -> None:
        """Adopt the revocations alone, as they were when the giver let go. Raises Unreadable."""

    def adopted(self, allocation: Allocation, now: float) -> None:
        """This process has the session from here on."""

    def refused(self, allocation: Allocation, session: MovedSession, now: float) -> None:
        """The session has ended, since this process does not serve its realm."""

    def left(self, number: int) -> None:
        """The session has ended: it did not arrive, or its process has reported its end."""
