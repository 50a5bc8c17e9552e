"""Users, secrets, realms and peer ranges under coturn's keys in Redis.

A user's value is a key in hexadecimal (hexkeys.py) or, in files that people wrote, a password in clear. Of a user
name or realm with `/user/` in it Redis cannot tell which is meant; coturn neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal, TypeVar

import structlog
from redis.asyncio import Redis
from redis.asyncio.client import PubSub
from redis.exceptions import ConnectionError, NoPermissionError, RedisError, ResponseError

from turnsvr.backoff import Backoff
from turnsvr.config.locations import StoreUrl
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import columns, hexkeys
from turnsvr.stores.api import MAX_NAMES, RealmOption, Tables, UserKeys
from turnsvr.stores.deadline import TimedCalls
from turnsvr.stores.options import parse, place
from turnsvr.stores.redislink import database_number, pool, reason
from turnsvr.stores.tablebuilder import TableBuilder, quoted

_POOL_SIZE = 5
"""Connections to one database; one of them watches for changes."""
_BULK = 10
"""How many times longer than one answer a list may take."""
_SCAN_COUNT = 1_000
_BATCH = 500
"""Keys looked at, and values read, in one go."""
_QUIET = 10.0
"""Seconds without a change after which the connection that watches is tried."""
_GATHER = 0.1
"""Seconds in which changes count as one."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
"""Seconds between attempts to watch again."""

_REALMS = "turn/realm/"
_ORIGINS = "turn/origin/"
_KEYS = "turn/oauth/kid/"
_KEY_FIELDS = ("ikm_key", "as_rs_alg", "timestamp", "lifetime", "realm")
"""Fields of the hash of an access token's key, in the order in which TableBuilder takes them."""
_SETS = {"secret", "allowed-peer-ip", "denied-peer-ip"}
_OPTIONS = {"max-bps", "total-quota", "user-quota"}
_LEAVES = _SETS | _OPTIONS
_GLOB = re.compile(r"([\\*?\[\]^-])")

_T = TypeVar("_T")
_log = structlog.get_logger()


class RedisStore:
    """A Store in Redis."""

    def __init__(self, url: StoreUrl, timeout: float) -> None:
        """timeout in seconds for one answer. Raises BadValue for a URL whose database or options mean nothing."""
        self._timeout = timeout
        self._database = database_number(url)
        self._name = place(url)
        self._pool = pool(url, parse(url), self._database, timeout, _POOL_SIZE)
        self._client = Redis(connection_pool=self._pool)
        self._deadlines = TimedCalls()

    @property
    def name(self) -> str:
        return self._name

    async def user(self, realm: str, name: str) -> UserKeys | None:
        if not columns.holds(realm=realm, user_name=name):
            return None
        try:
            value = _text(await self._ask(self._client.get(_user_key(realm, name))))
        except _WrongType:
            return None
        if not value:
            return None
        return hexkeys.read(value) or hexkeys.of_password(realm, name, value)

    async def users(self, realm: str | None = None) -> Sequence[tuple[str, str]]:
        if realm is not None and not columns.holds(realm=realm):
            return ()
        prefix = _REALMS if realm is None else f"{_REALMS}{realm}/user/"
        pattern = f"{_escaped(prefix)}*/key" if realm is not None else f"{_REALMS}*/user/*/key"
        found: set[tuple[str, str]] = set()
        for key in (await self._ask(self._scan(pattern), patience=_BULK))[:MAX_NAMES]:
            middle = key.removeprefix(prefix).removesuffix("/key")
            if realm is not None:
                found.add((realm, middle))
            else:
                owner, _, name = middle.partition("/user/")
                found.add((owner, name))
        return sorted(found)

    async def tables(self, *, keys: bool = False) -> Tables:
        return await self._ask(self._read_tables(keys), patience=_BULK)

    async def changes(self) -> AsyncIterator[None]:
        """Yields when it begins to watch, and at each change from then on.

        Ends where the server does not tell of changes (its setting notify-keyspace-events).
        """
        pauses = Backoff(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            watch = self._client.pubsub()
            try:
                await self._ask(watch.psubscribe(*self._patterns()))
                if not await self._tells_of_changes():
                    return
                pauses.reset()
                yield
                while True:
                    await self._await_change(watch)
                    yield
            except (Unavailable, RedisError, OSError):
                await asyncio.sleep(pauses.pause())
            finally:
                with contextlib.suppress(RedisError, OSError):
                    await watch.aclose()  # type: ignore[no-untyped-call]

    async def close(self) -> None:
        await self._deadlines.finish()
        with contextlib.suppress(RedisError, OSError, TimeoutError):
            await self._deadlines.run(self._client.aclose(close_connection_pool=True), self._timeout)

    async def prepare(self) -> None:
        await self._ask(self._client.ping())

    async def set_user(self, realm: str, name: str, keys: UserKeys) -> bool:
        columns.check(realm=realm, user_name=name)
        before = await self._ask(self._client.set(_user_key(realm, name), hexkeys.write(keys), get=True))
        return before is None

    async def remove_user(self, realm: str, name: str) -> bool:
        return columns.holds(realm=realm, user_name=name) and bool(
            await self._ask(self._client.delete(_user_key(realm, name)))
        )

    async def add_secret(self, realm: str, secret: str) -> bool:
        columns.check(realm=realm, secret=secret)
        return bool(await self._ask(self._client.sadd(f"{_REALMS}{realm}/secret", secret)))

    async def remove_secret(self, realm: str, secret: str) -> bool:
        return columns.holds(realm=realm, secret=secret) and bool(
            await self._ask(self._client.srem(f"{_REALMS}{realm}/secret", secret))
        )

    async def set_key(self, key: AccessTokenKey) -> bool:
        columns.check(key_id=key.kid, realm=key.realm or "")
        fields: dict[Any, Any] = {
            "ikm_key": b64encode(key.key).decode(),
            "as_rs_alg": key.algorithm,
            "timestamp": str(int(key.not_before)),
            "lifetime": str(int(key.lifetime)),
            "realm": key.realm or "",
        }
        # How many of the fields were not there.
        return bool(await self._ask(self._client.hset(f"{_KEYS}{key.kid}", mapping=fields)))

    async def remove_key(self, kid: str) -> bool:
        return columns.holds(key_id=kid) and bool(await self._ask(self._client.delete(f"{_KEYS}{kid}")))

    async def set_option(self, realm: str, option: RealmOption, value: int | None) -> None:
        columns.check(realm=realm)
        key = f"{_REALMS}{realm}/{option}"
        await self._ask(self._client.delete(key) if value is None else self._client.set(key, str(value)))

    async def set_origin(self, origin: str, realm: str | None) -> bool:
        if realm is None:
            return columns.holds(origin=origin) and bool(await self._ask(self._client.delete(f"{_ORIGINS}{origin}")))
        columns.check(origin=origin, realm=realm)
        before = await self._ask(self._client.set(f"{_ORIGINS}{origin}", realm, get=True))
        return _text(before) != realm

    async def set_range(self, realm: str, kind: Literal["allowed", "denied"], text: str, present: bool) -> bool:
        key = f"{_REALMS}{realm}/{kind}-peer-ip"
        if present:
            columns.check(realm=realm, peer_range=text)
            return bool(await self._ask(self._client.sadd(key, text)))
        return columns.holds(realm=realm, peer_range=text) and bool(await self._ask(self._client.srem(key, text)))

    async def _scan(self, pattern: str, wanted: Callable[[str], bool] = lambda key: True) -> list[str]:
        """Keys that match and are wanted, each once, at most MAX_NAMES + 1; KEYS would halt the server meanwhile."""
        found: dict[str, None] = {}
        cursor = 0
        while True:
            cursor, some = await self._client.scan(cursor, match=pattern, count=_SCAN_COUNT)
            keys = (key for each in some if (key := _text(each)) is not None)
            found.update(dict.fromkeys(filter(wanted, keys)))
            if not cursor or len(found) > MAX_NAMES:
                return list(found)[: MAX_NAMES + 1]

    async def _read_tables(self, with_keys: bool) -> Tables:
        found = TableBuilder()
        # Of all keys below turn/realm those of users are the most, and end in another letter.
        realms = await self._scan(f"{_REALMS}*[tpsa]", lambda key: key.rpartition("/")[2] in _LEAVES)
        origins = await self._scan(f"{_ORIGINS}*")
        keys = sorted(_bounded(found, realms, _REALMS)) + sorted(_bounded(found, origins, _ORIGINS))
        for start in range(0, len(keys), _BATCH):
            some = keys[start : start + _BATCH]
            pipeline = self._client.pipeline(transaction=False)
            for key in some:
                (pipeline.smembers if key.rpartition("/")[2] in _SETS and key.startswith(_REALMS) else pipeline.get)(
                    key
                )
            for key, value in zip(some, await pipeline.execute(raise_on_error=False), strict=True):
                _add(found, key, value)
        if with_keys:
            await self._read_keys(found)
        return found.tables()

    async def _read_keys(self, found: TableBuilder) -> None:
        """Those of access tokens: a hash for each."""
        keys = sorted(_bounded(found, await self._scan(f"{_KEYS}*"), _KEYS))
        for start in range(0, len(keys), _BATCH):
            some = keys[start : start + _BATCH]
            pipeline = self._client.pipeline(transaction=False)
            for key in some:
                pipeline.hmget(key, _KEY_FIELDS)
            for key, values in zip(some, await pipeline.execute(raise_on_error=False), strict=True):
                if isinstance(values, list):
                    found.key(key.removeprefix(_KEYS), *(_text(value) or "" for value in values))
                else:
                    found.mistake(f"{quoted(key)} holds no key of access tokens")

    async def _tells_of_changes(self) -> bool:
        try:
            settings = await self._ask(self._client.config_get("notify-keyspace-events"))
            flags = str(settings.get("notify-keyspace-events", ""))
        except _NotPermitted:
            flags = ""
        if "K" in flags and ("A" in flags or {"g", "$", "s"} <= set(flags)):
            return True
        _log.info("Redis does not tell of changes, it is polled", name=self.name, hint="notify-keyspace-events Kg$shx")
        return False

    def _patterns(self) -> list[str]:
        space = f"__keyspace@{self._database}__:"
        return [f"{space}{_REALMS}*/{leaf}" for leaf in sorted(_LEAVES | {"key"})] + [
            f"{space}{_ORIGINS}*",
            f"{space}{_KEYS}*",
        ]

    async def _await_change(self, watch: PubSub) -> None:
        """Until something has changed, and a moment more for what else does.

        Raises RedisError when the connection is lost.
        """
        tried = False
        while True:
            message = await watch.get_message(timeout=self._timeout if tried else _QUIET)
            if message is not None and message["type"] == "pmessage":
                break
            if message is None and tried:
                raise ConnectionError("no answer")
            tried = message is None
            if tried:
                await watch.ping()
        loop = asyncio.get_running_loop()
        until = loop.time() + _GATHER
        while (left := until - loop.time()) > 0:
            await watch.get_message(timeout=left)

    async def _ask(self, work: Awaitable[_T], *, patience: int = 1) -> _T:
        """What Redis answers, in so many times the time for one answer; raises Unavailable."""

        async def awaited() -> _T:
            return await work

        seconds = self._timeout * patience
        try:
            return await self._deadlines.run(awaited(), seconds)
        except TimeoutError:
            raise Unavailable(f"{self.name}: no answer within {seconds:g} s") from None
        except ResponseError as error:
            if str(error).startswith("WRONGTYPE"):
                raise _WrongType(f"{self.name}: a key of coturn's holds something else") from None
            if isinstance(error, NoPermissionError) or "unknown command" in str(error).lower():
                raise _NotPermitted(f"{self.name}: does not permit this to its user") from None
            raise Unavailable(f"{self.name}: {reason(error)}") from None
        except (RedisError, OSError) as error:
            raise Unavailable(f"{self.name}: {reason(error)}") from None


class _WrongType(Unavailable):
    """A key is of another type than coturn's."""


class _NotPermitted(Unavailable):
    """The server does not let this user do it."""


def _user_key(realm: str, name: str) -> str:
    return f"{_REALMS}{realm}/user/{name}/key"


def _escaped(text: str) -> str:
    """A text that a pattern is to match as it is."""
    return _GLOB.sub(r"\\\1", text)


def _text(value: object) -> str | None:
    """UTF-8 text, None for other bytes and for nothing."""
    try:
        return value.decode() if isinstance(value, bytes) else None
    except UnicodeDecodeError:
        return None


def _bounded(found: TableBuilder, entries: Sequence[_T], where: str) -> Sequence[_T]:
    if len(entries) > MAX_NAMES:
        found.mistake(f"more than {MAX_NAMES} entries in {quoted(where)}; the further ones are left out")
    return entries[:MAX_NAMES]


def _add(found: TableBuilder, key: str, value: object) -> None:
    if key.startswith(_ORIGINS):
        realm = _text(value)
        if realm is None:
            found.mistake(f"{quoted(key)} holds no realm")
        else:
            found.origin(key.removeprefix(_ORIGINS), realm)
        return
    realm, _, leaf = key.removeprefix(_REALMS).rpartition("/")
    values = sorted(value) if isinstance(value, set) else [value]
    for each in _bounded(found, values, key):
        text = _text(each)
        if text is None:
            found.mistake(f"{quoted(key)} holds something else than text")
        elif leaf == "secret":
            found.secret(realm, text)
        elif leaf in _OPTIONS:
            found.option(realm, leaf, text)
        else:
            found.range(realm, "allowed" if leaf == "allowed-peer-ip" else "denied", text)
