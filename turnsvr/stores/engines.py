"""SQLAlchemy engines for coturn's databases: few connections, every wait bounded, nothing of a statement shown."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any, TypeVar
from urllib.parse import quote

from sqlalchemy import URL, event
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from turnsvr.config.locations import StoreUrl
from turnsvr.stores.failures import NoTls
from turnsvr.stores.options import Options, parse

# It logs each statement with its values, at level debug.
logging.getLogger("aiosqlite").setLevel(logging.INFO)

_POOL_SIZE = 4
"""Connections to one database."""

_BUSY_SHARE = 0.8
"""Of the time for an answer, how long SQLite waits for another's lock: less than all, so that it ends by itself."""

_CLIENT_FOUND_ROWS = 0x0002
_CLIENT_SSL = 0x0800
"""Capabilities of MySQL's protocol."""

_DEFAULT_PORTS = {"postgresql": 5432, "mysql": 3306}

_C = TypeVar("_C")
_End = Callable[[], object]
_fresh: ContextVar[list[_End]] = ContextVar("_fresh")
"""How to end the connections that this task has made and that no pool looks after yet."""


@asynccontextmanager
async def connected(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """A connection of the engine's pool.

    SQLAlchemy asks a new connection a few things before the pool takes it. One that is given up in that time would be
    left to the garbage collector, with its socket; here it is ended.
    """
    fresh: list[_End] = []
    token = _fresh.set(fresh)
    try:
        async with engine.connect() as connection:
            fresh.clear()
            yield connection
    finally:
        _fresh.reset(token)
        for end in fresh:
            end()


def _noted(connection: _C, end: _End) -> _C:
    _fresh.get([]).append(end)
    return connection


def make(url: StoreUrl, timeout: float) -> AsyncEngine:
    """An engine that has not connected yet; timeout in seconds. Raises BadValue for options that mean nothing."""
    if url.dialect == "sqlite":
        return _sqlite(url.database, timeout)
    options = parse(url)
    if url.dialect == "mysql":
        return _engine(URL.create("mysql+aiomysql"), timeout, _mysql(url, options, timeout))
    return _engine(URL.create("postgresql+asyncpg"), timeout, _postgresql(url, options, timeout))


def _engine(url: URL, timeout: float, connect: Callable[[], Awaitable[Any]]) -> AsyncEngine:
    # Each statement is a transaction of its own, so that there is nothing to begin or to roll back.
    return create_async_engine(
        url,
        async_creator=connect,
        hide_parameters=True,
        isolation_level="AUTOCOMMIT",
        pool_size=_POOL_SIZE,
        max_overflow=0,
        pool_timeout=timeout,
        pool_pre_ping=True,
        pool_use_lifo=True,
        pool_reset_on_return=None,
    )


def _sqlite(path: str, timeout: float) -> AsyncEngine:
    """On a file that is there: only SqlStore.prepare makes one."""
    import aiosqlite

    async def connect() -> aiosqlite.Connection:
        connection = aiosqlite.connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=timeout * _BUSY_SHARE)
        connection._thread.daemon = True
        try:
            return _noted(await connection, connection.stop)
        except BaseException:
            # Its thread has something left to tell a loop that may be closed when it does.
            await asyncio.to_thread(connection._thread.join)
            raise

    engine = _engine(URL.create("sqlite+aiosqlite", database=path), timeout, connect)

    def remember(_: Any, record: Any) -> None:
        record.info["file"] = _identity(path)

    def compare(_: Any, record: Any, __: Any) -> None:
        if record.info["file"] != _identity(path):
            raise DisconnectionError

    event.listen(engine.sync_engine, "connect", remember)
    event.listen(engine.sync_engine, "checkout", compare)
    return engine


def _identity(path: str) -> tuple[int, int] | None:
    """Which file is there, so that one put in its place is noticed."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _postgresql(url: StoreUrl, options: Options, timeout: float) -> Callable[[], Awaitable[Any]]:
    import asyncpg

    arguments: dict[str, Any] = {
        "host": options.socket or url.host,
        "port": url.port or _DEFAULT_PORTS["postgresql"],
        "database": url.database,
        "ssl": False if options.tls is None else options.tls,
        "timeout": timeout,
        "command_timeout": timeout,
        "server_settings": {"application_name": "turnsvr"},
    }
    if url.user:
        arguments["user"] = url.user
    if url.password is not None:
        arguments["password"] = url.password.get_secret_value()

    async def connect() -> Any:
        connection = await asyncpg.connect(**arguments)
        return _noted(connection, connection.terminate)

    return connect


def _mysql(url: StoreUrl, options: Options, timeout: float) -> Callable[[], Awaitable[Any]]:
    import aiomysql

    class MysqlConnection(aiomysql.Connection):  # type: ignore[misc]
        """One that never speaks in plain text where TLS is asked for, and lets go of its socket when given up."""

        async def _request_authentication(self) -> None:
            if options.tls is not None and not self.server_capabilities & _CLIENT_SSL:
                raise NoTls
            await super()._request_authentication()

        def close(self) -> None:
            """At once: TLS would go on saying goodbye, to a server that may have stopped."""
            if self._writer is not None:
                self._writer.transport.abort()
            super().close()

    async def connect() -> Any:
        connection = MysqlConnection(
            host=url.host,
            port=url.port or _DEFAULT_PORTS["mysql"],
            user=url.user,
            password="" if url.password is None else url.password.get_secret_value(),
            db=url.database,
            unix_socket=options.socket,
            charset="utf8mb4",
            connect_timeout=timeout,
            ssl=options.tls,
            client_flag=_CLIENT_FOUND_ROWS,
            program_name="turnsvr",
        )
        try:
            await connection._connect()
        except BaseException:
            connection.close()
            raise
        return _noted(connection, connection.close)

    return connect
