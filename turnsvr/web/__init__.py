"""HTTP: ICE-server lists in the shapes that applications speak, signalling, health, metrics and the test page.

The packages that serve it are optional (`pip install turnsvr[web]`); importing this room does not need them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from turnsvr.config.websettings import WebListen, WebSettings
from turnsvr.stun.address import Address
from turnsvr.web.context import WebContext

__all__ = ["MissingPackages", "WebContext", "WebError", "WebServer", "WebSettings", "serve"]


class WebError(Exception):
    """HTTP cannot be served; one line says why and what to do."""


class MissingPackages(WebError):
    """The optional packages are not installed."""


class WebServer(Protocol):
    """HTTP on its own listeners, in the running event loop."""

    @property
    def listening(self) -> tuple[WebListen, ...]:
        """Where it is served, ports as bound; empty before start()."""

    def descriptors(self) -> dict[tuple[str, int], int]:
        """Of the listeners by host and port, for another process that goes on with them."""

    async def start(self, inherited: dict[tuple[str, int], int] | None = None) -> None:
        """Raises WebError, and then nothing is left open.

        inherited: descriptors as those of another server, in place of sockets of its own; what is used is taken out.
        """

    def connection(self, client: Address) -> asyncio.BaseProtocol | None:
        """The protocol of one more connection, of this client, that came in elsewhere; None where it has no room."""

    def reload(self, settings: WebSettings) -> None:
        """Take other settings; those that need a restart are as they were."""

    async def stop(self) -> None:
        """Stopping twice is fine."""


def serve(settings: WebSettings, context: WebContext, room: Callable[[], int]) -> WebServer:
    """A server that is yet to be started; raises MissingPackages. room: connections that the process has room for."""
    try:
        from turnsvr.web.server import WebServer
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("turnsvr"):
            raise
        raise MissingPackages(
            f"web: the package {error.name} is not installed; pip install 'turnsvr[web]', or leave out web"
        ) from None
    return WebServer(settings, context, room)
