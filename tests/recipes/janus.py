"""Janus in a laboratory: started, asked over WebSocket, and clients whose media goes through the relay alone."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcconfiguration import RTCBundlePolicy, RTCIceTransportPolicy
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from tests.client.coturn import PASSWORD, USER, running
from tests.conftest import PATIENCE, need
from tests.lab.conftest import ready
from tests.lab.netlab import Node
from turnsvr.stun.address import Address

ROOM, PORT = 1234, 8188

_CONFIGURATION = """\
general: {{
    configs_folder = "{directory}"
    debug_level = 4
    debug_colors = false
}}
plugins: {{
    disable = "{plugins}"
}}
transports: {{
    disable = "{transports}"
}}
nat: {{
    ice_enforce_list = "eth0"
    {nat}
}}
"""
_WEBSOCKETS = """\
general: {{
    ws = true
    ws_port = {port}
}}
"""
_VIDEO_ROOM = """\
room-{room}: {{
    publishers = 3
    fir_freq = 1
    audiocodec = "opus"
    videocodec = "vp8"
    record = true
    rec_dir = "{directory}"
}}
"""
_AUDIO_BRIDGE = """\
room-{room}: {{
    sampling_rate = 48000
    record = true
    record_file = "{directory}/mix.wav"
}}
"""


_UNUSED = {
    "plugins": ("duktape", "echotest", "lua", "nosip", "recordplay", "sip", "streaming", "textroom", "videocall"),
    "transports": ("http", "mqtt", "nanomsg", "pfunix", "rabbitmq"),
}


@contextmanager
def janus(node: Node, host: str, directory: Path, nat: str = "") -> Iterator[str]:
    """Janus with a room of each kind, both of which it records into the directory; gives the URL of its API.

    host: the node's address; nat: lines of the section of that name.
    """
    program = need("janus")
    unused = {kind: ",".join(f"libjanus_{name}.so" for name in names) for kind, names in _UNUSED.items()}
    for name, template in (
        ("janus", _CONFIGURATION),
        ("janus.transport.websockets", _WEBSOCKETS),
        ("janus.plugin.videoroom", _VIDEO_ROOM),
        ("janus.plugin.audiobridge", _AUDIO_BRIDGE),
    ):
        text = template.format(directory=directory, nat=nat, room=ROOM, port=PORT, **unused)
        (directory / f"{name}.jcfg").write_text(text)
    command = node.inside("prlimit", "--core=0", program, "--configs-folder", str(directory))
    with running(command, directory / "janus.log", ready(node, Address(host, PORT))):
        yield f"ws://{host}:{PORT}"


class Refused(Exception):
    """Janus says no, in its own words."""


class Handle:
    """A plugin of Janus as one client sees it."""

    def __init__(self, endpoint: ClientConnection) -> None:
        self._endpoint = endpoint
        self._where: dict[str, int] = {}

    async def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer that ends a transaction; what comes of itself is passed over."""
        transaction = secrets.token_hex(8)
        await self._endpoint.send(json.dumps({**request, **self._where, "transaction": transaction}))
        while True:
            answer = await self._receive()
            if answer.get("transaction") == transaction and answer["janus"] != "ack":
                break
        error = answer.get("error") or answer.get("plugindata", {}).get("data", {}).get("error")
        if error is not None:
            raise Refused(error)
        return answer

    async def attach(self, plugin: str) -> None:
        self._where["session_id"] = (await self._ask({"janus": "create"}))["data"]["id"]
        self._where["handle_id"] = (await self._ask({"janus": "attach", "plugin": plugin}))["data"]["id"]

    async def ask(
        self, body: dict[str, Any], description: RTCSessionDescription | None = None
    ) -> tuple[dict[str, Any], RTCSessionDescription | None]:
        """What the plugin answers to a message, and the description that it sends along."""
        request: dict[str, Any] = {"janus": "message", "body": body}
        if description is not None:
            request["jsep"] = {"type": description.type, "sdp": description.sdp}
        answer = await self._ask(request)
        jsep = answer.get("jsep")
        return answer["plugindata"]["data"], jsep and RTCSessionDescription(jsep["sdp"], jsep["type"])

    async def connected(self, patience: float) -> None:
        """Returns when Janus says that media can flow; nothing may be asked between the answer and this.

        Raises TimeoutError when patience, in seconds, ends.
        """
        async with asyncio.timeout(patience):
            while (await self._receive())["janus"] != "webrtcup":
                pass

    async def _receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(await self._endpoint.recv())
        return message

    async def destroy(self) -> None:
        """Ends the session, and with it the call."""
        del self._where["handle_id"]
        await self._ask({"janus": "destroy"})


@asynccontextmanager
async def attached(url: str, plugin: str) -> AsyncIterator[Handle]:
    """A session of its own with a handle; both end with the block."""
    async with connect(url, subprotocols=[Subprotocol("janus-protocol")], proxy=None) as endpoint:
        handle = Handle(endpoint)
        async with asyncio.timeout(PATIENCE):
            await handle.attach(plugin)
        yield handle
        async with asyncio.timeout(PATIENCE):
            await handle.destroy()


@asynccontextmanager
async def relayed_connection(url: str) -> AsyncIterator[RTCPeerConnection]:
    """A connection of aiortc that has no candidate but those of the relay."""
    connection = RTCPeerConnection(
        RTCConfiguration(
            [RTCIceServer([url], USER, PASSWORD)],
            iceTransportPolicy=RTCIceTransportPolicy.RELAY,
            bundlePolicy=RTCBundlePolicy.MAX_BUNDLE,
        )
    )
    try:
        yield connection
    finally:
        await connection.close()


async def offered(connection: RTCPeerConnection) -> RTCSessionDescription:
    """Its offer, with all candidates."""
    await connection.setLocalDescription(await connection.createOffer())
    _assert_relayed(connection)
    return connection.localDescription


async def answered(connection: RTCPeerConnection, offer: RTCSessionDescription) -> RTCSessionDescription:
    """Its answer, with all candidates."""
    await connection.setRemoteDescription(offer)
    await connection.setLocalDescription(await connection.createAnswer())
    _assert_relayed(connection)
    return connection.localDescription


def _assert_relayed(connection: RTCPeerConnection) -> None:
    sdp = connection.localDescription.sdp
    candidates = [line for line in sdp.splitlines() if line.startswith("a=candidate:")]
    assert candidates, sdp
    assert all(" typ relay " in line for line in candidates), candidates
