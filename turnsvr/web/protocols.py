"""uvicorn's protocol for HTTP, which tells the table of connections what each one waits for.

uvicorn has a deadline for the pause between two requests alone, and any byte ends that pause. What a connection waits
for is read here from h11's states after everything that changes them.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from functools import partial
from typing import Any, cast

import h11
from uvicorn import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from turnsvr.web.connections import HttpConnection, Phase
from turnsvr.web.requestturns import told_by
from turnsvr.web.watched import Watched

_MAX_UPGRADE_HEADERS = 100
_MAX_UPGRADE_LINE = 8_000
_UPGRADE_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
"""What websockets takes: it fails on what h11 lets through."""


class HttpProtocol(Watched, H11Protocol):
    """One HTTP connection."""

    def __init__(self, place: HttpConnection, config: Config, server_state: ServerState) -> None:
        super().__init__(config=config, server_state=server_state, app_state=told_by(place))
        self._place = place
        websocket: Any = config.ws_protocol_class
        if websocket is not None:
            self.ws_protocol_class = partial(websocket, place)  # type: ignore[assignment]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._place.drop = self._drop
        if not self._place.is_open:  # dropped before it had begun
            transport.abort()
            return
        self._judge()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._judge()

    def shutdown(self) -> None:
        super().shutdown()
        self._judge()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        if not _can_upgrade(event, self.headers):
            self.send_400_response("Invalid WebSocket request.")
            return
        super().handle_websocket_upgrade(event)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, where nothing has been answered yet; a request under way is given up."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            with contextlib.suppress(h11.LocalProtocolError):  # an answer to HEAD has no body
                super().send_400_response(msg)
            self.transport.close()
        else:
            self.transport.close()

    def _unsupported_upgrade_warning(self) -> None:
        """Nothing to tell: the request is served as if it asked for no upgrade."""

    def _drop(self) -> None:
        if self.scheme == "https" or self.transport.get_write_buffer_size():
            self.transport.abort()  # close() would wait for the client
        else:
            self.transport.close()

    def _judge(self) -> None:
        if self.transport.get_protocol() is self:  # else it is a WebSocket by now
            self._place.waits(*self._waits_for())

    def _waits_for(self) -> tuple[Phase, object]:
        cycle = cast(object, self.cycle)
        if self.transport.is_closing():
            return Phase.END, None
        if self.flow.write_paused:
            return Phase.READER, None
        if self.conn.their_state is h11.SEND_BODY:
            return Phase.BODY, cycle
        if cycle is not None and not self.cycle.response_complete:
            return Phase.ANSWER, cycle
        if cycle is None or self.conn.trailing_data[0]:
            return Phase.HEAD, cycle
        return Phase.NEXT, cycle


def _can_upgrade(event: h11.Request, headers: list[tuple[bytes, bytes]]) -> bool:
    """Whether websockets can read the request that h11 has read."""
    return (
        event.method == b"GET"
        and event.http_version == b"1.1"
        and len(headers) <= _MAX_UPGRADE_HEADERS
        and len(event.target) <= _MAX_UPGRADE_LINE
        and all(
            len(name) + len(value) <= _MAX_UPGRADE_LINE and _UPGRADE_VALUE.fullmatch(value) for name, value in headers
        )
    )
