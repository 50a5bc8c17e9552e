"""The ordinary Socket.IO client from npm, over WebSocket and over long polling alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import socketio

from tests.browser.rig import HERE, need_modules
from tests.conftest import PATIENCE, Serve, need

ROOM = "b5c1e0d2a9f84736b5c1e0d2a9f84736"


async def heard(process: asyncio.subprocess.Process) -> AsyncIterator[dict[str, Any]]:
    assert process.stdout is not None
    while line := await asyncio.wait_for(process.stdout.readline(), PATIENCE):
        yield json.loads(line)


@pytest.mark.parametrize("transport", ["websocket", "polling"])
async def test_the_npm_client_meets_the_python_one(serve: Serve, transport: str) -> None:
    node = need("node")
    need_modules()
    application = await serve(credentials={"secret": "north of the wall"}, web={"listen": "http://127.0.0.1:0"})
    assert application.web is not None
    url = str(application.web.listening[0])
    process = await asyncio.create_subprocess_exec(
        node, str(HERE / "socket_io.mjs"), url, transport, ROOM, stdout=asyncio.subprocess.PIPE
    )
    client = socketio.AsyncClient(reconnection=False)
    try:
        lines = heard(process)
        first, second = await anext(lines), await anext(lines)
        assert {first["kind"], second["kind"]} == {"joined", "acknowledged"}
        assert first["message"] == second["message"]
        answered: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        client.on("answer", answered.set_result)
        await client.connect(url, transports=["websocket"])
        await client.emit("join", {"room": ROOM})
        assert (await anext(lines))["kind"] == "peer-joined"
        sdp = "v=0\r\n" * 1000
        await client.emit("offer", {"to": first["message"]["id"], "description": {"type": "offer", "sdp": sdp}})
        offer = await anext(lines)
        assert (offer["kind"], offer["transport"]) == ("offer", transport)
        answer = await asyncio.wait_for(answered, PATIENCE)
        assert answer == {"from": first["message"]["id"], "description": {"type": "answer", "sdp": sdp}}
        await client.disconnect()
        assert (await anext(lines))["kind"] == "peer-left"
        assert await asyncio.wait_for(process.wait(), PATIENCE) == 0
    finally:
        await client.disconnect()
        if process.returncode is None:
            process.kill()
            await process.wait()
