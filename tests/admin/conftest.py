"""A server with its admin socket in a directory of the test's own, who calls it, and clients with sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import PASSWORD, USER, Serve, address_of
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.dtls import DtlsContext
from turnsvr.client.link import DatagramLink, DtlsLink, StreamLink, tls_context
from turnsvr.client.turn import AllocateOptions, TurnClient

TOKEN = "open-sesame-open-sesame"
STREAMS = ("tcp", "tls")

StartAdmin = Callable[..., Awaitable["Site"]]


class Site:
    """A started server, callers of its admin interface and TURN clients, all of whom end with the test."""

    def __init__(self, application: Application, socket: Path) -> None:
        self.application = application
        self.socket = socket
        self.http = on_socket(socket)
        self.clients: list[TurnClient] = []

    async def get(self, path: str, **query: Any) -> Any:
        """What a request that is fine is answered."""
        answer = await self.http.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def client(
        self, transport: str = "udp", login: Login | None = None, options: AllocateOptions | None = None
    ) -> TurnClient:
        """With an allocation."""
        address = address_of(self.application, transport)
        if transport in STREAMS:
            tls = tls_context(insecure=True) if transport == "tls" else None
            client = TurnClient(await StreamLink.open(address, tls=tls), login or Login(USER, PASSWORD))
        elif transport == "dtls":
            link = await DtlsLink.connect(address, DtlsContext(insecure=True))
            client = TurnClient(link, login or Login(USER, PASSWORD))
        else:
            client = TurnClient(await DatagramLink.open(address), login or Login(USER, PASSWORD))
        self.clients.append(client)
        await client.allocate(options or AllocateOptions())
        return client

    async def close(self) -> None:
        await self.http.aclose()
        for client in self.clients:
            await client.close()


def on_socket(path: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://localhost", timeout=30)


@pytest.fixture
async def start_admin(serve: Serve, tmp_path: Path) -> AsyncIterator[StartAdmin]:
    """Starts servers; admin holds settings of that section, the other keywords are sections."""
    sites: list[Site] = []

    async def start(*, admin: dict[str, Any] | None = None, **sections: Any) -> Site:
        socket = tmp_path / f"{len(sites)}.sock"
        application = await serve(**{"admin": {"socket": socket, **(admin or {})}, **sections})
        sites.append(Site(application, socket))
        return sites[-1]

    yield start
    for site in sites:
        await site.close()


@pytest.fixture
async def site(start_admin: StartAdmin) -> Site:
    """The usual one."""
    return await start_admin()
