"""A client at a link-local address, in a network namespace of its own: run by test_link_local with the pump's kind."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from typing import cast

from tests.relay.world import World, now, read_from_relay, request
from turnsvr.relay import PumpKind
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.attributes import XOR_MAPPED_ADDRESS
from turnsvr.stun.message import Class, Message, Method

SERVER, CLIENT = "fe80::1", "fe80::2"
NETWORK = f"""
link set lo up
link add server type veth peer name client
link set server up
link set client up
address add {SERVER}/64 dev server nodad
address add {CLIENT}/64 dev client nodad
"""


def main(kind: PumpKind) -> None:
    subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, check=True)
    asyncio.run(_meet(kind))


async def _meet(kind: PumpKind) -> None:
    world = World(kind)
    scope = socket.if_nametoindex("client")
    try:
        for host in ("::", f"{SERVER}%server"):
            port = world.pump.listen(Address(host, 0)).port
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
                client.setblocking(False)
                client.bind((CLIENT, 0, 0, scope))
                client.connect((SERVER, port, 0, scope))
                await _talk(world, client, port)
    finally:
        world.end()


async def _talk(world: World, client: socket.socket, port: int) -> None:
    async def receive() -> bytes:
        async with asyncio.timeout(10):
            return await asyncio.get_running_loop().sock_recv(client, 65_536)

    client.send(Message(Method.BINDING, Class.REQUEST, bytes(12)).encode())
    address = Address(CLIENT, client.getsockname()[1])
    assert Message.parse(await receive()).get(XOR_MAPPED_ADDRESS) == address

    client.send(request().encode())
    await world.until(lambda: bool(world.notes.batches))
    ((five_tuple, _),) = world.notes.batches.pop()
    zoned = Address(f"{CLIENT}%server", address.port)
    assert five_tuple == FiveTuple(Transport.UDP, zoned, Address(f"{SERVER}%server", port))
    world.pump.send(five_tuple, b"answer")
    assert await receive() == b"answer"

    session, opened = world.open(five_tuple, (Family.IPV4,))
    world.pump.permit(session, "127.0.0.1", now(60))
    peer = world.endpoint()
    peer.send(b"data", opened.addresses[0])
    assert read_from_relay(await receive()) == (peer.address, b"data")


if __name__ == "__main__":
    main(cast(PumpKind, sys.argv[1]))
