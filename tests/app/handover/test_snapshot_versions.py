"""A snapshot of every released version stays readable, by a taker as it is."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from turnsvr.app.errors import StartError
from turnsvr.app.handover.taker import Taker
from turnsvr.app.handover.wire import Process, Wire
from turnsvr.limits import AnswerLimiter
from turnsvr.stun.address import Address
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.moving import Adopted
from turnsvr.turn.server import Server

SNAPSHOTS = sorted((Path(__file__).parent / "snapshots").glob("*.jsonl"))


async def given(messages: list[dict[str, Any]]) -> Taker:
    """A taker that has read these, each with as many descriptors as `descriptors` says."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    me = Process.numbered(os.getpid())
    giver, taker = Wire(ours, me), Taker(Wire(its, Process.numbered(os.getpid())))
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:

        async def give() -> None:
            await giver.receive()
            for each in messages:
                message = {name: value for name, value in each.items() if name != "descriptors"}
                await giver.send(message, [nothing] * each.get("descriptors", 0))

        async with asyncio.TaskGroup() as both:
            both.create_task(give())
            both.create_task(taker.read())
    except BaseException:
        taker._wire.close()
        raise
    finally:
        os.close(nothing)
        giver.close()
    return taker


def messages_of(snapshot: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in snapshot.read_text().splitlines()]


def test_there_is_one_of_this_version() -> None:
    assert "v1.jsonl" in [each.name for each in SNAPSHOTS]


@pytest.mark.parametrize("snapshot", SNAPSHOTS, ids=lambda path: path.stem)
async def test_it_is_read_whole(snapshot: Path) -> None:
    taker = await given(messages_of(snapshot))
    server = Server(ServerConfig(RealmConfig("example.org")), random=bytes, limiter=AnswerLimiter(0))
    taker.bring_rules(server)
    udp, tcp = Address("192.0.2.1", 3478), Address("192.0.2.1", 3478)
    for descriptor in (*taker.udp(udp), taker.tcp(tcp)):
        assert descriptor is not None
        os.close(descriptor)
    taken = [server.adopt(each.allocation) for each in taker._sessions]
    assert [each.relay.allocation for each in taken if isinstance(each, Adopted)] == [3, 4]
    first, second = server.allocations()
    assert (first.username, first.shown, first.owner) == ("1800000000:alice", "alice", ("example.org", "alice"))
    assert first.permissions == {"8.8.4.4": 5300.5, "2606:4700::7": 5300.5}
    assert first.channel(0x4001, 5000.0) == Address("8.8.4.4", 4000)
    assert second.five_tuple.transport.value == "tcp"
    assert second.key.sha256_key is None
    assert taker._sessions[0].state.counters.bytes_from_client == 4200
    assert taker._sessions[1].state.bandwidth == 125000.0
    assert [each.number for each in taker.staying] == [5]
    assert server.allocation(5) is None
    for session in taker._sessions:
        for relay in session.state.relays:
            os.close(relay.descriptor)
    for connection in taker._connections:
        os.close(connection.descriptor)
    for _, held in taker._held:
        os.close(held.descriptor)
    for descriptor in (*taker.http.values(), *taker.admin.values()):
        os.close(descriptor)
    taker._wire.close()


async def test_another_version_is_refused_and_said() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        await given([{"kind": "begin", "version": 7, "program": "9.0"}])
    [error] = raised.value.exceptions
    assert isinstance(error, StartError)
    assert "version 7 is not understood here, which reads 1" in str(error)
