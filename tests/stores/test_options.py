"""What may stand behind the question mark of a URL: unknown words are mistakes, and TLS is never left out silently."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.conftest import accepting
from tests.stores import conftest, servers
from tests.stores.test_contract import REALM, keys
from turnsvr.app import firstrun
from turnsvr.config.locations import StoreUrl
from turnsvr.config.units import BadValue
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import open_store

SERVERS = pytest.mark.parametrize("server", conftest.SERVERS, indirect=True)


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("postgresql://turn@db/turn?ssl=true", "unknown option 'ssl'"),
        ("mysql://turn@db/turn?charset=latin1", "unknown option 'charset'"),
        ("redis://db/0?timeout=1", "unknown option 'timeout'"),
        ("postgresql://turn@db/turn?sslmode=yes", "sslmode that does not exist"),
        ("mysql://turn@db/turn?sslmode=prefer", "sslmode that does not exist"),
        ("redis://db/0?sslmode=require", "sslmode that does not exist"),
        ("rediss://db/0?sslmode=disable", "sslmode that does not exist"),
        ("redis://db/0?sslrootcert=/ca.pem", "sslrootcert without TLS"),
        ("postgresql://turn@db/turn?sslcert=/c.pem", "sslcert without TLS"),
        ("postgresql://turn@db/turn?sslrootcert=/nowhere.pem", "sslrootcert that cannot be read"),
        ("mysql://turn@db/turn?sslmode=require&sslcert=/nowhere.pem", "sslcert or sslkey that cannot be read"),
        ("mysql://turn@db/turn?sslmode=require&sslkey=/nowhere.pem", "sslkey without sslcert"),
    ],
)
def test_an_option_that_means_nothing_is_a_mistake(url: str, problem: str) -> None:
    with pytest.raises(BadValue, match=problem) as caught:
        open_store(StoreUrl.parse(url), 1.0)
    assert caught.value.hint


def with_tls(server: servers.Server, url: str, options: str) -> str:
    """A database's URL with options of TLS."""
    if isinstance(server, servers.RedisServer):
        url = url.replace("redis:", "rediss:").replace(f":{server.port}/", f":{server.tls_port}/")
    return f"{url}?{options}"


async def ask(url: str) -> None:
    store = open_store(StoreUrl.parse(url), conftest.TIMEOUT)
    try:
        await store.prepare()
        await store.set_user(REALM, "alice", keys("alice"))
        assert await store.user(REALM, "alice") == keys("alice")
    finally:
        await store.close()


@SERVERS
@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full", "default"])
async def test_tls_with_whom_it_is_meant(server: servers.Server, mode: str) -> None:
    database = await conftest.new(server)
    options = "" if mode == "require" else f"&sslrootcert={server.certificate}"
    await ask(
        with_tls(server, database.url, (options if mode == "default" else f"sslmode={mode}{options}").lstrip("&"))
    )


@SERVERS
@pytest.mark.parametrize("mode", ["verify-ca", "verify-full", "default"])
async def test_no_tls_with_anybody_else(server: servers.Server, mode: str, tmp_path: Path) -> None:
    database = await conftest.new(server)
    other = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    options = f"sslrootcert={other.certificate}" + ("" if mode == "default" else f"&sslmode={mode}")
    with pytest.raises(Unavailable, match="has no certificate that is trusted"):
        await ask(with_tls(server, database.url, options))


@SERVERS
async def test_the_name_in_the_certificate_counts(server: servers.Server) -> None:
    """127.1 is another name of the same address."""
    database = await conftest.new(server)
    url = with_tls(server, database.url, f"sslrootcert={server.certificate}").replace("127.0.0.1", "127.1")
    with pytest.raises(Unavailable, match="has no certificate that is trusted"):
        await ask(url)


@pytest.mark.parametrize("server", ["mariadb"], indirect=True)
async def test_mysql_without_tls_is_told_no_password(server: servers.Server) -> None:
    """Whoever stands between may take TLS out of the server's greeting, which nothing protects."""
    database = await conftest.new(server)
    async with _stripping_tls(server.port) as (port, heard):
        url = with_tls(server, database.url, "sslmode=require").replace(f":{server.port}/", f":{port}/")
        with pytest.raises(Unavailable, match="has no TLS"):
            await ask(url)
    assert not heard


@asynccontextmanager
async def _stripping_tls(server_port: int) -> AsyncIterator[tuple[int, bytearray]]:
    """Stands between: what the client says, after a greeting that offers no TLS."""
    heard = bytearray()

    async def stand_between(client_reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", server_port)
        try:
            header = await reader.readexactly(4)
            greeting = bytearray(await reader.readexactly(int.from_bytes(header[:3], "little")))
            capabilities = greeting.index(0) + 1 + 4 + 8 + 1
            greeting[capabilities + 1] &= 0xFF ^ 0x08
            client.write(header + greeting)
            heard.extend(await client_reader.read())
        finally:
            writer.close()

    async with accepting(stand_between) as port:
        yield port, heard


async def test_a_unix_socket(postgresql: servers.Server) -> None:
    database = await conftest.new(postgresql)
    await ask(f"{database.url}?socket={postgresql.directory}&sslmode=disable")


async def test_a_unix_socket_of_mariadb(mariadb: servers.Server) -> None:
    database = await conftest.new(mariadb)
    await ask(f"{database.url}?socket={mariadb.directory}/socket")
