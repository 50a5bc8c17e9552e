"""Where packets leave: a route for each flow, and the neighbours in the programs' table, followed as they change.

The kernel is asked, with the addresses and ports that the pump's socket would send from and to. A neighbour has a slot
as long as a flow leaves by it; a slot without a MAC address has its flows go to the pump, whose packets make the kernel
look for one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from turnsvr.relay.offload import kernelroutes
from turnsvr.relay.offload.kernelroutes import KernelLink, Neighbour, Route
from turnsvr.relay.offload.layout import Hop
from turnsvr.stun.address import Address

HOPS: Final = 16_384
"""Neighbours at once; flows that leave by one more go to the pump."""
_LOOKS: Final = 64
"""Neighbours that the kernel is asked about in one turn."""


class KernelQueries(Protocol):
    """What is asked of the kernel; Kernel answers."""

    def route(self, source: Address, destination: Address) -> Route | None: ...
    def neighbour(self, interface: int, host: str) -> bytes | None: ...
    def look_for(self, interface: int, host: str) -> None: ...
    def link(self, interface: int) -> KernelLink | None: ...


@dataclass(frozen=True, slots=True)
class Way:
    """How a flow leaves."""

    slot: int
    mtu: int
    ttl: int


@dataclass(slots=True)
class _Used:
    slot: int
    interface: int
    host: str
    flows: int = 0
    is_known: bool = False


class Ways:
    """The slots of neighbours. Its methods raise OSError where the table cannot be written."""

    def __init__(
        self,
        kernel: KernelQueries,
        write: Callable[[int, bytes], None],
        frames: Callable[[KernelLink], tuple[bool, bool]],
        *,
        hops: int = HOPS,
    ) -> None:
        """write sets a slot of the table. frames: whether an interface returns frames, and whether it takes others'."""
        self._kernel = kernel
        self._write = write
        self._frames = frames
        self._free = deque(range(hops))
        self._used: dict[tuple[int, str], _Used] = {}
        self._by_slot: dict[int, _Used] = {}
        self._turns: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._used)

    def acquire(self, source: Address, destination: Address) -> Way | None:
        """The way from an address of this host; None where the kernel has none, or there is no slot. release() it."""
        route = self._kernel.route(source, destination)
        link = None if route is None else self._kernel.link(route.interface)
        if route is None or link is None or not link.is_ethernet:
            return None
        used = self._used.get((route.interface, route.next_hop))
        if used is None:
            if not self._free:
                return None
            used = _Used(self._free.popleft(), route.interface, route.next_hop)
            self._used[used.interface, used.host] = self._by_slot[used.slot] = used
            self._turns.append(used.slot)
            self._set(used, link, self._kernel.neighbour(used.interface, used.host))
        used.flows += 1
        ttl = route.hop_limit or kernelroutes.hop_limit(destination.family, link.name)
        return Way(used.slot, min(route.mtu or link.mtu, link.mtu), ttl)

    def release(self, way: Way) -> None:
        """One flow fewer leaves by it; the slot is free after the last one."""
        used = self._by_slot[way.slot]
        used.flows -= 1
        if not used.flows:
            self._write(used.slot, Hop().pack())
            del self._used[used.interface, used.host], self._by_slot[used.slot]
            self._free.append(used.slot)  # behind the others: what still points to it finds nothing for long

    def hear(self, told: Neighbour) -> None:
        """A neighbour has changed."""
        used = self._used.get((told.interface, told.host))
        if used is not None:
            self._set(used, self._kernel.link(used.interface), told.mac)

    def look(self) -> None:
        """Ask about every neighbour anew."""
        for used in list(self._used.values()):
            self._set(used, self._kernel.link(used.interface), self._kernel.neighbour(used.interface, used.host))

    def keep_alive(self) -> None:
        """Have the kernel check whether neighbours are still there, some in each turn: no packet of ours shows it."""
        for _ in range(min(_LOOKS, len(self._turns))):
            used = self._by_slot.get(self._turns.popleft())
            if used is None:
                continue
            self._turns.append(used.slot)
            if used.is_known:
                self._kernel.look_for(used.interface, used.host)
            else:
                mac = self._kernel.neighbour(used.interface, used.host)
                self._set(used, self._kernel.link(used.interface), mac)

    def _set(self, used: _Used, link: KernelLink | None, mac: bytes | None) -> None:
        hop = Hop()
        if link is not None and link.is_ethernet and mac is not None:
            hop = Hop(link.index, link.mac, mac, *self._frames(link))
        used.is_known = hop.interface != 0
        self._write(used.slot, hop.pack())
