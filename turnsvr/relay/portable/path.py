"""The path of a packet: whose it is, whether it may pass, and where it goes.

A packet that stays inside the pump, from relay to relay, counts as relayed from one session's client and as
relayed to (or dropped before) the other's.
"""

from __future__ import annotations

from collections.abc import Callable

from turnsvr.relay.api import TOLD_BYTES, Handler, PumpSettings, Relayed
from turnsvr.relay.counts import Drop
from turnsvr.relay.portable.messages import (
    MAX_DATA,
    SEND_INDICATION,
    TransactionIds,
    data_indication,
    is_possible_message,
    parse_send_indication,
)
from turnsvr.relay.portable.out import Out
from turnsvr.relay.portable.sessions import HostAndPort, Relay, Session
from turnsvr.relay.portable.table import Table
from turnsvr.relay.sockets import without_zone
from turnsvr.stun.address import Address
from turnsvr.stun.framing import pack_channel_data

_ERRORS_AT_ONCE = 64
"""ICMP errors read from one socket before the loop may turn to another."""


class Path:
    """Relays packets between clients and peers. Times are seconds of the pump's clock."""

    def __init__(self, table: Table, out: Out, handler: Handler, random: Callable[[int], bytes]) -> None:
        """random(n) gives n unpredictable bytes."""
        self.is_closed = False
        """Whether the Handler is to hear of nothing any more."""
        self._by_relayed = table.by_relayed
        self._is_elsewhere = table.is_elsewhere
        self._out = out
        self._counts = out.counts
        self._drop = out.drop
        self._handler = handler
        self._transaction_ids = TransactionIds(random)

    def configure(self, settings: PumpSettings) -> None:
        """Learn where relays are advertised elsewhere than where they are."""
        relays = [relay for relay in settings.relay_addresses if relay.host != relay.advertised]
        self._inside = {without_zone(relay.advertised): without_zone(relay.host) for relay in relays}
        self._outside = {inside: outside for outside, inside in self._inside.items()}

    # From clients

    def from_client(self, session: Session | None, data: bytes, now: float) -> bool:
        """Relay or drop what a client sent; False when the rules must look at it."""
        first = data[0] if data else 0xFF
        if 0x40 <= first <= 0x7F:
            self._channel_data(session, data, now)
            return True
        if first > 0x7F or not is_possible_message(data):
            self._drop(Drop.MALFORMED, session)
            return True
        if data[:2] != SEND_INDICATION or session is None or now > session.deadline:
            return False
        indication = parse_send_indication(data)
        if indication is None:
            return False
        self.to_peer(session, indication.peer, indication.data, indication.dont_fragment, now)
        return True

    def _channel_data(self, session: Session | None, frame: bytes, now: float) -> None:
        end = 4 + (frame[2] << 8 | frame[3]) if len(frame) >= 4 else 4
        if end > len(frame):
            self._drop(Drop.MALFORMED, session)
        elif session is None:
            self._drop(Drop.NO_SESSION, None)
        elif now > session.deadline:
            self._drop(Drop.EXPIRED, session)
        else:
            channel = session.channels.get(frame[0] << 8 | frame[1])
            if channel is None:
                self._drop(Drop.NO_CHANNEL, session)
            elif now > channel.deadline:
                self._drop(Drop.EXPIRED, session)
            else:
                self.to_peer(session, channel.peer, frame[4:end], False, now)

    def to_peer(self, session: Session, peer: Address, data: bytes, dont_fragment: bool, now: float) -> None:
        """Relay data of the session's client, or drop them."""
        host, port = peer
        size = len(data)
        refusal = session.refusal(host, now)
        if refusal is not None:
            self._drop(refusal, session)
            return
        if not port or size > MAX_DATA:
            self._drop(Drop.MALFORMED, session)
            return
        if session.from_client is not None and not session.from_client.allow(size, now):
            self._drop(Drop.BANDWIDTH, session)
            return
        if session.is_observed:
            self._tell(session, peer, data, from_client=True)
        relay = session.relays.get(peer.family)
        inside = self._by_relayed.get(peer)
        if relay is not None and inside is not None and now <= inside.session.deadline and not inside.session.has_moved:
            session.packets_from_client += 1
            session.bytes_from_client += size
            self._to_client(inside.session, relay.opened.advertised, data, now)
        elif not self._covers(session, peer):
            self._drop(Drop.FENCED, session)
        elif relay is not None and self._send_from(relay, self._behind(session, peer), data, dont_fragment, now):
            session.packets_from_client += 1
            session.bytes_from_client += size
        else:
            self._drop(Drop.SEND_FAILED, session)

    def _tell(self, session: Session, peer: HostAndPort, data: bytes, *, from_client: bool) -> None:
        """Have the Handler hear of a packet of an observed session."""
        if not self.is_closed:
            told = Relayed(session.number, Address(*peer), from_client, data[:TOLD_BYTES], len(data), 0)
            self._handler.relayed(told)

    def _covers(self, session: Session, peer: Address) -> bool:
        """Whether the permission covers the peer's port; the Handler hears of the first that it does not."""
        permission = session.permissions[peer.host]
        if permission.covers(peer.port) or self._is_elsewhere(peer):
            return True
        if not permission.told and not self.is_closed:
            permission.told = True
            self._handler.peer_fenced(session.number, peer)
        return False

    def _behind(self, session: Session, peer: Address) -> Address:
        """Where packets for this peer go."""
        inside = self._inside.get(peer.host)
        if inside is not None or peer.host in self._outside:
            session.call(peer)
        return peer if inside is None else Address(inside, peer.port)

    def _known_as(self, session: Session, peer: HostAndPort, now: float) -> HostAndPort:
        """The address by which the session's client knows the peer that a packet has come from."""
        outside = self._outside.get(peer[0])
        return peer if outside is None else session.known_as(peer, outside, now)

    def _send_from(self, relay: Relay, peer: Address, data: bytes, dont_fragment: bool, now: float) -> bool:
        relay_socket = relay.opened.socket
        self._counts.sends += 1
        try:
            relay_socket.send(data, peer, dont_fragment)
        except BlockingIOError:
            return False
        except OSError:
            # It may be an ICMP error that came for an earlier packet, which the kernel reports in the place of sending.
            self.report_errors(relay, now)
            self._counts.sends += 1
            try:
                relay_socket.send(data, peer, dont_fragment)
            except OSError:
                return False
        self._counts.segments += 1
        return True

    # From peers

    def from_peer(self, session: Session, peer: HostAndPort, data: bytes, now: float) -> None:
        """Relay what has come over the network, from a port that the permission covers, or drop it."""
        peer = self._known_as(session, peer, now)
        permission = session.permissions.get(peer[0])
        if (
            permission is not None
            and not permission.covers(peer[1])
            and session.refusal(peer[0], now) is None
            and not self._is_elsewhere(peer)
        ):
            self._drop(Drop.NO_PERMISSION, session)
        else:
            self._to_client(session, peer, data, now)

    def report_errors(self, relay: Relay, now: float) -> None:
        """Read the ICMP errors that came for a relay's packets; the Handler hears of those about permitted peers."""
        session = relay.session
        for error in relay.opened.socket.errors(_ERRORS_AT_ONCE):
            peer = Address(*self._known_as(session, error.peer, now))
            if session.refusal(peer.host, now) is None and not self.is_closed:
                self._handler.peer_error(session.number, peer, *error[1:])

    def _to_client(self, session: Session, peer: HostAndPort, data: bytes, now: float) -> None:
        size = len(data)
        refusal = session.refusal(peer[0], now)
        if refusal is not None:
            self._drop(refusal, session)
            return
        if not peer[1]:
            self._drop(Drop.MALFORMED, session)
            return
        if session.to_client is not None and not session.to_client.allow(size, now):
            self._drop(Drop.BANDWIDTH, session)
            return
        channel = session.channels_by_peer.get(peer)
        try:
            if channel is not None and now <= channel.deadline:
                frame = pack_channel_data(channel.number, data, padded=session.is_stream)
            else:
                frame = data_indication(next(self._transaction_ids), Address(*peer), data)
        except ValueError:
            self._drop(Drop.SEND_FAILED, session)
            return
        if session.is_observed:
            self._tell(session, peer, data, from_client=False)
        five_tuple = session.five_tuple
        if session.is_stream:
            sent = self._out.write(five_tuple, frame, session)
        else:
            sent = self._out.answer(session.listener, five_tuple.client, five_tuple.server, frame, session)
        if sent:
            session.packets_to_client += 1
            session.bytes_to_client += size
