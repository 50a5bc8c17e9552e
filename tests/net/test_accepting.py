"""Accepting when the system has nothing left, and connections that end before they say anything."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest
from structlog.testing import capture_logs

from tests.conftest import Serve, address_of
from tests.net.test_streams import binding, connect, ends, hang_up, read_message, until
from turnsvr.net import accepting
from turnsvr.stun.message import Class


async def test_without_descriptors_the_listener_waits_and_comes_back(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listener that stays readable must not keep the loop busy while nothing can be accepted."""
    monkeypatch.setattr(accepting, "_PAUSE", 0.05)
    application = await serve()
    tried = 0

    def exhausted(listener: socket.socket) -> tuple[socket.socket, object]:
        nonlocal tried
        tried += 1
        raise OSError(errno.EMFILE, "Too many open files")

    with capture_logs() as logs, monkeypatch.context() as patched:
        patched.setattr(socket.socket, "accept", exhausted)
        pending = await connect(address_of(application, "tcp"))
        await until(lambda: tried >= 3)
        await asyncio.sleep(0.05)
        assert tried <= 10
    assert {entry["event"] for entry in logs} == {"no connection can be accepted"}
    pending[1].write(binding())
    assert (await read_message(pending[0])).message_class is Class.SUCCESS
    await hang_up(pending)


async def test_a_client_that_leaves_at_once_leaves_nothing(serve: Serve) -> None:
    application = await serve()
    for transport in ("tcp", "tls"):
        for _ in range(20):
            await hang_up(await connect(address_of(application, transport)))
    await asyncio.sleep(0.05)
    await until(lambda: application.connections == 0)


async def test_stop_drops_connections_in_every_state(serve: Serve) -> None:
    application = await serve()
    spoken = [b"", b"\x16\x03\x01\x02\x00", binding()]
    connections = [await connect(address_of(application, "tls")) for _ in spoken]
    for connection, data in zip(connections, spoken, strict=True):
        connection[1].write(data)
    await read_message(connections[-1][0])
    await until(lambda: application.connections == len(spoken))
    await application.stop()
    assert application.connections == 0
    for connection in connections:
        assert await ends(connection[0])
        await hang_up(connection)
