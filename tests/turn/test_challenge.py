"""Challenges taken apart: what they are put together from is what the rules answer."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import replace
from hashlib import blake2s

import pytest

from tests.turn.world import REALM, SERVER, UDP_RELAY, World, code
from turnsvr.plane import Challenge
from turnsvr.stun.address import Address
from turnsvr.stun.message import Method
from turnsvr.turn.config import Listener, RealmConfig, ServerConfig

CONFIG = ServerConfig(RealmConfig(REALM))
CLIENTS = [Address("198.51.100.7", 258), Address("2001:db8::7", 50_000), Address("::ffff:198.51.100.7", 1)]


def put_together(challenge: Challenge, client: Address, now: float) -> bytes:
    """The attributes, by what Challenge says of them."""
    expiry = (int(now + challenge.lifetime) + 1).to_bytes(4, "big")
    signed = expiry + client.port.to_bytes(2, "big") + client.packed
    mac = blake2s(signed, digest_size=12, key=challenge.key, person=challenge.person).digest()
    return challenge.before + b64encode(expiry + mac).rstrip(b"=") + challenge.after


@pytest.mark.parametrize("address", CLIENTS, ids=str)
@pytest.mark.parametrize(
    "config",
    [
        CONFIG,
        replace(CONFIG, anonymity=True, md5_first=True),
        replace(CONFIG, nonce_lifetime=0.75, realm=RealmConfig("r" * 763)),
        replace(CONFIG, realms={"shop": RealmConfig("shop")}, listeners={Listener(False, SERVER): "shop"}),
    ],
)
def test_it_is_what_the_rules_answer(config: ServerConfig, address: Address) -> None:
    world = World(config)
    challenge = world.server.challenge(SERVER)
    assert challenge is not None
    client = world.client(address=address)
    for now in (0.0, 1000.25, 1000.999):
        world.now = now
        (answer,) = client.deliver(client.message(Method.ALLOCATE, UDP_RELAY).encode())
        assert answer[20:] == put_together(challenge, address, now)


def test_it_goes_by_the_latest_config() -> None:
    world = World(CONFIG)
    first = world.server.challenge(SERVER)
    world.server.reconfigure(replace(CONFIG, realm=RealmConfig("another")), world.now)
    second = world.server.challenge(SERVER)
    assert first is not None
    assert second is not None
    assert (first.before, first.key) != (second.before, second.key)
    assert (first.after, first.key) == (second.after, second.key), "nonces live on"


def test_none_where_only_stun_is_served() -> None:
    world = World(replace(CONFIG, families=frozenset()))
    assert world.server.challenge(SERVER) is None
    client = world.client()
    assert code(client.transact(client.message(Method.ALLOCATE, UDP_RELAY).encode())) == 403


def test_none_where_the_realm_hangs_on_the_address_that_was_sent_to() -> None:
    listeners = {Listener(False, SERVER): "shop"}
    world = World(replace(CONFIG, realms={"shop": RealmConfig("shop")}, listeners=listeners))
    assert world.server.challenge(Address("0.0.0.0", SERVER.port)) is None
    assert world.server.challenge(Address("0.0.0.0", SERVER.port + 1)) is not None


def test_what_it_is_made_with_is_not_shown() -> None:
    challenge = World(CONFIG).server.challenge(SERVER)
    assert challenge is not None
    assert repr(challenge.key) not in repr(challenge)


def test_a_nonce_of_it_is_taken_and_from_nobody_else() -> None:
    world = World(CONFIG)
    challenge = world.server.challenge(SERVER)
    assert challenge is not None
    client = world.client()
    attributes = put_together(challenge, client.five_tuple.client, world.now)
    client.challenge()
    size = len(client.nonce or b"")
    at = attributes.index(b"obMatJos2")
    client.nonce = attributes[at : at + size]
    data = client.sign(client.message(Method.ALLOCATE, UDP_RELAY))
    thief = world.client()
    assert code(thief.transact(data)) == 438
    assert code(client.transact(data)) == 0
