"""Tables that coturn's own schema made, where they differ from ours: other collations, fixed widths, less room."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import URL, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.conftest import need
from tests.stores import conftest, servers
from tests.stores.conftest import Database
from tests.stores.test_contract import REALM, keys, names
from turnsvr.config.locations import StoreUrl
from turnsvr.credentials.api import Unavailable
from turnsvr.stores.api import EVERY_REALM, NotStorable, RealmTable, UserKeys

COTURN = Path("/usr/share/coturn")
SQL = ("sqlite", "postgresql", "mariadb")

DRIVERS = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg", "mysql": "mysql+aiomysql"}


@pytest.fixture(params=SQL)
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    if request.param == "sqlite":
        return conftest.new_sqlite(tmp_path)
    return await conftest.new(request.getfixturevalue(request.param))


async def execute(database: Database, statements: str) -> None:
    """Run SQL as coturn's documentation has it run."""
    url = StoreUrl.parse(database.url)
    password = url.password.get_secret_value() if url.password else None
    engine = create_async_engine(
        URL.create(DRIVERS[url.dialect], url.user or None, password, url.host or None, url.port, url.database)
    )
    async with engine.begin() as connection:
        for statement in statements.split(";"):
            if statement.strip():
                await connection.execute(text(statement.replace(":", r"\:")))
    await engine.dispose()


def coturns(name: str) -> str:
    need("turnserver")
    return (COTURN / name).read_text()


async def test_coturns_own_tables_and_example_are_read(database: Database) -> None:
    await execute(database, coturns("schema.sql") + coturns("testsqldbsetup.sql"))
    store = database.open()
    gorst = await store.user("north.gov", "gorst")
    assert gorst == UserKeys(md5=bytes.fromhex("7da2270ccfa49786e0115366d3a3d14d"))
    assert list(await store.users()) == [
        ("crinna.org", "stranger-come-knocking"),
        ("crinna.org", "whirrun"),
        ("north.gov", "gorst"),
        ("north.gov", "ninefingers"),
    ]
    tables = await store.tables()
    assert tables.mistakes == ()
    north = tables.realms["north.gov"]
    assert sorted(north.secrets) == ["bloody9", "logen"]
    assert (north.max_bps, north.total_quota, north.user_quota) == (500_000, 12_000, 10_000)
    assert [str(each) for each in north.allowed] == ["172.17.13.201"]
    assert [str(each) for each in tables.realms[EVERY_REALM].denied] == ["123::45", "172.17.13.133-172.17.14.56"]
    assert tables.origins == {"http://crinna.org:80": "crinna.org", "https://bligh.edu:443": "crinna.org"}
    await store.close()


async def test_coturns_own_tables_are_written(database: Database) -> None:
    await execute(database, coturns("schema.sql"))
    store = database.open()
    await store.prepare()
    assert await store.set_user(REALM, "alice", keys("alice")) is True
    assert await store.set_user(REALM, "alice", keys("alice", "other")) is False
    assert await store.user(REALM, "alice") == keys("alice", "other")
    await store.add_secret(REALM, "north")
    await store.set_option(REALM, "user-quota", 4)
    assert (await store.tables()).realms == {REALM: RealmTable(secrets=("north",), user_quota=4)}
    await store.close()


@pytest.mark.parametrize("charset", ["latin1", "utf8mb3", "utf8mb4"])
async def test_where_letters_are_the_same_in_mariadb_users_are_not(mariadb: servers.Server, charset: str) -> None:
    """Its usual collations take Alice for alice, and `alice ` for both."""
    database = await conftest.new(mariadb)
    tables = coturns("schema.sql").replace(");\n", f") DEFAULT CHARSET={charset};\n")
    await execute(database, tables)
    store = database.open()
    await store.set_user(REALM, "alice", keys("alice"))
    for name in ("Alice", "ALICE", "alice ", "älice", "👩‍🚀", "名前"):
        assert await store.user(REALM, name) is None
        assert await store.remove_user(REALM, name) is False
    for name in ("Alice", "alice "):
        with pytest.raises(NotStorable, match="does not tell it from one that is there"):
            await store.set_user(REALM, name, keys(name))
    assert await store.user("Example.org", "alice") is None
    await store.set_user(REALM, "bjørn", keys("bjørn"))
    assert await store.user(REALM, "bjørn") == keys("bjørn")
    if charset == "latin1":
        with pytest.raises(NotStorable):
            await store.set_user(REALM, "名前", keys("名前"))
    assert await names(store, REALM) == ["alice", "bjørn"]
    await store.close()


async def test_where_there_is_no_room_the_md5_key_is_kept_alone(database: Database) -> None:
    await execute(
        database,
        "CREATE TABLE turnusers_lt (realm varchar(127), name varchar(512), hmackey char(32), PRIMARY KEY (realm,name))",
    )
    store = database.open()
    await store.prepare()
    assert await store.set_user(REALM, "alice", keys("alice")) is True
    kept = await store.user(REALM, "alice")
    assert kept == (keys("alice") if database.kind == "sqlite" else UserKeys(md5=keys("alice").md5))
    await store.close()


async def test_a_database_that_cannot_hold_a_text_does_not_have_it(postgresql: servers.Server) -> None:
    database = await conftest.new(postgresql)
    name = database.url.rpartition("/")[2]
    await execute(
        Database("postgresql", database.url.replace(f"/{name}", "/postgres"), ()),
        "COMMIT; " + f"CREATE DATABASE {name}_latin ENCODING 'LATIN1' TEMPLATE template0",
    )
    store = Database("postgresql", f"{database.url}_latin", ()).open()
    await store.prepare()
    await store.set_user(REALM, "bjørn", keys("bjørn"))
    assert await store.user(REALM, "bjørn") == keys("bjørn")
    assert await store.user(REALM, "名前") is None
    assert await store.remove_user(REALM, "名前") is False
    with pytest.raises(NotStorable, match="cannot hold such a text"):
        await store.set_user(REALM, "名前", keys("名前"))
    await store.close()


async def test_a_user_of_the_database_who_may_only_read(postgresql: servers.Server) -> None:
    database = await conftest.new(postgresql)
    store = database.open()
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    await store.close()
    role = f"reader_{database.url.rpartition('/')[2]}"
    await execute(
        database, f"CREATE ROLE {role} LOGIN PASSWORD 'hush'; GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}"
    )
    url = database.url.replace(database.url.partition("//")[2].partition("@")[0], f"{role}:hush")
    reader = Database("postgresql", url, ()).open()
    assert await reader.user(REALM, "alice") == keys("alice")
    with pytest.raises(Unavailable, match="does not permit this to its user"):
        await reader.set_user(REALM, "bob", keys("bob"))
    await reader.close()
