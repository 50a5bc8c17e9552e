"""STUN transactions of a client: when a request is sent again, and which answer is its (RFC 8489 section 6.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from turnsvr.stun.address import Address
from turnsvr.stun.attributes import ERROR_CODE, Error
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Class, Message

_RC = 7

Accept = Callable[[Message], bool]


@dataclass(frozen=True, slots=True)
class Timers:
    """Retransmission over datagrams, and patience over streams (RFC 8489 sections 6.2.1 and 6.2.2).

    The request goes out rc times, the second time after rto, then after twice as long each time; rm times rto
    after the last it has failed: 39.5 s with the defaults. ti is how long to wait on a stream.
    """

    rto: float = 0.5
    """Seconds."""
    rc: int = _RC
    rm: float = 16
    ti: float = 39.5
    """Seconds."""

    def waits(self) -> Iterator[float]:
        """How long to wait after each transmission, in seconds."""
        for sent in range(self.rc - 1):
            yield self.rto * 2**sent
        yield self.rto * self.rm

    @property
    def total(self) -> float:
        """Seconds until a datagram transaction has failed."""
        return sum(self.waits())

    @classmethod
    def within(cls, seconds: float, rto: float = 0.5) -> Timers:
        """The schedule with this RTO, cut so that both kinds of transport give up after so many seconds."""
        rto = min(rto, seconds / 3)
        rc = 1
        while rc < _RC and rto * (2 ** (rc + 1) - 1) <= seconds:
            rc += 1
        spent = rto * (2 ** (rc - 1) - 1)
        return cls(rto=rto, rc=rc, rm=(seconds - spent) / rto, ti=seconds)


class ClientError(Exception):
    """What a server did or failed to do; the text says it to a user."""


class TransactionTimeout(ClientError):
    """No answer came. `refused` counts answers whose integrity was missing or wrong, which do not count."""

    def __init__(self, sent: int, refused: int = 0) -> None:
        times = "once" if sent == 1 else f"{sent} times"
        ignored = f"; {refused} without valid integrity ignored" if refused else ""
        super().__init__(f"no answer to a request sent {times}{ignored}")
        self.sent = sent
        self.refused = refused


class TransactionFailed(ClientError):
    """An error response."""

    def __init__(self, response: Response) -> None:
        error = _error(response.message)
        super().__init__(f"{error.code} {error.reason}")
        self.response = response
        self.code = error.code
        self.reason = error.reason


def _error(message: Message) -> Error:
    try:
        return message.get(ERROR_CODE) or Error(500, "error response without ERROR-CODE")
    except MalformedMessage:
        return Error(500, "error response with a broken ERROR-CODE")


class Response(NamedTuple):
    """An answer, success or error."""

    message: Message
    source: Address
    round_trip: float
    """Seconds since the last transmission: too short where a retransmission crossed its answer."""
    sent: int
    """How often the request had been sent."""


class _Pending:
    def __init__(self, answer: asyncio.Future[tuple[Message, Address, float]], accept: Accept | None) -> None:
        self.answer = answer
        self.accept = accept
        self.refused = 0


class Transactions:
    """The requests of one socket that wait for their answers.

    An answer is known by its transaction id alone, wherever it comes from: NAT discovery asks for answers
    from other addresses. Callers that care compare `Response.source`.
    """

    def __init__(self, send: Callable[[bytes, Address], None], clock: Callable[[], float], *, reliable: bool) -> None:
        self._send = send
        self._clock = clock
        self._reliable = reliable
        self._pending: dict[bytes, _Pending] = {}

    async def run(
        self, data: bytes, to: Address, transaction_id: bytes, timers: Timers, accept: Accept | None = None
    ) -> Response:
        """Send an encoded request until its answer comes; an answer that accept() refuses does not count.

        Raises TransactionTimeout, TransactionFailed, or the error that fail() was given.
        """
        answer: asyncio.Future[tuple[Message, Address, float]] = asyncio.get_running_loop().create_future()
        pending = self._pending[transaction_id] = _Pending(answer, accept)
        sent = 0
        try:
            for wait in (timers.ti,) if self._reliable else timers.waits():
                self._send(data, to)
                at = self._clock()
                sent += 1
                done, _ = await asyncio.wait([answer], timeout=wait)
                if done:
                    message, source, came = answer.result()
                    response = Response(message, source, came - at, sent)
                    if message.message_class is Class.ERROR:
                        raise TransactionFailed(response)
                    return response
            raise TransactionTimeout(sent, pending.refused)
        finally:
            answer.cancel()
            del self._pending[transaction_id]

    def received(self, message: Message, source: Address) -> bool:
        """Take a response; False when no request waits for it."""
        pending = self._pending.get(message.transaction_id)
        if pending is None:
            return False
        if pending.accept is not None and not pending.accept(message):
            pending.refused += 1
        elif not pending.answer.done():
            pending.answer.set_result((message, source, self._clock()))
        return True

    def fail(self, error: Exception) -> None:
        """End every request that waits: the socket is of no use any more."""
        for pending in self._pending.values():
            if not pending.answer.done():
                pending.answer.set_exception(error)
