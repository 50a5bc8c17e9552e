"""A control plane that does nothing: packets go on, and none passes after its deadline.

The GIL is held for the whole time, so that no line of Python runs in this process. Who sends and who listens are
processes of their own.
"""

from __future__ import annotations

import asyncio
import ctypes
import subprocess
import sys
import time
from collections.abc import AsyncIterator

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.world import World
from turnsvr.stun.address import Address, Family, FiveTuple, Transport

DEADLINE = 0.4
STALL = 1.0
CHANNEL = 0x4000

SENDER = """
import socket, struct, sys, time
ours, to, prefix = int(sys.argv[1]), int(sys.argv[2]), bytes.fromhex(sys.argv[3])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", ours))
print(sock.getsockname()[1], flush=True)
to = to or int(sys.stdin.readline())
while True:
    sock.sendto(prefix + struct.pack("=d", time.monotonic()), ("127.0.0.1", to))
    time.sleep(0.001)
"""
"""Sends the time to a port, after a prefix, a thousand times a second."""

LISTENER = """
import socket, struct
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
sock.bind(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
while True:
    print(struct.unpack("=d", sock.recv(100)[-8:])[0], flush=True)
"""
"""Prints what times arrive."""


class Programs:
    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, source: str, *args: object) -> tuple[subprocess.Popen[str], int]:
        """The program and the port that it has bound."""
        program = subprocess.Popen(
            [sys.executable, "-c", source, *map(str, args)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._running.append(program)
        assert program.stdout is not None
        return program, int(program.stdout.readline())

    def end(self) -> None:
        for program in self._running:
            program.kill()
            program.communicate()


@pytest.fixture
async def programs() -> AsyncIterator[Programs]:
    running = Programs()
    yield running
    running.end()


def told(listener: subprocess.Popen[str]) -> list[float]:
    """The times that arrived."""
    listener.kill()
    return [float(line) for line in listener.communicate()[0].splitlines()]


def stall() -> None:
    """Hold the GIL."""
    ctypes.PyDLL(None).usleep(int(STALL * 1e6))


def opened(world: World, client: Address, limits: dict[str, float], peer: Address) -> Address:
    """A session of this client whose allocation, permission and channel end as limits say; where it is relayed."""
    five_tuple = FiveTuple(Transport.UDP, client, world.listeners[Family.IPV4])
    start = time.monotonic()
    number, opened = world.open(five_tuple, (Family.IPV4,), offset=limits.get("allocation", 60.0))
    world.pump.permit(number, peer.host, start + limits.get("permission", 60.0))
    world.pump.bind_channel(number, CHANNEL, peer, start + limits.get("channel", 60.0))
    return opened.addresses[0]


@pytest.mark.parametrize("limited", ["allocation", "permission", "channel"])
async def test_from_the_client(make_world: WorldFactory, programs: Programs, limited: str) -> None:
    world = make_world()
    listener, peer = programs.start(LISTENER)
    server = world.listeners[Family.IPV4].port
    _, client = programs.start(SENDER, 0, server, (CHANNEL.to_bytes(2, "big") + b"\x00\x08").hex())
    deadline = time.monotonic() + DEADLINE
    opened(world, Address("127.0.0.1", client), {limited: DEADLINE}, Address("127.0.0.1", peer))
    latest_deadline = time.monotonic() + DEADLINE
    stall()
    times = told(listener)
    assert times[-1] > deadline - DEADLINE / 2
    assert times[-1] <= latest_deadline


@pytest.mark.parametrize("limited", ["allocation", "permission"])
async def test_from_the_peer(make_world: WorldFactory, programs: Programs, limited: str) -> None:
    world = make_world()
    listener, client = programs.start(LISTENER)
    sender, peer = programs.start(SENDER, 0, 0, "")
    deadline = time.monotonic() + DEADLINE
    relayed = opened(world, Address("127.0.0.1", client), {limited: DEADLINE}, Address("127.0.0.1", peer))
    latest_deadline = time.monotonic() + DEADLINE
    assert sender.stdin is not None
    sender.stdin.write(f"{relayed.port}\n")
    sender.stdin.flush()
    stall()
    times = told(listener)
    assert times[-1] > deadline - DEADLINE / 2
    assert times[-1] <= latest_deadline


async def test_what_went_up_meanwhile_is_there_afterwards(make_world: WorldFactory) -> None:
    world = make_world()
    message = b"\x00\x03\x00\x00\x21\x12\xa4\x42" + bytes(12)
    for client in [world.endpoint() for _ in range(50)]:
        client.send(message, world.listeners[Family.IPV4])
    stall()
    await asyncio.sleep(0)
    await world.settled()
    await world.until(lambda: len(world.notes.messages) == 50)
