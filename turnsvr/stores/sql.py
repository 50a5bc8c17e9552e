"""Users, secrets, realms and peer ranges in coturn's tables, through SQLAlchemy's asyncio engines.

Every value is a bound parameter. A name is compared once more here: a database may take `Alice` for `alice`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy import Table, delete, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from turnsvr.config.locations import StoreUrl
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import columns, engines, failures, hexkeys, schema
from turnsvr.stores.api import MAX_NAMES, NotStorable, RealmOption, Tables, UserKeys
from turnsvr.stores.deadline import TimedCalls
from turnsvr.stores.options import place
from turnsvr.stores.tablebuilder import TableBuilder

_BULK = 10
"""How many times longer than one answer a list may take."""

_T = TypeVar("_T")
_Work = Callable[[AsyncConnection], Awaitable[_T]]


class SqlStore:
    """A Store in SQLite, PostgreSQL or MySQL."""

    def __init__(self, url: StoreUrl, timeout: float) -> None:
        """timeout in seconds for one answer. Raises BadValue for options of the URL that mean nothing."""
        self._engine = engines.make(url, timeout)
        self._timeout = timeout
        self._deadlines = TimedCalls()
        self._file = Path(url.database) if url.dialect == "sqlite" else None
        self._name = place(url)

    @property
    def name(self) -> str:
        return self._name

    async def user(self, realm: str, name: str) -> UserKeys | None:
        if not columns.holds(realm=realm, user_name=name):
            return None
        table = schema.users.c
        query = select(table.realm, table.name, table.hmackey).where(table.realm == realm, table.name == name)

        async def read(connection: AsyncConnection) -> UserKeys | None:
            for row in await connection.execute(query):
                if (row.realm, row.name) == (realm, name):
                    return hexkeys.read(row.hmackey or "")
            return None

        return await self._look(read, None)

    async def users(self, realm: str | None = None) -> Sequence[tuple[str, str]]:
        if realm is not None and not columns.holds(realm=realm):
            return ()
        table = schema.users.c
        query = select(table.realm, table.name).order_by(table.realm, table.name).limit(MAX_NAMES)
        if realm is not None:
            query = query.where(table.realm == realm)

        async def read(connection: AsyncConnection) -> list[tuple[str, str]]:
            rows = [(row.realm, row.name) for row in await connection.execute(query)]
            return sorted(row for row in rows if realm is None or row[0] == realm)

        return await self._look(read, [], patience=_BULK)

    async def tables(self, *, keys: bool = False) -> Tables:
        return await self._ask(_read_tables_and_keys if keys else _read_tables, patience=_BULK)

    def changes(self) -> AsyncIterator[None] | None:
        return None

    async def close(self) -> None:
        await self._deadlines.finish()
        with contextlib.suppress(Exception):
            await self._deadlines.run(self._engine.dispose(), self._timeout)
        await self._deadlines.finish()
        await asyncio.sleep(0)  # in which sockets close

    async def prepare(self) -> None:
        if self._file is not None:
            made = self._make_file(self._file)
            if made:
                await self._ask(_keep_a_write_ahead_log)

        await self._ask(_make_tables, patience=_BULK)

    def _make_file(self, path: Path) -> bool:
        """Make an empty database that only its owner may read: who owns the directory, when root makes it."""
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            return False
        except OSError as error:
            problem = "its directory does not exist" if not path.parent.exists() else os.strerror(error.errno or 0)
            raise Unavailable(f"{self.name}: {problem}") from None
        try:
            if os.geteuid() == 0:
                owner = path.parent.stat()
                os.fchown(file, owner.st_uid, owner.st_gid)
        finally:
            os.close(file)
        return True

    async def set_user(self, realm: str, name: str, keys: UserKeys) -> bool:
        columns.check(realm=realm, user_name=name)
        where = {"realm": realm, "name": name}
        try:
            return await self._put(schema.users, where, {"hmackey": hexkeys.write(keys)})
        except NotStorable:
            if keys.md5 is None or keys.sha256 is None:
                raise
            # coturn's oldest tables have room for the MD5 key alone.
            return await self._put(schema.users, where, {"hmackey": hexkeys.write(UserKeys(md5=keys.md5))})

    async def remove_user(self, realm: str, name: str) -> bool:
        return columns.holds(realm=realm, user_name=name) and await self._remove(
            schema.users, {"realm": realm, "name": name}
        )

    async def add_secret(self, realm: str, secret: str) -> bool:
        columns.check(realm=realm, secret=secret)
        return await self._put(schema.secrets, {"realm": realm, "value": secret}, {})

    async def remove_secret(self, realm: str, secret: str) -> bool:
        return columns.holds(realm=realm, secret=secret) and await self._remove(
            schema.secrets, {"realm": realm, "value": secret}
        )

    async def set_key(self, key: AccessTokenKey) -> bool:
        columns.check(key_id=key.kid, realm=key.realm or "")
        values: dict[str, str | int] = {
            "ikm_key": b64encode(key.key).decode(),
            "timestamp": int(key.not_before),
            "lifetime": int(key.lifetime),
            "as_rs_alg": key.algorithm,
            "realm": key.realm or "",
        }
        return await self._put(schema.oauth_keys, {"kid": key.kid}, values)

    async def remove_key(self, kid: str) -> bool:
        return columns.holds(key_id=kid) and await self._remove(schema.oauth_keys, {"kid": kid})

    async def set_option(self, realm: str, option: RealmOption, value: int | None) -> None:
        columns.check(realm=realm)
        where = {"realm": realm, "opt": option}
        if value is None:
            await self._remove(schema.options, where)
        else:
            await self._put(schema.options, where, {"value": str(value)})

    async def set_origin(self, origin: str, realm: str | None) -> bool:
        if realm is None:
            return columns.holds(origin=origin) and await self._remove(schema.origins, {"origin": origin})
        columns.check(origin=origin, realm=realm)
        known = (await self.tables()).origins.get(origin)
        await self._put(schema.origins, {"origin": origin}, {"realm": realm})
        return known != realm

    async def set_range(self, realm: str, kind: Literal["allowed", "denied"], text: str, present: bool) -> bool:
        table = schema.allowed if kind == "allowed" else schema.denied
        where = {"realm": realm, "ip_range": text}
        if present:
            columns.check(realm=realm, peer_range=text)
            return await self._put(table, where, {})
        return columns.holds(realm=realm, peer_range=text) and await self._remove(table, where)

    async def _put(self, table: Table, where: dict[str, str], values: Mapping[str, str | int]) -> bool:
        """Insert a row or change the one that is there; whether it is new."""

        async def put(connection: AsyncConnection) -> bool:
            for _ in range(2):
                stored = await _stored(connection, table, where)
                if where in stored:
                    if values:
                        await connection.execute(update(table).where(*_equal(table, where)).values(values))
                    return False
                if stored:
                    raise NotStorable(f"{self.name} does not tell it from one that is there, as {next(iter(where))}")
                try:
                    await connection.execute(insert(table).values({**where, **values}))
                except SQLAlchemyError as error:
                    if failures.nature(error) != "duplicate":
                        raise
                    continue  # another process was faster
                return True
            return False

        return await self._ask(put)

    async def _remove(self, table: Table, where: dict[str, str]) -> bool:
        async def remove(connection: AsyncConnection) -> bool:
            if where not in await _stored(connection, table, where):
                return False
            result = await connection.execute(delete(table).where(*_equal(table, where)))
            return bool(result.rowcount)

        return await self._look(remove, False)

    async def _look(self, work: _Work[_T], nothing: _T, *, patience: int = 1) -> _T:
        """As _ask; a text that does not suit the database is not in it."""
        try:
            return await self._ask(work, patience=patience)
        except NotStorable:
            return nothing

    async def _ask(self, work: _Work[_T], *, patience: int = 1) -> _T:
        """What the work gives, in so many times the time for one answer; raises Unavailable and NotStorable."""

        async def connected() -> _T:
            async with engines.connected(self._engine) as connection:
                return await work(connection)

        seconds = self._timeout * patience
        try:
            return await self._deadlines.run(connected(), seconds)
        except NotStorable:
            raise
        except TimeoutError:
            raise Unavailable(f"{self.name}: no answer within {seconds:g} s") from None
        except Exception as error:  # drivers raise their own classes, OSError, EOFError, RuntimeError
            if failures.nature(error) == "text":
                raise NotStorable(f"{self.name} cannot hold such a text") from None
            raise Unavailable(f"{self.name}: {self._reason(error)}") from None

    def _reason(self, error: Exception) -> str:
        if self._file is not None and not self._file.exists():
            return "there is no such file; turnsvr user add makes it"
        return failures.reason(error)


def _equal(table: Table, where: dict[str, str]) -> list[Any]:
    return [table.c[column] == value for column, value in where.items()]


async def _stored(connection: AsyncConnection, table: Table, where: dict[str, str]) -> list[dict[str, str]]:
    """The rows that the database takes for this one, by the same columns."""
    query = select(*(table.c[column] for column in where)).where(*_equal(table, where))
    return [dict(row) for row in (await connection.execute(query)).mappings()]


async def _keep_a_write_ahead_log(connection: AsyncConnection) -> None:
    await connection.execute(text("PRAGMA journal_mode=WAL"))


async def _make_tables(connection: AsyncConnection) -> None:
    for table in schema.metadata.sorted_tables:
        try:
            await connection.run_sync(table.create, checkfirst=True)
        except SQLAlchemyError as error:
            if failures.nature(error) != "duplicate":  # another process makes it at the same time
                raise


async def _read_tables(connection: AsyncConnection) -> Tables:
    found = TableBuilder()
    await _read_realms(connection, found)
    return found.tables()


async def _read_tables_and_keys(connection: AsyncConnection) -> Tables:
    found = TableBuilder()
    await _read_realms(connection, found)
    for kid, key, timestamp, lifetime, algorithm, realm in await _rows(connection, schema.oauth_keys, found):
        found.key(kid, key, algorithm, timestamp, lifetime, realm)
    return found.tables()


async def _read_realms(connection: AsyncConnection, found: TableBuilder) -> None:
    for realm, secret in await _rows(connection, schema.secrets, found):
        found.secret(realm, secret)
    for realm, text_of_range in await _rows(connection, schema.allowed, found):
        found.range(realm, "allowed", text_of_range)
    for realm, text_of_range in await _rows(connection, schema.denied, found):
        found.range(realm, "denied", text_of_range)
    for realm, option, value in await _rows(connection, schema.options, found):
        found.option(realm, option, value)
    for origin, realm in await _rows(connection, schema.origins, found):
        found.origin(origin, realm)


async def _rows(connection: AsyncConnection, table: Table, found: TableBuilder) -> list[tuple[str, ...]]:
    """A table's rows in the order of its key, NULL as an empty text."""
    query = select(table).order_by(*table.primary_key).limit(MAX_NAMES + 1)
    rows = [tuple("" if value is None else str(value) for value in row) for row in await connection.execute(query)]
    if len(rows) > MAX_NAMES:
        found.mistake(f"more than {MAX_NAMES} entries in {table.name}; the further ones are left out")
    return rows[:MAX_NAMES]
