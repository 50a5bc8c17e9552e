"""Stores of every kind, each test with a database of its own."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import aiomysql
import asyncpg
import pytest
from redis.asyncio import Redis

from tests.stores import servers
from turnsvr.config.locations import StoreUrl
from turnsvr.stores import open_store
from turnsvr.stores.api import Store

TIMEOUT = 10.0
"""Seconds that a store has in tests that are not of its time limit, on a machine that is busy with others."""

_numbers = itertools.count()
_PASSWORD = quote(servers.PASSWORD, safe="")


@dataclass(frozen=True)
class Database:
    """One database that a test has for itself: its URL, and the option that leads coturn there."""

    kind: str
    url: str
    coturn: tuple[str, ...] = field(repr=False)

    def open(self, timeout: float = TIMEOUT) -> Store:
        return open_store(StoreUrl.parse(self.url), timeout)


@contextmanager
def _running(server: servers.Server) -> Iterator[servers.Server]:
    try:
        server.set_up()
        server.start_anew()
        yield server
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql() -> Iterator[servers.Server]:
    with _running(servers.PostgresqlServer()) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[servers.Server]:
    with _running(servers.MariadbServer()) as server:
        yield server


@pytest.fixture(scope="session")
def redis() -> Iterator[servers.Server]:
    with _running(servers.RedisServer()) as server:
        yield server


async def new_postgresql(server: servers.Server) -> Database:
    name = f"turn_{next(_numbers)}"
    connection = await asyncpg.connect(
        host="127.0.0.1", port=server.port, user=servers.USER, password=servers.PASSWORD, database="postgres", ssl=False
    )
    try:
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    finally:
        await connection.close()
    return Database(
        "postgresql",
        f"postgresql://{servers.USER}:{_PASSWORD}@127.0.0.1:{server.port}/{name}",
        (f"--psql-userdb=host=127.0.0.1 port={server.port} {_words('dbname', name)} connect_timeout=10",),
    )


async def new_mariadb(server: servers.Server) -> Database:
    name = f"turn_{next(_numbers)}"
    connection = await aiomysql.connect(
        host="127.0.0.1", port=server.port, user=servers.USER, password=servers.PASSWORD
    )
    try:
        async with connection.cursor() as cursor:
            await cursor.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.ensure_closed()
    return Database(
        "mysql",
        f"mysql://{servers.USER}:{_PASSWORD}@127.0.0.1:{server.port}/{name}",
        (f"--mysql-userdb=host=127.0.0.1 port={server.port} {_words('dbname', name)} connect_timeout=10",),
    )


async def new_redis(server: servers.Server) -> Database:
    async with Redis(host="127.0.0.1", port=server.port, password=servers.PASSWORD) as client:
        await client.flushall()
        await client.config_set("notify-keyspace-events", "")
    return Database(
        "redis",
        f"redis://:{_PASSWORD}@127.0.0.1:{server.port}/2",
        (f"--redis-userdb=ip=127.0.0.1 port={server.port} dbname=2 password={servers.PASSWORD} connect_timeout=10",),
    )


def new_sqlite(directory: Path) -> Database:
    file = directory / "turn db?#%41.sqlite"
    return Database("sqlite", f"sqlite:{quote(str(file))}", (f"--userdb={file}",))


def _words(key: str, database: str) -> str:
    return f"{key}={database} user={servers.USER} password={servers.PASSWORD}"


KINDS = ("sqlite", "postgresql", "mariadb", "redis")
SERVERS = ("postgresql", "mariadb", "redis")


async def new(server: servers.Server) -> Database:
    """An empty database of a server."""
    if isinstance(server, servers.PostgresqlServer):
        return await new_postgresql(server)
    return await (new_mariadb(server) if isinstance(server, servers.MariadbServer) else new_redis(server))


@pytest.fixture
def server(request: pytest.FixtureRequest) -> servers.Server:
    """The server of a parameter."""
    found: servers.Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Database:
    """An empty database of each kind, without tables."""
    if request.param == "sqlite":
        return new_sqlite(tmp_path)
    return asyncio.run(new(request.getfixturevalue(request.param)))


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Store]:
    """A store of each kind, ready and empty."""
    opened = database.open()
    await opened.prepare()
    yield opened
    await opened.close()
