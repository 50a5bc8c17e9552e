"""Two servers for one client: our own, and one that nobody here wrote."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import pytest

from tests.client.coturn import PASSWORD, USER, Coturn, coturn
from tests.conftest import Serve, address_of
from turnsvr.client.credentials import Login
from turnsvr.client.link import ClientLink, open_link, tls_context
from turnsvr.client.transaction import Timers
from turnsvr.client.turn import TurnClient
from turnsvr.net.tls import TlsFiles
from turnsvr.stun.address import Address, Transport

TRANSPORTS = (Transport.UDP, Transport.TCP, Transport.TLS)
"""Those of both servers by default."""

LOGIN = Login(USER, PASSWORD)
TIMERS = Timers.within(10)


@dataclass(frozen=True)
class Target:
    """A server that relays for LOGIN on UDP, TCP and TLS."""

    is_ours: bool
    plain: dict[Transport, Address]

    async def link(self, transport: Transport) -> ClientLink:
        tls = tls_context(insecure=True) if transport is Transport.TLS else None
        return await open_link(transport, self.plain[transport], tls=tls, timers=TIMERS)

    async def client(self, transport: Transport, login: Login = LOGIN) -> TurnClient:
        return TurnClient(await self.link(transport), login)


@pytest.fixture(scope="session")
def running_coturn(tmp_path_factory: pytest.TempPathFactory, certificate: TlsFiles) -> Iterator[Coturn]:
    with coturn(tmp_path_factory.mktemp("coturn"), certificate) as running:
        yield running


@pytest.fixture(params=["turnsvr", "coturn"])
async def target(request: pytest.FixtureRequest, serve: Serve) -> AsyncIterator[Target]:
    if request.param == "coturn":
        running: Coturn = request.getfixturevalue("running_coturn")
        plain = {Transport.UDP: running.plain, Transport.TCP: running.plain, Transport.TLS: running.tls}
        yield Target(False, plain)
        return
    application = await serve()
    yield Target(True, {transport: address_of(application, transport.value) for transport in TRANSPORTS})
