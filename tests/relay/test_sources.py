"""What waits for the rules goes up in turns: one message of each source, sessions and strangers alternately.

The portable pump has sixteen sockets at an address. Here none of those who flood has that of who does not.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import pytest

from tests.conftest import PATIENCE
from tests.relay.conftest import PumpFactory
from tests.relay.world import World, request
from turnsvr.relay import PumpKind
from turnsvr.relay.portable import group
from turnsvr.stun.address import Address, Family
from turnsvr.stun.message import Method

AT_ONCE = 32
"""Messages that may be on their way to the rules already when another source has something to say."""


async def test_many_sources_at_once_have_one_turn_each(
    pump_factory: PumpFactory, pump_kind: PumpKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newcomer waits for one message of each other address, a client with a session for none but that before it."""
    monkeypatch.setattr(group, "secrets", SimpleNamespace(randbits=lambda bits: 0x9E3779B1))
    world = pump_factory()
    session, addresses, each = world.session(), 10, 40
    for _ in range(each):
        for number in range(addresses):
            ask(world, f"127.0.1.{number + 1}")
    newcomer = ask(world, "127.0.2.1")
    session.send(request(Method.REFRESH).encode())
    until_read(world, pump_kind)
    await world.until(lambda: len(world.notes.messages) == world.sent)
    order = [five_tuple.client for five_tuple, _ in world.notes.messages]
    assert order.index(newcomer) <= AT_ONCE + 2 * addresses
    assert order.index(session.endpoint.address) <= AT_ONCE + 2


def ask(world: World, host: str) -> Address:
    """Have a client of that address, of a port of its own, send what only the rules can judge."""
    client = world.endpoint(host)
    client.send(request(Method.REFRESH).encode(), world.listeners[Family.IPV4])
    return client.address


def until_read(world: World, kind: PumpKind) -> None:
    """The pump has read everything, and the rules, which are on this thread, have been told nothing since."""
    deadline = time.monotonic() + PATIENCE
    while kind != "portable" and world.pump.totals().received < world.sent and time.monotonic() < deadline:
        time.sleep(0.001)
