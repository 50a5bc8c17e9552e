"""What the kernel delivers to this host, in network namespaces of the tests' own."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.lab.netlab import Node, laboratory, require
from turnsvr.net import hosts, netlink
from turnsvr.net.ownaddresses import OwnAddresses, delivered_here
from turnsvr.netlink import HEADER, ROUTE

PATIENCE = 10.0


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    require()
    with ExitStack() as stack:
        yield stack.enter_context(laboratory()).node("own")


def look(node: Node) -> frozenset[str]:
    async def looking() -> frozenset[str]:
        return delivered_here()

    return node.run(looking)


def test_it_is_what_interfaces_carry_and_more() -> None:
    assert delivered_here() >= hosts.own_addresses()


@pytest.mark.parametrize(
    ("commands", "delivered"),
    [
        (["route {} local 10.9.0.0/16 dev lo"], "10.9.0.0/16"),
        (["route {} local 8.8.4.4 dev lo"], "8.8.4.4/32"),
        (["-6 route {} local fd09::/64 dev lo"], "fd09::/64"),
        (["route {} local 10.10.0.1 dev lo table main"], "10.10.0.1/32"),
        (["addr {} 10.11.0.1/32 dev lo"], "10.11.0.1/32"),
        (["rule {} from all lookup 1001", "route {} local 10.12.0.0/24 dev lo table 1001"], "10.12.0.0/24"),
        (["-6 rule {} from all lookup 1002", "-6 route {} local fd12::1 dev lo table 1002"], "fd12::1/128"),
    ],
)
def test_routes_of_type_local_count(node: Node, commands: list[str], delivered: str) -> None:
    before = look(node)
    assert delivered not in before
    try:
        for command in commands:
            ip(node, command.format("add"))
        assert delivered in look(node)
    finally:
        for command in reversed(commands):
            ip(node, command.format("del"))
    assert look(node) == before


def test_what_a_proxy_diverts_does_not_count(node: Node) -> None:
    """As for TPROXY: everything that bears a mark is delivered here."""
    before = look(node)
    commands = ["rule {} fwmark 1 lookup 100", "route {} local 0.0.0.0/0 dev lo table 100"]
    commands += ["rule {} fwmark 2 lookup 101", "route {} local 10.13.0.0/16 dev lo table 101"]
    commands += ["rule {} iif eth7 lookup 102", "route {} local 10.14.0.0/16 dev lo table 102"]
    try:
        for command in commands:
            ip(node, command.format("add"))
        assert look(node) == before
    finally:
        for command in reversed(commands):
            ip(node, command.format("del"))


def test_changes_are_heard_of(node: Node) -> None:
    async def follow() -> list[frozenset[str]]:
        told: list[frozenset[str]] = []
        own = OwnAddresses(told.append)
        first = own.start()
        try:
            for verb, there in (("add", True), ("del", False)):
                ip(node, f"route {verb} local 10.15.0.0/16 dev lo")
                await until(partial(ends_with, told, "10.15.0.0/16", there))
            assert told[-1] == first
            ip(node, "route add blackhole 10.16.0.0/16")
            ip(node, "route del blackhole 10.16.0.0/16")
            await asyncio.sleep(0.05)
        finally:
            own.stop()
            own.stop()
        return told

    assert len(node.run(follow)) == 2


def ends_with(told: list[frozenset[str]], prefix: str, there: bool) -> bool:
    return bool(told) and (prefix in told[-1]) is there


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - the kernel tells the socket, and nobody tells us
            await asyncio.sleep(0.005)


async def test_without_netlink_interfaces_count_and_the_log_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_NETLINK")
    with capture_logs() as logs:
        own = OwnAddresses(lambda found: None)
        assert own.start() == hosts.own_addresses()
        own.look()
        own.stop()
    assert [(each["event"], each["log_level"]) for each in logs] == [
        ("only the addresses of interfaces are known to be this host's", "warning")
    ]


async def test_what_was_known_stays_where_the_kernel_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[frozenset[str]] = []
    own = OwnAddresses(told.append)
    first = own.start()
    monkeypatch.setattr(netlink, "_ATTEMPTS", 0)
    own.look()
    own.stop()
    assert (told, own.known) == ([], first)


def test_a_route_elsewhere_is_no_news() -> None:
    route = ROUTE.pack(2, 24, 0, 0, 254, 3, 0, 1, 0)
    local = ROUTE.pack(2, 32, 0, 0, 255, 3, 0, 2, 0)

    def message(kind: int, body: bytes) -> bytes:
        return HEADER.pack(16 + len(body), kind, 0, 0, 0) + body

    assert not netlink.concerns_delivery(message(24, route) + message(25, route))
    assert netlink.concerns_delivery(message(24, route) + message(25, local))
    assert netlink.concerns_delivery(message(20, bytes(8)))
    assert netlink.concerns_delivery(message(24, b""))
    for size in range(28):
        netlink.concerns_delivery(message(24, route)[:size])


def ip(node: Node, command: str) -> None:
    """One line of `ip`; those for IPv6 begin with -6, which a batch does not take."""
    if command.startswith("-6 "):
        assert node.output("ip", *command.split()) == ""
    else:
        node.ip(command)


def test_the_unit_lets_the_server_ask(request: pytest.FixtureRequest) -> None:
    unit = (Path(request.config.rootpath) / "systemd" / "turnsvr.service").read_text()
    (families,) = [line for line in unit.splitlines() if line.startswith("RestrictAddressFamilies=")]
    assert "AF_NETLINK" in families.split()
