"""The load generator's sockets as the laboratory's far ends: what programs of clients and peers would send and get."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from typing import NamedTuple

from bench.lab.network import VethPair, within
from turnsvr.client.load_drive import udp_socket
from turnsvr.client.load_flows import Flows
from turnsvr.client.load_session import TurnSession
from turnsvr.client.load_values import Direction, Framing, Receiver, Sender
from turnsvr.stun.address import Address


class Opened(NamedTuple):
    """A session with a channel to a peer of its own, and its client's socket, which this owns no more."""

    session: TurnSession
    client: socket.socket

    @property
    def port(self) -> int:
        """Of the client."""
        return int(self.client.getsockname()[1])


def relayed(direction: Direction, sessions: Sequence[Opened], peer_side: VethPair, size: int) -> Flows:
    """Between clients and peers; the flows' end closes the peers' sockets. Raises OSError."""
    flows = Flows()
    with within(peer_side.namespace):
        for session, client in sessions:
            peer = flows.keep(_bound(session.peer))
            if direction is Direction.UP:
                flows.senders.append(Sender(client.fileno(), session.data_prefix(size, indication=False)))
                flows.receivers.append(Receiver(peer.fileno()))
            elif session.relayed:
                flows.senders.append(Sender(peer.fileno(), to=(session.relayed.host, session.relayed.port)))
                flows.receivers.append(Receiver(client.fileno(), Framing.CLIENT))
    return flows


def forwarded(pairs: tuple[VethPair, VethPair], ends: Sequence[tuple[Address, Address]]) -> Flows:
    """From a host behind the first pair to one behind the second, by the kernel alone. Raises OSError."""
    flows = Flows()
    for source, destination in ends:
        with within(pairs[0].namespace):
            sender = flows.keep(_bound(source))
        with within(pairs[1].namespace):
            receiver = flows.keep(_bound(destination))
        flows.senders.append(Sender(sender.fileno(), to=(destination.host, destination.port)))
        flows.receivers.append(Receiver(receiver.fileno()))
    return flows


def _bound(address: Address) -> socket.socket:
    sock = udp_socket()
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
