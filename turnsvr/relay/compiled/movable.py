"""The compiled pump, whose sessions can move to another pump and come from one: see turnsvr/relay/moving.py."""

from __future__ import annotations

from collections.abc import Collection

from turnsvr.plane import OpenRelay
from turnsvr.relay.compiled.pump import CompiledPump
from turnsvr.relay.compiled.sockets import RELAY_ROOM, EngineSocket, steer_again
from turnsvr.relay.counts import Counters
from turnsvr.relay.moving import Belongings, BoundSocket, Rest, SessionState, StreamRest
from turnsvr.relay.ports import OpenedPort
from turnsvr.stun.address import Address, FiveTuple


class MovableCompiledPump(CompiledPump):
    """A MovablePump."""

    _stays: frozenset[int] = frozenset()

    # The giver

    def freeze(self) -> None:
        self._reader.is_frozen = True
        self._engine.freeze(True)

    def thaw(self) -> None:
        self._reader.is_frozen = False
        self._engine.freeze(False)
        self._reader.wake()

    def keep(self, stays: Collection[int]) -> set[int]:
        left = self._engine.set_apart(stays, self._sockets.segmentation, RELAY_ROOM)
        for group in self._groups.values():
            steer_again(group[: self._settings.threads])
        return set(left)

    def belongings(self, stays: Collection[int]) -> Belongings:
        kept = frozenset(stays)
        found = {number: self.state_of(number) for number in self._relays if number not in kept}
        sessions = {number: state for number, state in found.items() if state is not None}
        return Belongings(
            listeners={address: tuple([each.fileno() for each in found]) for address, found in self._groups.items()},
            sessions=sessions,
            held={token: _bound(opened) for token, opened in self._ports.held.items()},
            streams=dict(self._engine.plain_streams()),
        )

    def state_of(self, session: int) -> SessionState | None:
        relays, state = self._relays.get(session), self._engine.state(session)
        if not relays or state is None:
            return None
        fields, from_client, to_client, bandwidth = state
        bound = tuple([_bound(relay) for relay in relays])
        return SessionState(bound, Counters(*fields), (from_client, to_client), self._loop.time(), bandwidth)

    def part(self, stays: Collection[int]) -> Rest:
        self._stays = frozenset(stays)
        self._engine.part(self._stays)
        self._reader.drain()
        streams, waiting = self._engine.rest()
        return Rest({who: StreamRest(pending, output) for who, pending, output in streams}, dict(waiting))

    def rejoin(self) -> None:
        self._engine.rejoin()

    def leave(self) -> dict[int, Counters]:
        last: dict[int, Counters] = {}
        for number in [number for number in self._relays if number not in self._stays]:
            fields = self._engine.forget(number)
            if fields is not None:
                last[number] = Counters(*fields)
            self._close_relays(self._relays.pop(number))
        self._engine.leave()
        for group in self._groups.values():
            for listener in group:
                listener.close()
        self._groups.clear()
        self._ports.shutdown()
        return last

    # The taker

    def take(self, request: OpenRelay, state: SessionState) -> None:
        relays = [self._opened(each) for each in state.relays]
        fields = [(each.socket.descriptor, each.socket.address, each.advertised) for each in relays]
        try:
            self._engine.open(request.allocation, request.five_tuple, request.deadline, fields, request.bandwidth)
        except BaseException:
            self._close_relays(relays)
            raise
        self._relays[request.allocation] = relays
        self._engine.restore(request.allocation, _fields(state.counters), *state.levels, state.at)

    def hold(self, token: bytes, held: BoundSocket) -> None:
        self._ports.hold(token, self._opened(held))

    def feed(self, five_tuple: FiveTuple, rest: StreamRest) -> None:
        self._engine.feed(five_tuple, rest.pending, rest.output)

    def receive(self, five_tuple: FiveTuple, data: bytes) -> None:
        self._engine.receive(five_tuple, data)

    def arm(self) -> None:
        self._start()

    def settle(self, session: int, counters: Counters) -> None:
        self._engine.settle(session, _fields(counters))

    def know(self, advertised: Address, is_elsewhere: bool) -> None:
        self._engine.know(advertised, is_elsewhere)

    def _opened(self, bound: BoundSocket) -> OpenedPort[EngineSocket]:
        return self._ports.take(self._sockets.take_relay(bound.host, bound.descriptor), bound.advertised)


def _bound(opened: OpenedPort[EngineSocket]) -> BoundSocket:
    return BoundSocket(opened.socket.descriptor, opened.socket.address, opened.advertised)


def _fields(counters: Counters) -> tuple[int, int, int, int, int]:
    return (
        counters.packets_from_client,
        counters.bytes_from_client,
        counters.packets_to_client,
        counters.bytes_to_client,
        counters.dropped,
    )
