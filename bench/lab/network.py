"""Client, server and peer, each in a network namespace, joined by pairs of veth. Needs root."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from turnsvr.stun.address import Address, Family

CLIENT = {Family.IPV4: Address("10.81.0.2", 50_000), Family.IPV6: Address("fd81::2", 50_000)}
SERVER = {Family.IPV4: Address("10.81.0.1", 3478), Family.IPV6: Address("fd81::1", 3478)}
PEER = {Family.IPV4: Address("10.82.0.2", 6000), Family.IPV6: Address("fd82::2", 6000)}
RELAY = {Family.IPV4: "10.82.0.1", Family.IPV6: "fd82::1"}

SET_CHECKSUMS: Final = 0x17
SET_GRO: Final = 0x2C
"""ETHTOOL_STXCSUM, ETHTOOL_SGRO."""
_NEWNET: Final = 0x40000000
_GET_MAC: Final = 0x8927
"""SIOCGIFHWADDR."""
_ETHTOOL: Final = 0x8946
"""SIOCETHTOOL."""

_counter = itertools.count()
_libc = ctypes.CDLL(None, use_errno=True)


def run(*command: str) -> str:
    """What it prints. Raises CalledProcessError."""
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout  # noqa: S603


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


@dataclass(frozen=True, slots=True)
class VethPair:
    """A pair of veth: its far end, in the client's or the peer's namespace, and the server's end."""

    namespace: str
    name: str
    server_end: str
    mac: bytes
    server_mac: bytes


class Network:
    """The three namespaces, with addresses of both families, and two pairs; the server's ends compute checksums."""

    def __init__(
        self, client_names: tuple[str, str] = ("cs", "sc"), peer_names: tuple[str, str] = ("ps", "sp")
    ) -> None:
        """The names are those of the far end and of the server's. Raises OSError, CalledProcessError."""
        number = next(_counter)
        self._names = {name: f"offload-{os.getpid()}-{number}-{name}" for name in ("client", "server", "peer")}
        try:
            for name in self._names.values():
                _add(name)
            hosts = {family: each.host for family, each in SERVER.items()}
            self.client_pair = self._join("client", client_names, CLIENT, hosts)
            self.peer_pair = self._join("peer", peer_names, PEER, RELAY)
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

    def _join(
        self, name: str, ends: tuple[str, str], there: dict[Family, Address], here: dict[Family, str]
    ) -> VethPair:
        namespace, server, (far, near) = self._names[name], self.server, ends
        run("ip", "link", "add", far, "netns", namespace, "type", "veth", "peer", "name", near, "netns", server)
        for family, each in there.items():
            length = "24" if family is Family.IPV4 else "64"
            run("ip", "-n", namespace, "addr", "add", f"{each.host}/{length}", "dev", far)
            run("ip", "-n", server, "addr", "add", f"{here[family]}/{length}", "dev", near)
        run("ip", "-n", namespace, "link", "set", far, "up")
        run("ip", "-n", server, "link", "set", near, "up")
        with within(namespace):
            mac = _mac(far)
        with within(server):
            server_mac = _mac(near)
            tune(near, SET_CHECKSUMS, 0)  # the kernel computes them, and sends no trains
        return VethPair(namespace, far, near, mac, server_mac)

    def close(self) -> None:
        for name in self._names.values():
            subprocess.run(["ip", "netns", "del", name], check=False, capture_output=True, timeout=20)  # noqa: S603, S607


def _add(namespace: str) -> None:
    run("ip", "netns", "add", namespace)
    run("ip", "-n", namespace, "link", "set", "lo", "up")
    with within(namespace):
        for where in ("all", "default"):
            Path(f"/proc/sys/net/ipv6/conf/{where}/accept_dad").write_text("0")
            Path(f"/proc/sys/net/ipv6/conf/{where}/router_solicitations").write_text("0")


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
