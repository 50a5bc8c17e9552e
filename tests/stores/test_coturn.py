"""coturn's own programs over the same database: what it writes we read, and users that we make it lets in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.client.coturn import coturn
from tests.conftest import need
from tests.interop import uclient
from tests.stores.conftest import Database
from tests.stores.test_contract import REALM, keys, names
from turnsvr.config.ranges import AddressRange
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.net.tls import TlsFiles
from turnsvr.stores import schema
from turnsvr.stores.api import RealmOption, RealmTable, Store, UserKeys
from turnsvr.stores.redis import RedisStore
from turnsvr.stores.sql import SqlStore


def turnadmin(database: Database, *options: str) -> str:
    """What coturn's administration tool says of this database."""
    result = subprocess.run(
        [need("turnadmin"), *options, *database.coturn], capture_output=True, text=True, check=False, timeout=30
    )
    for log in re.findall(r"log file opened: (\S+)", result.stdout + result.stderr):
        Path(log).unlink(missing_ok=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


async def test_users_that_turnadmin_makes_have_the_right_key(store: Store, database: Database) -> None:
    turnadmin(database, "-a", "-u", "gorst", "-r", REALM, "-p", "hero")
    assert await store.user(REALM, "gorst") == UserKeys(md5=keys("gorst", "hero").md5)
    assert await store.user(REALM, "Gorst") is None
    assert list(await store.users()) == [(REALM, "gorst")]
    turnadmin(database, "-a", "-u", "gorst", "-r", REALM, "-p", "villain")
    assert await store.user(REALM, "gorst") == UserKeys(md5=keys("gorst", "villain").md5)
    turnadmin(database, "-d", "-u", "gorst", "-r", REALM)
    assert await store.user(REALM, "gorst") is None


@pytest.mark.parametrize("name", ["bjørn", "Ωmega"])
async def test_names_that_turnadmin_makes_are_the_same_names(store: Store, database: Database, name: str) -> None:
    turnadmin(database, "-a", "-u", name, "-r", REALM, "-p", "hero")
    assert await store.user(REALM, name) == UserKeys(md5=keys(name, "hero").md5)
    assert await names(store, REALM) == [name]


async def test_what_turnadmin_sets_for_a_realm_is_read(store: Store, database: Database) -> None:
    turnadmin(database, "-s", "logen", "-r", REALM)
    turnadmin(database, "-O", "-o", "http://crinna.org:80", "-r", REALM)
    turnadmin(database, "-g", "-r", REALM, "--max-bps=500000", "--total-quota=12000", "--user-quota=10000")
    tables = await store.tables()
    assert tables.realms == {
        REALM: RealmTable(secrets=("logen",), max_bps=500_000, total_quota=12_000, user_quota=10_000)
    }
    assert tables.origins == {"http://crinna.org:80": REALM}
    assert tables.mistakes == ()
    turnadmin(database, "-X", "logen", "-r", REALM)
    assert (await store.tables()).realms[REALM].secrets == ()


async def test_turnadmin_lists_what_we_made(store: Store, database: Database) -> None:
    await store.set_user(REALM, "gorst", keys("gorst"))
    await store.add_secret(REALM, "logen")
    await store.set_origin("http://crinna.org:80", REALM)
    limits: dict[RealmOption, int] = {"max-bps": 500_000, "total-quota": 12_000, "user-quota": 10_000}
    for option, value in limits.items():
        await store.set_option(REALM, option, value)
    assert f"gorst[{REALM}]" in turnadmin(database, "-l", "-r", REALM)
    assert "logen" in turnadmin(database, "-S", "-r", REALM)
    assert re.search(r"http://crinna.org:80\W+example.org", turnadmin(database, "-I"))
    listed = turnadmin(database, "-G", "-r", REALM)
    assert all(re.search(rf"{option}\b.*= ?{value}\b", listed) for option, value in limits.items()), listed


async def test_admins_and_keys_of_turnadmin_have_tables(store: Store, database: Database) -> None:
    turnadmin(database, "-A", "-u", "skarling", "-p", "hoodless")
    assert "skarling" in turnadmin(database, "-L")


async def test_a_user_that_we_made_authenticates_with_coturn(
    store: Store, database: Database, tmp_path: Path, certificate: TlsFiles
) -> None:
    """Its value holds both keys: coturn reads the first of them."""
    await store.set_user(REALM, "bob", keys("bob", "builder"))
    await store.set_user(REALM, "carol", UserKeys(md5=keys("carol", "singer").md5))
    with coturn(tmp_path, certificate, *database.coturn) as server:
        assert speaks(server.plain.port, "bob", "builder") is None
        assert speaks(server.plain.port, "carol", "singer") is None
        assert speaks(server.plain.port, "bob", "wrong", uclient.Expect.NOTHING) is None


async def test_peer_ranges_that_we_set_hold_in_coturn(
    store: Store, database: Database, tmp_path: Path, certificate: TlsFiles
) -> None:
    await store.set_user(REALM, "bob", keys("bob", "builder"))
    await store.set_range(REALM, "denied", "127.0.0.0-127.255.255.255", True)
    assert (await store.tables()).realms[REALM].denied == (AddressRange.parse("127.0.0.0/8"),)
    with coturn(tmp_path, certificate, *database.coturn) as server:
        assert speaks(server.plain.port, "bob", "builder", uclient.Expect.NOTHING) is None


def speaks(port: int, user: str, password: str, expect: uclient.Expect = uclient.Expect.ALL) -> str | None:
    """What is wrong with a run of coturn's client, two of whose allocations send to each other."""
    need("turnutils_uclient")
    case = uclient.Case("store", "-y -X", expect, user=user, password=password, peer=False, messages=4, clients=2)
    command = uclient.command(case, port=port, tls_port=0, peer_port=0)
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    except subprocess.TimeoutExpired:
        return uclient.verdict(case, None)
    return uclient.verdict(case, result)


_COTURNS_KEYS = (
    # coturn's own examples, and what its administrators may write by hand
    ("north", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK", 0, 0, "A256GCM", "crinna.org"),
    ("union", "MTIzNDU2Nzg5MDEyMzQ1Ngo=", 1_800_000_000, 3600, "a128gcm", ""),
    ("short", "MTIzNDU2Nzg5MDEyMzQ1Ngo=", 0, 0, "A256GCM", ""),
    ("other", "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK", 0, 0, "A128CBC-HS256", ""),
    ("words", "the north", 0, 0, "A256GCM", ""),
)


async def test_coturns_keys_of_access_tokens_are_read(store: Store, database: Database) -> None:
    if isinstance(store, RedisStore):
        for kid, key, begins, lifetime, algorithm, realm in _COTURNS_KEYS:
            fields = {"ikm_key": key, "as_rs_alg": algorithm, "timestamp": begins, "lifetime": lifetime, "realm": realm}
            given: Any = {name: value for name, value in fields.items() if value not in (0, "")}
            await store._client.hset(f"turn/oauth/kid/{kid}", mapping=given)
        await store._client.set("turn/oauth/kid/wrong", "type")
    else:
        assert isinstance(store, SqlStore)
        async with store._engine.begin() as connection:
            for row in _COTURNS_KEYS:
                names_of = ("kid", "ikm_key", "timestamp", "lifetime", "as_rs_alg", "realm")
                await connection.execute(schema.oauth_keys.insert().values(dict(zip(names_of, row, strict=True))))
    tables = await store.tables(keys=True)
    assert tables.keys == {
        "north": AccessTokenKey("north", b"01234567890123456789012345678901", realm="crinna.org"),
        "union": AccessTokenKey("union", b"1234567890123456", 1_800_000_000.0, 3600.0),
    }
    told = "\n".join(tables.mistakes)
    assert len(tables.mistakes) == 3 + isinstance(store, RedisStore)
    for kid in ("short", "other", "words"):
        assert repr(kid) in told
    assert "the north" not in told
