"""coturn's status of sessions in Redis (redis-statsdb): its keys, its messages, sent without making the server wait.

For a session there is the key `turn/realm/<realm>/user/<user>/allocation/<18 digits>/status`. What is set there is
published under the same name, and `deleted` at the end. Published alone are `…/traffic` and `…/traffic/peer`, with what
was relayed since the last such message, then `…/total_traffic` and `…/total_traffic/peer`.

A key lives as long as its session may without a refresh, so that Redis removes those of a server that crashed.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import RedisError

from turnsvr.backoff import Backoff
from turnsvr.config.locations import StoreUrl
from turnsvr.stores.options import parse, place
from turnsvr.stores.redislink import database_number, pool, reason

MAX_WAITING = 20_000
"""Events that wait for Redis, each of a few messages; the oldest goes."""
_BATCH = 100
"""Events that are sent in one go."""
_TIMEOUT = 5.0
"""Seconds that Redis may take for a batch."""
_QUIET = 10.0
"""Seconds without a message after which the connection is tried."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 10.0
"""Seconds between attempts to reach Redis; each is twice the one before."""
_GRACE = 30
"""Seconds that a key stays after its session must have ended, for what waits in the queue."""
_NUMBERS = 10**9

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class StatusMessage:
    """Something to publish under a key; with seconds it is kept there for as long, with 0 the key is deleted."""

    channel: str
    text: str
    seconds: int | None = None
    is_published: bool = True


@dataclass(frozen=True, slots=True)
class CoturnTraffic:
    """What was relayed, as coturn counts it: packets and bytes received from here, and sent there."""

    received_packets: int
    received_bytes: int
    sent_packets: int
    sent_bytes: int

    def __str__(self) -> str:
        return (
            f"rcvp={self.received_packets}, rcvb={self.received_bytes}, "
            f"sentp={self.sent_packets}, sentb={self.sent_bytes}"
        )

    @property
    def reversed(self) -> CoturnTraffic:
        """The same, seen from the other side."""
        return CoturnTraffic(self.sent_packets, self.sent_bytes, self.received_packets, self.received_bytes)


class Names:
    """Keys of one run of a server.

    The 18 digits are nine of chance for the run, so that servers and runs that share a Redis do not meet, and the
    session's number as the log has it.
    """

    def __init__(self, run: int | None = None) -> None:
        """run: any number that is drawn for the run; one is drawn here where it is None."""
        self._run = secrets.randbelow(_NUMBERS) if run is None else run % _NUMBERS

    def session(self, realm: str, user: str, number: int) -> str:
        """The part of every name of one session."""
        digits = f"{self._run:09d}{number % _NUMBERS:09d}"
        return f"turn/realm/{_one_part(realm)}/user/{_one_part(user)}/allocation/{digits}"


def _one_part(text: str) -> str:
    """A name that is one part of a key: as it is where coturn would take it too, else with %XX for what is not.

    coturn refuses user names with quotes, spaces or control characters. A slash would let one session pass for
    another's, and the rest are what patterns are made of.
    """
    return "".join(each if _is_plain(each) else _escaped(each) for each in text)


def _is_plain(character: str) -> bool:
    return character.isprintable() and not character.isspace() and character not in "/%*?[]\\'\"`"


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))


class StatusWriter:
    """Sends messages to Redis, in order. put() never waits; while Redis is away the oldest messages go."""

    def __init__(self, url: StoreUrl, resume: Callable[[], Iterable[StatusMessage]]) -> None:
        """resume gives what to set after Redis was away, for it may have forgotten. Raises BadValue."""
        self.dropped = 0
        """Messages that were given up."""
        self.available = True
        self._place = place(url)
        self._resume = resume
        self._queue: deque[tuple[StatusMessage, ...]] = deque()
        self._filled = asyncio.Event()
        self._client = Redis(connection_pool=pool(url, parse(url), database_number(url), _TIMEOUT, 1, self._connected))
        self._task: asyncio.Task[None] | None = None
        self._closing = False
        self._was_connected = False
        self._may_lack = False
        """Whether Redis was away, and may be without what had been set."""

    def __len__(self) -> int:
        """Events that wait."""
        return len(self._queue)

    @property
    def has_room(self) -> bool:
        """Whether what may as well be said later may be said now."""
        return len(self._queue) < MAX_WAITING // 2

    def put(self, *messages: StatusMessage) -> None:
        """Have these sent: what there is to say of one event."""
        if len(self._queue) >= MAX_WAITING:
            self.dropped += len(self._queue.popleft())
        self._queue.append(messages)
        self._filled.set()

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._send_all())

    async def stop(self, within: float) -> None:
        """Send what waits, if that takes no longer than so many seconds; stopping twice is fine."""
        task, self._task = self._task, None
        if task is None:
            return
        self._closing = True
        self._filled.set()
        deadline = asyncio.get_running_loop().time() + within
        await asyncio.wait((task,), timeout=within if self.available else 0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        self.dropped += sum(map(len, self._queue))
        self._queue.clear()
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            async with asyncio.timeout_at(deadline):
                await self._client.aclose(close_connection_pool=True)

    async def _send_all(self) -> None:
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while self._queue or not self._closing:
            try:
                await self._send_some()
            except (RedisError, OSError, TimeoutError) as error:
                self._failed(error)
                await asyncio.sleep(pauses.pause())
            else:
                pauses.reset()

    async def _send_some(self) -> None:
        if self._queue:
            await self._send_batch()
        elif self._may_lack:
            self._may_lack = False
            await self._write(list(self._resume()))
        elif not await self._wait_filled():
            await self._client.ping()
        else:
            return
        if not self.available:
            self.available = True
            _log.info("status in Redis again", store=self._place, dropped=self.dropped)

    async def _wait_filled(self) -> bool:
        """Whether there is something to send before the connection wants to be tried."""
        self._filled.clear()
        try:
            async with asyncio.timeout(_QUIET):
                return await self._filled.wait()
        except TimeoutError:
            return False

    async def _send_batch(self) -> None:
        batch = [self._queue.popleft() for _ in range(min(_BATCH, len(self._queue)))]
        try:
            await self._write([message for messages in batch for message in messages])
        except BaseException:
            self._put_back(batch)
            raise

    def _put_back(self, batch: list[tuple[StatusMessage, ...]]) -> None:
        """What was not sent goes first again, as far as there is room."""
        room = MAX_WAITING - len(self._queue)
        kept = batch[-room:] if room else []
        self.dropped += sum(map(len, batch)) - sum(map(len, kept))
        self._queue.extendleft(reversed(kept))

    async def _write(self, messages: list[StatusMessage]) -> None:
        for start in range(0, len(messages), _BATCH):
            pipeline = self._client.pipeline(transaction=False)
            for message in messages[start : start + _BATCH]:
                _add(pipeline, message)
            async with asyncio.timeout(_TIMEOUT):
                await pipeline.execute()

    def _connected(self) -> None:
        self._may_lack = self._may_lack or self._was_connected
        self._was_connected = True

    def _failed(self, error: Exception) -> None:
        self._may_lack = True
        if self.available:
            self.available = False
            why = f"no answer in {_TIMEOUT:g} s" if isinstance(error, TimeoutError) else reason(error)
            _log.warning("status not in Redis", store=self._place, reason=why)


def _add(pipeline: Pipeline, message: StatusMessage) -> None:
    channel, text = message.channel.encode("utf-8", "replace"), message.text
    if message.seconds == 0:
        pipeline.delete(channel)
    elif message.seconds is not None:
        pipeline.set(channel, text, ex=message.seconds + _GRACE)
    if message.is_published:
        pipeline.publish(channel, text)
