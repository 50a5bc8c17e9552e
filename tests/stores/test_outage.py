"""A database that stops, is killed and comes back: a clear error in time, then recovery without help."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest

from tests.conftest import PATIENCE
from tests.stores import conftest, servers
from tests.stores.conftest import SERVERS, Database
from tests.stores.test_contract import REALM, keys
from turnsvr.config.locations import StoreUrl
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import open_store
from turnsvr.stores.api import Store

SHORT = 1.0
"""Seconds that a store has for an answer that cannot come."""
MARGIN = 1.5
"""Seconds more that a busy machine may take to notice."""

pytestmark = pytest.mark.parametrize("server", SERVERS, indirect=True)


@pytest.fixture(autouse=True)
def running(server: servers.Server) -> Iterator[None]:
    """The server runs after the test as before it."""
    yield
    server.kill()
    server.start()


@pytest.fixture
async def database(server: servers.Server) -> Database:
    found = await conftest.new(server)
    store = found.open()
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    await store.close()
    return found


async def unavailable(answer: Awaitable[object]) -> str:
    """That there is no answer, in time; the text that says so."""
    before = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        await answer
    assert time.monotonic() - before < SHORT + MARGIN
    return str(caught.value)


async def recovered(store: Store) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            assert await store.user(REALM, "alice") == keys("alice")
            return
        except Unavailable:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.1)


def descriptors() -> int:
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


async def settled(count: int) -> None:
    """No more descriptors are open than before, soon."""
    deadline = time.monotonic() + PATIENCE
    while descriptors() > count:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


async def test_killed_it_is_unavailable_and_recovers_when_it_is_back(
    server: servers.Server, database: Database
) -> None:
    before = descriptors()
    store = database.open(SHORT)
    await recovered(store)
    for _ in range(2):
        server.kill()
        for _ in range(3):
            text = await unavailable(store.user(REALM, "alice"))
            assert store.name in text
            assert "p@ss" not in text
            assert servers.USER + ":" not in text
        await unavailable(store.tables())
        await unavailable(store.set_user(REALM, "bob", keys("bob")))
        server.start()
        await recovered(store)
    await store.close()
    await settled(before)


async def test_killed_under_load_nobody_gets_a_wrong_answer(server: servers.Server, database: Database) -> None:
    names = [f"user {number}" for number in range(12)]
    store = database.open(SHORT)
    await recovered(store)
    for name in names:
        await store.set_user(REALM, name, keys(name))
    refused = answered = 0
    ended = asyncio.Event()

    async def ask(name: str) -> None:
        nonlocal refused, answered
        while not ended.is_set():
            try:
                assert await store.user(REALM, name) == keys(name)
                answered += 1
            except Unavailable:
                refused += 1
                await asyncio.sleep(0.05)

    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(ask(name))
        await asyncio.sleep(0.3)
        await asyncio.to_thread(server.kill)
        await asyncio.sleep(0.5)
        await asyncio.to_thread(server.start)
        await recovered(store)
        ended.set()
    assert answered
    assert refused
    await store.close()


async def test_stopped_it_is_unavailable_in_time_and_recovers_when_it_goes_on(
    server: servers.Server, database: Database
) -> None:
    before = descriptors()
    store = database.open(SHORT)
    await recovered(store)
    server.signal(signal.SIGSTOP)
    try:
        for _ in range(3):
            assert "no answer" in await unavailable(store.user(REALM, "alice"))
        asked = time.monotonic()
        answers = await asyncio.gather(
            *(store.user(REALM, f"user {number}") for number in range(40)), return_exceptions=True
        )
        assert time.monotonic() - asked < SHORT + MARGIN
        assert all(isinstance(answer, Unavailable) for answer in answers)
    finally:
        server.signal(signal.SIGCONT)
    await recovered(store)
    await store.close()
    await settled(before)


async def test_stopped_for_good_it_can_be_closed(server: servers.Server, database: Database) -> None:
    before = descriptors()
    store = database.open(SHORT)
    await recovered(store)
    server.signal(signal.SIGSTOP)
    await unavailable(store.user(REALM, "alice"))
    asked = time.monotonic()
    await store.close()
    assert time.monotonic() - asked < PATIENCE
    await settled(before)


async def test_restarted_behind_its_back_nobody_notices(server: servers.Server, database: Database) -> None:
    store = database.open()
    assert await store.user(REALM, "alice") == keys("alice")
    server.kill()
    server.start()
    assert await store.user(REALM, "alice") == keys("alice")
    await store.close()


async def test_while_it_is_away_nothing_spins(server: servers.Server, database: Database) -> None:
    store = database.open(SHORT)
    await recovered(store)
    server.kill()
    watching = asyncio.ensure_future(_watch(store))
    used = time.process_time()
    for _ in range(10):
        await unavailable(store.user(REALM, "alice"))
        await asyncio.sleep(0.1)
    assert time.process_time() - used < 0.7
    watching.cancel()
    await asyncio.wait((watching,))
    await store.close()


async def _watch(store: Store) -> None:
    changes = store.changes()
    if changes is not None:
        async for _ in changes:
            pass


async def test_a_wrong_password_is_told_without_showing_it(server: servers.Server, database: Database) -> None:
    url = StoreUrl.parse(database.url.replace("%40", "%41"))
    store = open_store(url, conftest.TIMEOUT)
    with pytest.raises(Unavailable, match="refuses this user name or password") as caught:
        await store.user(REALM, "alice")
    assert "pAss" not in str(caught.value)
    assert caught.value.__cause__ is None
    await store.close()


async def test_a_database_that_is_not_there_is_told(server: servers.Server, database: Database) -> None:
    store = open_store(StoreUrl.parse(database.url.rpartition("/")[0] + "/17"), conftest.TIMEOUT)
    with pytest.raises(Unavailable, match="has no such database"):
        await store.user(REALM, "alice")
    await store.close()


async def test_a_host_that_is_not_there_is_told(server: servers.Server, database: Database, tmp_path: Path) -> None:
    store = open_store(StoreUrl.parse(f"{database.url}?socket={tmp_path}/nobody"), SHORT)
    text = await unavailable(store.user(REALM, "alice"))
    assert f"{tmp_path}/nobody" in text
    await store.close()
