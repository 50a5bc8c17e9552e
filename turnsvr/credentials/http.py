"""How web services that know users or keys are spoken with: nothing from the environment, nothing without bound."""

from __future__ import annotations

import ssl
from pathlib import Path
from urllib.parse import urlsplit

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


def shown_url(url: str) -> str:
    """The address without its query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def http_client(timeout: float, *, connections: int, ca: Path | None = None) -> httpx.AsyncClient:
    """A client that goes where it is told alone: no proxy from the environment, no redirects, no compression.

    ca: PEM file with authorities, in place of the system's. Raises OSError or ssl.SSLError when it cannot be used.
    """
    return httpx.AsyncClient(
        verify=ssl.create_default_context(cafile=ca),
        timeout=timeout,
        limits=httpx.Limits(max_connections=connections, keepalive_expiry=_KEEP_ALIVE),
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
