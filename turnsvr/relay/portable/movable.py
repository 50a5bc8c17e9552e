"""The portable pump, whose sessions can move to another pump and come from one: see turnsvr/relay/moving.py.

It adopts no connection: who attaches one gives its bytes along, and knows whether it stays.
"""

from __future__ import annotations

from collections.abc import Collection

from turnsvr.limits import TokenBucket
from turnsvr.plane import OpenRelay
from turnsvr.relay.counts import Counters
from turnsvr.relay.moving import Belongings, BoundSocket, Rest, SessionState, StreamRest
from turnsvr.relay.portable.pump import PortablePump
from turnsvr.relay.portable.sessions import Relay, Session
from turnsvr.relay.portable.sockets import RelaySocket
from turnsvr.relay.portable.waiting import WaitingClient
from turnsvr.relay.ports import OpenedPort
from turnsvr.stun.address import Address, FiveTuple


class MovablePortablePump(PortablePump):
    """A MovablePump."""

    # The giver

    def freeze(self) -> None:
        self._order.freeze()

    def thaw(self) -> None:
        self._order.thaw()

    def keep(self, stays: Collection[int]) -> set[int]:
        """It has no DTLS."""
        return set()

    def belongings(self, stays: Collection[int]) -> Belongings:
        found = {number: self.state_of(number) for number in self._table.sessions if number not in stays}
        return Belongings(
            listeners={
                address: tuple([each.socket.fileno() for each in group]) for address, group in self._groups.items()
            },
            sessions={number: state for number, state in found.items() if state is not None},
            held={token: _bound(opened) for token, opened in self._ports.held.items()},
        )

    def state_of(self, session: int) -> SessionState | None:
        found, now = self._table.sessions.get(session), self._clock()
        if found is None:
            return None
        return SessionState(
            tuple([_bound(relay.opened) for relay in found.relays.values()]),
            found.counters(),
            (_level(found.from_client, now), _level(found.to_client, now)),
            now,
            found.bandwidth if found.limited_by_itself else None,
        )

    def part(self, stays: Collection[int]) -> Rest:
        for group in self._groups.values():
            for listener in group:
                self._loop.remove_reader(listener.socket)
        for number, session in self._table.sessions.items():
            if number not in stays:
                session.has_moved = True
                for relay in session.relays.values():
                    self._loop.remove_reader(relay.opened.socket.socket)
        return Rest(waiting={client.five_tuple: _of_client(client) for client in self._order.waiting.clients()})

    def rejoin(self) -> None:
        for group in self._groups.values():
            self._watch_listeners(group)
        for session in self._table.sessions.values():
            if session.has_moved:
                session.has_moved = False
                self._watch_relays(session)

    def leave(self) -> dict[int, Counters]:
        last: dict[int, Counters] = {}
        for number, session in list(self._table.sessions.items()):
            if session.has_moved:
                last[number] = session.counters()
                for relay in list(session.relays.values()):
                    self._table.elsewhere.add(relay.opened.advertised)
                    self._table.close_relay(session, relay)
        for client in self._order.waiting.clients():
            if not client.five_tuple.transport.is_stream:
                self._order.forget(client.five_tuple)
        for group in self._groups.values():
            for listener in group:
                listener.socket.close()
        self._groups.clear()
        self._out.listeners.clear()
        self._ports.shutdown()
        return last

    # The taker

    def take(self, request: OpenRelay, state: SessionState) -> None:
        opened = [self._opened(each) for each in state.relays]
        five_tuple, now = request.five_tuple, self._clock()
        if request.allocation in self._table.sessions or five_tuple in self._table.by_client:
            for each in opened:
                self._ports.close(each)
            raise RuntimeError(f"session {request.allocation} or its five-tuple is open already")
        session = Session(request.allocation, five_tuple, self._out.listener_of(five_tuple.server), request.deadline)
        session.relays.update((each.socket.family, Relay(session, each)) for each in opened)
        session.limited_by_itself = request.bandwidth is not None
        session.limit(self._settings.bandwidth if request.bandwidth is None else request.bandwidth, now)
        self._table.enter(session)
        self._watch_relays(session)
        session.add(state.counters)
        for bucket, level in zip((session.from_client, session.to_client), state.levels, strict=True):
            if bucket is not None:
                bucket.restore(level, state.at)

    def hold(self, token: bytes, held: BoundSocket) -> None:
        self._ports.hold(token, self._opened(held))

    def feed(self, five_tuple: FiveTuple, rest: StreamRest) -> None:
        """It has adopted none."""

    def receive(self, five_tuple: FiveTuple, data: bytes) -> None:
        self._out.counts.received += 1
        self._order.from_udp_client(five_tuple.client, five_tuple.server, data, self._clock())

    def arm(self) -> None:
        if self._is_armed:
            return
        self._is_armed = True
        for group in self._groups.values():
            self._watch_listeners(group)
        for session in self._table.sessions.values():
            self._watch_relays(session)

    def settle(self, session: int, counters: Counters) -> None:
        found = self._table.sessions.get(session)
        if found is not None:
            found.add(counters)
            if found.from_client is not None:
                found.from_client.spend(counters.bytes_from_client)
            if found.to_client is not None:
                found.to_client.spend(counters.bytes_to_client)

    def know(self, advertised: Address, is_elsewhere: bool) -> None:
        if is_elsewhere:
            self._table.elsewhere.add(advertised)
        else:
            self._table.elsewhere.discard(advertised)

    def _opened(self, bound: BoundSocket) -> OpenedPort[RelaySocket]:
        return self._ports.take(RelaySocket.of(bound.descriptor, bound.host), bound.advertised)


def _bound(opened: OpenedPort[RelaySocket]) -> BoundSocket:
    return BoundSocket(opened.socket.socket.fileno(), opened.socket.address, opened.advertised)


def _level(bucket: TokenBucket | None, now: float) -> float:
    return bucket.level(now) if bucket is not None else 0.0


def _of_client(client: WaitingClient) -> list[bytes]:
    """What waits of a client, the message that the rules have before all else."""
    return [*([] if client.out is None else [client.out]), *(queued.data for queued in client.queue)]
