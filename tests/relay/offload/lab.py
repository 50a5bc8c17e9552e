"""Client, server and peer, each in a network namespace, joined by pairs of veth; the pump runs in this very process.

A test runs in the server's namespace, since the pump and its programs ask the kernel again and again.

Frames are sent and taken as they are, through packet sockets: what a test writes is what arrives, checksums included.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import time
from contextlib import suppress
from typing import Final

from bench.lab.frames import Datagram, read
from bench.lab.network import CLIENT, RELAY, SERVER, Network, VethPair, within
from tests.relay.world import Notes
from turnsvr import relay
from turnsvr.plane import OpenRelay
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.offload import system
from turnsvr.relay.offload.settings import Mode, OffloadSettings, OffloadStatus
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

_ALL: Final = 0x0003
_OUTGOING: Final = 4
_PASS: Final = bytes.fromhex("b7000000020000009500000000000000")
"""r0 = XDP_PASS; exit."""
_PATIENCE: Final = 10.0

CHANNEL: Final = 0x4001
SETTINGS = PumpSettings(
    relay_addresses=tuple(RelayAddress(host, host) for host in RELAY.values()), max_sessions=16, max_channels=8
)


class End:
    """The client's or the peer's end of a pair: its name, MAC addresses, and what comes and goes there."""

    def __init__(self, pair: VethPair) -> None:
        self.namespace = pair.namespace
        self.name = pair.name
        self.server_end = pair.server_end
        self.mac, self.server_mac = pair.mac, pair.server_mac
        with within(pair.namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
            self.socket.bind((self.name, 0))
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            # So that the end takes frames that a program sends to it.
            program = system.load_program(system.PROGRAM_XDP, _PASS, "pass", system.ATTACH_XDP)
            self._link = system.attach(program, socket.if_nametoindex(self.name), system.ATTACH_XDP, 4)
            os.close(program)

    def send(self, datagram: Datagram, **shape: object) -> bytes:
        """Send it from here to the server; the MAC addresses are put in."""
        frame = datagram.frame(**shape)  # type: ignore[arg-type]
        self.send_frame(self.server_mac + self.mac + frame[12:])
        return frame

    def send_frame(self, frame: bytes) -> None:
        self.socket.send(frame)

    def frames(self) -> list[bytes]:
        """UDP frames that have arrived and nobody has read, but for DNS and the like of the system."""
        found = []
        with suppress(BlockingIOError):
            while True:
                frame, (_, _, kind, _, _) = self.socket.recvfrom(65_536)
                is_udp = frame[23:24] == b"\x11" if frame[12:14] == b"\x08\x00" else frame[20:21] == b"\x11"
                if kind != _OUTGOING and is_udp and frame[12:14] in (b"\x08\x00", b"\x86\xdd"):
                    found.append(frame)
        return found

    async def datagram(self) -> Datagram:
        """The next one to arrive."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            for frame in self.frames():
                return read(frame)
            await asyncio.sleep(0.001)
        raise TimeoutError(f"nothing arrived at {self.name}")

    async def silence(self, seconds: float = 0.05) -> None:
        await asyncio.sleep(seconds)
        assert not self.frames()

    def close(self) -> None:
        self.socket.close()
        os.close(self._link)


class Lab(Network):
    """The three, and pumps that serve there."""

    def __init__(self) -> None:
        """Needs root and the programs. Raises OSError, CalledProcessError."""
        super().__init__()
        try:
            self.client = End(self.client_pair)
            self.peer = End(self.peer_pair)
        except BaseException:
            super().close()
            raise

    def serve(
        self,
        mode: Mode | None,
        kind: PumpKind = "auto",
        settings: PumpSettings = SETTINGS,
        names: tuple[str, ...] | None = None,
    ) -> Served:
        """A pump in the server's namespace, with programs or without."""
        return Served(self, mode, kind, settings, names)

    def close(self) -> None:
        self.client.close()
        self.peer.close()
        super().close()


class Served:
    """A pump that runs, and a session whose client has bound a channel to the peer."""

    def __init__(
        self, lab: Lab, mode: Mode | None, kind: PumpKind, settings: PumpSettings, names: tuple[str, ...] | None
    ) -> None:
        self.lab = lab
        self.notes = Notes()
        self.settings = settings
        self._numbers = itertools.count(1)
        offload = None if mode is None else OffloadSettings(mode, names)
        self.pump = relay.make(settings, self.notes, kind, offload=offload)
        for address in SERVER.values():
            self.pump.listen(address)

    def open(
        self, client: Address = CLIENT[Family.IPV4], family: Family = Family.IPV4, *, lasts: float = 600.0,
        bandwidth: float | None = None,
    ) -> Opened:  # fmt: skip
        five_tuple = FiveTuple(Transport.UDP, client, SERVER[client.family])
        number = next(self._numbers)
        opened = self.pump.open(OpenRelay(number, five_tuple, (family,), time.monotonic() + lasts, bandwidth=bandwidth))
        assert opened.addresses, opened
        return Opened(self, number, five_tuple, opened.addresses[0])

    @property
    def status(self) -> OffloadStatus:
        status = relay.offloaded(self.pump)
        assert status is not None
        return status

    def counted(self, reason: str) -> int:
        return dict(self.status.reasons).get(reason, 0)

    async def until(self, holds: object) -> None:
        assert callable(holds)
        deadline = time.monotonic() + _PATIENCE
        while not holds():
            assert time.monotonic() < deadline, (self.status, "did not come to be")
            await asyncio.sleep(0.005)

    def shutdown(self) -> None:
        self.pump.shutdown()


class Opened:
    """A session and its relayed transport address."""

    def __init__(self, served: Served, number: int, five_tuple: FiveTuple, relayed: Address) -> None:
        self.served = served
        self.pump = served.pump
        self.number = number
        self.five_tuple = five_tuple
        self.relayed = relayed

    def bind(self, peer: Address, channel: int = CHANNEL, *, permitted: float = 300.0, lasts: float = 600.0) -> None:
        now = time.monotonic()
        self.pump.bind_channel(self.number, channel, peer, now + lasts)
        self.pump.permit(self.number, peer.host, now + permitted)

    def up(self, data: bytes, **fields: int) -> Datagram:
        """What its client sends."""
        return Datagram(self.five_tuple.client, self.five_tuple.server, data, **fields)  # type: ignore[arg-type]

    def down(self, data: bytes, peer: Address, **fields: int) -> Datagram:
        """What a peer sends to it."""
        return Datagram(peer, self.relayed, data, **fields)  # type: ignore[arg-type]
