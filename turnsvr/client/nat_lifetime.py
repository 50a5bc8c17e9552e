"""How long an idle mapping lives: the search over waiting times, and one trial of it (RFC 5780 section 4.6)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from turnsvr.client.link import new_request
from turnsvr.client.nat_measure import LOSSY, UNANSWERED
from turnsvr.client.nat_model import Finding, Lifetime
from turnsvr.client.nat_sockets import BindingResponse, NatSockets
from turnsvr.client.transaction import TransactionTimeout
from turnsvr.stun.address import Address
from turnsvr.stun.attributes import RESPONSE_PORT
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Message, Method

LifetimeProgress = Callable[[str, float], None]
"""Told what is measured now, and which fraction of it is done."""

_PROGRESS_INTERVAL = 0.25
"""Seconds."""


class Search:
    """A binary search over waiting times, made with several waits at once so that it takes minutes, not hours.

    width waits run at the same time, each on a mapping of its own; width 1 is the plain binary search. All times
    in seconds. The first round waits as long as `longest`.
    """

    def __init__(self, longest: float, precision: float, width: int) -> None:
        self._longest = longest
        self._precision = precision
        self._width = width
        self._alive = 0.0
        self._dead: float | None = None
        self._rounds = 0
        self._answers = 0
        self._stuck = False

    def waits(self) -> tuple[float, ...]:
        """What to try next, ascending; empty when the answer is precise enough, or the last round brought none."""
        if self._dead is None:
            if self._rounds:
                return ()
            return tuple(self._longest * (number / self._width) for number in range(1, self._width + 1))
        if self._stuck or self._dead - self._alive <= self._precision:
            return ()
        step = (self._dead - self._alive) / (self._width + 1)
        return tuple(self._alive + step * number for number in range(1, self._width + 1))

    def told(self, survived: Mapping[float, bool | None]) -> None:
        """The results of a round: whether the mapping was still there after each wait, None where it cannot be told."""
        self._rounds += 1
        known = {wait: alive for wait, alive in survived.items() if alive is not None}
        self._answers += len(known)
        self._stuck = not known
        dead = [wait for wait, alive in known.items() if not alive]
        if dead:
            self._dead = min(dead) if self._dead is None else min(self._dead, *dead)
        ceiling = math.inf if self._dead is None else self._dead
        self._alive = max([self._alive, *(wait for wait, alive in known.items() if alive and wait < ceiling)])

    @property
    def rounds(self) -> int:
        """How many rounds it takes when the mapping dies before `longest`."""
        rest = self._longest / self._width
        return 1 + max(0, math.ceil(math.log(rest / self._precision, self._width + 1) - 1e-9))

    @property
    def result(self) -> Lifetime | None:
        """What is known so far; None when no trial gave an answer."""
        return Lifetime(self._alive, self._dead) if self._answers else None


async def lifetime(
    sockets: NatSockets, search: Search, *, renumbers: bool, progress: LifetimeProgress
) -> Finding[Lifetime]:
    """How long an idle mapping lives, as precisely as the search wants it.

    A second socket asks the server to answer to the first one's mapped port (RESPONSE-PORT, RFC 5780 section
    4.6). Where the server does not do that, a mapping that comes back with another port has died in between,
    which tells something only where the NAT renumbers ports.
    """
    by_response_port = await _survived(sockets, 0)
    if not by_response_port and not renumbers:
        return Finding(None, "the server does not serve RESPONSE-PORT, and the NAT keeps ports")
    survived = _survived if by_response_port else _kept_port
    loop = asyncio.get_running_loop()
    rounds = 0
    while waits := search.waits():
        started = loop.time()
        trials = [asyncio.create_task(survived(sockets, wait)) for wait in waits]
        while not all(trial.done() for trial in trials):
            passed = min(1.0, (loop.time() - started) / waits[-1])
            progress("mapping lifetime", min(1.0, (rounds + passed) / search.rounds))
            await asyncio.wait(trials, timeout=_PROGRESS_INTERVAL, return_when=asyncio.ALL_COMPLETED)
        search.told({wait: trial.result() for wait, trial in zip(waits, trials, strict=True)})
        rounds += 1
    progress("mapping lifetime", 1.0)
    result = search.result
    return Finding(result) if result else Finding(None, LOSSY)


async def _survived(sockets: NatSockets, wait: float) -> bool | None:
    """Whether a fresh mapping is still there after so many seconds, by RESPONSE-PORT; None when it cannot be told.

    An answer at the second socket says no: the old mapping had expired and its port was given out again.
    """
    try:
        idle = await sockets.open()
        mapped = (await sockets.plain_binding(idle)).mapped
        await asyncio.sleep(wait)
        asking = await sockets.open()
        request = new_request(Method.BINDING).add(RESPONSE_PORT, mapped.port)
        heard = asyncio.Event()

        def receive(frame: bytes, _source: Address) -> None:
            if _is_answer(frame, request):
                heard.set()

        idle.handler = receive
        return await _first_of(heard, sockets.binding(asking, request=request), sockets)
    except UNANSWERED:
        return None


async def _first_of(
    heard: asyncio.Event, asking: Coroutine[Any, Any, BindingResponse], sockets: NatSockets
) -> bool | None:
    """True when the idle socket hears the answer; else what the asking socket's fate says."""
    transaction = asyncio.create_task(asking)
    waiter = asyncio.create_task(heard.wait())
    try:
        await asyncio.wait([transaction, waiter], return_when=asyncio.FIRST_COMPLETED)
        if heard.is_set():
            return True
        try:
            transaction.result()
        except TransactionTimeout as silence:
            return False if sockets.silence_counts(silence.sent) else None
        return False
    finally:
        transaction.cancel()
        waiter.cancel()
        await asyncio.gather(transaction, waiter, return_exceptions=True)


def _is_answer(frame: bytes, request: Message) -> bool:
    try:
        return Message.parse(frame).transaction_id == request.transaction_id
    except MalformedMessage:
        return False


async def _kept_port(sockets: NatSockets, wait: float) -> bool | None:
    """Whether a mapping has the same port after so many seconds; for NATs that would give it another one."""
    try:
        link = await sockets.open()
        before = (await sockets.plain_binding(link)).mapped
        await asyncio.sleep(wait)
        return (await sockets.plain_binding(link)).mapped == before
    except UNANSWERED:
        return None
