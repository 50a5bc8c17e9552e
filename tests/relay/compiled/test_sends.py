"""What the rules send to UDP clients: the answers to one batch leave together, all others at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.world import FAMILIES, LOOPBACK, Endpoint, World
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Family, FiveTuple, Transport

PATIENCE = 10.0
TOGETHER = 16
"""So many at the most."""

HEAD = bytes.fromhex("000300002112a442")
"""Of an Allocate request without attributes; its transaction id follows."""

Answer = Callable[[FiveTuple, bytes], None]


def answer_with(world: World, answer: Answer) -> None:
    """Have each message of a batch answered by `answer`."""

    def client_messages(batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        for five_tuple, data in batch:
            answer(five_tuple, data)
        return ()

    world.notes.client_messages = client_messages  # type: ignore[method-assign]


def ask(world: World, clients: Sequence[Endpoint]) -> None:
    """A message of each goes up before the loop can take the first."""
    before = world.pump.totals().sent_up
    for number, client in enumerate(clients):
        allocate = HEAD + number.to_bytes(12, "big")
        client.send(allocate, world.listeners[client.address.family])
    until = time.monotonic() + PATIENCE
    while world.pump.totals().sent_up < before + len(clients):
        assert time.monotonic() < until


async def test_answers_to_one_batch_leave_together(make_world: WorldFactory) -> None:
    world = make_world()
    clients = [world.endpoint() for _ in range(2 * TOGETHER + 1)]
    answer_with(world, lambda five_tuple, data: world.pump.send(five_tuple, data[::-1]))
    ask(world, clients)
    for number, client in enumerate(clients):
        data, sender = await client.receive()
        assert int.from_bytes(data[::-1][8:], "big") == number
        assert sender == world.listeners[Family.IPV4]
    totals = world.pump.totals()
    assert (totals.sends, totals.segments) == (3, len(clients))


async def test_each_leaves_from_its_listener(make_world: WorldFactory) -> None:
    world = make_world()
    clients = [world.endpoint(LOOPBACK[FAMILIES[number % 2]]) for number in range(6)]
    answer_with(world, world.pump.send)
    ask(world, clients)
    for client in clients:
        _, sender = await client.receive()
        assert sender == world.listeners[client.address.family]
    assert world.pump.totals().segments == len(clients)


async def test_what_answers_no_batch_leaves_at_once(make_world: WorldFactory) -> None:
    world = make_world()
    client = world.endpoint()
    five_tuple = FiveTuple(Transport.UDP, client.address, world.listeners[Family.IPV4])
    answer_with(world, world.pump.send)
    ask(world, [client])
    await client.receive()
    for text in (b"one", b"two"):
        world.pump.send(five_tuple, text)
        assert client.waiting() == [text]


async def test_one_that_the_kernel_refuses_hinders_no_other(make_world: WorldFactory) -> None:
    world = make_world()
    clients = [world.endpoint() for _ in range(4)]
    refused = clients[1].address

    def answer(five_tuple: FiveTuple, data: bytes) -> None:
        world.pump.send(five_tuple, bytes(70_000) if five_tuple.client == refused else data)

    answer_with(world, answer)
    ask(world, clients)
    for client in clients:
        if client.address != refused:
            await client.receive()
    totals = world.pump.totals()
    assert totals.drops[Drop.SEND_FAILED] == 1
    assert totals.segments == 3


@pytest.mark.parametrize("end", [False, True], ids=["fails", "ends the pump"])
async def test_what_was_sent_before_leaves(make_world: WorldFactory, end: bool) -> None:
    world = make_world()
    clients = [world.endpoint(), world.endpoint()]

    def answer(five_tuple: FiveTuple, data: bytes) -> None:
        world.pump.send(five_tuple, data)
        if five_tuple.client == clients[1].address:
            if end:
                world.pump.shutdown()
            raise ZeroDivisionError

    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    answer_with(world, answer)
    ask(world, clients)
    for client in clients:
        await client.receive()
