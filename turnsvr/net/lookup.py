"""Looks credentials up for the rules: at once where the source can answer, in a task where it takes I/O."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence

import structlog

from turnsvr.credentials.api import Caller, Credential, Source, Unavailable
from turnsvr.credentials.health import Trouble
from turnsvr.histogram import Histogram
from turnsvr.limits import client_of
from turnsvr.turn.commands import FindCredential

_MAX_WAITING = 1000
"""Look-ups under way at once; a further request fails with 500, and its client tries again.

docs/security.md has this bound beside those of the sources.
"""
_MAX_WAITING_OF_ONE = 30
"""Look-ups of one client among them, so that no client takes them all."""
_TIMEOUT = 35.0
"""Seconds that a look-up may take, whatever its sources allow themselves.

A client gives up on its request after 39.5 s (RFC 8489 section 6.2.1).
"""

_log = structlog.get_logger()

OnFound = Callable[[int, Sequence[Credential], str], None]
"""Takes the request, its candidates and, where there are none, why."""


class Lookups:
    """Answers FindCredential through `found`, or `failed` when the source cannot tell. Either may come at once.

    A source that is Unavailable has logged it itself. Of other Trouble the log tells, until a look-up works again.
    """

    def __init__(
        self,
        source: Source,
        found: OnFound,
        failed: Callable[[int], None],
        *,
        wall_time: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        timeout: float = _TIMEOUT,
        max_waiting: int = _MAX_WAITING,
        max_waiting_of_one: int = _MAX_WAITING_OF_ONE,
    ) -> None:
        self.source = source
        """The place that is asked."""
        self.took = Histogram()
        """Seconds of look-ups that took I/O, those that failed among them."""
        self.failures = 0
        """Look-ups that gave no answer, so that the request failed with 500."""
        self._found = found
        self._failed = failed
        self._wall_time = wall_time
        self._clock = clock
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._max_waiting_of_one = max_waiting_of_one
        self._waiting: set[asyncio.Task[None]] = set()
        self._by_client: Counter[bytes] = Counter()
        self._trouble = Trouble()

    @property
    def under_way(self) -> int:
        """Look-ups that have no answer yet."""
        return len(self._waiting)

    def ask(self, command: FindCredential) -> None:
        source, now = self.source, self._wall_time()
        username = command.username
        if username is None and command.userhash is not None:
            username = source.by_userhash(command.userhash, command.realm)
        if username is None:
            self._answer(command, source, "", (), now)
        elif (keys := source.find_now(username, command.realm, now, _caller(command))) is not None:
            self._answer(command, source, username, keys, now)
        elif len(self._waiting) >= self._max_waiting:
            self._warn(f"{self._max_waiting} are under way")
            self._fail(command)
        elif self._by_client[client := client_of(command.five_tuple.client.packed)] >= self._max_waiting_of_one:
            self._fail(command)
        else:
            task = asyncio.get_running_loop().create_task(self._ask_later(command, source, username))
            self._waiting.add(task)
            self._by_client[client] += 1
            task.add_done_callback(lambda task: self._done(task, client))

    def cancel(self) -> None:
        """Forget every look-up under way; their requests get no answer."""
        for task in self._waiting:
            task.cancel()

    def _done(self, task: asyncio.Task[None], client: bytes) -> None:
        self._waiting.discard(task)
        self._by_client[client] -= 1
        if not self._by_client[client]:
            del self._by_client[client]

    def _answer(
        self, command: FindCredential, source: Source, username: str, keys: Sequence[Credential], wall_time: float
    ) -> None:
        self._found(command.request, keys, "" if keys else source.refusal(username, wall_time).value)

    async def _ask_later(self, command: FindCredential, source: Source, username: str) -> None:
        now = self._wall_time()
        try:
            keys = await self._find(command, source, username, now)
        except Unavailable as error:
            _log.debug("credential not looked up", reason=str(error))
            self._fail(command)
        except TimeoutError:
            self._warn(f"no answer in {self._timeout:g} s")
            self._fail(command)
        except Exception:
            _log.exception("credential look-up failed")
            self._fail(command)
        else:
            self._works()
            self._answer(command, source, username, keys, now)

    async def _find(self, command: FindCredential, source: Source, username: str, now: float) -> tuple[Credential, ...]:
        """The candidates; raises what the source raises, and TimeoutError."""
        started = self._clock()
        try:
            async with asyncio.timeout(self._timeout):
                return await source.find(username, command.realm, now, _caller(command))
        finally:
            self.took.add(self._clock() - started)

    def _fail(self, command: FindCredential) -> None:
        self.failures += 1
        self._failed(command.request)

    def _warn(self, reason: str) -> None:
        if self._trouble.begins(self._clock()):
            _log.warning("credential look-ups fail", reason=reason)

    def _works(self) -> None:
        if self._trouble.ends(self._clock()):
            _log.info("credential look-ups work again")


def _caller(command: FindCredential) -> Caller:
    five_tuple = command.five_tuple
    return Caller(five_tuple.client.host, five_tuple.transport.is_encrypted, command.token)
