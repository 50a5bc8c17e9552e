"""A service of this host that hears multicast, in a network namespace of its own: run by test_multicast."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

from tests.relay.world import SETTINGS, World, send_indication
from turnsvr.relay import PumpKind
from turnsvr.relay.api import RelayAddress
from turnsvr.stun.address import Address, Family

HOSTS = {Family.IPV4: "10.77.0.1", Family.IPV6: "fd77::1"}
GROUPS = {Family.IPV4: ("224.0.0.1", "239.1.2.3"), Family.IPV6: ("ff02::1", "ff01::1", "ff0e::1")}
"""Every host hears the first ones."""
NETWORK = f"""
link set lo up
link add outer type veth peer name inner
link set outer up
link set inner up
address add {HOSTS[Family.IPV4]}/24 dev outer
address add {HOSTS[Family.IPV6]}/64 dev outer nodad
route add default dev outer
route add ::/0 dev outer
"""


def main(kind: PumpKind) -> None:
    subprocess.run(["ip", "-batch", "-"], input=NETWORK, text=True, check=True)
    # What is on the wire is none of this host's, though the wire's other end is in the same namespace.
    Path("/proc/sys/net/ipv6/conf/inner/disable_ipv6").write_text("1")
    asyncio.run(_send_to_groups(kind))


async def _send_to_groups(kind: PumpKind) -> None:
    world = World(kind, replace(SETTINGS, relay_addresses=tuple(RelayAddress(host, host) for host in HOSTS.values())))
    try:
        for family, groups in GROUPS.items():
            with _service(family) as service:
                port = service.getsockname()[1]
                _say(family, port)
                assert await _heard(service) == b"by another socket of this host"
                client = world.session(families=(family,))
                for group in groups:
                    client.permit(group)
                    client.send(send_indication(Address(group, port), b"by a user").encode())
                client.permit(HOSTS[family])
                client.send(send_indication(Address(HOSTS[family], port), b"the last").encode())
                assert await _heard(service) == b"the last"
    finally:
        world.end()


def _service(family: Family) -> socket.socket:
    """Hears at every address."""
    opened = socket.socket(family.socket_family, socket.SOCK_DGRAM)
    opened.setblocking(False)
    opened.bind(("::" if family is Family.IPV6 else "", 0))
    return opened


def _say(family: Family, port: int) -> None:
    with socket.socket(family.socket_family, socket.SOCK_DGRAM) as sender:
        sender.bind((HOSTS[family], 0))
        sender.sendto(b"by another socket of this host", (GROUPS[family][0], port))


async def _heard(service: socket.socket) -> bytes:
    async with asyncio.timeout(10):
        return await asyncio.get_running_loop().sock_recv(service, 100)


if __name__ == "__main__":
    main(cast(PumpKind, sys.argv[1]))
