"""Connections where there is no room: those without an allocation go, and nobody who has one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from structlog.testing import capture_logs

from tests.conftest import PASSWORD, PATIENCE, USER, Serve, address_of
from tests.net.test_streams import Streams, allocated, binding, connect, ends, hang_up, insecure, read_message, until
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.link import StreamLink
from turnsvr.client.turn import TurnClient
from turnsvr.net.connections import Connections, StreamLimits
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.message import Class

SPOKEN = {
    "nothing": b"",
    "half of TLS": b"\x16\x03\x01\x02\x00",
    "half a request": b"\x00\x01\x00",
    "Binding": binding(),
}
"""What a stranger says before he falls silent."""


async def stranger(application: Application, spoken: bytes, source: str = "127.0.0.1") -> Streams:
    address = address_of(application, "tls")
    streams = await asyncio.wait_for(asyncio.open_connection(*address, local_addr=(source, 0)), PATIENCE)
    streams[1].write(spoken)
    if len(spoken) == 20:
        await read_message(streams[0])
    return streams


@pytest.mark.parametrize("spoken", SPOKEN.values(), ids=SPOKEN)
@pytest.mark.parametrize("limits", [{"connections": 4}, {"connections_per_address": 4}], ids=["all", "address"])
async def test_the_oldest_without_an_allocation_goes(serve: Serve, spoken: bytes, limits: dict[str, int]) -> None:
    application = await serve(limits=limits)
    client = await allocated(address_of(application, "tcp"))
    held = [await stranger(application, spoken) for _ in range(3)]
    await until(lambda: application.connections == 4)
    with capture_logs() as logs:
        more = await allocated(address_of(application, "tls"), insecure())
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["connection ended to make room"]
    assert await ends(held[0][0])
    assert application.connections == 4
    await until(lambda: len(application.server) == 2)
    await client.refresh()
    for streams in held[1:]:
        assert not streams[0].at_eof()
    for streams in held:
        await hang_up(streams)
    for each in (client, more):
        await each.close()
    await until(lambda: application.connections == 0)


@pytest.mark.parametrize("tls", [False, True])
async def test_where_allocations_hold_every_place_one_more_is_refused(serve: Serve, tls: bool) -> None:
    application = await serve(limits={"connections": 2})
    clients = [await allocated(address_of(application, "tcp"), insecure() if tls else None) for _ in range(2)]
    with capture_logs() as logs:
        refused = await connect(address_of(application, "tcp"))
        assert await ends(refused[0])
    assert [entry["event"] for entry in logs if entry["log_level"] == "warning"] == ["connection refused"]
    await hang_up(refused)
    for client in clients:
        await client.refresh()
    await clients[0].close()
    await until(lambda: application.connections == 1)
    again = await connect(address_of(application, "tcp"))
    again[1].write(binding())
    assert (await read_message(again[0])).message_class is Class.SUCCESS
    await hang_up(again)
    await clients[1].close()


async def test_strangers_of_many_addresses_keep_no_client_out(serve: Serve) -> None:
    """Each of them fills what one address may have, and together they fill everything."""
    application = await serve(limits={"connections": 60, "connections_per_address": 20})
    held = [await stranger(application, b"", f"127.7.{number % 4}.1") for number in range(200)]
    clients = []
    for _ in range(5):
        link = await StreamLink.open(address_of(application, "tcp"))
        clients.append(TurnClient(link, Login(USER, PASSWORD)))
        await clients[-1].allocate()
    held += [await stranger(application, b"", f"127.7.{number % 4}.1") for number in range(100)]
    for client in clients:
        await client.refresh()
        await client.close()
    assert application.connections <= 60
    for streams in held:
        await hang_up(streams)
    await until(lambda: application.connections == 0)


class Table:
    """A table without sockets, and which of its connections have an allocation."""

    def __init__(self, **limits: int) -> None:
        self.allocated: set[FiveTuple] = set()
        self.dropped: list[tuple[str, int]] = []
        self.table = Connections(
            StreamLimits(**limits), lambda five_tuple: five_tuple in self.allocated, asyncio.get_running_loop()
        )

    def admit(self, host: str, port: int, *, allocates: bool = False) -> bool:
        connection = self.table.admit(Address(host, port), Address("127.0.0.1", 3478))
        if connection is None:
            return False

        def drop() -> None:
            self.dropped.append((host, port))
            connection.close()

        connection.drop = drop
        five_tuple = connection.speaks(Transport.TCP)
        if allocates:
            self.allocated.add(five_tuple)
        return True

    def close(self) -> None:
        self.table.drop_all()
        assert len(self.table) == 0


@pytest.fixture
def made() -> Callable[..., Table]:
    return Table


async def test_the_source_with_most_waiting_pays(made: Callable[..., Table]) -> None:
    table = made(connections=6)
    assert table.admit("192.0.2.9", 1)
    assert all(table.admit("192.0.2.1", port) for port in range(1, 4))
    assert all(table.admit("192.0.2.2", port) for port in range(1, 3))
    assert all(table.admit(f"192.0.2.{number}", 1) for number in range(3, 5))
    assert table.dropped[0] == ("192.0.2.1", 1)
    assert ("192.0.2.9", 1) not in table.dropped
    assert table.table.evicted == 2
    table.close()


async def test_sources_count_by_what_they_have_waiting_alone(made: Callable[..., Table]) -> None:
    """A NAT whose clients all relay is not the one that pays, and none of those goes."""
    table = made(connections=5)
    assert all(table.admit("192.0.2.1", port, allocates=True) for port in range(1, 4))
    assert all(table.admit("2001:db8::1", port) for port in range(1, 3))
    assert table.admit("192.0.2.3", 1)
    assert table.admit("2001:db8::ffff", 1)
    assert table.dropped == [("2001:db8::1", 1), ("2001:db8::1", 2)]
    table.close()


async def test_an_address_with_its_share_ends_its_own_alone(made: Callable[..., Table]) -> None:
    table = made(connections=100, connections_per_address=2)
    assert all(table.admit("192.0.2.2", port) for port in (1, 2))
    assert table.admit("192.0.2.1", 1, allocates=True)
    assert table.admit("192.0.2.1", 2)
    assert table.admit("192.0.2.1", 3, allocates=True)
    assert not table.admit("192.0.2.1", 4)
    assert table.dropped == [("192.0.2.1", 2)]
    assert (table.table.evicted, table.table.refused) == (1, 1)
    table.close()


async def test_one_whose_allocation_has_ended_may_go_again(made: Callable[..., Table]) -> None:
    table = made(connections=1)
    assert table.admit("192.0.2.1", 1, allocates=True)
    assert not table.admit("192.0.2.2", 1)
    connection = next(iter(table.table._open.values()))
    connection._check_idle()  # the timer, while it has one
    table.allocated.clear()
    connection._check_idle()  # the timer, once it has none
    assert table.admit("192.0.2.2", 1)
    assert table.dropped == [("192.0.2.1", 1)]
    table.close()
