"""The portable pump's sockets at one address: each source has one of them, and its flood fills no other."""

from __future__ import annotations

import socket
import sys
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.relay.world import LOOPBACK, private_loopback
from turnsvr.relay.portable.group import GROUP, open_group
from turnsvr.relay.portable.sockets import BindingAnswer, UdpListener
from turnsvr.stun.address import Address, Family

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="one socket on this system")

PLAIN = BindingAnswer(b"", False)


@pytest.fixture
def group() -> Iterator[list[UdpListener]]:
    opened = open_group(Address(private_loopback(), 0), PLAIN, 0)
    yield opened
    for each in opened:
        each.socket.close()


def client(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    return sock


def waiting(listener: UdpListener) -> list[tuple[str, int]]:
    """Who has sent what waits."""
    senders = list[tuple[str, int]]()
    try:
        while True:
            senders.append(listener.receive()[1])
    except BlockingIOError:
        return senders


def test_all_are_at_one_address(group: list[UdpListener]) -> None:
    assert len(group) == GROUP
    assert len({each.address for each in group}) == 1


def test_a_source_has_one_socket_whatever_its_port(group: list[UdpListener]) -> None:
    hosts = [private_loopback() for _ in range(100)]
    for host in hosts:
        for _ in range(3):
            with client(host) as sock:
                sock.sendto(b"abc", group[0].address)
    found = [Counter(host for host, _ in waiting(each)) for each in group]
    assert sum(found, Counter()) == Counter(hosts * 3)
    assert all(sum(host in counts for counts in found) == 1 for host in hosts)
    assert sum(map(bool, found)) > GROUP / 2


def test_what_one_floods_leaves_the_others_room(group: list[UdpListener]) -> None:
    flooder, others = private_loopback(), [private_loopback() for _ in range(50)]
    with client(flooder) as sock:
        for _ in range(20_000):
            sock.sendto(bytes(1_000), group[0].address)
    for host in others:
        with client(host) as sock:
            sock.sendto(b"abc", group[0].address)
    found = [waiting(each) for each in group]
    mine = next(senders for senders in found if senders and senders[0][0] == flooder)
    assert len(mine) < 20_000
    got = {host for senders in found if senders is not mine for host, _ in senders}
    assert len(got & set(others)) > 30


@pytest.mark.parametrize("family", Family)
def test_an_address_that_is_taken_is_shared_with_nobody(family: Family) -> None:
    group = open_group(Address(LOOPBACK[family], 0), PLAIN, 0)
    try:
        with pytest.raises(OSError, match="in use"):
            open_group(group[0].address, PLAIN, 0)
    finally:
        for each in group:
            each.socket.close()


def test_ipv6_arrives(request: pytest.FixtureRequest) -> None:
    group = open_group(Address("::1", 0), PLAIN, 0)
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            for _ in range(10):
                sock.sendto(b"abc", group[0].address)
        assert sorted(len(waiting(each)) for each in group)[-2:] == [0, 10]
    finally:
        for each in group:
            each.socket.close()
