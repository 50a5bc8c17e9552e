"""A DTLS client at the pump's listener: what it says and hears, and what goes over the wire for that."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from typing import Protocol

from tests.relay.world import LOOPBACK, SETTINGS, Endpoint, Notes, World, now
from turnsvr import relay
from turnsvr.client.dtls import DtlsContext, DtlsEnd
from turnsvr.net.tls import ALPN_PROTOCOLS, TlsFiles
from turnsvr.relay.api import PumpSettings, TlsContext
from turnsvr.relay.compiled import tls as tls_room
from turnsvr.stun.address import Address, Family, FiveTuple

PATIENCE = 10.0
INSECURE = DtlsContext(insecure=True, protocols=ALPN_PROTOCOLS)

Wire = Callable[[bytes], list[bytes]]
"""What becomes of a datagram on its way: any number of them come out."""


def datagram_context(files: TlsFiles, like: ssl.SSLContext | None = None) -> TlsContext:
    like = like or ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    return tls_room.make_datagram_context(like, files.certificate, files.key, ALPN_PROTOCOLS)


class DtlsWorld(World):
    """A pump whose listeners serve DTLS besides UDP."""

    def __init__(self, files: TlsFiles, settings: PumpSettings = SETTINGS, notes: Notes | None = None) -> None:
        self.notes = notes or Notes()
        self.pump = relay.make(settings, self.notes, "compiled")
        self.listeners = {family: self.pump.listen(Address(host, 0), dtls=True) for family, host in LOOPBACK.items()}
        self.pump.secure(datagram_context(files))
        self._begin()

    def client(self, family: Family = Family.IPV4, **how: object) -> DtlsClient:
        return DtlsClient(self, self.endpoint(LOOPBACK[family]), self.listeners[family], **how)  # type: ignore[arg-type]


class MakeDtlsWorld(Protocol):
    def __call__(self, settings: PumpSettings = SETTINGS) -> DtlsWorld: ...


class DtlsClient:
    """A client at an endpoint of its own, which shakes hands when it is told to."""

    def __init__(
        self,
        world: World,
        endpoint: Endpoint,
        server: Address,
        *,
        context: DtlsContext = INSECURE,
        up: Wire = lambda datagram: [datagram],
        down: Wire = lambda datagram: [datagram],
    ) -> None:
        """up and down: what becomes of datagrams to the server and from it."""
        self.world, self.endpoint, self.server = world, endpoint, server
        self.up, self.down = up, down
        self.end = DtlsEnd(context, server.host)
        self.heard: list[bytes] = []
        self.bytes_up = self.bytes_down = 0
        self.number = 0

    def transmit(self, datagrams: list[bytes]) -> None:
        for datagram in datagrams:
            for arriving in self.up(datagram):
                self.bytes_up += len(arriving)
                self.endpoint.send(arriving, self.server)

    async def shake_hands(self, patience: float = PATIENCE) -> None:
        """Both ends' part, with what is lost sent again. Raises TimeoutError, TlsError."""
        until = time.monotonic() + patience
        self.transmit(self.end.begin())
        while not self.end.is_shaken:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            wait = min(left, self.end.timeout() or left)
            try:
                async with asyncio.timeout(wait + 0.002):
                    await self.hear()
            except TimeoutError:
                self.transmit(self.end.handle_timeout())

    async def hear(self) -> None:
        """Take one datagram."""
        datagram, sender = await self.endpoint.receive()
        assert sender == self.server
        self.take(datagram)

    def take(self, datagram: bytes) -> None:
        self.bytes_down += len(datagram)
        for arriving in self.down(datagram):
            said, answers = self.end.receive(arriving)
            self.heard += said
            self.transmit(answers)

    async def read(self) -> bytes:
        """The next message."""
        while not self.heard:
            await self.hear()
        return self.heard.pop(0)

    def say(self, message: bytes) -> None:
        self.transmit(self.end.seal(message))

    async def known(self) -> FiveTuple:
        """Its five-tuple, once the Handler has heard of it."""

        def found() -> list[FiveTuple]:
            return [each for each, _ in self.world.notes.messages if each.client == self.endpoint.address]

        await self.world.until(lambda: bool(found()))
        return found()[-1]

    async def session(self, message: bytes, family: Family | None = None) -> FiveTuple:
        """Say something that goes up, and have a session."""
        self.say(message)
        five_tuple = await self.known()
        self.number, opened = self.world.open(five_tuple, (family or five_tuple.client.family,))
        self.relayed = opened.addresses[0]
        self.world.pump.permit(self.number, self.relayed.host, now(60))
        return five_tuple
