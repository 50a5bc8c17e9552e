"""Names from strangers do no harm: not to the database, not to other users, not to the log."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.stores.test_contract import REALM, keys, names
from turnsvr.stores import columns
from turnsvr.stores.api import NotStorable, Store

NASTY = [
    "' OR '1'='1",
    "'; DROP TABLE turnusers_lt; --",
    '"; DELETE FROM turnusers_lt; --',
    "alice\\' --",
    "%s%n%d",
    "%",
    "_____",
    "*",
    "a*[a-z]?\\",
    "alice\r\nFLUSHALL\r\n",
    "<script>alert(1)</script>",
    "{alice}",
    ":name",
    "$1",
    "?",
    "alice/key",
    "../../etc/passwd",
    "\u202ealice",
    "👩\u200d🚀",
    "İstanbul",
    "ﬁ",
    "a\u0301",
    "",
    "\x7f\x01",
]


@pytest.mark.parametrize("name", NASTY)
async def test_a_nasty_name_is_a_name(store: Store, name: str) -> None:
    await store.set_user(REALM, "alice", keys("alice"))
    assert await store.user(REALM, name) is None
    assert await store.remove_user(REALM, name) is False
    await store.set_user(REALM, name, keys(name))
    assert await store.user(REALM, name) == keys(name)
    assert set(await names(store, REALM)) == {"alice", name}
    assert await store.remove_user(REALM, name) is True
    assert await names(store, REALM) == ["alice"]
    assert await store.user(REALM, "alice") == keys("alice")


@pytest.mark.parametrize("realm", NASTY)
async def test_a_nasty_realm_is_a_realm(store: Store, realm: str) -> None:
    await store.add_secret(REALM, "north")
    assert await store.user(realm, "alice") is None
    await store.set_user(realm, "alice", keys("alice", realm=realm))
    await store.add_secret(realm, f"secret {realm}")
    await store.set_origin(f"https://{realm}", realm)
    assert await names(store, realm) == ["alice"]
    tables = await store.tables()
    assert {name: table.secrets for name, table in tables.realms.items()} == {
        REALM: ("north",),
        realm: (f"secret {realm}",),
    }
    assert tables.origins == {f"https://{realm}": realm}


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(realm=st.text(max_size=20), name=st.text(max_size=40), secret=st.text(min_size=1, max_size=40))
async def test_any_text_is_kept_as_it_is_or_refused(store: Store, realm: str, name: str, secret: str) -> None:
    if not columns.holds(realm=realm, user_name=name, secret=secret):
        assert await store.user(realm, name) is None
        assert await store.remove_secret(realm, secret) is False
        return
    try:
        await store.set_user(realm, name, keys(name, realm=realm))
        await store.add_secret(realm, secret)
    except NotStorable:  # in MySQL's eyes "a " is "a", which may be there already
        return
    assert await store.user(realm, name) == keys(name, realm=realm)
    assert (realm, name) in await store.users()
    assert secret in (await store.tables()).realms[realm].secrets
    assert await store.remove_user(realm, name) is True
    assert await store.remove_secret(realm, secret) is True
