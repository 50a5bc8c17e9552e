"""Asks the server again and again, on a thread of its own, so that keys answer at once even if the server does not."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from turnsvr.admin import NoServer, RefusedByServer
from turnsvr.cli.top.totals import steady
from turnsvr.cli.top.view import Snapshot

if TYPE_CHECKING:
    from turnsvr.admin.client import AdminClient

_REMEMBERED = 30
"""Looks whose rate is shown."""
_LISTED = 500
"""Sessions that are asked for: the first by the chosen order."""


@dataclass(frozen=True)
class Selection:
    """What is to be shown."""

    sort: str
    search: str
    detail: int | None
    peers: bool = False
    """Whether the peers of every session are wanted, for adding up by peer."""


class Feed:
    """The newest snapshot. Every method is called on the terminal's thread."""

    def __init__(self, connect: Callable[[], AdminClient], interval: float, selection: Selection) -> None:
        """connect raises NoServer and OSError, and is called again when a server has gone."""
        self.snapshot = Snapshot()
        self._connect = connect
        self._interval = interval
        self._selection = selection
        self._orders: SimpleQueue[int] = SimpleQueue()
        self._look = threading.Event()
        self._stopped = False
        self._client: AdminClient | None = None
        self._rates: deque[float] = deque(maxlen=_REMEMBERED)
        self._thread = threading.Thread(target=self._run, name="turnsvr-top", daemon=True)
        self._thread.start()

    def show(self, selection: Selection) -> None:
        """Show this selection from here on; the server is asked at once where it is a new one."""
        if selection != self._selection:
            self._selection = selection
            self._look.set()

    def end(self, session: int) -> None:
        self._orders.put(session)
        self._look.set()

    def stop(self) -> None:
        """Does not wait for a server that does not answer."""
        self._stopped = True
        self._look.set()

    def _run(self) -> None:
        message = ""
        while not self._stopped:
            self._look.clear()
            try:
                message = self._obey() or message
                asked = self._ask()
                self.snapshot = replace(asked, message=message or asked.message)
            except (NoServer, OSError) as error:
                self.snapshot = Snapshot(problem=f"trying again: {error}")
                self._hang_up()
            if not self._look.wait(self._interval):
                message = ""
        self._hang_up()

    def _obey(self) -> str:
        """What came of it, in words."""
        said = ""
        with contextlib.suppress(Empty):
            while True:
                session = self._orders.get_nowait()
                try:
                    self._server().end(session)
                    said = f"session {session} has ended"
                except RefusedByServer as error:
                    said = str(error)
        return said

    def _ask(self) -> Snapshot:
        selection, server = self._selection, self._server()
        detail, message = None, ""
        try:
            status = server.status()
            page = server.sessions(
                sort=selection.sort, search=selection.search or None, limit=_LISTED, detail=selection.peers or None
            )
        except RefusedByServer as error:
            raise NoServer(str(error)) from None
        if selection.detail is not None:
            try:
                detail = server.session(selection.detail)
            except RefusedByServer as error:
                message = str(error)
        self._rates.append(sum(flow["bits_per_second"] for flow in status["relayed"].values()))
        sessions = steady(page["sessions"], [each["id"] for each in self.snapshot.sessions], selection.sort)
        return Snapshot(status, sessions, page["total"], detail, history=tuple(self._rates), message=message)

    def _server(self) -> AdminClient:
        if self._client is None:
            self._client = self._connect()
        return self._client

    def _hang_up(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None
