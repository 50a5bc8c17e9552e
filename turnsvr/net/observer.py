"""Who sees what passes between clients and the rules."""

from __future__ import annotations

from typing import Protocol

from turnsvr.relay.api import Relayed
from turnsvr.stun.address import FiveTuple


class Observer(Protocol):
    """Who sees every message that comes to the rules and leaves them, and packets that the pump tells of."""

    def received(self, five_tuple: FiveTuple, data: bytes) -> None:
        """A client's message, before it is judged."""

    def sent(self, five_tuple: FiveTuple, data: bytes) -> None:
        """A message to a client, before it leaves."""

    def relayed(self, packet: Relayed) -> None: ...
