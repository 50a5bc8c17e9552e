"""What leaves, by a client's listener or its stream's writer; and what does not, counted by its reason."""

from __future__ import annotations

from typing import Literal

from turnsvr.relay.api import StreamWriter
from turnsvr.relay.counts import Drop
from turnsvr.relay.portable.sessions import HostAndPort, PumpCounts, Session
from turnsvr.relay.portable.sockets import UdpListener
from turnsvr.relay.sockets import wildcard
from turnsvr.stun.address import Address, FiveTuple


class Out:
    """Sends to clients."""

    def __init__(self) -> None:
        self.counts = PumpCounts()
        self.listeners: dict[HostAndPort, UdpListener] = {}
        self.writers: dict[FiveTuple, StreamWriter] = {}

    def send(self, five_tuple: FiveTuple, data: bytes) -> None:
        """Send to a client, which may have no session."""
        if five_tuple.transport.is_stream:
            self.write(five_tuple, data, None)
        else:
            self.answer(self.listener_of(five_tuple.server), five_tuple.client, five_tuple.server, data, None)

    def write(self, five_tuple: FiveTuple, frame: bytes, session: Session | None) -> bool:
        """Whether the client's stream took the frame."""
        write = self.writers.get(five_tuple)
        if write is None:
            return self.drop(Drop.SEND_FAILED, session)
        return write(frame) or self.drop(Drop.SLOW_CLIENT, session)

    def answer(
        self, listener: UdpListener | None, client: HostAndPort, server: Address, data: bytes, session: Session | None
    ) -> bool:
        """Whether the datagram was sent."""
        if listener is None:
            return self.drop(Drop.SEND_FAILED, session)
        self.counts.sends += 1
        try:
            listener.send(data, client, server)
        except OSError:
            return self.drop(Drop.SEND_FAILED, session)
        self.counts.segments += 1
        return True

    def drop(self, reason: Drop, session: Session | None) -> Literal[False]:
        """Count a packet that goes nowhere."""
        self.counts.drops[reason] += 1
        if session is not None:
            session.dropped += 1
        return False

    def listener_of(self, server: Address) -> UdpListener | None:
        """The listener that receives what is sent to this address."""
        return self.listeners.get(server) or self.listeners.get((wildcard(server.family), server.port))
