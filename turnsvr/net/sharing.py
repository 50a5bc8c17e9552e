"""What comes to a shared listener and is no TURN: who goes on with it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from turnsvr.net.arrival import Speech, may_be_http
from turnsvr.net.doors import OWN_WEB, Backend, Door
from turnsvr.net.proofs import CHALLENGE, HttpProof, Proofs
from turnsvr.net.splice import BAD_GATEWAY, PassedConnections
from turnsvr.net.tls import ALPN_PROTOCOLS
from turnsvr.stun.address import Address


class Sharing:
    """Finds the protocol that goes on with a connection."""

    def __init__(self, splices: PassedConnections, proofs: Proofs) -> None:
        self.web: Callable[[Address], asyncio.BaseProtocol | None] = lambda client: None
        """A connection of a client to our own HTTP server; None where it has no room, or there is none."""
        self._splices = splices
        self._proofs = proofs

    async def close(self) -> None:
        """Drop what is passed on and answered here."""
        for each in tuple(self._proofs.answering):
            each.abort()
        await self._splices.close()

    def takes(self, door: Door, speech: Speech, first: bytes, *, tls: bool, protocol: str = "") -> bool:
        """Whether another protocol than TURN takes a connection that begins like this.

        protocol: what ALPN has agreed upon; a client that has chosen STUN or TURN speaks it.
        """
        if not first or protocol in ALPN_PROTOCOLS or (speech is not Speech.HTTP and not may_be_http(first)):
            return False
        if self._proofs.has_http and not tls and first.startswith(CHALLENGE):
            return door.takes_plain_http
        return door.http is not None and (tls or door.takes_plain_http)

    def http(
        self, door: Door, client: Address, server: Address, first: bytes, protocol: str = ""
    ) -> asyncio.BaseProtocol | None:
        """Who serves HTTP to this client at this address of ours; None where there is no room.

        protocol: what ALPN has agreed upon.
        """
        if self._proofs.has_http and first.startswith(CHALLENGE):
            return HttpProof(self._proofs) if self._proofs.has_room else None
        if door.http == OWN_WEB or door.http is None:
            return self.web(client)
        assert isinstance(door.http, Backend)
        return self._splices.open(door.http, client, server, b"" if protocol == "h2" else BAD_GATEWAY).client

    def passed(self, backend: Backend, client: Address, server: Address) -> asyncio.BaseProtocol:
        """Who takes a connection as it is."""
        return self._splices.open(backend, client, server).client
