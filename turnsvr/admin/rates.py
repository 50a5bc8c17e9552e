"""How fast each session relays now: differences between two samples of the pump's counters.

Samples are taken on request, and never more often than twice a second for all callers together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from turnsvr.admin.context import AdminContext
from turnsvr.relay.counts import Counters

_INTERVAL = 0.5
"""Seconds between two samples, at least."""
_LONGEST = 5.0
"""Seconds between two samples that still tell what happens now."""
_FORGET = 60.0
"""Seconds after which samples are let go if no further request came."""
_BATCH = 256
"""Sessions that are read before the loop has its turn."""


class Rate(NamedTuple):
    """Packets and bits a second, of application data."""

    packets_from_client: float = 0.0
    bits_from_client: float = 0.0
    packets_to_client: float = 0.0
    bits_to_client: float = 0.0

    @property
    def bits(self) -> float:
        return self.bits_from_client + self.bits_to_client


class Reading(NamedTuple):
    """What was counted by a time."""

    at: float
    counters: Counters


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    total: Reading
    sessions: dict[int, Reading] = field(default_factory=dict)


_NOTHING = Counters()


class Rates:
    """The rate and the counters of every session as of the last sample. It holds two figures a live session."""

    def __init__(self, context: AdminContext, *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.total = Rate()
        self._context = context
        self._sleep = sleep
        self._lock = asyncio.Lock()
        self._sample: _Sample | None = None
        self._rates: dict[int, Rate] = {}
        self._forgetting: asyncio.TimerHandle | None = None

    def of(self, number: int) -> Rate:
        return self._rates.get(number, Rate())

    def counters(self, number: int) -> Counters:
        reading = self._sample.sessions.get(number) if self._sample is not None else None
        return _NOTHING if reading is None else reading.counters

    async def refresh(self) -> None:
        """Bring everything up to date, within half a second; after a pause it takes as long."""
        async with self._lock:
            await self._context.refresh()
            if self._sample is not None and self._context.now() < self._sample.at + _INTERVAL and self._rates_known:
                return
            if self._sample is None or self._context.now() > self._sample.at + _LONGEST:
                self._sample = await self._read()
                await self._sleep(_INTERVAL)
            before, self._sample = self._sample, await self._read()
            self._compare(before, self._sample)
            self._forget_later()

    @property
    def _rates_known(self) -> bool:
        return self._forgetting is not None

    async def _read(self) -> _Sample:
        context = self._context
        sample = _Sample(context.now(), Reading(context.now(), context.totals().relayed))
        for index, allocation in enumerate(context.sessions(), 1):
            sample.sessions[allocation.number] = Reading(context.now(), context.counters(allocation.number))
            if index % _BATCH == 0:
                await self._sleep(0)
        return sample

    def _compare(self, before: _Sample, after: _Sample) -> None:
        """What is new since the sample before has relayed all of it since then."""
        self.total = _rate(before.total, after.total)
        new = Reading(before.at, _NOTHING)
        self._rates = {
            number: rate
            for number, reading in after.sessions.items()
            if any(rate := _rate(before.sessions.get(number, new), reading))
        }

    def _forget_later(self) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting = asyncio.get_running_loop().call_later(_FORGET, self.forget)

    def forget(self) -> None:
        """Let the samples go; forgetting twice is fine."""
        if self._forgetting is not None:
            self._forgetting.cancel()
        self._forgetting, self._sample, self._rates = None, None, {}


def _rate(before: Reading, after: Reading) -> Rate:
    seconds = after.at - before.at
    if seconds <= 0:
        return Rate()
    then, now = before.counters, after.counters
    return Rate(
        max(0, now.packets_from_client - then.packets_from_client) / seconds,
        max(0, now.bytes_from_client - then.bytes_from_client) * 8 / seconds,
        max(0, now.packets_to_client - then.packets_to_client) / seconds,
        max(0, now.bytes_to_client - then.bytes_to_client) * 8 / seconds,
    )
