"""Allocate requests without credentials, as both pumps take them: answered as the rules would, or handed to them."""

from __future__ import annotations

import secrets
import time
from dataclasses import replace

import pytest

from tests.relay.conftest import PumpFactory
from tests.relay.world import FAMILIES, LOOPBACK, SETTINGS, Endpoint, World, private_loopback, request
from turnsvr.limits import AnswerLimiter
from turnsvr.relay.counts import Drop
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple, Transport
from turnsvr.stun.message import Message, Method
from turnsvr.turn.commands import Send
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.server import Server

families = pytest.mark.parametrize("family", FAMILIES)


class Challenged:
    """A world whose listeners have challenges, and the rules that these are of."""

    def __init__(self, world: World, realm: str = "example.org") -> None:
        self.world = world
        self.compiled = world.pump.name == "compiled"
        self.rules = Server(ServerConfig(RealmConfig(realm)), random=secrets.token_bytes, limiter=AnswerLimiter(0))
        for listener in world.listeners.values():
            world.pump.challenge(listener, self.rules.challenge(listener))

    def of_rules(self, data: bytes, five_tuple: FiveTuple, now: float) -> bytes:
        self.rules.receive(data, five_tuple, now)
        (command,) = self.rules.commands()
        assert isinstance(command, Send)
        return command.data

    async def check(self, client: Endpoint, data: bytes, server: Address, heard: Address | None = None) -> None:
        """The compiled pump answers as the rules do, the portable one hands up. heard: where the answer is from."""
        five_tuple = FiveTuple(Transport.UDP, client.address, heard or server)
        handed_up = len(self.world.notes.messages)
        before = time.monotonic()
        client.send(data, server)
        if not self.compiled:
            await self.world.until(lambda: len(self.world.notes.messages) > handed_up)
            assert self.world.notes.messages[-1] == (five_tuple, data)
            return
        answer, sender = await client.receive()
        assert sender == five_tuple.server
        # The seconds of the expiry may have turned meanwhile.
        assert answer in {self.of_rules(data, five_tuple, now) for now in (before, time.monotonic())}
        assert len(self.world.notes.messages) == handed_up


@families
@pytest.mark.parametrize("fingerprint", [False, True])
async def test_a_first_allocate_request(pump_factory: PumpFactory, family: Family, fingerprint: bool) -> None:
    challenged = Challenged(pump_factory())
    world = challenged.world
    client = world.endpoint(LOOPBACK[family])
    message = request().add(a.REQUESTED_TRANSPORT, 17).add(a.SOFTWARE, "a client")
    await challenged.check(client, message.encode(fingerprint=fingerprint), world.listeners[family])
    totals = await world.settled()
    assert totals.challenges == challenged.compiled
    assert totals.binding_answers == totals.challenges_withheld == 0
    assert totals.sent_up == (not challenged.compiled)


@families
async def test_a_client_that_has_a_session(pump_factory: PumpFactory, family: Family) -> None:
    challenged = Challenged(pump_factory())
    session = challenged.world.session(family)
    await challenged.check(session.endpoint, request().encode(), session.five_tuple.server)


@families
async def test_at_a_wildcard_listener(pump_factory: PumpFactory, family: Family) -> None:
    challenged = Challenged(pump_factory())
    world = challenged.world
    bound = world.pump.listen(Address({Family.IPV4: "0.0.0.0", Family.IPV6: "::"}[family], 0))
    world.pump.challenge(bound, challenged.rules.challenge(bound))
    here = Address(LOOPBACK[family], bound.port)
    await challenged.check(world.endpoint(LOOPBACK[family]), request().encode(), here, here)


def changed_at_its_end(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


async def test_all_else_goes_up(pump_factory: PumpFactory) -> None:
    challenged = Challenged(pump_factory())
    world, server = challenged.world, challenged.world.listeners[Family.IPV4]
    messages = [
        request().encode(key=b"key"),
        request().encode(sha256_key=b"key"),
        request().add(a.REALM, "example.org").encode(),
        request().add(a.ORIGIN, "https://example.org").encode(),
        request(Method.REFRESH).encode(),
        changed_at_its_end(request().encode(fingerprint=True)),
    ]
    client = world.endpoint()
    for message in messages:
        client.send(message, server)
    await world.until(lambda: len(world.notes.messages) == len(messages))
    assert [data for _, data in world.notes.messages] == messages
    assert (await world.settled()).challenges == 0
    assert not client.waiting()


async def test_none_without_a_challenge_or_after_it_was_taken_back(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    client, server = world.endpoint(), world.listeners[Family.IPV4]
    client.send(request().encode(), server)
    await world.until(lambda: len(world.notes.messages) == 1)
    challenged = Challenged(world)
    await challenged.check(client, request().encode(), server)
    handed_up = len(world.notes.messages)
    world.pump.challenge(server, None)
    client.send(request().encode(), server)
    await world.until(lambda: len(world.notes.messages) == handed_up + 1)
    assert not client.waiting()


async def test_another_challenge_holds_at_once(pump_factory: PumpFactory) -> None:
    world = pump_factory()
    client, server = world.endpoint(), world.listeners[Family.IPV4]
    for realm in ("one.example.org", "another.example.org"):
        await Challenged(world, realm).check(client, request().encode(), server)


async def test_they_count_with_binding_answers(pump_factory: PumpFactory) -> None:
    challenged = Challenged(pump_factory(replace(SETTINGS, answers_per_address=0.001)))
    world, server = challenged.world, challenged.world.listeners[Family.IPV4]
    if not challenged.compiled:
        pytest.skip("the rules keep the rate of what is handed to them")
    client, other = world.endpoint(), world.endpoint(private_loopback())
    client.send(request(Method.BINDING).encode(), server)
    for _ in range(3):
        client.send(request().encode(), server)
    await challenged.check(other, request().encode(), server)
    totals = await world.settled()
    assert (totals.binding_answers, totals.challenges, totals.challenges_withheld) == (1, 1, 3)
    assert totals.drops[Drop.RATE_LIMITED] == 3
    assert len((await client.receive())[0]) == 32
    assert not client.waiting()


async def test_many_at_once_each_have_theirs(pump_factory: PumpFactory) -> None:
    challenged = Challenged(pump_factory(replace(SETTINGS, answers_per_address=0)))
    world, server = challenged.world, challenged.world.listeners[Family.IPV4]
    clients = [world.endpoint() for _ in range(3)]
    sent: dict[Address, list[Message]] = {client.address: [] for client in clients}
    for number in range(150):
        client = clients[number % 3]
        message = request().add(a.SOFTWARE, "x" * (number % 5))
        sent[client.address].append(message)
        client.send(message.encode(fingerprint=number % 2 == 0), server)
    totals = await world.settled()
    assert totals.challenges == (150 if challenged.compiled else 0)
    for client in clients:
        answers = [Message.parse(data) for data in client.waiting()]
        if challenged.compiled:
            assert [each.transaction_id for each in answers] == [each.transaction_id for each in sent[client.address]]
            assert len({each.get(a.NONCE) for each in answers}) <= 2
