"""A flood from a million made-up addresses leaves the server's memory flat, and it answers honest clients after it."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.conftest import OURS, turnsvr
from tests.lab.netlab import Lab, Node, laboratory, require
from turnsvr.client.link import new_request, open_link
from turnsvr.client.transaction import Timers
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.message import Class, Message, Method

WARM_UP, FLOOD = 200_000, 1_000_000
"""Packets, each from an address of its own; after the first the tables of addresses are full."""
MOST_GROWTH = 32 << 20
"""Bytes: what waits to be judged comes and goes; to remember an address would take at least a hundred of them."""

FLOODER = """
import socket, struct, sys
to, port, first, count = sys.argv[1], *map(int, sys.argv[2:5])
message = bytes.fromhex(sys.argv[5])
sock = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
sock.connect((to, 0))
udp = struct.pack("!HHHH", 40000, port, 8 + len(message), 0) + message
head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, 17, 0)
there = socket.inet_aton(to)
for number in range(first, first + count):
    sock.send(head + (0x0B000000 + number).to_bytes(4, "big") + there + udp)
"""


@dataclass(frozen=True)
class Flooded:
    """The server's host, and one from which packets come that say they are from elsewhere."""

    lab: Lab
    elsewhere: Node

    @property
    def server(self) -> Address:
        return Address(self.lab.servers_v4[0], OURS.port)

    def flood(self, message: bytes, first: int, count: int) -> None:
        words = [self.server.host, str(self.server.port), str(first), str(count), message.hex()]
        self.elsewhere.output(sys.executable, "-c", FLOODER, *words, patience=120)

    def memory(self) -> int:
        """Resident bytes of the server."""
        process = next(
            each
            for each in self.lab.core.output("ip", "netns", "pids", self.lab.core.name).split()
            if b"turnsvr.yaml" in Path(f"/proc/{each}/cmdline").read_bytes()
        )
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{process}/status").read_text())
        assert found is not None
        return int(found[1]) * 1024


@pytest.fixture(scope="module")
def flooded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flooded]:
    require()
    with ExitStack() as stack:
        lab = stack.enter_context(laboratory())
        elsewhere, _ = stack.enter_context(lab.host())
        lab.core.sysctl(net__ipv4__conf__all__rp_filter=0, net__ipv4__conf__br0__rp_filter=0)
        settings = {"listen": [f"{transport}://{lab.servers_v4[0]}" for transport in ("udp", "tcp")]}
        stack.enter_context(turnsvr(lab.core, tmp_path_factory.mktemp("flood"), settings))
        yield Flooded(lab, elsewhere)


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(Message(Method.BINDING, Class.REQUEST, bytes(12)), id="binding"),
        pytest.param(Message(Method.ALLOCATE, Class.REQUEST, bytes(12)).add(a.REQUESTED_TRANSPORT, 17), id="allocate"),
    ],
)
def test_memory_is_flat_under_a_flood_of_addresses(flooded: Flooded, request_: Message) -> None:
    message = request_.encode()
    flooded.flood(message, 0, WARM_UP)
    before = flooded.memory()
    flooded.flood(message, WARM_UP, FLOOD)
    assert flooded.memory() - before < MOST_GROWTH

    async def ask() -> Address | None:
        link = await open_link(Transport.UDP, flooded.server, timers=Timers.within(10))
        try:
            request = new_request(Method.BINDING)
            response = await link.exchange(request.encode(), request.transaction_id)
            return response.message.get(a.XOR_MAPPED_ADDRESS)
        finally:
            await link.close()

    assert flooded.elsewhere.run(ask) is not None
