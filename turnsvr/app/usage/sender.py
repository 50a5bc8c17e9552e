"""Sends records to a web service: signed batches, each until the service takes it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection
from pathlib import Path

import httpx
import structlog

from turnsvr.app.usage.spool import Spool, SpooledLines
from turnsvr.backoff import Backoff
from turnsvr.config.locations import shown_url
from turnsvr.credentials.health import Trouble
from turnsvr.credentials.hook import signed
from turnsvr.credentials.http import HttpClient, parse_url

_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 300.0
"""Seconds between attempts; each is twice the one before."""
_LONGEST_RETRY_AFTER = 3600.0
"""Seconds that a service may ask for."""
_LOOK = 30.0
"""Seconds between two looks for records that another process has left behind."""
_PARTING = 2.0
"""Seconds that the service may take for the last records when the server stops; what is left is sent after a start."""
_TOO_LARGE = 413

_log = structlog.get_logger()


class _NotTaken(Exception):
    """The service has not taken a batch; pause in seconds where it asked for one."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class UsageSender:
    """A Place whose records reach the service at least once, in the order in which they were put.

    A record is taken when the answer is 2xx. It comes again, under the same id, where the answer was lost.
    """

    def __init__(
        self,
        url: str,
        secret: str,
        spool: Callable[[Callable[[], None]], Spool],
        *,
        batch: int,
        timeout: float,
        ca: Path | None = None,
        first_pause: float = _FIRST_PAUSE,
    ) -> None:
        """timeout in seconds. spool makes one that calls what it is given. Raises BadAddress, OSError, ssl.SSLError."""
        self.sent = 0
        """Records that were taken."""
        self.failures = 0
        """Requests that were not."""
        self._name = shown_url(url)
        self._url = parse_url(url)
        self._secret = secret.encode()
        self._most = batch
        self._first_pause = first_pause
        self._client = HttpClient(timeout, connections=1, ca=ca)
        self._wake = asyncio.Event()
        self._spool = spool(self._wake.set)
        self._trouble = Trouble()
        self._task: asyncio.Task[None] | None = None

    @property
    def left_out(self) -> int:
        """Records that found no room."""
        return self._spool.left_out

    @property
    def waiting(self) -> int:
        """Bytes that are to be sent."""
        return self._spool.size

    def put(self, lines: Collection[bytes]) -> None:
        self._spool.put(lines)

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send_for_ever())

    async def stop(self) -> None:
        """Send what is there, within a bound, and end. Stopping twice is fine."""
        if self._task is None:
            return
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        try:
            async with asyncio.timeout(_PARTING):
                await self._send_all()
        except (TimeoutError, _NotTaken, OSError):
            _log.info("usage records wait for the next start", bytes=self.waiting)
        self._spool.close()
        await self._client.aclose()

    async def _send_for_ever(self) -> None:
        pauses = Backoff(self._first_pause, _LONGEST_PAUSE)
        while True:
            try:
                self._wake.clear()
                await self._send_all()
                pauses.reset()
            except (_NotTaken, OSError) as error:
                self.failures += 1
                if self._trouble.begins(time.monotonic()):
                    _log.warning("usage records are not taken", service=self._name, reason=str(error))
                await asyncio.sleep(max(pauses.pause(), getattr(error, "pause", 0.0)))
            else:
                try:
                    async with asyncio.timeout(_LOOK):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _send_all(self) -> None:
        """Raises _NotTaken or OSError."""
        most = self._most
        while (batch := self._spool.next(most)) is not None:
            if await self._is_too_large(batch):
                most = max(1, len(batch.lines) // 2)
                continue
            self._spool.taken(batch)
            self.sent += len(batch.lines)
            if self._trouble.ends(time.monotonic()):
                _log.info("usage records are taken again", service=self._name)

    async def _is_too_large(self, batch: SpooledLines) -> bool:
        """Send it; True where the service wants fewer records at once. Raises _NotTaken."""
        body = b"".join(batch.lines)
        headers = {"Content-Type": "application/x-ndjson", **signed(self._secret, str(int(time.time())), body)}
        try:
            async with self._client.stream("POST", self._url, content=body, headers=headers) as response:
                if response.is_success:
                    return False
                if response.status_code == _TOO_LARGE and len(batch.lines) > 1:
                    return True
                raise _NotTaken(f"the service answers {response.status_code}", _retry_after(response))
        except httpx.HTTPError as error:
            raise _NotTaken(str(error) or type(error).__name__) from None


def _retry_after(response: httpx.Response) -> float:
    """Seconds; 0 where the service names none."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), _LONGEST_RETRY_AFTER) if text.isascii() and text.isdigit() else 0.0
