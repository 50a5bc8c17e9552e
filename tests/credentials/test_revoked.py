"""Revoked user names: refused until they expire, in a table with a bound."""

from __future__ import annotations

import asyncio

from turnsvr.credentials.api import Caller, Credential, Refusal, Source
from turnsvr.credentials.chain import AsyncChain
from turnsvr.credentials.revoked import AsyncRevocable, Revocable, Revocations, revocable
from turnsvr.credentials.shared_secret import SharedSecrets, make

NOW = 1_700_000_000.0
REALM = "example.org"


def named(user: str, ttl: float = 600) -> str:
    return make("north", user, ttl, NOW)[0]


def test_a_revoked_name_is_refused_and_the_reason_is_told() -> None:
    revocations = Revocations()
    source = Revocable(SharedSecrets(["north"]), revocations)
    assert isinstance(source, Source)
    alice, bob = named("alice"), named("bob")
    assert source.find(alice, REALM, NOW)
    assert revocations.add(alice, NOW)
    assert source.find(alice, REALM, NOW) == ()
    assert source.refusal(alice, NOW) is Refusal.REVOKED
    assert source.find(bob, REALM, NOW)
    assert source.refusal("nobody", NOW) is Refusal.UNKNOWN
    assert source.find(named("alice", 601), REALM, NOW)


def test_names_go_when_they_expire() -> None:
    revocations = Revocations()
    assert revocations.add(named("a", 100), NOW)
    assert revocations.add(named("b", 200), NOW)
    assert revocations.add(named("c", 300), NOW + 150)
    assert len(revocations) == 2
    assert named("a", 100) not in revocations


def test_what_is_not_time_limited_or_has_expired_needs_no_place() -> None:
    revocations = Revocations()
    assert not revocations.add("alice", NOW)
    assert not revocations.add(named("a", 100), NOW + 100)
    assert len(revocations) == 0


def test_twice_is_once() -> None:
    revocations = Revocations()
    for _ in range(3):
        assert revocations.add(named("a"), NOW)
    assert len(revocations) == 1


def test_the_table_is_bounded_and_the_soonest_to_expire_goes() -> None:
    revocations = Revocations(max_names=3)
    for ttl in (300, 100, 400, 200):
        revocations.add(named("a", ttl), NOW)
    assert len(revocations) == 3
    assert named("a", 100) not in revocations
    assert named("a", 200) in revocations


async def test_a_source_that_takes_io_is_revocable_too() -> None:
    revocations = Revocations()
    source = revocable(AsyncChain([SharedSecrets(["north"])]), revocations)
    assert isinstance(source, AsyncRevocable)
    assert isinstance(revocable(SharedSecrets(["north"]), revocations), Revocable)
    caller = Caller("192.0.2.1", secure=True)
    assert await source.find(named("alice"), REALM, NOW, caller)
    assert source.find_now(named("alice"), REALM, NOW, caller)
    revocations.add(named("alice"), NOW)
    assert source.find_now(named("alice"), REALM, NOW, caller) == ()
    assert await source.find(named("alice"), REALM, NOW, caller) == ()
    assert source.refusal(named("alice"), NOW) is Refusal.REVOKED
    assert await source.find(named("bob"), REALM, NOW, caller)
    assert await source.by_userhash(bytes(32), REALM) is None
    assert not source.anonymity


class Slow:
    """Answers when it is let, like a source that takes I/O."""

    anonymity = False
    md5_alone = False

    def __init__(self) -> None:
        self._known = SharedSecrets(["north"])
        self.asked, self.let = asyncio.Event(), asyncio.Event()

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> None:
        return None

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        self.asked.set()
        await self.let.wait()
        return self._known.find(username, realm, wall_time)

    async def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN


async def test_a_name_that_is_revoked_while_it_is_looked_up_is_refused() -> None:
    revocations, slow = Revocations(), Slow()
    source = AsyncRevocable(slow, revocations)
    looking = asyncio.ensure_future(source.find(named("alice"), REALM, NOW, Caller("192.0.2.1", secure=True)))
    await slow.asked.wait()
    revocations.add(named("alice"), NOW)
    slow.let.set()
    assert await looking == ()
