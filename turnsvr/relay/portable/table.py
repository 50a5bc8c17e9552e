"""The pump's sessions by number, by client and by relayed address: opened and closed as the rules say."""

from __future__ import annotations

from turnsvr.plane import OpenRelay
from turnsvr.relay.api import RelayFailure
from turnsvr.relay.portable.sessions import HostAndPort, Relay, Session
from turnsvr.relay.portable.sockets import RelaySocket, UdpListener
from turnsvr.relay.portable.waiting import ClientKey
from turnsvr.relay.ports import RelayPorts
from turnsvr.stun.address import Family, FiveTuple


class Table:
    """Sessions and their relays; it reads and sends nothing."""

    def __init__(self, ports: RelayPorts[RelaySocket]) -> None:
        self.sessions: dict[int, Session] = {}
        self.by_client: dict[ClientKey, Session] = {}
        self.by_relayed: dict[HostAndPort, Relay] = {}
        self.elsewhere: set[HostAndPort] = set()
        """Relayed transport addresses of this server that another pump serves."""
        self.expected: set[ClientKey] = set()
        """Where sessions are about to move: data from there are for the Handler."""
        self._ports = ports

    def open(
        self, request: OpenRelay, listener: UdpListener | None, most: int
    ) -> tuple[Session, dict[Family, RelayFailure]]:
        """Open the relays of a session, which enters the table if it has one; and the families that have none.

        listener: where a UDP client's packets come from and go to. most: sessions that the table may have.

        Raises RuntimeError when the number or the five-tuple has a session already.
        """
        session = self.new_session(request, listener)
        if len(self.sessions) >= most:
            return session, dict.fromkeys(request.families, RelayFailure.CAPACITY)
        failures = self._open_relays(request, session)
        if session.relays:
            self.enter(session)
        return session, failures

    def new_session(self, request: OpenRelay, listener: UdpListener | None) -> Session:
        """A session that is not in the table yet; raises RuntimeError as open() does."""
        if request.allocation in self.sessions or request.five_tuple in self.by_client:
            raise RuntimeError(f"session {request.allocation} or its five-tuple is open already")
        return Session(request.allocation, request.five_tuple, listener, request.deadline)

    def enter(self, session: Session) -> None:
        """Have a session found whose relays are open."""
        self.sessions[session.number] = session
        self.by_client[session.five_tuple] = session
        for relay in session.relays.values():
            self.by_relayed[relay.opened.advertised] = relay

    def leave(self, session: Session) -> None:
        del self.sessions[session.number]
        del self.by_client[session.five_tuple]

    def is_elsewhere(self, advertised: HostAndPort) -> bool:
        """Whether another pump serves this relayed transport address."""
        relay = self.by_relayed.get(advertised)
        return advertised in self.elsewhere or (relay is not None and relay.session.has_moved)

    def move(self, session: Session, five_tuple: FiveTuple, listener: UdpListener | None) -> None:
        """Have the client be here; as open() raises."""
        if five_tuple in self.by_client:
            raise RuntimeError(f"where session {session.number} moves another one is open")
        del self.by_client[session.five_tuple]
        session.be_at(five_tuple, listener)
        self.by_client[five_tuple] = session

    def close_relay(self, session: Session, relay: Relay) -> None:
        """Close a relay and its socket; with its last one the session leaves the table."""
        family = relay.opened.socket.family
        del session.relays[family]
        session.forget(family)
        self.by_relayed.pop(relay.opened.advertised, None)
        self._ports.close(relay.opened)
        if not session.relays:
            self.leave(session)

    def _open_relays(self, request: OpenRelay, session: Session) -> dict[Family, RelayFailure]:
        if request.claim is not None:
            held = self._ports.claim(request.claim)
            if held is None:
                return dict.fromkeys(request.families, RelayFailure.TOKEN)
            session.relays[held.socket.family] = Relay(session, held)
            return {}
        failures = {}
        server = request.five_tuple.server.host
        for family in request.families:
            opened = self._ports.open(family, server, even=request.even_port, reserve=request.reserve)
            if isinstance(opened, RelayFailure):
                failures[family] = opened
            else:
                session.relays[family] = Relay(session, opened)
        return failures
