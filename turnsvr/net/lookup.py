"""Asks a source of credentials on behalf of the rules: at once where it can answer, in a task where it takes I/O."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Sequence
from typing import TypeGuard, cast

import structlog

from turnsvr.credentials.api import AsyncSource, Caller, Credential, Source, Unavailable
from turnsvr.stun.address import Transport
from turnsvr.turn.commands import FindCredential

_MAX_WAITING = 1000
"""Look-ups under way at once; a further request fails with 500, and its client tries again."""
_TIMEOUT = 5.0
"""Seconds that a look-up may take. A client gives up on its request after 39.5 s (RFC 8489 section 6.2.1)."""

_log = structlog.get_logger()

Found = Callable[[int, Sequence[Credential], str], None]
"""Takes the request, its candidates and, where there are none, why."""


class Lookups:
    """Answers FindCredential through `found`, or `failed` when the source cannot tell. Either may come at once."""

    def __init__(
        self,
        source: Source | AsyncSource,
        found: Found,
        failed: Callable[[int], None],
        *,
        wall_time: Callable[[], float] = time.time,
        timeout: float = _TIMEOUT,
        max_waiting: int = _MAX_WAITING,
    ) -> None:
        self.source = source
        self._found = found
        self._failed = failed
        self._wall_time = wall_time
        self._timeout = timeout
        self._max_waiting = max_waiting
        self._waiting: set[asyncio.Task[None]] = set()

    def ask(self, command: FindCredential) -> None:
        source = self.source
        if not _takes_io(source):
            self._ask_now(command, cast(Source, source))
        elif len(self._waiting) >= self._max_waiting:
            _log.warning("credential look-ups are full", waiting=len(self._waiting))
            self._failed(command.request)
        else:
            task = asyncio.get_running_loop().create_task(self._ask_later(command, source))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    def cancel(self) -> None:
        """Forget every look-up under way; their requests get no answer."""
        for task in self._waiting:
            task.cancel()

    def _ask_now(self, command: FindCredential, source: Source) -> None:
        now = self._wall_time()
        username = command.username
        if username is None and command.userhash is not None:
            username = source.by_userhash(command.userhash, command.realm)
        keys = source.find(username, command.realm, now) if username is not None else ()
        self._found(command.request, keys, "" if keys else source.refusal(username or "", now).value)

    async def _ask_later(self, command: FindCredential, source: AsyncSource) -> None:
        now = self._wall_time()
        username = command.username
        caller = Caller(command.five_tuple.client.host, command.five_tuple.transport is Transport.TLS)
        try:
            async with asyncio.timeout(self._timeout):
                if username is None and command.userhash is not None:
                    username = await source.by_userhash(command.userhash, command.realm)
                keys = await source.find(username, command.realm, now, caller) if username is not None else ()
        except (Unavailable, TimeoutError) as error:
            _log.warning("credential store unavailable", reason=str(error) or f"no answer in {self._timeout:g} s")
            self._failed(command.request)
        except Exception:
            _log.exception("credential look-up failed")
            self._failed(command.request)
        else:
            self._found(command.request, keys, "" if keys else source.refusal(username or "", now).value)


def _takes_io(source: Source | AsyncSource) -> TypeGuard[AsyncSource]:
    return inspect.iscoroutinefunction(source.find)
