"""A pump with a DTLS listener, and a client of it, for a target of the fuzzers."""

from __future__ import annotations

import asyncio
import atexit
import socket
import ssl
import tempfile
from collections.abc import Collection, Sequence
from functools import cache
from pathlib import Path

from turnsvr import relay
from turnsvr.app import firstrun
from turnsvr.client.dtls import DtlsContext, DtlsEnd
from turnsvr.relay.api import PumpSettings, Relayed
from turnsvr.relay.compiled import tls
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.stun.message import Class, Message, Method

_PATIENCE = 10.0
_TYPES = (20, 21, 22, 23, 32)
_HELLO = b"\x01\x00\x01\x00\x00\x00\x00\x00\x00\x00\x01\x00\xfe\xfd"
"""A ClientHello up to its random bytes."""


class DtlsPump:
    """Its own Handler. What is fed goes to the listener from a stranger and from a client, in records and without."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._heard = 0
        self._closed: list[str] = []
        self._pump = relay.make(PumpSettings(answers_per_address=0.0), self, "compiled", loop=self._loop)
        self._server = self._pump.listen(Address("127.0.0.1", 0), dtls=True)
        with tempfile.TemporaryDirectory() as directory:
            files = firstrun.write_self_signed(Path(directory), ["127.0.0.1"])
            like = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._pump.secure(tls.make_datagram_context(like, files.certificate, files.key, ()))
        self._stranger, self._client = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        for each in (self._stranger, self._client):
            each.connect(self._server)
            each.settimeout(_PATIENCE)
        self._end = DtlsEnd(DtlsContext(insecure=True), "127.0.0.1")
        datagrams = self._end.begin()
        while not self._end.is_shaken:
            for datagram in datagrams:
                self._client.send(datagram)
            _, datagrams = self._end.receive(self._client.recv(65_536))
        for each in (self._stranger, self._client):
            each.setblocking(False)

    def feed(self, data: bytes) -> None:
        """Raises AssertionError where the client's association has suffered."""
        records = [data, _HELLO + data]
        records += [
            bytes((kind, 0xFE, 0xFD, 0, epoch, 0, 0, 0, 0, 1, 0)) + len(content).to_bytes(2, "big") + content
            for kind in _TYPES
            for epoch in (0, 1)
            for content in (data[:1_400], (_HELLO + data)[:1_400])
        ]
        for record in records:
            for each in (self._stranger, self._client):
                each.send(record[:60_000])
        before = self._heard
        request = Message(Method.BINDING, Class.REQUEST, before.to_bytes(12, "big")).encode()
        for datagram in self._end.seal(request):
            self._client.send(datagram)
        self._loop.run_until_complete(self._until_heard(before))
        assert not self._closed, self._closed

    async def _until_heard(self, before: int) -> None:
        async with asyncio.timeout(_PATIENCE):
            while self._heard == before:  # noqa: ASYNC110 - a pump's thread tells nobody
                await asyncio.sleep(0.0005)

    def close(self) -> None:
        self._pump.shutdown()
        for each in (self._stranger, self._client):
            each.close()
        self._loop.close()

    def client_messages(self, batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        self._heard += sum(five_tuple.connection > 0 for five_tuple, _ in batch)
        return ()

    def peer_error(self, session: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes) -> None:
        raise AssertionError("there are no peers")

    def relayed(self, packet: Relayed) -> None:
        raise AssertionError(packet)

    def peer_fenced(self, session: int, peer: Address) -> None:
        raise AssertionError("there are no peers")

    def peer_arrived(self, session: int, peer: Address, inside: bool) -> int | None:
        return None

    def peer_connected(self, connection: int) -> None: ...

    def peer_failed(self, connection: int, forbidden: bool) -> None: ...

    def stream_closed(self, five_tuple: FiveTuple, reason: str) -> None:
        self._closed.append(reason)


@cache
def dtls_pump() -> DtlsPump:
    """One for all inputs."""
    made = DtlsPump()
    atexit.register(made.close)
    return made
