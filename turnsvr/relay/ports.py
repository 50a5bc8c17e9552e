"""Which relay address and which port a new allocation gets, and the ports held for later ones."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, NamedTuple, Protocol, TypeVar

from turnsvr.relay.api import PumpSettings, RelayAddress, RelayFailure
from turnsvr.relay.udp import canonical
from turnsvr.stun.address import Address, Family

_MAX_HELD = 4096
"""Ports held for reservations; when so many are held, a request for one more fails for want of capacity."""

_TAKEN_ELSEWHERE = frozenset((errno.EADDRINUSE, errno.EACCES))


class Random(Protocol):
    """What secrets.SystemRandom offers."""

    def randrange(self, stop: int, /) -> int: ...

    def randbytes(self, n: int, /) -> bytes: ...


class FreePorts:
    """The ports of a range that are not in use: taken, given back and drawn at random in constant time."""

    def __init__(self, low: int, high: int, random: Random) -> None:
        """low and high inclusive."""
        self._random = random
        self._pools: tuple[list[int], list[int]] = ([], [])
        self._at: dict[int, int] = {}
        self._range = range(low, high + 1)
        for port in self._range:
            self.give_back(port)

    def __contains__(self, port: int) -> bool:
        return port in self._at

    def __len__(self) -> int:
        return len(self._at)

    def take(self, port: int) -> None:
        """Mark as in use; a port that is not free stays as it is."""
        if port in self._at:
            pool, at = self._pools[port % 2], self._at[port]
            self._swap(pool, at, len(pool) - 1)
            pool.pop()
            del self._at[port]

    def give_back(self, port: int) -> None:
        """Mark as free; a port outside the range is ignored."""
        if port in self._range and port not in self._at:
            pool = self._pools[port % 2]
            self._at[port] = len(pool)
            pool.append(port)

    def draw(self, *, even: bool) -> Iterator[int]:
        """Every free port once, or every even one, in random order. Take no other port while drawing."""
        pools = self._pools[: 1 if even else 2]
        left = [len(pool) for pool in pools]
        while total := sum(left):
            at = self._random.randrange(total)
            which = 0 if at < left[0] else 1
            pool = pools[which]
            at -= left[0] * which
            left[which] -= 1
            self._swap(pool, at, left[which])
            yield pool[left[which]]

    def _swap(self, pool: list[int], one: int, other: int) -> None:
        pool[one], pool[other] = pool[other], pool[one]
        self._at[pool[one]], self._at[pool[other]] = one, other


class PortSocket(Protocol):
    """What any pump's relay socket is at least."""

    @property
    def address(self) -> Address: ...

    def close(self) -> None: ...


S = TypeVar("S", bound=PortSocket)


class OpenedPort(NamedTuple, Generic[S]):
    """A relay socket and the address that clients and peers know it by."""

    socket: S
    advertised: Address


class RelayPorts(Generic[S]):
    """Opens and closes relay sockets; holds reserved ones under their tokens."""

    def __init__(self, settings: PumpSettings, random: Random, open_socket: Callable[[Address, int], S]) -> None:
        """open_socket: binds to exactly this address, with buffers of so many bytes, or raises OSError."""
        self._random = random
        self._open_socket = open_socket
        self._held: dict[bytes, OpenedPort[S]] = {}
        self._turn = 0
        self._free: dict[str, FreePorts] = {}
        self.configure(settings, ())

    def configure(self, settings: PumpSettings, in_use: Iterable[OpenedPort[S]]) -> None:
        """Take the addresses and the range for what is opened from here on."""
        self._addresses = [
            RelayAddress(canonical(relay.host), canonical(relay.advertised)) for relay in settings.relay_addresses
        ]
        self._buffer = settings.socket_buffer
        self._free = {relay.host: FreePorts(*settings.ports, self._random) for relay in self._addresses}
        for opened in (*in_use, *self._held.values()):
            if opened.socket.address.host in self._free:
                self._free[opened.socket.address.host].take(opened.socket.address.port)

    def open(
        self, family: Family, server: str, *, even: bool = False, reserve: bytes | None = None
    ) -> OpenedPort[S] | RelayFailure:
        """A port of the family, on the relay address that the client's server address is, else on the next in turn.

        even: an even one. reserve: an even one whose next port is held under that token.
        """
        addresses = [relay for relay in self._addresses if relay.family is family]
        if not addresses:
            return RelayFailure.FAMILY
        if reserve is not None and len(self._held) >= _MAX_HELD and reserve not in self._held:
            return RelayFailure.CAPACITY
        for relay in self._by_preference(addresses, server):
            opened = self._open_on(relay, even, reserve)
            if opened is not None:
                return opened
        return RelayFailure.CAPACITY

    def claim(self, token: bytes) -> OpenedPort[S] | None:
        """The port held under token, held no longer; None when there is none."""
        return self._held.pop(token, None)

    def release(self, token: bytes) -> None:
        held = self._held.pop(token, None)
        if held is not None:
            self.close(held)

    def close(self, opened: OpenedPort[S]) -> None:
        opened.socket.close()
        self._give_back(opened.socket.address)

    def shutdown(self) -> None:
        for token in list(self._held):
            self.release(token)

    def _by_preference(self, addresses: list[RelayAddress], server: str) -> list[RelayAddress]:
        first = next((at for at, relay in enumerate(addresses) if server in (relay.host, relay.advertised)), None)
        if first is None:
            first = self._turn % len(addresses)
            self._turn += 1
        return addresses[first:] + addresses[:first]

    def _open_on(self, relay: RelayAddress, even: bool, reserve: bytes | None) -> OpenedPort[S] | None:
        free = self._free[relay.host]
        count = 1 if reserve is None else 2
        for port in free.draw(even=even or reserve is not None):
            if count == 2 and port + 1 not in free:
                continue
            try:
                opened, *held = self._bind(relay, range(port, port + count))
            except OSError as error:
                if error.errno not in _TAKEN_ELSEWHERE:
                    return None
                continue
            for one in (opened, *held):
                free.take(one.socket.address.port)
            if reserve is not None:
                self.release(reserve)
                self._held[reserve] = held[0]
            return opened
        return None

    def _bind(self, relay: RelayAddress, ports: Iterable[int]) -> list[OpenedPort[S]]:
        """Sockets at all these ports, or OSError and none."""
        opened: list[OpenedPort[S]] = []
        try:
            for port in ports:
                relay_socket = self._open_socket(Address(relay.host, port), self._buffer)
                opened.append(OpenedPort(relay_socket, Address(relay.advertised, port)))
        except OSError:
            for one in opened:
                one.socket.close()
            raise
        return opened

    def _give_back(self, address: Address) -> None:
        free = self._free.get(address.host)
        if free is not None:
            free.give_back(address.port)
