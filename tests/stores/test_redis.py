"""Redis's own: word of changes, passwords in clear, keys that other programs leave there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from tests.conftest import PATIENCE
from tests.stores import conftest, servers
from tests.stores.conftest import Database
from tests.stores.test_contract import REALM, keys, names
from turnsvr.config.locations import StoreUrl
from turnsvr.config.units import BadValue
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import hexkeys, open_store
from turnsvr.stores import redis as redis_module
from turnsvr.stores.api import RealmTable, Store, Tables, UserKeys

MD5 = hexkeys.of_password(REALM, "alice", "wonderland").md5
assert MD5 is not None


@pytest.fixture
async def database(redis: servers.Server) -> Database:
    return await conftest.new_redis(redis)


@pytest.fixture
async def client(redis: servers.Server, database: Database) -> AsyncIterator[Redis]:
    """Another program at the same database."""
    async with Redis(host="127.0.0.1", port=redis.port, password=servers.PASSWORD, db=2) as opened:
        yield opened


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    opened = database.open()
    yield opened
    await opened.close()


class Watch:
    """Follows the changes that a store tells of."""

    def __init__(self, store: Store) -> None:
        changes = store.changes()
        assert changes is not None
        self._changes = changes
        self.count = 0
        self._news = asyncio.Event()
        self.task = asyncio.ensure_future(self._follow())

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._changes) as changes:  # type: ignore[type-var]
            async for _ in changes:
                self.count += 1
                self._news.set()

    async def change(self) -> None:
        """Until there is one, or another."""
        await asyncio.wait_for(self._news.wait(), PATIENCE)
        self._news.clear()

    async def end(self) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))


@pytest.mark.parametrize("flags", ["KEA", "Kg$sx"])
async def test_changes_are_told(store: Store, client: Redis, flags: str) -> None:
    await client.config_set("notify-keyspace-events", flags)
    watch = Watch(store)
    await watch.change()
    for change in (
        store.set_user(REALM, "alice", keys("alice")),
        store.remove_user(REALM, "alice"),
        store.add_secret(REALM, "north"),
        store.remove_secret(REALM, "north"),
        store.set_option(REALM, "user-quota", 4),
        store.set_origin("https://app.example.org", REALM),
        store.set_range(REALM, "denied", "10.0.0.0/8", True),
        client.rename(f"turn/realm/{REALM}/denied-peer-ip", f"turn/realm/{REALM}/allowed-peer-ip"),
    ):
        await change
        await watch.change()
    await watch.end()


async def test_many_changes_are_one_and_status_of_sessions_is_none(store: Store, client: Redis) -> None:
    await client.config_set("notify-keyspace-events", "KEA")
    watch = Watch(store)
    await watch.change()
    for number in range(200):
        await client.set(f"turn/realm/{REALM}/user/alice/allocation/{number:018}/status", "new lifetime=600")
        await client.set(f"else/{number}", "")
    await client.select(3)
    await client.set("turn/realm/{REALM}/user/alice/key", "elsewhere")
    await client.select(2)
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(500):
            pipeline.set(f"turn/realm/{REALM}/user/{number}/key", "secret")
        await pipeline.execute()
    await watch.change()
    await store.set_user(REALM, "alice", keys("alice"))
    await watch.change()
    assert watch.count <= 5
    await watch.end()


@pytest.mark.parametrize("flags", ["", "Ex", "K$"])
async def test_a_server_that_does_not_tell_is_polled(store: Store, client: Redis, flags: str) -> None:
    await client.config_set("notify-keyspace-events", flags)
    with capture_logs() as log:
        watch = Watch(store)
        await asyncio.wait_for(watch.task, PATIENCE)
    assert watch.count == 0
    assert [entry["hint"] for entry in log] == ["notify-keyspace-events Kg$shx"]


async def test_a_user_that_may_not_ask_for_settings_is_polled(redis: servers.Server, client: Redis) -> None:
    await client.acl_setuser(
        "reader", enabled=True, passwords=["+hush"], keys=["*"], channels=["*"], commands=["+@all", "-config"]
    )
    store = open_store(StoreUrl.parse(f"redis://reader:hush@127.0.0.1:{redis.port}/2"), conftest.TIMEOUT)
    watch = Watch(store)
    await asyncio.wait_for(watch.task, PATIENCE)
    assert watch.count == 0
    assert await store.user(REALM, "alice") is None
    await client.acl_setuser("reader", enabled=True, commands=["-set"])
    with pytest.raises(Unavailable, match="does not permit this to its user"):
        await store.set_user(REALM, "alice", keys("alice"))
    await store.close()


async def test_what_changed_while_it_was_away_is_told(redis: servers.Server, store: Store, client: Redis) -> None:
    await client.config_set("notify-keyspace-events", "KEA")
    watch = Watch(store)
    await watch.change()
    try:
        redis.kill()
        redis.start()
        async with Redis(host="127.0.0.1", port=redis.port, password=servers.PASSWORD, db=2) as other:
            await other.config_set("notify-keyspace-events", "KEA")
            before = watch.count
            while watch.count == before and not watch.task.done():
                await other.set(f"turn/realm/{REALM}/user/bob/key", "builder")
                await asyncio.sleep(0.1)
    finally:
        await watch.end()


async def test_a_password_in_clear_makes_both_keys(store: Store, client: Redis) -> None:
    await client.set(f"turn/realm/{REALM}/user/alice/key", "wonderland")
    assert await store.user(REALM, "alice") == keys("alice")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (MD5.hex(), UserKeys(md5=MD5)),
        (MD5.hex().upper(), UserKeys(md5=MD5)),
        (b"\xff\xfe", None),
        ("", None),
    ],
)
async def test_other_values(store: Store, client: Redis, value: str | bytes, found: UserKeys | None) -> None:
    await client.set(f"turn/realm/{REALM}/user/alice/key", value)
    assert await store.user(REALM, "alice") == found


async def test_keys_of_another_type_are_told_and_do_no_harm(store: Store, client: Redis) -> None:
    await client.sadd(f"turn/realm/{REALM}/user/alice/key", "x")
    await client.set(f"turn/realm/{REALM}/secret", "north")
    await client.sadd(f"turn/realm/{REALM}/max-bps", "1")
    await client.set(f"turn/realm/{REALM}/total-quota", "many")
    await client.set(f"turn/realm/{REALM}/user-quota", "4")
    await client.sadd("turn/origin/https://app.example.org", REALM)
    await client.sadd("turn/realm/other.org/secret", b"\xff\xfe", "south")
    assert await store.user(REALM, "alice") is None
    tables = await store.tables()
    assert tables.realms == {REALM: RealmTable(user_quota=4), "other.org": RealmTable(secrets=("south",))}
    assert tables.origins == {}
    assert len(tables.mistakes) == 5
    assert "south" not in str(tables.mistakes)


async def test_many_users_cost_the_tables_little(store: Store, client: Redis) -> None:
    async with client.pipeline(transaction=False) as pipeline:
        for number in range(20_000):
            pipeline.set(f"turn/realm/{REALM}/user/user {number}/key", "x")
        await pipeline.execute()
    await store.add_secret(REALM, "north")
    assert (await store.tables()).realms == {REALM: RealmTable(secrets=("north",))}
    assert len(await names(store, REALM)) == 20_000


async def test_keys_that_are_not_read_take_no_room_and_what_is_left_out_is_told(
    store: Store, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "MAX_NAMES", 5)
    for number in range(3_000):
        await client.set(f"turn/realm/{REALM}/nothing of coturn's {number}s", "x")
    await store.add_secret(REALM, "north")
    assert await store.tables() == Tables({REALM: RealmTable(secrets=("north",))})
    for number in range(6):
        await store.set_origin(f"https://{number}.example", REALM)
        await store.add_secret(REALM, f"secret {number}")
        await store.set_user(REALM, f"user {number}", keys("x"))
    tables = await store.tables()
    assert (len(tables.origins), len(tables.realms[REALM].secrets)) == (5, 5)
    assert tables.mistakes == (
        "more than 5 entries in 'turn/origin/'; the further ones are left out",
        f"more than 5 entries in 'turn/realm/{REALM}/secret'; the further ones are left out",
    )
    assert len(await names(store, REALM)) == 5


@pytest.mark.parametrize("name", ["x", "-1", "0x0"])
def test_a_database_has_a_number(name: str) -> None:
    with pytest.raises(BadValue, match="no number"):
        open_store(StoreUrl.parse(f"redis://localhost/{name}"), 1.0)
