"""Client, server and peer, each in a network namespace, joined by pairs of veth; the pump runs in this very process.

A test runs in the server's namespace, since the pump and its programs ask the kernel again and again.

Frames are sent and taken as they are, through packet sockets: what a test writes is what arrives, checksums included.
"""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from tests.relay.offload.frames import Datagram, read
from tests.relay.world import Notes
from turnsvr import relay
from turnsvr.plane import OpenRelay
from turnsvr.relay import PumpKind
from turnsvr.relay.api import PumpSettings, RelayAddress
from turnsvr.relay.offload import system
from turnsvr.relay.offload.settings import Mode, OffloadSettings, OffloadStatus
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

_NEWNET: Final = 0x40000000
_ALL: Final = 0x0003
_OUTGOING: Final = 4
_GET_MAC: Final = 0x8927
"""SIOCGIFHWADDR."""
_ETHTOOL: Final = 0x8946
"""SIOCETHTOOL."""
SET_CHECKSUMS: Final = 0x17
SET_GRO: Final = 0x2C
"""ETHTOOL_STXCSUM, ETHTOOL_SGRO."""
_PASS: Final = bytes.fromhex("b7000000020000009500000000000000")
"""r0 = XDP_PASS; exit."""
_PATIENCE: Final = 10.0

CHANNEL: Final = 0x4001
CLIENT = {Family.IPV4: Address("10.81.0.2", 50_000), Family.IPV6: Address("fd81::2", 50_000)}
SERVER = {Family.IPV4: Address("10.81.0.1", 3478), Family.IPV6: Address("fd81::1", 3478)}
PEER = {Family.IPV4: Address("10.82.0.2", 6000), Family.IPV6: Address("fd82::2", 6000)}
RELAY = {Family.IPV4: "10.82.0.1", Family.IPV6: "fd82::1"}
SETTINGS = PumpSettings(
    relay_addresses=tuple(RelayAddress(host, host) for host in RELAY.values()), max_sessions=16, max_channels=8
)

_counter = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


@contextmanager
def within(namespace: str) -> Iterator[None]:
    """Have this thread, and what it opens or starts, be in a namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    there = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        _enter(there)
        yield
    finally:
        _enter(here)
        os.close(here)
        os.close(there)


def _enter(namespace: int) -> None:
    if _libc.setns(namespace, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


class End:
    """The client's or the peer's end of a pair: its name, MAC addresses, and what comes and goes there."""

    def __init__(self, namespace: str, name: str, server_end: str, *, takes_frames: bool = True) -> None:
        self.namespace = namespace
        self.name = name
        self.server_end = server_end
        self.mac = self.server_mac = bytes(6)
        self._link = -1
        with within(namespace):
            self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
            self.socket.bind((name, 0))
            self.socket.setblocking(False)
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            if takes_frames:
                program = system.load_program(system.PROGRAM_XDP, _PASS, "pass", system.ATTACH_XDP)
                self._link = system.attach(program, socket.if_nametoindex(name), system.ATTACH_XDP, 4)
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
        if self._link >= 0:
            os.close(self._link)


class Lab:
    """The three, and one session of a client with a channel to the peer."""

    def __init__(self) -> None:
        """Needs root and the programs. Raises OSError, CalledProcessError."""
        number = next(_counter)
        self._names = {name: f"offload-{os.getpid()}-{number}-{name}" for name in ("client", "server", "peer")}
        self._ends: list[End] = []
        try:
            for name in self._names.values():
                run("ip", "netns", "add", name)
                run("ip", "-n", name, "link", "set", "lo", "up")
                with within(name):
                    for where in ("all", "default"):
                        Path(f"/proc/sys/net/ipv6/conf/{where}/accept_dad").write_text("0")
                        Path(f"/proc/sys/net/ipv6/conf/{where}/router_solicitations").write_text("0")
            self.client = self._join(
                "client", "cs", "sc", CLIENT, {family: each.host for family, each in SERVER.items()}
            )
            self.peer = self._join("peer", "ps", "sp", PEER, RELAY)
        except BaseException:
            self.close()
            raise

    @property
    def server(self) -> str:
        """Its namespace."""
        return self._names["server"]

    def in_server(self, *command: str) -> str:
        with within(self.server):
            return run(*command)

    def _join(self, name: str, far: str, near: str, there: dict[Family, Address], here: dict[Family, str]) -> End:
        namespace, server = self._names[name], self._names["server"]
        run("ip", "link", "add", far, "netns", namespace, "type", "veth", "peer", "name", near, "netns", server)
        for family, each in there.items():
            length = "24" if family is Family.IPV4 else "64"
            run("ip", "-n", namespace, "addr", "add", f"{each.host}/{length}", "dev", far)
            run("ip", "-n", server, "addr", "add", f"{here[family]}/{length}", "dev", near)
        run("ip", "-n", namespace, "link", "set", far, "up")
        run("ip", "-n", server, "link", "set", near, "up")
        end = End(namespace, far, near)
        self._ends.append(end)
        with within(namespace):
            end.mac = _mac(far)
        with within(server):
            end.server_mac = _mac(near)
            tune(near, SET_CHECKSUMS, 0)  # the kernel computes them, and sends no trains
        return end

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
        for end in self._ends:
            end.close()
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)


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


def _mac(interface: str) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        told = fcntl.ioctl(asking, _GET_MAC, interface.encode().ljust(40, b"\0"))
    return told[18:24]


def tune(interface: str, command: int, value: int) -> None:
    """Switch something of an interface on or off, as ethtool does. Raises OSError."""
    told = ctypes.create_string_buffer(struct.pack("=II", command, value), 8)
    request = struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(told))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        fcntl.ioctl(asking, _ETHTOOL, request)
