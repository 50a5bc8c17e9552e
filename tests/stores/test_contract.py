"""Every store keeps what it promises (turnsvr.stores.api), whatever database it is in."""

from __future__ import annotations

import asyncio
import logging
from base64 import b64encode
from dataclasses import replace

import pytest

from tests.stores.conftest import Database
from turnsvr.config.ranges import AddressRange
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import hexkeys
from turnsvr.stores.api import EVERY_REALM, NotStorable, RealmTable, Store, Tables, UserKeys

REALM = "example.org"


def keys(name: str, password: str = "wonderland", realm: str = REALM) -> UserKeys:
    return hexkeys.of_password(realm, name, password)


async def names(store: Store, realm: str) -> list[str]:
    return [name for _, name in await store.users(realm)]


async def test_an_empty_store_knows_nobody(store: Store) -> None:
    assert await store.user(REALM, "alice") is None
    assert await names(store, REALM) == []
    assert list(await store.users()) == []
    assert await store.tables() == Tables()


async def test_a_user_is_added_changed_and_removed(store: Store) -> None:
    assert await store.set_user(REALM, "alice", keys("alice")) is True
    assert await store.user(REALM, "alice") == keys("alice")
    assert await store.set_user(REALM, "alice", keys("alice", "looking glass")) is False
    assert await store.user(REALM, "alice") == keys("alice", "looking glass")
    assert await store.remove_user(REALM, "alice") is True
    assert await store.user(REALM, "alice") is None
    assert await store.remove_user(REALM, "alice") is False


@pytest.mark.parametrize("kept", ["md5", "sha256"])
async def test_one_key_is_kept_alone(store: Store, kept: str) -> None:
    one = UserKeys(**{kept: getattr(keys("alice"), kept)})
    await store.set_user(REALM, "alice", one)
    assert await store.user(REALM, "alice") == one


async def test_users_are_told_apart_by_realm_and_by_every_letter(store: Store) -> None:
    await store.set_user(REALM, "alice", keys("alice"))
    for realm, name in [
        (REALM, "Alice"),
        (REALM, "alice "),
        (REALM, " alice"),
        (REALM, "álice"),
        (REALM, "alic_"),
        (REALM, "%"),
        (REALM, "*"),
        ("Example.org", "alice"),
        ("example.org ", "alice"),
        ("", "alice"),
    ]:
        assert await store.user(realm, name) is None
        assert await store.remove_user(realm, name) is False
    assert await names(store, "Example.org") == []
    assert await store.user(REALM, "alice") == keys("alice")


async def test_users_are_listed_in_order(store: Store) -> None:
    for realm, name in [(REALM, "bob"), ("other.org", "carol"), (REALM, "alice")]:
        await store.set_user(realm, name, keys(name, realm=realm))
    assert await names(store, REALM) == ["alice", "bob"]
    assert list(await store.users(REALM)) == [(REALM, "alice"), (REALM, "bob")]
    assert list(await store.users()) == [(REALM, "alice"), (REALM, "bob"), ("other.org", "carol")]


async def test_secrets(store: Store) -> None:
    assert await store.add_secret(REALM, "north") is True
    assert await store.add_secret(REALM, "north") is False
    assert await store.add_secret(REALM, "south") is True
    assert await store.add_secret("other.org", "North") is True
    tables = await store.tables()
    assert sorted(tables.realms[REALM].secrets) == ["north", "south"]
    assert tables.realms["other.org"].secrets == ("North",)
    assert await store.remove_secret(REALM, "North") is False
    assert await store.remove_secret(REALM, "north") is True
    assert await store.remove_secret(REALM, "north") is False
    assert (await store.tables()).realms[REALM].secrets == ("south",)


async def test_limits(store: Store) -> None:
    await store.set_option(REALM, "max-bps", 500_000)
    await store.set_option(REALM, "total-quota", 0)
    await store.set_option(REALM, "user-quota", 4)
    assert (await store.tables()).realms == {REALM: RealmTable(max_bps=500_000, total_quota=0, user_quota=4)}
    await store.set_option(REALM, "user-quota", 5)
    await store.set_option(REALM, "max-bps", None)
    await store.set_option(REALM, "max-bps", None)
    assert (await store.tables()).realms == {REALM: RealmTable(total_quota=0, user_quota=5)}


async def test_origins(store: Store) -> None:
    assert await store.set_origin("https://app.example.org:443", REALM) is True
    assert await store.set_origin("https://app.example.org:443", REALM) is False
    assert (await store.tables()).origins == {"https://app.example.org:443": REALM}
    assert await store.set_origin("https://app.example.org:443", "other.org") is True
    assert (await store.tables()).origins == {"https://app.example.org:443": "other.org"}
    assert await store.set_origin("https://app.example.org:443", None) is True
    assert await store.set_origin("https://app.example.org:443", None) is False
    assert (await store.tables()).origins == {}


async def test_peer_ranges(store: Store) -> None:
    assert await store.set_range(REALM, "allowed", "10.1.0.0/16", True) is True
    assert await store.set_range(REALM, "allowed", "10.1.0.0/16", True) is False
    assert await store.set_range(REALM, "denied", "192.0.2.1-192.0.2.9", True) is True
    assert await store.set_range(EVERY_REALM, "denied", "2001:db8::7", True) is True
    realms = (await store.tables()).realms
    assert realms[REALM].allowed == (AddressRange.parse("10.1.0.0/16"),)
    assert realms[REALM].denied == (AddressRange.parse("192.0.2.1-192.0.2.9"),)
    assert realms[EVERY_REALM].denied == (AddressRange.parse("2001:db8::7"),)
    assert await store.set_range(REALM, "denied", "10.1.0.0/16", False) is False
    assert await store.set_range(REALM, "allowed", "10.1.0.0/16", False) is True
    assert (await store.tables()).realms[REALM].allowed == ()


async def test_keys_of_access_tokens(store: Store) -> None:
    north = AccessTokenKey("north", bytes(range(32)), 1_800_000_000.0, 86_400.0, REALM)
    union = AccessTokenKey("union", bytes(range(16)))
    assert await store.set_key(north) is True
    assert await store.set_key(union) is True
    tables = await store.tables(keys=True)
    assert tables.keys == {"north": north, "union": union}
    assert REALM in tables.realms, "a key's realm is served"
    assert (await store.tables()).keys == {}
    changed = replace(north, key=bytes(range(1, 33)), realm=None)
    assert await store.set_key(changed) is False
    assert (await store.tables(keys=True)).keys == {"north": changed, "union": union}
    assert await store.remove_key("North") is False
    assert await store.remove_key("north") is True
    assert await store.remove_key("north") is False
    assert (await store.tables(keys=True)).keys == {"union": union}
    for kid in ("n\0", "n" * 129, "\ud800"):
        assert await store.remove_key(kid) is False
        with pytest.raises(NotStorable):
            await store.set_key(replace(union, kid=kid))


async def test_what_means_nothing_is_left_out_and_told(store: Store) -> None:
    await store.set_range(REALM, "denied", "10.1.0.0/16", True)
    await store.set_range(REALM, "denied", "next door\n", True)
    await store.add_secret(REALM, "")
    await store.add_secret(REALM, "north")
    tables = await store.tables()
    assert tables.realms[REALM] == RealmTable(secrets=("north",), denied=(AddressRange.parse("10.1.0.0/16"),))
    assert len(tables.mistakes) == 2
    assert any("'next door\\n'" in mistake for mistake in tables.mistakes)
    assert "north" not in str(tables.mistakes)


@pytest.mark.parametrize(
    ("realm", "name"),
    [(REALM, "al\0ice"), ("example\0org", "alice"), (REALM, "\ud800"), (REALM, "a" * 513), ("r" * 128, "a")],
)
async def test_what_no_store_can_hold_is_not_there_and_not_taken(store: Store, realm: str, name: str) -> None:
    assert await store.user(realm, name) is None
    assert await store.remove_user(realm, name) is False
    with pytest.raises(NotStorable) as caught:
        await store.set_user(realm, name, keys("alice"))
    assert "alice" not in str(caught.value)


async def test_the_longest_names_fit(store: Store) -> None:
    realm, name = "ä" * 127, "𝄞" * 127 + "n" * 385
    await store.set_user(realm, name, keys(name, realm=realm))
    assert await store.user(realm, name) == keys(name, realm=realm)
    assert list(await store.users(realm)) == [(realm, name)]


async def test_it_is_prepared_more_than_once(store: Store, database: Database) -> None:
    await store.set_user(REALM, "alice", keys("alice"))
    await store.prepare()
    other = database.open()
    await other.prepare()
    assert await other.user(REALM, "alice") == keys("alice")
    await other.close()


async def test_its_name_tells_no_password(store: Store, database: Database) -> None:
    assert "p@ss" not in store.name
    assert "p%40ss" not in store.name
    assert store.name.startswith(database.kind)


async def test_it_closes_twice(store: Store) -> None:
    await store.close()
    await store.close()


async def test_two_at_once_add_the_same(store: Store, database: Database) -> None:
    others = [database.open() for _ in range(4)]
    new = await asyncio.gather(*(other.set_user(REALM, "alice", keys("alice")) for other in others))
    assert sorted(new) == [False, False, False, True]
    for other in others:
        await other.close()


async def test_many_questions_at_once(store: Store) -> None:
    await store.set_user(REALM, "alice", keys("alice"))
    found = await asyncio.gather(*(store.user(REALM, "alice") for _ in range(60)))
    assert found == [keys("alice")] * 60


async def test_without_tables_it_says_so(database: Database) -> None:
    store = database.open()
    try:
        if database.kind == "redis":
            assert await store.user(REALM, "alice") is None
            return
        with pytest.raises(Unavailable, match="turnsvr user add makes") as caught:
            await store.user(REALM, "alice")
        assert store.name in str(caught.value)
        with pytest.raises(Unavailable):
            await store.tables()
    finally:
        await store.close()


async def test_two_at_once_make_the_tables(database: Database) -> None:
    stores = [database.open() for _ in range(3)]
    try:
        await asyncio.gather(*(store.prepare() for store in stores))
        await stores[0].set_user(REALM, "alice", keys("alice"))
        for store in stores:
            assert await store.user(REALM, "alice") == keys("alice")
    finally:
        for store in stores:
            await store.close()


async def test_no_log_has_what_is_asked_for(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    user, secret, token_key = keys("malice"), "north-north-north", AccessTokenKey("north", bytes(range(32)))
    await store.set_user(REALM, "malice", user)
    await store.add_secret(REALM, secret)
    await store.set_key(token_key)
    await store.user(REALM, "malice")
    await store.tables(keys=True)
    for value in ("malice", secret, "p@ss", hexkeys.write(user), b64encode(token_key.key).decode()):
        assert value not in caplog.text
