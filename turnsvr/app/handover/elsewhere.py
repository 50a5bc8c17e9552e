"""What the processes before this one still serve, as they last reported it, for lists, figures and the operator."""

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
        """Bring `reported` and `figures` up to date."""

    def kick(self, numbers: Iterable[int]) -> None:
        """Have it end these sessions."""

    def revoke(self, owner: str, name: str, expiry: int) -> None:
        """Have it refuse a user name or access token of the account `owner` until `expiry`, in seconds since 1970."""

    def reopen_files(self) -> None:
        """Have it open its log file and its file of usage records anew."""

    def __len__(self) -> int:
        """Sessions."""


class Elsewhere:
    """Sessions and figures of the other processes; empty where this process is alone."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.others: list[Other] = []
        self._clock = clock
        self._asked_at = -_FRESH
        self._gone: Told | None = None

    def __len__(self) -> int:
        """Sessions."""
        return sum(map(len, self.others))

    async def refresh(self) -> None:
        """Bring everything up to date, within half a second."""
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
        """End those of these sessions that other processes serve; returns how many they are."""
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

    def reopen_files(self) -> None:
        """Have each process go on in the files that have the names now."""
        for each in self.others:
            each.reopen_files()

    def named(self, username: str) -> list[int]:
        """Sessions of this user name."""
        return [each.number for each in self.allocations() if each.username == username]

    def totals(self, own: Totals) -> Totals:
        """These totals, with those of the other processes and of the ones that have ended."""
        return self.together(Told(own)).totals if self.counts else own

    def together(self, own: Told) -> Told:
        """These figures, with what the other processes count and what ended ones have counted."""
        for each in (self._gone, *(other.figures for other in self.others)):
            own = own if each is None else own + each
        return own

    @property
    def counts(self) -> bool:
        """Whether another process counts, or one that has ended has counted."""
        return self._gone is not None or bool(self.others)

    def leave(self, other: Other) -> None:
        """Drop a process that has ended; what it has counted stays."""
        if other in self.others:
            self.others.remove(other)
            if other.figures is not None:
                left = other.figures.left()
                self._gone = left if self._gone is None else self._gone + left

    def _find(self, number: int) -> tuple[Allocation, Counters] | None:
        return next((each.reported[number] for each in self.others if number in each.reported), None)
