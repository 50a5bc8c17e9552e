"""What the processes before this one still serve, for lists, figures and the operator: as they have told of it last."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final, Protocol

from turnsvr.app.handover.told import Told
from turnsvr.relay.counts import Counters, Totals
from turnsvr.stun.address import Address
from turnsvr.turn.allocation import Allocation

_FRESH: Final = 0.4
"""Seconds for which a report is not asked for again."""
_PATIENCE: Final = 1.0
"""Seconds that a report may take."""


class Other(Protocol):
    """A process that serves sessions of this server, too."""

    sessions: dict[int, tuple[Address, ...]]
    reported: dict[int, tuple[Allocation, Counters]]
    figures: Told | None

    async def report(self) -> None:
        """Have both be as of now."""

    def kick(self, numbers: Iterable[int]) -> None:
        """Have it end these sessions."""

    def revoke(self, owner: str, name: str, expiry: int) -> None:
        """Have it refuse a user name or access token until then, on account of `owner`."""

    def __len__(self) -> int:
        """Sessions."""


class Elsewhere:
    """Empty where this process is alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.others: list[Other] = []
        self._clock = clock
        self._asked_at = -_FRESH
        self._gone: Told | None = None

    def __len__(self) -> int:
        """Sessions."""
        return sum(map(len, self.others))

    async def refresh(self) -> None:
        """Have everything be as of now, give or take half a second."""
        if self.others and self._clock() >= self._asked_at + _FRESH:
            self._asked_at = self._clock()
            try:
                async with asyncio.timeout(_PATIENCE):
                    await asyncio.gather(*(each.report() for each in self.others))
            except TimeoutError:
                pass  # what was told before stands

    def allocations(self) -> Iterator[Allocation]:
        return (allocation for each in self.others for allocation, _ in list(each.reported.values()))

    def allocation(self, number: int) -> Allocation | None:
        found = self._find(number)
        return None if found is None else found[0]

    def counters(self, number: int) -> Counters | None:
        found = self._find(number)
        return None if found is None else found[1]

    def end(self, numbers: Collection[int]) -> int:
        """How many of these sessions are there, and will end."""
        ended = 0
        for each in self.others:
            its = [number for number in numbers if number in each.sessions]
            ended += len(its)
            for number in its:
                each.reported.pop(number, None)
            each.kick(its)
        return ended

    def revoke(self, owner: str, name: str, expiry: int) -> None:
        for each in self.others:
            each.revoke(owner, name, expiry)

    def named(self, username: str) -> list[int]:
        """Sessions of this user name."""
        return [each.number for each in self.allocations() if each.username == username]

    def totals(self, own: Totals) -> Totals:
        """With those of the others, and of those who have gone."""
        return self.together(Told(own)).totals if self.counts else own

    def together(self, own: Told) -> Told:
        """With what the others count, and what those have counted who have gone."""
        for each in (self._gone, *(other.figures for other in self.others)):
            own = own if each is None else own + each
        return own

    @property
    def counts(self) -> bool:
        """Whether another process counts, or one that has gone has counted."""
        return self._gone is not None or bool(self.others)

    def leave(self, other: Other) -> None:
        """It has gone; what it has counted stays."""
        if other in self.others:
            self.others.remove(other)
            if other.figures is not None:
                left = other.figures.left()
                self._gone = left if self._gone is None else self._gone + left

    def _find(self, number: int) -> tuple[Allocation, Counters] | None:
        return next((each.reported[number] for each in self.others if number in each.reported), None)
