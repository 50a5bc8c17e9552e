"""A server with a web section, in this loop, and who calls it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
import socketio  # noqa: F401  whole, for its clients: turnsvr.web.sparing would leave out what they stand on

from tests.conftest import Serve
from turnsvr.app.application import Application
from turnsvr.net.engine import EventSink

SECRET = "north of the wall"
KEY = "a key of the shop, long enough"
OTHER_KEY = "a key of somebody else, long enough"
SHOP = {"name": "shop", "key": KEY, "ttl": "2h", "origins": ["https://shop.example.org"]}
OTHER = {"name": "other", "key": OTHER_KEY, "tag": "elsewhere"}
FAST = {"requests_per_address": 0, "requests_per_key": 0}

StartWeb = Callable[..., Awaitable["Site"]]


class Site:
    """A started server and an HTTP client of it."""

    def __init__(self, application: Application, client: httpx.AsyncClient) -> None:
        self.application = application
        self.client = client

    @property
    def url(self) -> str:
        return str(self.client.base_url).rstrip("/")

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.get(path, **options)

    async def post(self, path: str, **options: Any) -> httpx.Response:
        return await self.client.post(path, **options)


@pytest.fixture
async def start_web(serve: Serve) -> AsyncIterator[StartWeb]:
    """Starts servers on free ports of 127.0.0.1; keywords are settings of the web section."""
    clients: list[httpx.AsyncClient] = []

    async def start(*, sinks: tuple[EventSink, ...] = (), sections: dict[str, Any] | None = None, **web: Any) -> Site:
        usual = {"listen": "http://127.0.0.1:0", "keys": [SHOP, OTHER], **FAST}
        usual_sections: dict[str, Any] = {"credentials": {"secret": SECRET}, "web": usual | web}
        application = await serve(sinks=sinks, **(usual_sections | (sections or {})))
        assert application.web is not None
        listening = application.web.listening[0]
        client = httpx.AsyncClient(base_url=str(listening), verify=False, trust_env=False)
        clients.append(client)
        return Site(application, client)

    yield start
    for client in clients:
        await client.aclose()


@pytest.fixture
async def site(start_web: StartWeb) -> Site:
    """The usual one: two keys, nothing for callers without one."""
    return await start_web()
