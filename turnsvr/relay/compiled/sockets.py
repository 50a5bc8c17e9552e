"""The sockets that the engine serves: opened here, or taken from another process that has bound them."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence

import structlog

from turnsvr.relay.api import PumpSettings
from turnsvr.relay.compiled._pump import has_segmentation, open_relay, prepare_listener, prepare_relay, steer_group
from turnsvr.relay.sockets import discard, hear_errors, make_room, open_udp, wildcard
from turnsvr.stun.address import Address, Family

_log = structlog.get_logger()

_LISTENER_ROOM = 2 * 1024 * 1024
RELAY_ROOM = 512 * 1024
"""What sockets ask to receive into where the settings name no size: some 10 ms of traffic while a thread waits for its
turn on the core. The kernel counts double, and takes memory only for packets that wait."""


class EngineSocket:
    """A relay socket whose packets the engine moves."""

    __slots__ = ("address", "descriptor")

    def __init__(self, address: Address, descriptor: int) -> None:
        """descriptor: bound to exactly this address, and this one's from here on."""
        self.address = address
        self.descriptor = descriptor

    def discard(self) -> None:
        discard(self.descriptor)

    def hear_errors(self, wanted: bool) -> None:
        hear_errors(self.descriptor, self.address.family, wanted)

    def close(self) -> None:
        os.close(self.descriptor)


class PumpSockets:
    """Opens sockets by the settings of the moment. Every method raises OSError, and then nothing is left open."""

    def __init__(self, settings: PumpSettings) -> None:
        self.settings = settings
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            self.segmentation = has_segmentation(sock.fileno())
            """Whether the kernel has UDP_SEGMENT."""

    def open_listeners(self, address: Address) -> list[socket.socket]:
        """One socket a lane, all at one address."""
        lanes = self.settings.threads
        if lanes > 1 and address.port:
            # With SO_REUSEPORT an address that another process serves could be bound too: this fails where it is taken.
            open_udp(address).close()
        sockets: list[socket.socket] = []
        try:
            for _ in range(lanes):
                sockets.append(open_udp(address, self.settings.socket_buffer, reuse_port=lanes > 1))
                address = Address(address.host, sockets[0].getsockname()[1])
                self._prepare_listener(sockets[-1], address)
            if lanes > 1:
                _steer(sockets)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return sockets

    def take_listeners(self, address: Address, descriptors: Sequence[int]) -> list[socket.socket]:
        """Sockets that are bound already. A lane without one of its own sends on another's; a lane may have several.

        Lanes pass on what is another's, where the kernel chooses among more of them or fewer than there are lanes.
        """
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        for each in sockets:
            each.setblocking(False)
            self._prepare_listener(each, address)
        if len(sockets) > 1:
            _steer(sockets[: self.settings.threads])  # what waits in the others is read all the same
        return sockets

    def _prepare_listener(self, opened: socket.socket, address: Address) -> None:
        room = 0 if self.settings.socket_buffer else _LISTENER_ROOM
        is_wildcard = address.host == wildcard(address.family)
        prepare_listener(opened.fileno(), address.family is Family.IPV6, is_wildcard, self.segmentation, room)

    def open_relay(self, address: Address, buffer: int) -> EngineSocket:
        """A relay socket with a buffer of so many bytes, 0 for the pump's own choice."""
        return EngineSocket(address, open_relay(address, self.segmentation, buffer, 0 if buffer else RELAY_ROOM))

    def take_relay(self, address: Address, descriptor: int) -> EngineSocket:
        """A relay socket that is bound already; it is closed if this fails."""
        taken = EngineSocket(address, descriptor)
        try:
            make_room(descriptor, RELAY_ROOM)  # and never less than it has: packets may wait there
            prepare_relay(descriptor, address.family is Family.IPV6, self.segmentation, 0)
        except BaseException:
            taken.close()
            raise
        return taken


def _steer(sockets: list[socket.socket]) -> None:
    """Have each client's packets come to the lane that its session is on."""
    try:
        steer_group(sockets[0].fileno(), len(sockets))
    except OSError as error:
        # Lanes pass on what is another's: it costs time, and nothing is lost.
        _log.warning("packets may reach another thread than their session's", reason=error.strerror)


def steer_again(sockets: list[socket.socket]) -> None:
    """Have a group that others have joined choose among these alone, as it did. One that is none is fine."""
    with contextlib.suppress(OSError):
        steer_group(sockets[0].fileno(), len(sockets))
