"""The engine against sources of credentials that are slow, broken or many, and a pump that has no ports."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from structlog.testing import capture_logs

from turnsvr.credentials.api import Caller, Credential, Refusal, Unavailable
from turnsvr.net.lookup import Lookups
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.turn.commands import FindCredential

PATH = FiveTuple(Transport.UDP, Address("203.0.113.9", 50000), Address("198.51.100.1", 3478))
ALICE = Credential("alice", b"m" * 16, b"s" * 32, "alice")


class Slow:
    """Answers when told to."""

    anonymity = False
    md5_alone = False

    def __init__(self) -> None:
        self.answer: asyncio.Future[tuple[Credential, ...]] = asyncio.get_running_loop().create_future()
        self.remembered: dict[str, tuple[Credential, ...]] = {}

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        return await asyncio.shield(self.answer)

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        return self.remembered.get(username)

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return "alice" if userhash == b"alice" else None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN


class Asked:
    """Keeps the answers of look-ups."""

    def __init__(self, source: Any, **options: Any) -> None:
        self.found: list[tuple[int, tuple[Credential, ...], str]] = []
        self.failed: list[int] = []
        self.now = 50.0
        self.lookups = Lookups(
            source,
            lambda request, keys, why: self.found.append((request, tuple(keys), why)),
            self.failed.append,
            wall_time=lambda: 1000.0,
            clock=lambda: self.now,
            **options,
        )

    def ask(self, request: int, username: str | None = "alice", userhash: bytes | None = None) -> None:
        self.lookups.ask(FindCredential(request, PATH, username, userhash, "example.org"))


@pytest.fixture
async def slow() -> AsyncIterator[Slow]:
    source = Slow()
    yield source
    source.answer.cancel()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_source_that_takes_io_answers_later(slow: Slow) -> None:
    asked = Asked(slow)
    asked.ask(1)
    asked.ask(2, None, b"alice")
    asked.ask(3, None, b"nobody")
    await settle()
    assert asked.found == [(3, (), "unknown user")]
    slow.answer.set_result((ALICE,))
    await settle()
    assert asked.found[1:] == [(1, (ALICE,), ""), (2, (ALICE,), "")]
    assert asked.failed == []


@pytest.mark.parametrize("error", [Unavailable("the database at db.example.org is away"), RuntimeError("a bug")])
async def test_a_source_that_cannot_tell_fails_the_request(slow: Slow, error: Exception) -> None:
    asked = Asked(slow)
    asked.ask(1)
    slow.answer.set_exception(error)
    await settle()
    assert (asked.found, asked.failed) == ([], [1])


async def test_a_source_that_never_answers_fails_the_request(slow: Slow) -> None:
    asked = Asked(slow, timeout=0.01)
    asked.ask(1)
    async with asyncio.timeout(20):
        while not asked.failed:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert asked.found == []


async def test_look_ups_under_way_are_bounded(slow: Slow) -> None:
    asked = Asked(slow, max_waiting=3)
    for request in range(5):
        asked.ask(request)
    assert asked.failed == [3, 4]
    slow.answer.set_result((ALICE,))
    await settle()
    assert [request for request, _, _ in asked.found] == [0, 1, 2]
    asked.ask(9)
    await settle()
    assert asked.found[-1][0] == 9


@pytest.mark.parametrize(
    ("flooding", "also", "other"),
    [("203.0.113.9", "203.0.113.9", "203.0.113.10"), ("2001:db8:1:2::1", "2001:db8:1:2:9::7", "2001:db8:1:3::1")],
)
async def test_one_client_leaves_look_ups_for_others(slow: Slow, flooding: str, also: str, other: str) -> None:
    asked = Asked(slow, max_waiting=5, max_waiting_of_one=2)
    for request, host in enumerate([flooding, also, flooding, other]):
        path = PATH._replace(client=Address(host, 50000 + request))
        asked.lookups.ask(FindCredential(request, path, f"made up {request}", None, "example.org"))
    assert (asked.failed, asked.lookups.under_way) == ([2], 3)
    slow.answer.set_result((ALICE,))
    await settle()
    asked.lookups.ask(FindCredential(9, PATH._replace(client=Address(flooding, 50000)), "alice", None, "example.org"))
    await settle()
    assert [request for request, _, _ in asked.found] == [0, 1, 3, 9]


async def test_trouble_is_logged_once_until_it_is_over(slow: Slow) -> None:
    asked = Asked(slow, max_waiting=1)
    with capture_logs() as lines:
        for request in range(4):
            asked.ask(request)
        slow.answer.set_result((ALICE,))
        await settle()
        for request in range(4, 6):
            asked.ask(request)
            await settle()
    assert [(line["log_level"], line["event"]) for line in lines] == [
        ("warning", "credential look-ups fail"),
        ("info", "credential look-ups work again"),
    ]
    assert asked.lookups.failures == 3


async def test_trouble_that_comes_and_goes_is_told_now_and_then() -> None:
    with capture_logs() as lines:
        slow = Slow()
        asked = Asked(slow, max_waiting=1)
        for _ in range(100):
            asked.ask(1)
            asked.ask(2)
            slow.answer.set_result((ALICE,))
            await settle()
            slow.answer = asyncio.get_running_loop().create_future()
            asked.now += 1
        slow.answer.cancel()
    assert asked.lookups.failures == 100
    assert len(lines) == 2 * 4


async def test_an_absent_source_is_left_to_tell_of_itself(slow: Slow) -> None:
    asked = Asked(slow)
    slow.answer.set_exception(Unavailable("the database at db.example.org is away"))
    with capture_logs() as lines:
        asked.ask(1)
        await settle()
    assert [line["log_level"] for line in lines] == ["debug"]
    assert asked.lookups.failures == 1


async def test_look_ups_under_way_and_their_time_can_be_read(slow: Slow) -> None:
    asked = Asked(slow)
    asked.ask(1)
    asked.ask(2)
    await settle()
    assert (asked.lookups.under_way, asked.lookups.took.count) == (2, 0)
    asked.now += 0.2
    slow.answer.set_result((ALICE,))
    await settle()
    assert (asked.lookups.under_way, asked.lookups.took.count) == (0, 2)
    assert asked.lookups.took.sum == pytest.approx(0.4)


async def test_the_source_is_told_realm_and_caller() -> None:
    told: list[tuple[str, Caller]] = []

    class Source(Slow):
        async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
            told.append((realm, caller))
            return (ALICE,)

    asked = Asked(Source())
    asked.ask(1)
    asked.lookups.ask(FindCredential(2, PATH._replace(transport=Transport.TLS), "alice", None, "other.example"))
    await settle()
    assert told == [("example.org", Caller("203.0.113.9", False)), ("other.example", Caller("203.0.113.9", True))]


async def test_who_is_remembered_waits_for_nobody(slow: Slow) -> None:
    asked = Asked(slow, max_waiting=1)
    asked.ask(1, "carol")
    slow.remembered = {"alice": (ALICE,), "eve": ()}
    asked.ask(2)
    asked.ask(3, "eve")
    asked.ask(4, "bob")
    assert asked.found == [(2, (ALICE,), ""), (3, (), "unknown user")]
    assert asked.failed == [4]


async def test_look_ups_can_be_forgotten(slow: Slow) -> None:
    asked = Asked(slow)
    asked.ask(1)
    await settle()
    asked.lookups.cancel()
    slow.answer.set_result((ALICE,))
    await settle()
    assert (asked.found, asked.failed) == ([], [])
