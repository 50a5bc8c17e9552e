"""The order of what one client sends, and the turns of clients before the rules.

What the table covers goes its way at once unless it would overtake; the rest waits in waiting.py until the rules have
judged it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from enum import Enum

from turnsvr.relay.api import Handler
from turnsvr.relay.counts import Drop
from turnsvr.relay.portable.messages import SEND_INDICATION, is_possible_message, parse_send_indication
from turnsvr.relay.portable.out import Out
from turnsvr.relay.portable.path import Path
from turnsvr.relay.portable.sessions import HostAndPort, Session
from turnsvr.relay.portable.table import Table
from turnsvr.relay.portable.waiting import ClientKey, Queued, WaitingClient, WaitingClients
from turnsvr.stun.address import Address, FiveTuple, Transport

_MESSAGES_AT_ONCE = 32
_TURN = 0.002
"""Messages handed to the Handler together, and seconds of such calls before the loop's other work has its turn."""


class _Wait(Enum):
    """Whether what a client sends stays behind a message that is yet to be judged."""

    NO = "it goes its way"
    FOR_TABLE = "the table does not cover it yet"
    BEHIND = "it would overtake other data"
    FOR_RULES = "it is for the rules"


class Order:
    """Takes what clients send, and hands what is for the rules to the Handler."""

    def __init__(
        self,
        table: Table,
        path: Path,
        out: Out,
        handler: Handler,
        *,
        loop: asyncio.AbstractEventLoop,
        clock: Callable[[], float],
    ) -> None:
        self.waiting = WaitingClients()
        self.resumes: dict[FiveTuple, Callable[[], None]] = {}
        """Called where a stream client's frames may be read on."""
        self._by_client = table.by_client
        self._expected = table.expected
        self._path = path
        self._counts = out.counts
        self._drop = out.drop
        self._handler = handler
        self._loop = loop
        self._clock = clock
        self._judging: asyncio.Handle | None = None
        self._is_closed = False
        self._is_frozen = False

    def close(self) -> None:
        """Hand nothing over any more."""
        self._is_closed = True
        self.resumes.clear()
        if self._judging is not None:
            self._judging.cancel()
            self._judging = None

    def freeze(self) -> None:
        """Hand nothing over until thaw(); it waits as ever."""
        self._is_frozen = True

    def thaw(self) -> None:
        """Go on."""
        self._is_frozen = False
        self._judge_soon()

    def from_udp_client(self, client: HostAndPort, server: Address, data: bytes, now: float) -> None:
        """Relay, drop or keep for the rules."""
        key = (Transport.UDP, client, server, 0)
        session = self._by_client.get(key)
        waiting = session.waiting if session is not None else self.waiting.of(key)
        wait = _Wait.NO if waiting is None else self._must_wait(session, waiting, data, now)
        if wait is _Wait.FOR_TABLE and self._wait(client, server, session, Queued(data, False)):
            return
        if wait is _Wait.NO or wait is _Wait.FOR_TABLE:
            if not self._shows_a_move(session, key, data) and self._path.from_client(session, data, now):
                return
            wait = _Wait.FOR_RULES
        if wait is _Wait.FOR_RULES and waiting is not None and waiting.has(data):
            self._counts.sent_up += 1
        elif not self._wait(client, server, session, Queued(data, wait is _Wait.FOR_RULES)):
            self._drop(Drop.OVERLOAD, session)

    def from_stream(self, five_tuple: FiveTuple, frames: Sequence[bytes]) -> int:
        """Take frames as far as the first for the rules; returns how many were taken."""
        now = self._clock()
        session = self._by_client.get(five_tuple)
        taken = 0
        for frame in frames:
            if self.waiting.of(five_tuple) is not None:
                break
            taken += 1
            self._counts.received += 1
            if self._shows_a_move(session, five_tuple, frame) or not self._path.from_client(session, frame, now):
                self._keep(five_tuple, session, Queued(frame, True))
        return taken

    def _shows_a_move(self, session: Session | None, client: ClientKey, data: bytes) -> bool:
        """Whether these are ChannelData from where a session is about to move, which the Handler is to see."""
        return session is None and client in self._expected and 0x40 <= (data[0] if data else 0) <= 0x7F

    def _must_wait(self, session: Session | None, waiting: WaitingClient, data: bytes, now: float) -> _Wait:
        """Data that the table covers pass unless they would overtake others: they need no judgement."""
        first = data[0] if data else 0xFF
        if first > 0x7F:
            return _Wait.NO
        if first >= 0x40:
            if len(data) < 4 or 4 + (data[2] << 8 | data[3]) > len(data):
                return _Wait.NO
            number = data[0] << 8 | data[1]
            channel = session.channels.get(number) if session is not None else None
            if channel is None or now > channel.deadline:
                return _Wait.FOR_TABLE
            peer = channel.peer
        elif not is_possible_message(data):
            return _Wait.NO
        else:
            indication = parse_send_indication(data) if session is not None and data[:2] == SEND_INDICATION else None
            if indication is None:
                return _Wait.FOR_RULES
            number, peer = 0, indication.peer
        if session is None or session.refusal(peer.host, now):
            return _Wait.FOR_TABLE
        return _Wait.BEHIND if waiting.data and _would_overtake(session, waiting, number, peer) else _Wait.NO

    def _wait(self, client: HostAndPort, server: Address, session: Session | None, queued: Queued) -> bool:
        """Keep what a UDP client sent until its turn; False when there is no room."""
        return self._keep(FiveTuple(Transport.UDP, Address(*client), server), session, queued)

    def _keep(self, five_tuple: FiveTuple, session: Session | None, queued: Queued) -> bool:
        client = self.waiting.add(five_tuple, queued, has_session=session is not None)
        if client is None:
            return False
        self._counts.sent_up += queued.is_message
        if session is not None:
            session.waiting = client
        self._judge_soon()
        return True

    # The turns before the rules

    def hurry(self, five_tuple: FiveTuple) -> None:
        """Hand the client's message over, out of turn."""
        client = self.waiting.of(five_tuple)
        if client is not None and client.out is None and not self._is_closed and not self._is_frozen:
            self._hand_over([(client, self.waiting.pop_out_of_turn(client))])

    def proceed(self, five_tuple: FiveTuple) -> None:
        """Go on with a client whose message the rules have kept until now."""
        client = self.waiting.of(five_tuple)
        if client is not None and client.is_kept and not self._is_closed:
            self._go_on(client)

    def _judge_soon(self) -> None:
        if self._judging is None and self.waiting.has_ready_client and not self._is_closed and not self._is_frozen:
            self._judging = self._loop.call_soon(self._judge)

    def _judge(self) -> None:
        self._judging = None
        ends = self._clock() + _TURN
        try:
            while not self._is_closed and not self._is_frozen and (taken := self.waiting.pop(_MESSAGES_AT_ONCE)):
                self._hand_over(taken)
                if self._clock() >= ends:
                    return
        finally:
            self._judge_soon()

    def _hand_over(self, taken: Sequence[tuple[WaitingClient, bytes]]) -> None:
        kept: Collection[FiveTuple] = ()
        try:
            kept = self._handler.client_messages([(client.five_tuple, data) for client, data in taken])
        finally:
            for client, _ in taken:
                client.is_kept = client.five_tuple in kept
            for client, _ in taken:
                if not client.is_kept and not self._is_closed:
                    self._go_on(client)

    def _go_on(self, client: WaitingClient) -> None:
        """The rules have judged the client's message: let go what came behind it, as far as the next one."""
        now = self._clock()
        five_tuple = client.five_tuple
        session = self._by_client.get(five_tuple)
        while client.queue:
            data = client.queue[0].data
            if self._shows_a_move(session, five_tuple, data) or not self._path.from_client(session, data, now):
                if not client.queue[0].is_message:
                    self.waiting.turn_to_message(client)
                    self._counts.sent_up += 1
                break
            self._counts.sent_up -= self.waiting.pop_first(client).is_message
        if self.waiting.judged(client):
            if session is not None:
                session.waiting = None
            if five_tuple in self.resumes:
                self.resumes[five_tuple]()
        self._judge_soon()

    def forget(self, five_tuple: FiveTuple) -> None:
        """The client is gone, and with it what waits of it."""
        self.waiting.forget(five_tuple)
        session = self._by_client.get(five_tuple)
        if session is not None:
            session.waiting = None


def _would_overtake(session: Session, waiting: WaitingClient, number: int, peer: Address) -> bool:
    """Whether data for this peer wait, or on this channel."""
    for data, is_message in waiting.queue:
        if is_message:
            continue
        if data[0] >= 0x40:
            other = data[0] << 8 | data[1]
            channel = session.channels.get(other)
            if other == number or (channel is not None and channel.peer == peer):
                return True
        else:
            indication = parse_send_indication(data)
            if indication is not None and indication.peer == peer:
                return True
    return False
