"""Shared and proxied ports through an upgrade: what holds at a listener holds for those who were waiting there."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.app.handover.rig import Server
from tests.conftest import PATIENCE
from tests.net.test_proxied import CLIENT, version_2
from tests.net.test_sharing import backend, request
from tests.net.test_streams import binding, connect, hang_up, read_message
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


async def test_whoever_has_sent_nothing_is_served_as_before(tmp_path: Path) -> None:
    """HTTP goes to the other server, and who came through a balancer is still that client."""
    async with backend(ANSWER) as (port, told):
        more = f"share: tcp://127.0.0.1:{port}\nproxy: {{trusted: 127.0.0.1}}"
        with Server(tmp_path, more=more) as server:
            address = Address("127.0.0.1", server.port)
            page, client = [await connect(address) for _ in range(2)]
            for each in (page, client):
                each[1].write(version_2(CLIENT))
            await asyncio.sleep(0.5)
            done = await asyncio.to_thread(server.upgrade)
            assert done.returncode == 0, done.stderr + server.log
            page[1].write(request())
            assert await asyncio.wait_for(page[0].readexactly(len(ANSWER)), PATIENCE) == ANSWER
            assert told == [request()]
            client[1].write(binding())
            assert (await read_message(client[0])).get(a.XOR_MAPPED_ADDRESS) == CLIENT
            for each in (page, client):
                await hang_up(each)
