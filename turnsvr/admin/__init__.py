"""Watching and controlling a running server over HTTP: on a Unix socket whose permissions decide, or with a token.

What serves it is imported when it is served, and what calls it needs none of that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from turnsvr.admin.context import AdminContext
    from turnsvr.config.adminsettings import AdminSettings
    from turnsvr.web.listeners import Inherited


CONNECTIONS = 128
"""Connections at once: half of them over the Unix socket, half over TCP."""


class AdminError(Exception):
    """The admin interface cannot be served as the settings ask; one line says why and what to do."""


class NoServer(Exception):
    """No server answers, or none that lets this caller in; one line says which, and what to do."""


class RefusedByServer(Exception):
    """The server does not do what it was asked; the text is its own."""

    def __init__(self, text: str, answer: dict[str, Any]) -> None:
        super().__init__(text)
        self.answer = answer


class AdminServer(Protocol):
    """The admin interface, in the running event loop."""

    @property
    def listening(self) -> tuple[str, ...]:
        """Where it is served, for people: paths of sockets, and URLs with their ports as bound."""

    def descriptors(self) -> Inherited:
        """Of the TCP listeners, for another process that goes on with them."""

    def replace(self) -> None:
        """Take the place of the server that this one succeeds, on the Unix socket."""

    async def stop(self) -> None:
        """Stopping twice is fine."""


async def serve(
    settings: AdminSettings, context: AdminContext, *, inherited: Inherited | None = None
) -> AdminServer | None:
    """Serve what the settings ask for; None where nothing is served.

    inherited: TCP sockets of the server that this one succeeds; what is used is taken out.

    Raises AdminError, and then nothing is left open. With `auto` the log says why no socket could be opened.
    """
    if settings.socket == "off" and not settings.listen:
        return None
    from turnsvr.admin.server import AdminServer  # after the listeners are open: no first answer waits for it

    server = AdminServer(settings, context)
    await server.start(inherited)
    return server if server.listening else None
