"""How Redis is reached, and what an operator is told when it is not."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
)

from turnsvr.config.locations import StoreUrl
from turnsvr.config.units import BadValue
from turnsvr.stores import failures
from turnsvr.stores.options import Options


def database_number(url: StoreUrl) -> int:
    """Raises BadValue."""
    if url.database and not (url.database.isascii() and url.database.isdigit()):
        raise BadValue("has no number for a database", "Redis has 0, 1, …: redis://host/0")
    return int(url.database or "0")


class _TlsConnection(SSLConnection):
    """One with a TLS context that is made already."""

    def __init__(self, *, tls: ssl.SSLContext, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ssl_context.context = tls


def pool(
    url: StoreUrl,
    options: Options,
    database: int,
    timeout: float,
    size: int,
    connected: Callable[[], None] | None = None,
) -> BlockingConnectionPool:
    """At most `size` connections; timeout in seconds for a connection, an answer, and a free connection.

    A connection that the server has closed meanwhile is made again, once; connected is called after each is made.
    """

    async def greet(connection: AbstractConnection) -> None:
        await connection.on_connect()
        if connected is not None:
            connected()

    arguments: dict[str, Any] = {
        "db": database,
        "username": url.user or None,
        "password": None if url.password is None else url.password.get_secret_value(),
        "socket_timeout": timeout,
        "socket_connect_timeout": timeout,
        "retry": Retry(NoBackoff(), 1, supported_errors=(ConnectionError,)),
        "redis_connect_func": greet,
        "protocol": 2,
    }
    kind: type[Connection | UnixDomainSocketConnection] = Connection
    if options.socket is not None:
        kind = UnixDomainSocketConnection
        arguments["path"] = options.socket
    else:
        arguments |= {"host": url.host, "port": url.port or 6379}
        if options.tls is not None:
            kind = _TlsConnection
            arguments["tls"] = options.tls
    return BlockingConnectionPool(max_connections=size, timeout=timeout, connection_class=kind, **arguments)


def reason(error: Exception) -> str:
    """Our own words: Redis's may repeat a command, the client's a user name."""
    if isinstance(error, AuthenticationError) or str(error).startswith("NOAUTH"):
        return "refuses this user name or password"
    if isinstance(error, BusyLoadingError):
        return "is starting"
    if isinstance(error, ReadOnlyError):
        return "is a replica, which cannot be written to"
    if isinstance(error, OutOfMemoryError):
        return "has no memory left"
    if str(error).startswith("DB index"):
        return "has no such database"
    if isinstance(error, ResponseError):
        return f"error {re.sub('[^A-Z]', '', str(error).partition(' ')[0]) or 'ERR'}"
    cause = error.__cause__ or error.__context__ or error
    if isinstance(cause, ssl.SSLError):
        return failures.of_tls(cause)
    return failures.of_system(cause) if isinstance(cause, OSError) else "cannot be reached"
