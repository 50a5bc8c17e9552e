"""HTTP requests begin in turns, a few in each turn of the loop and one source after the other.

The loop serves TURN as well. However many requests there are, and whatever each costs, the rules have their time
between two of them, and a client that asks once waits for one request of each other source. Who asks whether the
server lives waits for none of those: a probe that gives up has a healthy server restarted.
"""

from __future__ import annotations

from typing import Final

from turnsvr.net.turns import Turns
from turnsvr.web.connections import HttpConnection
from turnsvr.web.middleware import AsgiApp, AsgiReceive, AsgiScope, AsgiSend

AT_ONCE: Final = 2
"""Requests that begin in one turn of the loop."""
_PLACE: Final = "place"
_HEALTH: Final = ("/healthz", "/readyz")
"""Paths of requests that come first. Their answers cost next to nothing."""


def told_by(place: HttpConnection) -> dict[str, HttpConnection]:
    """What uvicorn is to have as its state, so that a request tells of its connection."""
    return {_PLACE: place}


def in_turn(application: AsgiApp, turns: Turns) -> AsgiApp:
    """The application; requests whose connections are gone before their turn never reach it."""

    async def serve(scope: AsgiScope, receive: AsgiReceive, send: AsgiSend) -> None:
        place: HttpConnection = scope["state"].pop(_PLACE)
        if await place.turn(turns, first=scope["type"] == "http" and scope["path"] in _HEALTH):
            await application(scope, receive, send)
            return
        while not (await receive())["type"].endswith(".disconnect"):
            pass

    return serve
