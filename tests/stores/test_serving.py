"""A server whose users are in a database: real clients, changes, the database killed and brought back under load."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tests.conftest import PATIENCE, Serve, address_of
from tests.stores import conftest, servers
from tests.stores.conftest import Database
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.config.settings import Settings
from turnsvr.credentials import shared_secret
from turnsvr.stores import hexkeys
from turnsvr.stores.api import Store

REALM = "example.org"
PASSWORD = "wonderland"
USERS = [f"user-{number}" for number in range(8)]
SHORT = 1.0
"""Seconds that the database has for an answer."""
MARGIN = 5.0
"""Seconds more that a busy machine may take."""


async def fill(store: Store, *names: str) -> None:
    for name in names:
        await store.set_user(REALM, name, hexkeys.of_password(REALM, name, PASSWORD))


@asynccontextmanager
async def open_store(database: Database) -> AsyncIterator[Store]:
    """For changes, as the commands make them."""
    store = database.open()
    await store.prepare()
    yield store
    await store.close()


async def client_of(application: Application, user: str, password: str = PASSWORD) -> TurnClient:
    return TurnClient(await DatagramLink.open(address_of(application, "udp")), Login(user, password))


async def allocates(application: Application, user: str, password: str = PASSWORD) -> str:
    """`ok`, or why not."""
    client = await client_of(application, user, password)
    try:
        await client.allocate()
        await client.refresh(0)
    except ClientError as error:
        return str(error)
    finally:
        await client.close()
    return "ok"


async def becomes(application: Application, user: str, expected: str, password: str = PASSWORD) -> None:
    """Wait until an allocation ends so."""
    deadline = time.monotonic() + PATIENCE
    while expected not in (found := await allocates(application, user, password)):
        assert time.monotonic() < deadline, found
        await asyncio.sleep(0.1)


async def relays(client: TurnClient) -> None:
    """An allocation that sends to itself."""
    await client.permit(client.relayed[0])
    client.send(client.relayed[0], b"hello")
    assert await asyncio.wait_for(client.receive(), PATIENCE) == PeerData(client.relayed[0], b"hello")


async def test_users_secrets_and_limits_of_a_store(serve: Serve, database: Database) -> None:
    async with open_store(database) as store:
        await fill(store, "alice")
        await store.add_secret(REALM, "north")
        store_settings = {"url": database.url, "cache": "1s", "poll": "1s"}
        application = await serve(
            credentials={"store": store_settings, "users": {"carol": "christmas"}}, limits={"allocations_per_user": 5}
        )
        assert await allocates(application, "alice") == "ok"
        assert await allocates(application, "carol", "christmas") == "ok"
        assert "401" in await allocates(application, "alice", "wrong")
        assert "401" in await allocates(application, "bob")
        timed = shared_secret.make("north", "dave", 600, time.time())
        assert await allocates(application, *timed) == "ok"

        await fill(store, "bob")
        await store.remove_user(REALM, "alice")
        await store.remove_secret(REALM, "north")
        await store.add_secret(REALM, "south")
        await store.set_option(REALM, "user-quota", 1)
        await becomes(application, "bob", "ok")
        await becomes(application, "alice", "401")
        await becomes(application, timed[0], "401", timed[1])
        await becomes(application, "bob", "ok", PASSWORD)
        south = shared_secret.make("south", "dave", 600, time.time())
        await becomes(application, south[0], "ok", south[1])
        holder = await client_of(application, "bob")
        await holder.allocate()
        await relays(holder)
        await becomes(application, "bob", "486")
        await holder.close()


async def test_the_store_s_secret_makes_the_credentials_that_are_given_out(serve: Serve, tmp_path: Path) -> None:
    database = conftest.new_sqlite(tmp_path)
    async with open_store(database) as store:
        await store.add_secret(REALM, "north")
    web = {"listen": "http://127.0.0.1:0", "public": True}
    application = await serve(credentials={"store": database.url}, web=web)
    given = await get(application, "/ice-servers")
    server = next(each for each in given.json()["iceServers"] if "credential" in each)
    assert await allocates(application, server["username"], server["credential"]) == "ok"


async def test_a_reload_takes_another_store(serve: Serve, tmp_path: Path) -> None:
    databases = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        database = conftest.new_sqlite(tmp_path / name)
        async with open_store(database) as store:
            await fill(store, name)
            await store.add_secret(REALM, name)
        databases.append(database)
    application = await serve(credentials={"store": databases[0].url})
    assert await allocates(application, "one") == "ok"
    kept = await client_of(application, "one")
    await kept.allocate()
    application.reload(reloaded(application, databases[1].url))
    await becomes(application, "two", "ok")
    assert "401" in await allocates(application, "one")
    timed = shared_secret.make("two", "", 600, time.time())
    await becomes(application, timed[0], "ok", timed[1])
    await kept.refresh(300)
    await kept.close()


def reloaded(application: Application, url: str) -> Settings:
    values: dict[str, Any] = {name: getattr(application.settings, name) for name in Settings.model_fields}
    return Settings.model_validate(values | {"credentials": {"store": url}})


async def get(application: Application, path: str) -> httpx.Response:
    assert application.web is not None
    async with httpx.AsyncClient(base_url=str(application.web.listening[0]), trust_env=False) as client:
        return await client.get(path)


async def ready(application: Application, expected: int) -> httpx.Response:
    """Wait until /readyz says so."""
    deadline = time.monotonic() + PATIENCE
    while (found := await get(application, "/readyz")).status_code != expected:
        assert time.monotonic() < deadline, found.text
        await asyncio.sleep(0.1)
    return found


@pytest.fixture
def running(server: servers.Server) -> Iterator[servers.Server]:
    """A database server that runs after the test as before it."""
    yield server
    server.kill()
    server.start()


class Load:
    """Clients that come and go all the time, and what became of them."""

    def __init__(self, application: Application) -> None:
        self.outcomes: Counter[str] = Counter()
        self.longest = 0.0
        """Seconds until an answer."""
        self._application = application
        self._tasks = [asyncio.ensure_future(self._run(name)) for name in USERS]

    async def _run(self, name: str) -> None:
        while True:
            started = time.monotonic()
            outcome = await allocates(self._application, name)
            self.longest = max(self.longest, time.monotonic() - started)
            self.outcomes["500" if "500" in outcome else outcome] += 1
            await asyncio.sleep(0.05)

    async def more(self, outcome: str, count: int = 20) -> None:
        """Wait until there are so many more of an outcome."""
        wanted = self.outcomes[outcome] + count
        deadline = time.monotonic() + PATIENCE
        while self.outcomes[outcome] < wanted:
            assert time.monotonic() < deadline, self.outcomes
            await asyncio.sleep(0.05)

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize("server", ["postgresql", "redis"], indirect=True)
async def test_a_database_that_is_killed_under_load_and_comes_back(serve: Serve, running: servers.Server) -> None:
    database = await conftest.new(running)
    async with open_store(database) as store:
        await fill(store, "alice", "bob", *USERS)
        await store.add_secret(REALM, "north")
    application = await serve(
        credentials={"store": {"url": database.url, "timeout": SHORT, "cache": "1s", "poll": "1s"}},
        web={"listen": "http://127.0.0.1:0", "requests_per_address": 0},
        limits={"answers_per_address": 0},
    )
    kept = await client_of(application, "alice")
    await kept.allocate()
    await relays(kept)
    await ready(application, 200)
    load = Load(application)
    await load.more("ok")
    with capture_logs() as logs:
        await asyncio.to_thread(running.kill)
        refused = await ready(application, 503)
        assert refused.json()["problems"] == ["store unavailable"]
        before = time.monotonic()
        assert "500" in await allocates(application, "bob")
        assert time.monotonic() - before < SHORT + MARGIN
        await load.more("500")
        await kept.refresh(300)
        await relays(kept)
        timed = shared_secret.make("north", "dave", 600, time.time())
        assert await allocates(application, *timed) == "ok"
        await asyncio.to_thread(running.start)
        await ready(application, 200)
        await load.more("ok")
        assert await allocates(application, "bob") == "ok"
        await load.stop()
    assert set(load.outcomes) == {"ok", "500"}
    assert load.longest < SHORT + MARGIN
    told = [entry for entry in logs if "store" in entry["event"]]
    assert [entry["event"] for entry in told] == ["credential store unavailable", "credential store available again"]
    assert servers.PASSWORD not in repr(logs)
    await kept.refresh(300)
    await relays(kept)
    await kept.close()


@pytest.mark.parametrize("server", ["postgresql", "redis"], indirect=True)
async def test_a_database_that_says_nothing_for_a_while(serve: Serve, running: servers.Server) -> None:
    """It takes connections and questions, and answers none."""
    database = await conftest.new(running)
    async with open_store(database) as store:
        await fill(store, "alice", "bob", "carol")
    application = await serve(
        credentials={"store": {"url": database.url, "timeout": SHORT, "cache": "1h", "poll": "1h"}},
        web={"listen": "http://127.0.0.1:0", "requests_per_address": 0},
    )
    assert await allocates(application, "alice") == "ok"
    with capture_logs() as logs:
        running.signal(signal.SIGSTOP)
        before = time.monotonic()
        outcomes = await asyncio.gather(*(allocates(application, name) for name in ("bob", "carol", "bob")))
        assert time.monotonic() - before < SHORT + MARGIN
        assert all("500" in outcome for outcome in outcomes)
        await ready(application, 503)
        before = time.monotonic()
        assert await allocates(application, "alice") == "ok"
        assert time.monotonic() - before < SHORT
        running.signal(signal.SIGCONT)
        await ready(application, 200)
        assert await allocates(application, "bob") == "ok"
    told = [entry["event"] for entry in logs if "store" in entry["event"]]
    assert told == ["credential store unavailable", "credential store available again"]


@pytest.mark.parametrize("server", ["redis"], indirect=True)
async def test_a_database_that_is_away_at_the_start(serve: Serve, running: servers.Server) -> None:
    database = await conftest.new(running)
    async with open_store(database) as store:
        await fill(store, "alice")
        await store.add_secret(REALM, "north")
    await asyncio.to_thread(running.kill)
    with capture_logs() as logs:
        application = await serve(
            credentials={"store": {"url": database.url, "timeout": SHORT}, "users": {"carol": "christmas"}},
            web={"listen": "http://127.0.0.1:0", "requests_per_address": 0},
        )
    assert "credential store unavailable" in [entry["event"] for entry in logs]
    timed = shared_secret.make("north", "dave", 600, time.time())
    await ready(application, 503)
    assert "500" in await allocates(application, "alice")
    assert "500" in await allocates(application, *timed)
    assert await allocates(application, "carol", "christmas") == "ok"
    await asyncio.to_thread(running.start)
    await ready(application, 200)
    assert await allocates(application, "alice") == "ok"
    assert await allocates(application, *timed) == "ok"


@pytest.mark.parametrize("server", ["redis"], indirect=True)
async def test_a_change_in_redis_is_noticed_at_once(serve: Serve, server: servers.Server) -> None:
    database = await conftest.new(server)
    async with Redis(host="127.0.0.1", port=server.port, password=servers.PASSWORD) as client:
        await client.config_set("notify-keyspace-events", "KA")
    async with open_store(database) as store:
        await fill(store, "alice")
        application = await serve(credentials={"store": {"url": database.url, "cache": "1h", "poll": "1h"}})
        assert await allocates(application, "alice") == "ok"
        assert "401" in await allocates(application, "bob")
        await store.remove_user(REALM, "alice")
        await fill(store, "bob")
        await store.add_secret(REALM, "north")
        await becomes(application, "alice", "401")
        await becomes(application, "bob", "ok")
        timed = shared_secret.make("north", "dave", 600, time.time())
        await becomes(application, timed[0], "ok", timed[1])
