"""What the protocols for HTTP and WebSocket have in common: they tell a table what the connection waits for."""

from __future__ import annotations

import asyncio

from turnsvr.web.connections import HttpConnection


class Watched(asyncio.Protocol):
    """Stands in front of a protocol of uvicorn's in the list of bases; _judge() is called after what may change it."""

    _place: HttpConnection
    client: tuple[str, int] | None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.client = self._place.client or self.client

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._place.close()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._judge()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._judge()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._judge()

    def _judge(self) -> None:
        """Tell the table what the connection waits for now."""
        raise NotImplementedError
