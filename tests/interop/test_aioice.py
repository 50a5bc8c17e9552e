"""aioice's TURN client, and two aiortc peers that only have relay candidates."""

from __future__ import annotations

import asyncio
import fractions
import ssl
from collections.abc import Callable
from typing import cast

import aioice
import aioice.turn
import av
import pytest
from aiortc import (
    RTCConfiguration,
    RTCIceServer,
    RTCIceTransportPolicy,
    RTCPeerConnection,
    VideoStreamTrack,
)

from tests.interop.conftest import InteropServer
from tests.interop.uclient import PASSWORD, USER

_TIMEOUT = 30.0
_FRAMES = 10


class _Inbox(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue()
        self.closed = asyncio.Event()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.received.put_nowait((data, addr))

    def connection_lost(self, error: Exception | None) -> None:
        self.closed.set()


class _Echo(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.transport.sendto(data, addr)


@pytest.mark.parametrize("leg", ["udp", "tcp", "tls"])
async def test_turn_client_echoes_through_the_relay(leg: str, interop_server: InteropServer) -> None:
    loop = asyncio.get_running_loop()
    peer, _ = await loop.create_datagram_endpoint(_Echo, local_addr=("127.0.0.1", 0))
    context = None
    if leg == "tls":
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = interop_server.tls_port if leg == "tls" else interop_server.port
    transport, inbox = await aioice.turn.create_turn_endpoint(
        _Inbox, ("127.0.0.1", port), USER, PASSWORD, ssl=context, transport="udp" if leg == "udp" else "tcp"
    )
    try:
        for size in (1, 1000, 1201):
            transport.sendto(bytes(size), peer.get_extra_info("sockname"))
            data, source = await asyncio.wait_for(inbox.received.get(), _TIMEOUT)
            assert data == bytes(size)
            assert source == peer.get_extra_info("sockname")
    finally:
        transport.close()
        await asyncio.wait_for(inbox.closed.wait(), _TIMEOUT)  # once the server has ended the allocation
        peer.close()


async def test_wrong_password_is_refused(interop_server: InteropServer) -> None:
    with pytest.raises(aioice.stun.TransactionFailed) as failure:
        await aioice.turn.create_turn_endpoint(_Inbox, ("127.0.0.1", interop_server.port), USER, "wrong")
    assert failure.value.response.attributes["ERROR-CODE"][0] == 401


class _Picture(VideoStreamTrack):
    """A plain picture, 30 times a second."""

    async def recv(self) -> av.VideoFrame:
        pts, time_base = await self.next_timestamp()
        frame = av.VideoFrame(64, 48, "rgb24")
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.pts, frame.time_base = pts, fractions.Fraction(time_base)
        return frame


def _peer(server: InteropServer, transport: str) -> RTCPeerConnection:
    ice_server = RTCIceServer(f"turn:127.0.0.1:{server.port}?transport={transport}", username=USER, credential=PASSWORD)
    return RTCPeerConnection(RTCConfiguration([ice_server], RTCIceTransportPolicy.RELAY))


@pytest.mark.parametrize("transport", ["udp", "tcp"])
async def test_two_relayed_peers_meet(transport: str, interop_server: InteropServer) -> None:
    """Media and a data channel between two peers that have nothing but relay candidates on this server."""
    caller, callee = _peer(interop_server, transport), _peer(interop_server, transport)
    loop = asyncio.get_running_loop()
    echoed, seen = loop.create_future(), loop.create_future()

    @callee.on("datachannel")
    def _(channel: object) -> None:
        _on(channel, "message", channel.send)  # type: ignore[attr-defined]

    @callee.on("track")
    def _(track: VideoStreamTrack) -> None:
        async def watch() -> None:
            for _ in range(_FRAMES):
                await track.recv()
            seen.set_result(True)

        callee.watching = asyncio.ensure_future(watch())  # type: ignore[attr-defined]

    caller.addTrack(_Picture())
    channel = caller.createDataChannel("test")
    _on(channel, "open", lambda: channel.send("through the relay"))
    _on(channel, "message", echoed.set_result)
    try:
        await caller.setLocalDescription(await caller.createOffer())
        assert _candidate_types(caller) == {"relay"}
        await callee.setRemoteDescription(caller.localDescription)
        await callee.setLocalDescription(await callee.createAnswer())
        assert _candidate_types(callee) == {"relay"}
        await caller.setRemoteDescription(callee.localDescription)
        assert await asyncio.wait_for(echoed, _TIMEOUT) == "through the relay"
        await asyncio.wait_for(seen, _TIMEOUT)
    finally:
        await asyncio.gather(caller.close(), callee.close())


def _on(emitter: object, event: str, call: Callable[..., object]) -> None:
    emitter.on(event, call)  # type: ignore[attr-defined]


def _candidate_types(peer: RTCPeerConnection) -> set[str]:
    lines = peer.localDescription.sdp.splitlines()
    return {line.split(" typ ")[1].split()[0] for line in lines if line.startswith("a=candidate")}
