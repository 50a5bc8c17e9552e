"""What the server remembers of a store's users, and how long; time-limited names; its tables, kept current."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest
from structlog.testing import capture_logs

from tests.conftest import PATIENCE
from turnsvr.credentials.api import Caller, Refusal, Source, Unavailable
from turnsvr.credentials.health import Health
from turnsvr.credentials.questions import Questions
from turnsvr.credentials.shared_secret import make
from turnsvr.stores import source as source_module
from turnsvr.stores.api import RealmTable, Tables, UserKeys
from turnsvr.stores.poller import Poller
from turnsvr.stores.source import StoreSource
from turnsvr.stun.integrity import userhash

NOW = 1_800_000_000.0
CACHE = 30.0
REALM = "example.org"
HERE = Caller("192.0.2.1", secure=False)
ALICE = UserKeys(b"m" * 16, b"s" * 32)
TABLES = Tables({REALM: RealmTable(secrets=("new", "old"))}, {"https://example.org": REALM})


class Clock:
    now = 5_000.0

    def __call__(self) -> float:
        return self.now


class MemoryReader:
    """A Reader over what a test puts in; it can be away, and slow."""

    name = "a store in memory"

    def __init__(self) -> None:
        self.users = {(REALM, "alice"): ALICE}
        self.held = TABLES
        self.away = False
        self.let: asyncio.Event | None = None
        self.asked: list[tuple[str, ...]] = []
        self.told: asyncio.Queue[None] | None = None

    async def user(self, realm: str, name: str) -> UserKeys | None:
        await self._answer("user", realm, name)
        return self.users.get((realm, name))

    async def tables(self, *, keys: bool = False) -> Tables:
        await self._answer("tables")
        return self.held

    def changes(self) -> AsyncIterator[None] | None:
        return None if self.told is None else self._changes(self.told)

    async def close(self) -> None: ...

    async def _changes(self, told: asyncio.Queue[None]) -> AsyncIterator[None]:
        while True:
            await told.get()
            yield

    async def _answer(self, *question: str) -> None:
        self.asked.append(question)
        if self.let is not None:
            await self.let.wait()
        if self.away:
            raise Unavailable("a store in memory: away")


@pytest.fixture
def reader() -> MemoryReader:
    return MemoryReader()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def source_of(reader: MemoryReader, clock: Clock, cache: float = CACHE) -> StoreSource:
    questions = Questions(Health("credential store", reader.name), PATIENCE, clock=clock)
    source = StoreSource(reader, questions, cache=cache, clock=clock)
    source.take(reader.held)
    return source


@pytest.fixture
def source(reader: MemoryReader, clock: Clock) -> StoreSource:
    return source_of(reader, clock)


async def knows(source: StoreSource, name: str = "alice", realm: str = REALM) -> bool:
    return bool(await source.find(name, realm, NOW, HERE))


async def test_users_by_realm_and_name(source: StoreSource) -> None:
    assert isinstance(source, Source)
    (found,) = await source.find("alice", REALM, NOW, HERE)
    assert (found.md5_key, found.sha256_key, found.quota_user) == (ALICE.md5, ALICE.sha256, "alice")
    assert not await knows(source, "Alice")
    assert not await knows(source, "alice", "elsewhere")
    assert source.refusal("bob", NOW) is Refusal.UNKNOWN


async def test_a_user_whose_key_is_of_no_use_is_none(reader: MemoryReader, source: StoreSource) -> None:
    reader.users[REALM, "broken"] = UserKeys()
    assert not await knows(source, "broken")


async def test_a_user_is_asked_for_once_in_so_many_seconds(
    reader: MemoryReader, source: StoreSource, clock: Clock
) -> None:
    for _ in range(3):
        assert await knows(source)
    clock.now += CACHE - 0.1
    assert await knows(source)
    assert len(reader.asked) == 1
    del reader.users[REALM, "alice"]
    clock.now += 0.1
    assert not await knows(source)
    assert len(reader.asked) == 2


async def test_a_new_user_waits_ten_seconds_at_most(reader: MemoryReader, source: StoreSource, clock: Clock) -> None:
    for _ in range(3):
        assert not await knows(source, "bob")
    assert len(reader.asked) == 1
    reader.users[REALM, "bob"] = ALICE
    clock.now += 10
    assert await knows(source, "bob")


async def test_without_a_cache_every_question_is_asked(reader: MemoryReader, clock: Clock) -> None:
    source = source_of(reader, clock, 0)
    for _ in range(3):
        assert await knows(source)
        assert not await knows(source, "bob")
    assert len(reader.asked) == 6
    reader.away = True
    with pytest.raises(Unavailable):
        await knows(source)


async def test_while_the_store_is_away_what_is_known_serves_once_more_as_long(
    reader: MemoryReader, source: StoreSource, clock: Clock
) -> None:
    assert await knows(source)
    reader.away = True
    with pytest.raises(Unavailable):
        await knows(source, "bob")
    clock.now += 2 * CACHE - 0.1
    asked = len(reader.asked)
    for _ in range(3):
        assert await knows(source)
    assert len(reader.asked) == asked
    clock.now += 0.1
    with pytest.raises(Unavailable):
        await knows(source)


async def test_who_notices_first_that_the_store_is_away_is_served_too(
    reader: MemoryReader, source: StoreSource, clock: Clock
) -> None:
    assert await knows(source)
    clock.now += CACHE
    reader.away = True
    assert await knows(source)


async def test_a_user_who_was_removed_is_not_brought_back_by_an_outage(
    reader: MemoryReader, source: StoreSource, clock: Clock
) -> None:
    assert await knows(source)
    del reader.users[REALM, "alice"]
    clock.now += CACHE
    assert not await knows(source)
    reader.away = True
    clock.now += 10
    with pytest.raises(Unavailable):
        await knows(source)


async def test_a_store_that_speaks_of_changes_is_asked_anew(reader: MemoryReader, source: StoreSource) -> None:
    assert await knows(source)
    assert not await knows(source, "bob")
    del reader.users[REALM, "alice"]
    reader.users[REALM, "bob"] = ALICE
    source.forget()
    assert not await knows(source)
    assert await knows(source, "bob")


async def test_an_answer_from_before_a_change_is_not_remembered(reader: MemoryReader, source: StoreSource) -> None:
    reader.let = asyncio.Event()
    before = asyncio.ensure_future(knows(source, "bob"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    source.forget()
    reader.let.set()
    assert not await before
    reader.users[REALM, "bob"] = ALICE
    assert await knows(source, "bob")


async def test_many_who_ask_for_one_user_share_a_query(reader: MemoryReader, source: StoreSource) -> None:
    reader.let = asyncio.Event()
    asking = [asyncio.ensure_future(knows(source)) for _ in range(100)]
    await asyncio.sleep(0)
    reader.let.set()
    assert all(await asyncio.gather(*asking))
    assert len(reader.asked) == 1


async def test_made_up_names_push_no_user_out(
    reader: MemoryReader, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_module, "_MAX_UNKNOWN", 100)
    monkeypatch.setattr(source_module, "_MAX_KNOWN", 100)
    source = source_of(reader, clock)
    assert await knows(source)
    for number in range(500):
        assert not await knows(source, f"made up {number}")
    reader.asked.clear()
    assert await knows(source)
    assert reader.asked == []


async def test_names_that_can_be_nobodys_are_not_asked(reader: MemoryReader, source: StoreSource) -> None:
    for name in ("", "a\0b", "a\nb", "x" * 509):
        assert not await knows(source, name)
    assert reader.asked == []


async def test_time_limited_names_by_every_secret_without_a_query(reader: MemoryReader, source: StoreSource) -> None:
    reader.away = True
    username, _ = make("old", "bob", 600, NOW)
    found = await source.find(username, REALM, NOW, HERE)
    assert [each.quota_user for each in found] == ["bob", "bob"]
    assert found[0].md5_key != found[1].md5_key
    assert reader.asked == []


async def test_time_limited_names_are_those_of_their_realm(reader: MemoryReader, source: StoreSource) -> None:
    username, _ = make("new", "bob", 600, NOW)
    assert await source.find(username, "elsewhere", NOW, HERE) == ()
    source.take(replace(TABLES, realms={REALM: RealmTable(secrets=("newest",))}))
    assert len(await source.find(username, REALM, NOW, HERE)) == 1
    source.take(Tables())
    assert await source.find(username, REALM, NOW, HERE) == ()


async def test_a_number_as_name_can_be_a_user(reader: MemoryReader, source: StoreSource) -> None:
    """Extensions of telephone systems; as expiry it is long past."""
    reader.users[REALM, "1001"] = ALICE
    assert await knows(source, "1001")
    assert not await knows(source, "1002")
    assert source.refusal("1002", NOW) is Refusal.EXPIRED


async def test_before_the_tables_are_known_time_limited_names_cannot_be_judged(
    reader: MemoryReader, clock: Clock
) -> None:
    questions = Questions(Health("credential store", reader.name), PATIENCE, clock=clock)
    source = StoreSource(reader, questions, cache=CACHE, clock=clock)
    assert await knows(source)
    with pytest.raises(Unavailable):
        await source.find(make("new", "", 600, NOW)[0], REALM, NOW, HERE)


async def test_one_user_is_forgotten_and_others_are_not(reader: MemoryReader, source: StoreSource) -> None:
    reader.users[REALM, "bob"] = ALICE
    assert await knows(source)
    assert await knows(source, "bob")
    reader.users.clear()
    source.forget_user(REALM, "alice")
    assert not await knows(source)
    assert await knows(source, "bob")


async def test_what_is_under_way_when_a_user_is_forgotten_is_not_remembered(
    reader: MemoryReader, source: StoreSource
) -> None:
    reader.let = asyncio.Event()
    asking = asyncio.ensure_future(knows(source))
    await asyncio.sleep(0)
    source.forget_user(REALM, "alice")
    reader.let.set()
    assert await asking
    reader.users.clear()
    assert not await knows(source)


async def test_userhash_is_not_resolved_and_costs_the_database_nothing(
    reader: MemoryReader, source: StoreSource
) -> None:
    assert not source.anonymity
    assert source.by_userhash(userhash("alice", REALM), REALM) is None
    assert reader.asked == []


class Watched:
    """A Poller and what it told."""

    def __init__(self, reader: MemoryReader, poll: float = 3600.0) -> None:
        self.health = Health("credential store", reader.name)
        self.tables: list[Tables] = []
        self.changes = 0
        self.poller = Poller(
            reader,
            Questions(self.health, PATIENCE),
            poll=poll,
            changed=self.tables.append,
            users_changed=self._changed,
        )

    def _changed(self) -> None:
        self.changes += 1

    async def heard(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.tables) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnsvr.stores.poller._RETRY_SECONDS", 0.01)


async def test_tables_are_read_at_the_start_and_told_when_they_change(reader: MemoryReader, hurry: None) -> None:
    watched = Watched(reader, poll=0.01)
    await watched.poller.start(PATIENCE)
    assert watched.tables == [TABLES]
    asked = len(reader.asked)
    async with asyncio.timeout(PATIENCE):
        while len(reader.asked) < asked + 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    assert watched.tables == [TABLES]
    reader.held = Tables()
    await watched.heard(2)
    assert watched.tables == [TABLES, Tables()]
    await watched.poller.stop()
    await watched.poller.stop()


async def test_between_polls_the_store_is_left_alone(reader: MemoryReader, hurry: None) -> None:
    watched = Watched(reader)
    await watched.poller.start(PATIENCE)
    await asyncio.sleep(0.1)
    assert reader.asked == [("tables",)]
    await watched.poller.stop()


async def test_a_store_that_tells_of_changes_is_read_at_once(reader: MemoryReader) -> None:
    reader.told = asyncio.Queue()
    watched = Watched(reader)
    await watched.poller.start(PATIENCE)
    reader.held = Tables()
    reader.told.put_nowait(None)
    await watched.heard(2)
    assert watched.tables == [TABLES, Tables()]
    assert watched.changes == 1
    await watched.poller.stop()


async def test_the_last_tables_stay_while_the_store_is_away(reader: MemoryReader, hurry: None) -> None:
    watched = Watched(reader, poll=0.02)
    with capture_logs() as logs:
        await watched.poller.start(PATIENCE)
        reader.away = True
        async with asyncio.timeout(PATIENCE):
            while watched.health.errors < 3:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert watched.tables == [TABLES]
        reader.held = Tables()
        reader.away = False
        await watched.heard(2)
    assert [entry["event"] for entry in logs] == ["credential store unavailable", "credential store available again"]
    await watched.poller.stop()


async def test_somebody_else_s_notice_that_the_store_is_away_has_it_asked_soon(
    reader: MemoryReader, hurry: None
) -> None:
    watched = Watched(reader)
    await watched.poller.start(PATIENCE)
    watched.health.failed(time.monotonic(), "somebody else's question")
    async with asyncio.timeout(PATIENCE):
        while not watched.health.available:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
    await watched.poller.stop()


async def test_a_store_that_does_not_answer_delays_the_start_no_longer_than_agreed(reader: MemoryReader) -> None:
    reader.let = asyncio.Event()
    watched = Watched(reader)
    await watched.poller.start(0.01)
    assert watched.tables == []
    reader.let.set()
    await watched.heard(1)
    await watched.poller.stop()


async def test_mistakes_in_the_tables_are_told_once_each(reader: MemoryReader, hurry: None) -> None:
    watched = Watched(reader, poll=0.01)
    with capture_logs() as logs:
        reader.held = replace(TABLES, mistakes=("max-bps 'x' of realm 'r' is no number",))
        await watched.poller.start(PATIENCE)
        reader.held = replace(reader.held, mistakes=(*reader.held.mistakes, "an empty secret of realm 'r'"))
        await watched.heard(2)
    told = [entry["entry"] for entry in logs if entry["event"] == "left out of the credential store"]
    assert told == list(reader.held.mistakes)
    await watched.poller.stop()


async def test_who_is_told_and_fails_is_told_again(reader: MemoryReader, hurry: None) -> None:
    told: list[Tables] = []

    def changed(tables: Tables) -> None:
        told.append(tables)
        if len(told) == 1:
            raise RuntimeError("a bug")

    health = Health("credential store", reader.name)
    poller = Poller(reader, Questions(health, PATIENCE), poll=0.01, changed=changed, users_changed=lambda: None)
    with capture_logs() as logs:
        await poller.start(PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while len(told) < 2:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert told == [TABLES, TABLES]
        reader.held = Tables()
        async with asyncio.timeout(PATIENCE):
            while told[-1] == TABLES:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        assert told == [TABLES, TABLES, Tables()]
    assert [entry["log_level"] for entry in logs] == ["error"]
    await poller.stop()
