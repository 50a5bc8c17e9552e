"""How web services that know users or keys are spoken with: nothing from the environment, nothing without bound."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import httpx

from turnsvr import __version__

_KEEP_ALIVE = 15.0
"""Seconds that an idle connection stays."""


class BadAddress(Exception):
    """A text that is no address of a web service."""


class TooMuch(Exception):
    """A body that is larger than allowed, or may become so."""


def parse_url(url: str) -> httpx.URL:
    """Raises BadAddress."""
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise BadAddress(f"is no web address: {error}") from None


class HttpClient:
    """Goes where it is told alone: no proxy from the environment, no redirects, no compression.

    A request that is cancelled may leave its place among the connections taken for ever, so those that come after it
    get connections of their own.
    """

    def __init__(self, timeout: float, *, connections: int, ca: Path | None = None) -> None:
        """ca: PEM file with authorities, in place of the system's. Raises OSError or ssl.SSLError for a bad one."""
        self._timeout = timeout
        self._connections = connections
        self._tls = ssl.create_default_context(cafile=ca)
        self._client = self._make()
        self._under_way: Counter[httpx.AsyncClient] = Counter()

    @contextlib.asynccontextmanager
    async def stream(
        self, method: str, url: httpx.URL, *, content: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The response, its body yet to come; raises httpx.HTTPError."""
        client = self._client
        self._under_way[client] += 1
        try:
            async with client.stream(method, url, content=content, headers=headers) as response:
                yield response
        except asyncio.CancelledError:
            if client is self._client:
                self._client = self._make()
            raise
        finally:
            self._under_way[client] -= 1
            if not self._under_way[client]:
                del self._under_way[client]
                if client is not self._client:
                    await client.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        for client in {self._client, *self._under_way}:
            await client.aclose()

    def _make(self) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=self._tls,
            timeout=self._timeout,
            limits=httpx.Limits(max_connections=self._connections, keepalive_expiry=_KEEP_ALIVE),
            headers={
                "User-Agent": f"turnsvr/{__version__}",
                "Accept": "application/json, */*;q=0.1",
                "Accept-Encoding": "identity",
            },
            trust_env=False,
            follow_redirects=False,
        )


async def read_bounded(response: httpx.Response, limit: int) -> bytes:
    """The body as it was sent; raises TooMuch when it is larger or compressed, so that it cannot grow."""
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise TooMuch("a compressed answer, which was not asked for")
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > limit:
            raise TooMuch(f"an answer of more than {limit} bytes")
    return bytes(body)
