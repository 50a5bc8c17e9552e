"""Seeing and steering a running server over HTTP: on a Unix socket whose permissions decide, or with a token.

What serves it and what calls it is optional (`pip install turnsvr[web]`); importing this room needs neither.
"""

from __future__ import annotations

from typing import Protocol

import structlog

from turnsvr.admin.context import Context
from turnsvr.config.adminsettings import AdminSettings

__all__ = ["AdminError", "AdminServer", "AdminSettings", "Context", "serve"]

_log = structlog.get_logger()


class AdminError(Exception):
    """The admin interface cannot be served as the settings ask; one line says why and what to do."""


class AdminServer(Protocol):
    """The admin interface, in the running event loop."""

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it is served, for people: paths of sockets, and URLs with their ports as bound."""

    async def stop(self) -> None:
        """Stopping twice is fine."""


async def serve(settings: AdminSettings, context: Context) -> AdminServer | None:
    """Serve what the settings ask for; None where nothing is served.

    Raises AdminError, and then nothing is left open. `auto` is no demand: where it cannot be had the log says why.
    """
    if settings.socket == "off" and not settings.listen:
        return None
    try:
        from turnsvr.admin.server import Server
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("turnsvr"):
            raise
        if settings.socket == "auto" and not settings.listen:
            _log.info("no admin interface", reason=f"the package {error.name} is not installed")
            return None
        raise AdminError(
            f"admin: the package {error.name} is not installed; pip install 'turnsvr[web]', or set socket: off"
        ) from None
    server = Server(settings, context)
    await server.start()
    return server if server.listening else None
