"""What waits for the rules: one client's messages in order, sources in turn. api.py says who waits, and for how long.

The compiled pump has the same in compiled/path/waiting.pxi, which says why it is so.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from turnsvr.limits import client_of
from turnsvr.stun.address import FiveTuple, Transport

_LIMIT = 4 * 1024 * 1024
_SHARE = 4
"""Bytes that may wait of sessions, and of strangers; a source may take a quarter of what is still free of them."""
_CLIENT_MESSAGES = 64
_CLIENT_DATAGRAMS = 32
_CLIENT_BYTES = 128 * 1024
"""Messages of one client that may wait, datagrams for peers, and the bytes of both.

For one more it is as if nothing waited, or as if it were lost on the way: data that the table does not cover are
dropped as ever, anything else as OVERLOAD.
"""
_KEEPING = 256
"""Bytes that it takes to keep a datagram, beside its own."""

ClientKey = tuple[Transport, tuple[str, int], tuple[str, int], int]
"""A FiveTuple, or plain tuples in its place: they are equal and hash alike."""


class Queued(NamedTuple):
    """Something that a client sent. is_message: it is for the rules, as far as could be told when it came."""

    data: bytes
    is_message: bool


class _Source:
    """Whose messages have turns: an address of strangers, or one session."""

    __slots__ = ("bytes", "clients", "key", "ready")

    def __init__(self, key: bytes | None) -> None:
        """key: the address, None for a session."""
        self.key = key
        self.clients = 0
        self.bytes = 0
        self.ready: deque[WaitingClient] = deque()


class _Turns:
    """Sources with a message for the rules, in the order of their turns, and the bytes that wait of all."""

    def __init__(self) -> None:
        self.sources: deque[_Source] = deque()
        self.bytes = 0


class WaitingClient:
    """A client of which something waits, or of whose messages the rules have one."""

    __slots__ = ("bytes", "data", "five_tuple", "is_gone", "is_kept", "out", "queue", "source")

    def __init__(self, five_tuple: FiveTuple, source: _Source) -> None:
        self.five_tuple = five_tuple
        self.source = source
        self.queue: deque[Queued] = deque()
        self.bytes = 0
        self.data = 0
        """Of the queue, what is for peers."""
        self.out: bytes | None = None
        """The message that the rules have."""
        self.is_kept = False
        self.is_gone = False

    def has_place(self, queued: Queued) -> bool:
        if queued.is_message:
            return len(self.queue) - self.data < _CLIENT_MESSAGES
        return self.data < _CLIENT_DATAGRAMS

    def has(self, message: bytes) -> bool:
        """Whether this is a retransmission of what the rules have, or will have."""
        return message == self.out or (message, True) in self.queue


class WaitingClients:
    """Every client of which something waits."""

    def __init__(self) -> None:
        self.messages = 0
        """Those that wait."""
        self._clients: dict[ClientKey, WaitingClient] = {}
        self._strangers: dict[bytes, _Source] = {}
        self._turns = deque((_Turns(), _Turns()))
        self._of_strangers, self._of_sessions = self._turns

    def of(self, key: ClientKey) -> WaitingClient | None:
        return self._clients.get(key) if self._clients else None

    def clients(self) -> list[WaitingClient]:
        """Every client of which something waits."""
        return list(self._clients.values())

    def add(self, five_tuple: FiveTuple, queued: Queued, *, has_session: bool) -> WaitingClient | None:
        """Keep something until its turn; None when there is no room for it."""
        client = self._clients.get(five_tuple)
        if five_tuple.transport.is_stream:
            client = client or self._enter(five_tuple, has_session)
        else:
            if not self._has_room(five_tuple, client, has_session, queued):
                return None
            client = client or self._enter(five_tuple, has_session)
            self._charge(client, len(queued.data) + _KEEPING)
        client.queue.append(queued)
        client.bytes += len(queued.data)
        client.data += not queued.is_message
        self.messages += queued.is_message
        if len(client.queue) == 1 and client.out is None:
            self._stand_in_line(client)
        return client

    @property
    def has_ready_client(self) -> bool:
        return any(turns.sources for turns in self._turns)

    def pop(self, most: int) -> list[tuple[WaitingClient, bytes]]:
        """At most so many messages for the rules, one of a client, sessions and strangers alternately."""
        taken: list[tuple[WaitingClient, bytes]] = []
        misses = 0
        while len(taken) < most and misses < len(self._turns):
            self._turns.rotate()
            client = self._next(self._turns[0])
            if client is None:
                misses += 1
                continue
            misses = 0
            if not client.is_gone:
                client.out = self.pop_first(client).data
                taken.append((client, client.out))
        return taken

    def pop_out_of_turn(self, client: WaitingClient) -> bytes:
        """The message of a client that stands in line."""
        source = client.source
        source.ready.remove(client)
        if not source.ready:
            self._turns_of(source).sources.remove(source)
        client.out = self.pop_first(client).data
        return client.out

    def pop_first(self, client: WaitingClient) -> Queued:
        """What came first of what waits of this client."""
        queued = client.queue.popleft()
        client.bytes -= len(queued.data)
        client.data -= not queued.is_message
        self.messages -= queued.is_message
        if not client.five_tuple.transport.is_stream:
            self._charge(client, -len(queued.data) - _KEEPING)
        return queued

    def turn_to_message(self, client: WaitingClient) -> None:
        """What waits first is for the rules, although it did not look so when it came."""
        client.queue[0] = client.queue[0]._replace(is_message=True)
        client.data -= 1
        self.messages += 1

    def judged(self, client: WaitingClient) -> bool:
        """The rules have none of the client's messages any more; whether nothing of it waits, and it is forgotten."""
        client.out, client.is_kept = None, False
        if client.is_gone:
            return False
        if client.queue:
            self._stand_in_line(client)
            return False
        self._leave(client)
        return True

    def forget(self, five_tuple: FiveTuple) -> None:
        """The client is gone."""
        client = self._clients.get(five_tuple)
        if client is not None:
            while client.queue:
                self.pop_first(client)
            client.is_gone = True
            self._leave(client)

    def _has_room(self, five_tuple: FiveTuple, client: WaitingClient | None, has_session: bool, queued: Queued) -> bool:
        size = len(queued.data)
        if client is None:
            turns = self._of_sessions if has_session else self._of_strangers
            source = None if has_session else self._strangers.get(client_of(five_tuple.client.packed))
        elif client.bytes + size > _CLIENT_BYTES or not client.has_place(queued):
            return False
        else:
            turns, source = self._turns_of(client.source), client.source
        of_source = source.bytes if source is not None else 0
        return of_source + size + _KEEPING <= (_LIMIT - turns.bytes) // _SHARE

    def _enter(self, five_tuple: FiveTuple, has_session: bool) -> WaitingClient:
        if has_session:
            source = _Source(None)
        else:
            key = client_of(five_tuple.client.packed)
            source = self._strangers.get(key) or _Source(key)
            self._strangers[key] = source
        source.clients += 1
        client = self._clients[five_tuple] = WaitingClient(five_tuple, source)
        return client

    def _leave(self, client: WaitingClient) -> None:
        del self._clients[client.five_tuple]
        source = client.source
        source.clients -= 1
        if not source.clients and source.key is not None:
            del self._strangers[source.key]

    def _charge(self, client: WaitingClient, size: int) -> None:
        client.source.bytes += size
        self._turns_of(client.source).bytes += size

    def _turns_of(self, source: _Source) -> _Turns:
        return self._of_sessions if source.key is None else self._of_strangers

    def _stand_in_line(self, client: WaitingClient) -> None:
        source = client.source
        if not source.ready:
            self._turns_of(source).sources.append(source)
        source.ready.append(client)

    def _next(self, turns: _Turns) -> WaitingClient | None:
        if not turns.sources:
            return None
        source = turns.sources.popleft()
        client = source.ready.popleft()
        if source.ready:
            turns.sources.append(source)
        return client
