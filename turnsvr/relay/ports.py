"""Which relay address and which port a new allocation gets, and the ports held for later ones."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterable, Mapping
from struct import Struct
from typing import Any, Final, Generic, Protocol, TypeVar

from turnsvr.relay.api import PumpSettings, RelayAddress, RelayFailure
from turnsvr.relay.sockets import canonical
from turnsvr.stun.address import Address, Family

_MAX_HELD: Final = 4096
"""Ports held for reservations; when so many are held, a request for one more fails for want of capacity."""

_TAKEN_ELSEWHERE: Final = frozenset((errno.EADDRINUSE, errno.EACCES))

_WORDS: Final = 1 << 32
_MANY_WORDS: Final = Struct("256I")


class RandomNumbers:
    """Unpredictable numbers, for ports that cannot be guessed (RFC 6056 section 3.1); one system call serves many."""

    def __init__(self, randbytes: Callable[[int], bytes] = secrets.token_bytes) -> None:
        self._randbytes = randbytes
        self._words: list[int] = []

    def below(self, stop: int) -> int:
        """0 to stop - 1, each as likely; stop at most 2**32."""
        fair = _WORDS - _WORDS % stop
        while True:
            if not self._words:
                self._words = list(_MANY_WORDS.unpack(self._randbytes(_MANY_WORDS.size)))
            word = self._words.pop()
            if word < fair:
                return word % stop


class FreePorts:
    """The ports of a range that are not in use: taken, given back and drawn at random in constant time.

    A peer may go on sending to an address whose allocation has ended, and a permission is by IP address alone: who
    had the port next would hear it. So the half of the free ports that was given back last rests, and is not drawn.
    """

    def __init__(self, low: int, high: int, below: Callable[[int], int]) -> None:
        """low and high inclusive; below(n) is a random number from 0 to n - 1."""
        self._below = below
        self._even, self._odd = _Parity(), _Parity()
        self._range = range(low, high + 1)
        for port in self._range:
            self._of(port).add(port)

    def __contains__(self, port: int) -> bool:
        return port in self._of(port)

    def __len__(self) -> int:
        return len(self._even) + len(self._odd)

    def rests(self, port: int) -> bool:
        return port in self._of(port).resting

    def take(self, port: int) -> None:
        """Mark as in use; a port that is not free stays as it is."""
        self._of(port).remove(port)

    def put_back(self, port: int, *, unused: bool = False) -> None:
        """Mark as free, unused by us or not; a port outside the range is ignored."""
        ports = self._of(port)
        if port not in self._range or port in ports:
            return
        if unused:
            ports.add(port)
        else:
            ports.rest(port)

    def draw(self, *, even: bool) -> int | None:
        """Take a free port, or an even one, each that does not rest as likely; None when there is none."""
        evens = len(self._even.rested)
        total = evens if even else evens + len(self._odd.rested)
        if not total:
            return None
        at = self._below(total)
        port = self._even.rested[at] if at < evens else self._odd.rested[at - evens]
        self.take(port)
        return port

    def _of(self, port: int) -> _Parity:
        return self._odd if port % 2 else self._even


class _Parity:
    """The free ports that are even, or odd. Of any there is one that does not rest."""

    def __init__(self) -> None:
        self.rested: list[int] = []
        self.resting: dict[int, None] = {}
        """In the order in which they were given back."""
        self._at: dict[int, int] = {}

    def __contains__(self, port: int) -> bool:
        return port in self._at or port in self.resting

    def __len__(self) -> int:
        return len(self.rested) + len(self.resting)

    def add(self, port: int) -> None:
        self._at[port] = len(self.rested)
        self.rested.append(port)

    def rest(self, port: int) -> None:
        self.resting[port] = None
        self._wake_up()

    def remove(self, port: int) -> None:
        at = self._at.pop(port, None)
        if at is None:
            self.resting.pop(port, None)
            return
        last = self.rested.pop()
        if last != port:
            self.rested[at] = last
            self._at[last] = at
        self._wake_up()

    def _wake_up(self) -> None:
        while len(self.resting) > len(self.rested):
            port = next(iter(self.resting))
            del self.resting[port]
            self.add(port)


class PortSocket(Protocol):
    """What any pump's relay socket is at least."""

    @property
    def address(self) -> Address: ...

    def discard(self) -> None:
        """Throw away what has come so far."""

    def hear_errors(self, wanted: bool) -> None:
        """Whether the kernel is to keep ICMP errors for it."""

    def close(self) -> None: ...


S = TypeVar("S", bound=PortSocket)
T = TypeVar("T", bound=PortSocket)


class OpenedPort(Generic[S]):
    """A relay socket and the address that clients and peers know it by."""

    __slots__ = ("advertised", "socket")

    def __init__(self, socket: S, advertised: Address) -> None:
        self.socket: Final = socket
        self.advertised: Final = advertised


class RelayPorts(Generic[S]):
    """Opens and closes relay sockets; holds reserved ones under their tokens."""

    def __init__(
        self, settings: PumpSettings, below: Callable[[int], int], open_socket: Callable[[Address, int], S]
    ) -> None:
        """below(n): an unpredictable number from 0 to n - 1.

        open_socket: binds to exactly this address, with buffers of so many bytes, and hears no errors; raises OSError.
        """
        self._below = below
        self._open_socket = open_socket
        self._held: dict[bytes, OpenedPort[S]] = {}
        self._turn = 0
        self._free: dict[str, FreePorts] = {}
        self._range = settings.ports
        self._hears_errors = settings.peer_errors
        self.configure(settings, ())

    def configure(self, settings: PumpSettings, in_use: Iterable[OpenedPort[Any]]) -> None:
        """Take the addresses and the range for what is opened from here on."""
        given = settings.relay_addresses
        relays = [RelayAddress(canonical(relay.host), canonical(relay.advertised)) for relay in given]
        self._addresses = {family: [relay for relay in relays if relay.family is family] for family in Family}
        self._buffer = settings.socket_buffer
        hears_otherwise = settings.peer_errors is not self._hears_errors
        self._hears_errors = settings.peer_errors
        before = self._free if settings.ports == self._range else {}
        self._range = settings.ports
        self._free = {relay.host: before.get(relay.host) or FreePorts(*settings.ports, self._below) for relay in relays}
        for opened in (*in_use, *self._held.values()):
            if hears_otherwise:
                opened.socket.hear_errors(self._hears_errors)
            if opened.socket.address.host in self._free:
                self._free[opened.socket.address.host].take(opened.socket.address.port)

    def open(
        self, family: Family, server: str, *, even: bool = False, reserve: bytes | None = None
    ) -> OpenedPort[S] | RelayFailure:
        """A port of the family, on the relay address that the client's server address is, else on the next in turn.

        even: an even one. reserve: an even one whose next port is held under that token.
        """
        return self._first(family, server, lambda relay: self._open_on(relay, even, reserve))

    def open_as(
        self, open_socket: Callable[[Address, int], T], family: Family, server: str
    ) -> OpenedPort[T] | RelayFailure:
        """As open(), with another kind of socket. A port has one socket, of any kind."""
        return self._first(family, server, lambda relay: self._open_one(relay, False, open_socket))

    def claim(self, token: bytes) -> OpenedPort[S] | None:
        """The port held under token, held no longer; None when there is none. What came to it so far is discarded."""
        held = self._held.pop(token, None)
        if held is not None:
            held.socket.discard()
        return held

    @property
    def held(self) -> Mapping[bytes, OpenedPort[S]]:
        """Ports that are held, by token."""
        return self._held

    def hold(self, token: bytes, opened: OpenedPort[S]) -> None:
        """Hold a port that another process has opened."""
        self._held[token] = opened

    def take(self, bound: S, advertised: Address) -> OpenedPort[S]:
        """A port that another process has opened, and that is in use from here on."""
        free = self._free.get(bound.address.host)
        if free is not None:
            free.take(bound.address.port)
        bound.hear_errors(self._hears_errors)
        return OpenedPort(bound, advertised)

    def release(self, token: bytes) -> None:
        held = self._held.pop(token, None)
        if held is not None:
            self.close(held)

    def close(self, opened: OpenedPort[Any]) -> None:
        opened.socket.close()
        address = opened.socket.address
        free = self._free.get(address.host)
        if free is not None:
            free.put_back(address.port)

    def shutdown(self) -> None:
        for token in list(self._held):
            self.release(token)

    def _by_preference(self, addresses: list[RelayAddress], server: str) -> list[RelayAddress]:
        if len(addresses) == 1:
            return addresses
        first = next((at for at, relay in enumerate(addresses) if server in (relay.host, relay.advertised)), None)
        if first is None:
            first = self._turn % len(addresses)
            self._turn += 1
        return addresses[first:] + addresses[:first]

    def _first(
        self, family: Family, server: str, open_on: Callable[[RelayAddress], OpenedPort[T] | None]
    ) -> OpenedPort[T] | RelayFailure:
        """What open_on opens on the first relay address of the family on which it can."""
        addresses = self._addresses[family]
        if not addresses:
            return RelayFailure.FAMILY
        for relay in self._by_preference(addresses, server):
            opened = open_on(relay)
            if opened is not None:
                return opened
        return RelayFailure.CAPACITY

    def _open_on(self, relay: RelayAddress, even: bool, reserve: bytes | None) -> OpenedPort[S] | None:
        if reserve is None:
            return self._open_one(relay, even, self._open_socket)
        if len(self._held) >= _MAX_HELD and reserve not in self._held:
            return None
        return self._draw(relay, True, lambda port: self._bind_two(relay, port, reserve, may_rest=False)) or self._draw(
            relay, True, lambda port: self._bind_two(relay, port, reserve, may_rest=True)
        )

    def _open_one(
        self, relay: RelayAddress, even: bool, open_socket: Callable[[Address, int], T]
    ) -> OpenedPort[T] | None:
        return self._draw(relay, even, lambda port: self._bind(relay, port, open_socket))

    def _draw(self, relay: RelayAddress, even: bool, bind: Callable[[int], OpenedPort[T]]) -> OpenedPort[T] | None:
        """The first port that bind takes, which raises OSError for any other."""
        free = self._free[relay.host]
        taken_elsewhere: list[int] = []
        try:
            while (port := free.draw(even=even)) is not None:
                try:
                    return bind(port)
                except OSError as error:
                    taken_elsewhere.append(port)
                    if error.errno not in _TAKEN_ELSEWHERE:
                        return None
            return None
        finally:
            for port in taken_elsewhere:
                free.put_back(port, unused=True)

    def _bind(self, relay: RelayAddress, port: int, open_socket: Callable[[Address, int], T]) -> OpenedPort[T]:
        host = Address(relay.host, port)
        advertised = host if relay.advertised == relay.host else Address(relay.advertised, port)
        opened = OpenedPort(open_socket(host, self._buffer), advertised)
        if self._hears_errors:
            opened.socket.hear_errors(True)
        return opened

    def _bind_two(self, relay: RelayAddress, port: int, reserve: bytes, *, may_rest: bool) -> OpenedPort[S]:
        """The port, with the next one held under the token. Raises OSError, also where that is in use, or rests."""
        free = self._free[relay.host]
        if port + 1 not in free or (free.rests(port + 1) and not may_rest):
            raise OSError(errno.EADDRINUSE, "the next port is in use")
        opened = self._bind(relay, port, self._open_socket)
        try:
            held = self._bind(relay, port + 1, self._open_socket)
        except BaseException:
            opened.socket.close()
            raise
        free.take(port + 1)
        self.release(reserve)
        self._held[reserve] = held
        return opened
