"""Where the keys of tokens are kept: a file, read again when it changes, or an address, asked now and then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import httpx
import structlog

from turnsvr.config.locations import shown_url
from turnsvr.credentials.api import Unavailable
from turnsvr.credentials.health import Health
from turnsvr.credentials.http import HttpClient, TooMuch, parse_url, read_bounded
from turnsvr.credentials.questions import Questions
from turnsvr.credentials.tokenkeys import MAX_BYTES, BadKeys, TokenKey, read_keys

_FILE_SECONDS = 5.0
"""Between looks at the file."""
_FETCH_SECONDS = 600.0
"""Between requests for the document; one more comes early when a token names a key that is not known."""
_RETRY_SECONDS = 5.0
"""Until a document that did not come is asked for again."""
_EARLY_SECONDS = 30.0
"""Between requests that tokens cause, so that made-up names of keys cause no flood."""
_TIMEOUT = 5.0

_log = structlog.get_logger()


class KeyRing(Protocol):
    """Keys that may change while the server runs."""

    @property
    def health(self) -> Health | None:
        """Of the service that has them; None for a file."""

    @property
    def current(self) -> tuple[TokenKey, ...]:
        """The keys; the same object as long as they are the same. Empty until they are known."""

    async def start(self) -> None:
        """Get the keys if that is possible, and keep them current from now on."""

    async def look_again(self) -> None:
        """A token names a key that is not known: perhaps there are new ones."""

    async def close(self) -> None: ...


class KeyFile:
    """A KeyRing in a file. A change that cannot be read is logged once, and the keys stay."""

    health = None

    def __init__(self, path: Path, algorithms: frozenset[str]) -> None:
        """Raises BadKeys, also when the file cannot be read."""
        self._path = path
        self._algorithms = algorithms
        self._stamp = _stamp(path)
        self._data, self.current = self._read()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def look_again(self) -> None:
        stamp = _stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            data, keys = self._read()
        except BadKeys as error:
            _log.error("keys of tokens not reloaded", reason=str(error))
            return
        if data != self._data:
            self._data, self.current = data, keys
            _log.info("keys of tokens reloaded", keys=len(keys))

    async def close(self) -> None:
        await _end(self._task)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_FILE_SECONDS)
            await self.look_again()

    def _read(self) -> tuple[bytes, tuple[TokenKey, ...]]:
        try:
            with self._path.open("rb") as file:
                data = file.read(MAX_BYTES + 1)
            return data, read_keys(data, self._algorithms)
        except OSError as error:
            raise BadKeys(f"{self._path}: {error.strerror}") from None
        except BadKeys as error:
            raise BadKeys(f"{self._path}: {error}") from None


class KeyUrl:
    """A KeyRing at an address that publishes a JWKS document: public keys alone count.

    No request waits for it but those whose token names an unknown key. While the service is away the keys stay.
    """

    def __init__(
        self,
        url: str,
        algorithms: frozenset[str],
        *,
        timeout: float = _TIMEOUT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """timeout in seconds for one answer. Raises BadAddress."""
        self.health = Health("token keys", shown_url(url))
        self.current: tuple[TokenKey, ...] = ()
        self._url = parse_url(url)
        self._algorithms = algorithms
        self._data = b""
        self._clock = clock
        self._asked_at = float("-inf")
        self._fetching = 0
        """Who waits for the document that is on its way."""
        self._questions = Questions(self.health, timeout, clock=clock)
        self._client = HttpClient(timeout, connections=1)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self._fetch()
        self._task = asyncio.get_running_loop().create_task(self._keep())

    async def look_again(self) -> None:
        if self._fetching or self._clock() >= self._asked_at + _EARLY_SECONDS:
            await self._fetch()

    async def close(self) -> None:
        await _end(self._task)
        await self._questions.close(at_once=True)
        await self._client.aclose()

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(_FETCH_SECONDS if self.health.available else _RETRY_SECONDS)
            await self._fetch()

    async def _fetch(self) -> None:
        self._asked_at = self._clock()
        self._fetching += 1
        try:
            data, keys = await self._questions.ask(self._url, self._get)
        except Unavailable:
            return
        finally:
            self._fetching -= 1
        if data != self._data:
            self._data, self.current = data, keys

    async def _get(self) -> tuple[bytes, tuple[TokenKey, ...]]:
        """A document and the keys that it holds; raises Unavailable."""
        try:
            async with self._client.stream("GET", self._url) as response:
                if response.status_code != 200:
                    raise Unavailable(f"{self.health.name}: status {response.status_code}")
                data = await read_bounded(response, MAX_BYTES)
            return data, read_keys(data, self._algorithms, public_only=True)
        except (httpx.HTTPError, TooMuch, BadKeys) as error:
            raise Unavailable(f"{self.health.name}: {str(error) or type(error).__name__}") from None


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What differs once the file was replaced or written."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


async def _end(task: asyncio.Task[None] | None) -> None:
    if task is not None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
