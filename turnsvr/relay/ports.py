"""Which relay address and which port a new allocation gets, and the ports held for later ones."""

from __future__ import annotations

import errno
import secrets
from collections.abc import Callable, Iterable
from struct import Struct
from typing import Final, Generic, Protocol, TypeVar

from turnsvr.relay.api import PumpSettings, RelayAddress, RelayFailure
from turnsvr.relay.sockets import canonical
from turnsvr.stun.address import Address, Family

_MAX_HELD: Final = 4096
"""Ports held for reservations; when so many are held, a request for one more fails for want of capacity."""

_TAKEN_ELSEWHERE: Final = frozenset((errno.EADDRINUSE, errno.EACCES))

_WORDS: Final = 1 << 32
_MANY_WORDS: Final = Struct("256I")


class RandomNumbers:
    """Unpredictable numbers, for ports that nobody can guess (RFC 6056 section 3.1); one system call serves many."""

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
    """The ports of a range that are not in use: taken, given back and drawn at random in constant time."""

    def __init__(self, low: int, high: int, below: Callable[[int], int]) -> None:
        """low and high inclusive; below(n) is a random number from 0 to n - 1."""
        self._below = below
        self._even: list[int] = []
        self._odd: list[int] = []
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
        at = self._at.pop(port, None)
        if at is not None:
            pool = self._odd if port % 2 else self._even
            last = pool.pop()
            if last != port:
                pool[at] = last
                self._at[last] = at

    def give_back(self, port: int) -> None:
        """Mark as free; a port outside the range is ignored."""
        if port in self._range and port not in self._at:
            pool = self._odd if port % 2 else self._even
            self._at[port] = len(pool)
            pool.append(port)

    def draw(self, *, even: bool) -> int | None:
        """Take a free port, or an even one, each as likely; None when there is none."""
        evens = len(self._even)
        total = evens if even else len(self._at)
        if not total:
            return None
        at = self._below(total)
        port = self._even[at] if at < evens else self._odd[at - evens]
        self.take(port)
        return port


class PortSocket(Protocol):
    """What any pump's relay socket is at least."""

    @property
    def address(self) -> Address: ...

    def discard(self) -> None:
        """Throw away what has come so far."""

    def close(self) -> None: ...


S = TypeVar("S", bound=PortSocket)


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

        open_socket: binds to exactly this address, with buffers of so many bytes, or raises OSError.
        """
        self._below = below
        self._open_socket = open_socket
        self._held: dict[bytes, OpenedPort[S]] = {}
        self._turn = 0
        self._free: dict[str, FreePorts] = {}
        self.configure(settings, ())

    def configure(self, settings: PumpSettings, in_use: Iterable[OpenedPort[S]]) -> None:
        """Take the addresses and the range for what is opened from here on."""
        given = settings.relay_addresses
        relays = [RelayAddress(canonical(relay.host), canonical(relay.advertised)) for relay in given]
        self._addresses = {family: [relay for relay in relays if relay.family is family] for family in Family}
        self._buffer = settings.socket_buffer
        self._free = {relay.host: FreePorts(*settings.ports, self._below) for relay in relays}
        for opened in (*in_use, *self._held.values()):
            if opened.socket.address.host in self._free:
                self._free[opened.socket.address.host].take(opened.socket.address.port)

    def open(
        self, family: Family, server: str, *, even: bool = False, reserve: bytes | None = None
    ) -> OpenedPort[S] | RelayFailure:
        """A port of the family, on the relay address that the client's server address is, else on the next in turn.

        even: an even one. reserve: an even one whose next port is held under that token.
        """
        addresses = self._addresses[family]
        if not addresses:
            return RelayFailure.FAMILY
        if reserve is not None and len(self._held) >= _MAX_HELD and reserve not in self._held:
            return RelayFailure.CAPACITY
        for relay in addresses if len(addresses) == 1 else self._by_preference(addresses, server):
            opened = self._open_on(relay, even, reserve)
            if opened is not None:
                return opened
        return RelayFailure.CAPACITY

    def claim(self, token: bytes) -> OpenedPort[S] | None:
        """The port held under token, held no longer; None when there is none. What came to it so far is for nobody."""
        held = self._held.pop(token, None)
        if held is not None:
            held.socket.discard()
        return held

    def release(self, token: bytes) -> None:
        held = self._held.pop(token, None)
        if held is not None:
            self.close(held)

    def close(self, opened: OpenedPort[S]) -> None:
        opened.socket.close()
        address = opened.socket.address
        free = self._free.get(address.host)
        if free is not None:
            free.give_back(address.port)

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
        taken_elsewhere: list[int] = []
        try:
            while (port := free.draw(even=even or reserve is not None)) is not None:
                try:
                    opened = self._bind(relay, port) if reserve is None else self._bind_two(relay, port, reserve)
                except OSError as error:
                    taken_elsewhere.append(port)
                    if error.errno not in _TAKEN_ELSEWHERE:
                        return None
                else:
                    return opened
            return None
        finally:
            for port in taken_elsewhere:
                free.give_back(port)

    def _bind(self, relay: RelayAddress, port: int) -> OpenedPort[S]:
        host = Address(relay.host, port)
        advertised = host if relay.advertised == relay.host else Address(relay.advertised, port)
        return OpenedPort(self._open_socket(host, self._buffer), advertised)

    def _bind_two(self, relay: RelayAddress, port: int, reserve: bytes) -> OpenedPort[S]:
        """The port, with the next one held under the token. Raises OSError, also where that is in use."""
        free = self._free[relay.host]
        if port + 1 not in free:
            raise OSError(errno.EADDRINUSE, "the next port is in use")
        opened = self._bind(relay, port)
        try:
            held = self._bind(relay, port + 1)
        except BaseException:
            opened.socket.close()
            raise
        free.take(port + 1)
        self.release(reserve)
        self._held[reserve] = held
        return opened
