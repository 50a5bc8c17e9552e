"""Transactions: the RFC's schedule as numbers, the rest between two real sockets on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from tests.conftest import accepting
from turnsvr.client.link import DatagramLink, LinkClosed, StreamLink, new_request
from turnsvr.client.transaction import Timers, TransactionFailed, TransactionTimeout
from turnsvr.stun.address import Address
from turnsvr.stun.attributes import ERROR_CODE, XOR_MAPPED_ADDRESS, Error
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message, Method

HERE = Address("127.0.0.1", 0)
QUICK = Timers(rto=0.02, rc=3, rm=2, ti=0.2)


def test_the_defaults_are_those_of_the_rfc() -> None:
    """RFC 8489 section 6.2.1: sent at 0, 500, 1500, 3500, 7500, 15500 and 31500 ms, failed at 39500 ms."""
    waits = list(Timers().waits())
    sent_at = [sum(waits[:number]) for number in range(7)]
    assert sent_at == [0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5]
    assert Timers().total == Timers().ti == 39.5


@pytest.mark.parametrize("seconds", [0.01, 0.3, 1, 2, 5, 10, 39.5, 100])
def test_a_schedule_within_so_many_seconds_ends_then(seconds: float) -> None:
    timers = Timers.within(seconds)
    assert timers.total == pytest.approx(seconds)
    assert timers.ti == seconds
    assert 1 <= timers.rc <= 7
    assert timers.rto <= 0.5


class Server:
    """A UDP socket that hands each request to `answer`, which may answer, or not."""

    def __init__(self) -> None:
        self.heard = 0
        self.answer: Callable[[Message, Address], None] = lambda request, source: None


@pytest.fixture
async def pair() -> AsyncIterator[tuple[DatagramLink, DatagramLink, Server]]:
    server = Server()
    far = await DatagramLink.open(local=HERE)

    def heard(frame: bytes, source: Address) -> None:
        server.heard += 1
        server.answer(Message.parse(frame), source)

    far.handler = heard
    near = await DatagramLink.open(far.local, timers=QUICK)
    yield near, far, server
    await near.close()
    await far.close()


Pair = tuple[DatagramLink, DatagramLink, Server]


async def test_a_request_is_sent_again_until_it_is_answered(pair: Pair) -> None:
    near, far, server = pair

    def answer(request: Message, source: Address) -> None:
        if server.heard == 2:
            far.send(request.reply(Class.SUCCESS).add(XOR_MAPPED_ADDRESS, source).encode(), source)

    server.answer = answer
    response = await near.request(new_request(Method.BINDING))
    assert response.message.get(XOR_MAPPED_ADDRESS) == near.local
    assert response.sent == 2
    assert response.source == far.local
    assert 0 <= response.round_trip < QUICK.total


async def test_a_request_that_nobody_answers_fails_after_rc_transmissions(pair: Pair) -> None:
    near, _, server = pair
    with pytest.raises(TransactionTimeout, match="3 times") as failure:
        await near.request(new_request(Method.BINDING))
    assert failure.value.sent == server.heard == 3


async def test_an_answer_to_another_request_does_not_count(pair: Pair) -> None:
    near, far, server = pair
    other = Message(Method.BINDING, Class.SUCCESS, bytes(12)).encode()
    server.answer = lambda request, source: far.send(other, source)
    with pytest.raises(TransactionTimeout):
        await near.request(new_request(Method.BINDING))


async def test_an_answer_that_is_not_accepted_is_waited_past_and_counted(pair: Pair) -> None:
    near, far, server = pair
    server.answer = lambda request, source: far.send(request.reply(Class.SUCCESS).encode(), source)
    request = new_request(Method.BINDING)
    with pytest.raises(TransactionTimeout, match="3 without valid integrity") as failure:
        await near.exchange(request.encode(), request.transaction_id, accept=lambda message: False)
    assert failure.value.refused == 3


async def test_an_error_response_raises_its_code(pair: Pair) -> None:
    near, far, server = pair
    error = Error.of(ErrorCode.FORBIDDEN)
    server.answer = lambda request, source: far.send(request.reply(Class.ERROR).add(ERROR_CODE, error).encode(), source)
    with pytest.raises(TransactionFailed, match="403 Forbidden") as failure:
        await near.request(new_request(Method.BINDING))
    assert failure.value.code == 403


async def test_garbage_is_ignored(pair: Pair) -> None:
    near, far, server = pair

    def answer(request: Message, source: Address) -> None:
        for garbage in (b"", b"\0", b"\x01\x01\0\x04" + bytes(16), bytes(range(64))):
            far.send(garbage, source)
        far.send(request.reply(Class.SUCCESS).encode(), source)

    server.answer = answer
    assert (await near.request(new_request(Method.BINDING))).sent == 1


async def test_a_closed_port_ends_the_request_at_once() -> None:
    gone = await DatagramLink.open(local=HERE)
    await gone.close()
    near = await DatagramLink.open(gone.local, timers=Timers())
    with pytest.raises(ConnectionRefusedError):
        await near.request(new_request(Method.BINDING))
    await near.close()


async def test_a_connection_that_the_server_closes_ends_its_requests() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(20)

    async with accepting(refuse) as port:
        link = await StreamLink.open(Address("127.0.0.1", port))
        with pytest.raises(LinkClosed):
            await link.request(new_request(Method.BINDING))
        with pytest.raises(LinkClosed):
            await link.request(new_request(Method.BINDING))
        await link.close()


async def test_a_server_that_speaks_no_stun_over_tcp_is_named() -> None:
    async def speak(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(20)
        writer.write(b"\xffHTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()

    async with accepting(speak) as port:
        link = await StreamLink.open(Address("127.0.0.1", port))
        with pytest.raises(LinkClosed, match="no STUN"):
            await link.request(new_request(Method.BINDING))
        await link.close()
