"""Records of what sessions relayed: at the end of each, and at intervals while it lasts. An EventSink."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable, Collection, Iterator
from typing import Protocol

from turnsvr.app.sinks import PartialSink
from turnsvr.relay.counts import Counters
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.commands import (
    AllocationEnded,
)

_AT_A_TIME = 200
"""Sessions whose counters are read before others have their turn."""


class Destination(Protocol):
    """Where records go. What it cannot keep it counts and tells of itself."""

    def put(self, lines: Collection[bytes]) -> None: ...


class Live(Protocol):
    """The sessions as they are now."""

    @property
    def run(self) -> str:
        """Names the run of the server, in which no two sessions have one number; successors go on with it."""

    @property
    def path(self) -> str:
        """What moves the packets."""

    def tag_of(self, username: str) -> str | None:
        """The tag of the API key that made this name; None for a name that came from elsewhere."""

    def allocations(self) -> Iterator[Allocation]: ...

    def allocation(self, number: int) -> Allocation | None: ...

    def counters(self, allocation: int) -> Counters: ...


class Usage(PartialSink):
    """Writes a record at the end of each session; tell_live() one for each that lasts."""

    def __init__(
        self,
        places: Collection[Destination],
        live: Live,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_time: Callable[[], float] = time.time,
    ) -> None:
        self.count = 0
        """Records that were made."""
        self._places = tuple(places)
        self._live = live
        self._clock = clock
        self._wall_time = wall_time
        self._process = secrets.token_hex(6)
        """Names the records of this process, of which several may serve in one run."""
        self._waiting: list[bytes] = []

    def ended(self, event: AllocationEnded, counters: Counters) -> None:
        self._write(
            event.allocation,
            event.realm,
            event.username,
            event.five_tuple,
            event.relayed,
            event.duration,
            counters,
            event.reason.value,
        )

    async def tell_live(self) -> None:
        """One record for each session that lives, with what it has relayed so far."""
        allocations = [each for each in self._live.allocations() if each.relayed]
        for start in range(0, len(allocations), _AT_A_TIME):
            now = self._clock()
            for each in allocations[start : start + _AT_A_TIME]:
                if self._live.allocation(each.number) is each:  # else it has had its last record
                    self._write(
                        each.number,
                        each.realm,
                        each.shown,
                        each.five_tuple,
                        tuple(each.relayed.values()),
                        now - each.started,
                        self._live.counters(each.number),
                        None,
                    )
            await asyncio.sleep(0)

    def flush(self) -> None:
        """Give what was written since the last time to each place, in one go."""
        lines, self._waiting = self._waiting, []
        if lines:
            for place in self._places:
                place.put(lines)

    def _write(
        self,
        number: int,
        realm: str,
        username: str,
        five_tuple: FiveTuple,
        relayed: tuple[Address, ...],
        duration: float,
        counters: Counters,
        reason: str | None,
    ) -> None:
        self.count += 1
        record = {
            "id": f"{self._process}-{self.count}",
            "time": round(self._wall_time(), 3),
            "kind": "end" if reason is not None else "interim",
            "session": f"{self._live.run}-s{number}",
            "realm": realm,
            "user": username,
            "tag": self._live.tag_of(username),
            "client": str(five_tuple.client),
            "server": str(five_tuple.server),
            "relayed": [str(each) for each in relayed],
            "transport": five_tuple.transport.value,
            "path": self._live.path,
            "duration": round(duration, 1),
            "bytes_from_client": counters.bytes_from_client,
            "bytes_to_client": counters.bytes_to_client,
            "packets_from_client": counters.packets_from_client,
            "packets_to_client": counters.packets_to_client,
            "packets_dropped": counters.dropped,
            "reason": reason,
        }
        if not self._waiting:
            asyncio.get_running_loop().call_soon(self.flush)
        self._waiting.append(json.dumps(record, ensure_ascii=False).encode(errors="replace") + b"\n")
