"""uvicorn's protocol for WebSocket, which tells the table of connections what each one waits for.

Importing it needs the package websockets, which the admin interface does without.
"""

from __future__ import annotations

from typing import Any

from uvicorn import Config
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from uvicorn.server import ServerState
from websockets.frames import CloseCode, Frame

from turnsvr.web.connections import HttpConnection, Phase
from turnsvr.web.watched import Watched

_MAX_FRAGMENTS = 1_024
"""Frames of one message, some of which may be empty."""


class WebSocketProtocol(Watched, WebSocketsSansIOProtocol):
    """One WebSocket connection, from the request that asks for it."""

    def __init__(self, place: HttpConnection, config: Config, server_state: ServerState, app_state: Any) -> None:
        super().__init__(config=config, server_state=server_state, app_state=app_state)
        self._place = place

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= _MAX_FRAGMENTS:
            self._fail(CloseCode.MESSAGE_TOO_BIG)
        else:
            super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        if self.curr_msg_data_type == "text" and not _is_utf8(b"".join(self.frames)):
            self._fail(CloseCode.INVALID_DATA)
        else:
            super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._judge()

    def shutdown(self) -> None:
        super().shutdown()
        self._judge()

    async def send(self, message: Any) -> None:
        await super().send(message)
        self._judge()

    async def run_asgi(self) -> None:
        await super().run_asgi()
        self._judge()

    def _fail(self, code: CloseCode) -> None:
        """End the connection because of what the client has sent."""
        self.frames = []
        self.conn.fail(code)
        self.handle_parser_exception()

    def _judge(self) -> None:
        self._place.waits(self._waits_for())

    def _waits_for(self) -> Phase:
        if self.transport.is_closing() or self.close_sent:
            return Phase.END
        if not self.writable.is_set():
            return Phase.READER
        return Phase.SESSION if self.handshake_complete else Phase.ANSWER


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
