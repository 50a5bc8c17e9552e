"""Revoked user names: refused until they expire, in a table with a bound."""

from __future__ import annotations

import asyncio

import pytest

from tests.credentials.callers import CALLER
from turnsvr.credentials.api import Caller, Credential, Refusal, Source
from turnsvr.credentials.chain import Chain
from turnsvr.credentials.revoked import Revocable, Revocations, TooManyRevoked
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
    assert source.find_now(alice, REALM, NOW, CALLER)
    assert revocations.add(alice, NOW)
    assert source.find_now(alice, REALM, NOW, CALLER) == ()
    assert source.refusal(alice, NOW) is Refusal.REVOKED
    assert source.find_now(bob, REALM, NOW, CALLER)
    assert source.refusal("nobody", NOW) is Refusal.UNKNOWN
    assert source.find_now(named("alice", 601), REALM, NOW, CALLER)


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


NO_EXPIRY = [
    "",
    ":",
    "nan:shop:a",
    "inf:shop:a",
    "-1900000000:shop:a",
    "+1900000000:shop:a",
    "1e10:shop:a",
    "1900000000.5:shop:a",
    " 1900000000:shop:a",
    "1900000000\n:shop:a",
    "1_900_000_000:shop:a",
    "\uff11\uff19" + "\uff10" * 8 + ":shop:a",
    "0x713fb300:shop:a",
    "1900000000000:shop:a",
    "9" * 400,
    "1900000000:" + "a" * 509,
    "1900000000:\ud800",
]
"""Names that say no expiry in seconds, or are too long to be names, or none at all."""


@pytest.mark.parametrize("name", NO_EXPIRY, ids=ascii)
def test_what_says_no_expiry_takes_no_place(name: str) -> None:
    revocations = Revocations(max_names=1)
    assert not revocations.add(name, NOW, owner="shop", share=1)
    assert len(revocations) == 0
    assert revocations.add(named("a"), NOW, owner="shop", share=1)


def test_twice_is_once() -> None:
    revocations = Revocations()
    for _ in range(3):
        assert revocations.add(named("a"), NOW)
    assert len(revocations) == 1


def test_a_full_table_refuses_and_forgets_none() -> None:
    revocations = Revocations(max_names=3)
    names = [named("a", ttl) for ttl in (300, 100, 400)]
    for name in names:
        assert revocations.add(name, NOW)
    with pytest.raises(TooManyRevoked, match="full") as caught:
        revocations.add(named("a", 50), NOW)
    assert caught.value.retry_after == 100
    assert all(name in revocations for name in names)
    assert named("a", 50) not in revocations
    assert revocations.add(names[0], NOW)
    assert revocations.add(named("a", 500), NOW + 100)


def test_a_caller_has_its_share_and_takes_no_other_ones() -> None:
    revocations = Revocations(max_names=10)
    share = revocations.share_of(4)
    assert share == 2
    for owner in "abcd":
        for ttl in (100, 200):
            assert revocations.add(named(owner, ttl), NOW, owner=owner, share=share)
        with pytest.raises(TooManyRevoked, match="2 user names are revoked already") as caught:
            revocations.add(named(owner, 300), NOW + 40.5, owner=owner, share=share)
        assert caught.value.retry_after == 60
        assert revocations.add(named(owner, 100), NOW, owner=owner, share=share)
    for ttl in (100, 200):
        assert revocations.add(named("operator", ttl), NOW)
    assert len(revocations) == 10
    assert revocations.add(named("a", 300), NOW + 100, owner="a", share=share)
    assert Revocations(max_names=10).share_of(0) == 10
    assert Revocations(max_names=10).share_of(1000) == 1


def test_100_000_names_of_one_caller_push_none_of_another_out() -> None:
    revocations = Revocations()
    victim = named("victim", 60)
    assert revocations.add(victim, NOW, owner="b", share=revocations.share_of(2))
    refused = 0
    for number in range(100_000):
        try:
            assert revocations.add(named(str(number), 86_400), NOW, owner="a", share=revocations.share_of(2))
        except TooManyRevoked:
            refused += 1
    assert victim in revocations
    assert refused == 100_000 - revocations.share_of(2)
    assert revocations.add(named("another", 60), NOW, owner="b", share=revocations.share_of(2))


async def test_a_source_that_takes_io_is_revocable_too() -> None:
    revocations = Revocations()
    source = Revocable(Chain([SharedSecrets(["north"]), Slow()]), revocations)
    caller = Caller("192.0.2.1", secure=True)
    assert await source.find(named("alice"), REALM, NOW, caller)
    assert source.find_now(named("alice"), REALM, NOW, caller)
    revocations.add(named("alice"), NOW)
    assert source.find_now(named("alice"), REALM, NOW, caller) == ()
    assert await source.find(named("alice"), REALM, NOW, caller) == ()
    assert source.refusal(named("alice"), NOW) is Refusal.REVOKED
    assert await source.find(named("bob"), REALM, NOW, caller)
    assert source.by_userhash(bytes(32), REALM) is None
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
        return self._known.find_now(username, realm, wall_time, caller)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN


async def test_a_name_that_is_revoked_while_it_is_looked_up_is_refused() -> None:
    revocations, slow = Revocations(), Slow()
    source = Revocable(slow, revocations)
    looking = asyncio.ensure_future(source.find(named("alice"), REALM, NOW, Caller("192.0.2.1", secure=True)))
    await slow.asked.wait()
    revocations.add(named("alice"), NOW)
    slow.let.set()
    assert await looking == ()
