"""What lanes send up while Python is at work: taken without another turn of the loop, and none is left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Sequence

import pytest

from tests.relay.compiled.conftest import WorldFactory
from tests.relay.world import Endpoint, World, request
from turnsvr.stun.address import Family, FiveTuple

PATIENCE = 10.0

TRIES = 50
"""On a busy machine two milliseconds may pass between two messages, after which the loop has its turn."""


class Busy:
    """A Handler during whose calls more comes, until `most` calls were made."""

    def __init__(self, world: World, client: Endpoint, most: int, fault: type[Exception] | None = None) -> None:
        self._world = world
        self._client = client
        self._most = most
        self._fault = fault
        self.calls: list[str] = []
        self.messages = 0

    def client_messages(self, batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        self.calls.append("messages")
        self.messages += len(batch)
        if len(self.calls) == 1:
            asyncio.get_running_loop().call_soon(self.calls.append, "loop")
        if self.calls.count("messages") < self._most:
            self.send()
        if self._fault is not None:
            raise self._fault
        return ()

    def send(self) -> None:
        """Send one message, and wait until it has gone up."""
        before = self._world.pump.totals().sent_up
        self._client.send(request().encode(), self._world.listeners[Family.IPV4])
        until = time.monotonic() + PATIENCE
        while self._world.pump.totals().sent_up == before:
            assert time.monotonic() < until


async def test_what_comes_meanwhile_needs_no_turn_of_the_loop(make_world: WorldFactory) -> None:
    world = make_world()
    for _ in range(TRIES):
        busy = Busy(world, world.endpoint(), 3)
        world.notes.client_messages = busy.client_messages  # type: ignore[method-assign]
        busy.send()
        await world.until(lambda busy=busy: "loop" in busy.calls and busy.messages == 3)  # type: ignore[misc]
        if busy.calls == ["messages", "messages", "messages", "loop"]:
            return
    pytest.fail("the loop had a turn between any three messages")


async def test_other_work_of_the_loop_has_its_turn(make_world: WorldFactory) -> None:
    world = make_world()
    busy = Busy(world, world.endpoint(), 50)
    world.notes.client_messages = busy.client_messages  # type: ignore[method-assign]
    busy.send()
    await world.until(lambda: busy.messages == 50)
    assert 1 <= busy.calls.index("loop") < 50


async def test_a_handler_that_fails_is_called_again(make_world: WorldFactory) -> None:
    world = make_world()
    busy = Busy(world, world.endpoint(), 3, fault=ZeroDivisionError)
    world.notes.client_messages = busy.client_messages  # type: ignore[method-assign]
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    busy.send()
    await world.until(lambda: busy.messages == 3)


async def test_what_waits_is_told(make_world: WorldFactory) -> None:
    world = make_world()
    busy = Busy(world, world.endpoint(), 0)
    world.notes.client_messages = busy.client_messages  # type: ignore[method-assign]
    for waiting in (1, 2, 3):
        busy.send()
        assert world.pump.totals().waiting == waiting
    await world.until(lambda: busy.messages == 3)
    assert world.pump.totals().waiting == 0
