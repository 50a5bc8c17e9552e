"""The laboratory itself: it leaves nothing behind, and its links drop what they should."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys

import pytest

from tests.lab.netlab import Node, laboratory, leftovers, require
from tests.lab.routers import LOSSY, Kind


def mine() -> list[str]:
    return [name for name in leftovers() if name.startswith(f"tsv{os.getpid()}-")]


def test_nothing_is_left_after_a_failure() -> None:
    require()
    before = mine()
    with pytest.raises(ZeroDivisionError):
        fail_in_a_laboratory(len(before))
    assert mine() == before


def fail_in_a_laboratory(before: int) -> None:
    with laboratory() as lab, lab.site(Kind.SYMMETRIC, behind=Kind.FULL_CONE) as site:
        site.client.run(nothing)
        assert len(mine()) == before + 4, "core, client and two routers"
        raise ZeroDivisionError


def test_what_a_killed_process_left_goes_with_the_next_laboratory() -> None:
    require()
    program = (
        "import os, signal; from tests.lab.netlab import Node; Node(f'tsv{os.getpid()}-lost'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -9
    lost = [name for name in leftovers() if name.endswith("-lost")]
    with laboratory():
        remaining = leftovers()
    assert lost
    assert not {*lost} & {*remaining}


def test_a_lossy_link_drops_one_packet_in_three() -> None:
    require()
    with laboratory() as lab, lab.site(Kind.OPEN, extra=LOSSY) as site:
        sent = site.routers[0].output("nft", "list", "ruleset")
        assert "numgen inc mod 3 0 drop" in sent
        flood(site.client, lab.servers_v4[0], 30)
        arrived = counted(lab.core)
    assert arrived == 20


async def nothing() -> None:
    """For a node that should have a loop running."""


def flood(node: Node, host: str, packets: int) -> None:
    async def send() -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as sender:
            for _ in range(packets):
                sender.sendto(b"x", (host, 9))

    node.run(send)


def counted(node: Node) -> int:
    """UDP datagrams that came to ports where nobody listens."""
    found = re.search(r"UdpNoPorts\s+(\d+)", node.output("nstat", "-az", "UdpNoPorts"))
    assert found
    return int(found[1])
