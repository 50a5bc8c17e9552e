"""SQLite's own: a file that others write, lock, replace and take away."""

# ruff: noqa: ASYNC240

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.stores.test_contract import REALM, keys, names
from turnsvr.config.locations import StoreUrl
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import open_store
from turnsvr.stores.api import Store

NOBODY = 65_534


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "users.sqlite"


@pytest.fixture
async def store(file: Path) -> AsyncIterator[Store]:
    opened = open_store(StoreUrl("sqlite", str(file)), 1.0)
    yield opened
    await opened.close()


async def test_the_file_is_its_owners_alone(store: Store, file: Path) -> None:
    before = os.umask(0)
    try:
        await store.prepare()
        await store.set_user(REALM, "alice", keys("alice"))
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}
    assert set(modes.values()) == {0o600}, modes


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
async def test_a_file_that_root_makes_belongs_to_whom_the_directory_belongs(store: Store, file: Path) -> None:
    os.chown(file.parent, NOBODY, NOBODY)
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    assert {path.stat().st_uid for path in file.parent.iterdir()} == {NOBODY}


async def test_a_file_that_is_there_keeps_its_mode_and_its_journal(store: Store, file: Path) -> None:
    sqlite3.connect(file).execute(
        "CREATE TABLE turn_secret (realm varchar(127), value varchar(256))"
    ).connection.close()
    file.chmod(0o640)
    await store.prepare()
    assert await store.add_secret(REALM, "north") is True
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    connection.close()


async def test_it_is_read_while_another_writes(store: Store, file: Path) -> None:
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    other = sqlite3.connect(file, isolation_level=None)
    assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM turnusers_lt")
    assert await store.user(REALM, "alice") == keys("alice")
    other.execute("COMMIT")
    assert await store.user(REALM, "alice") is None
    other.close()


async def test_a_locked_file_is_unavailable_in_time(store: Store, file: Path) -> None:
    await store.prepare()
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    before = time.monotonic()
    with pytest.raises(Unavailable, match=r"database is locked|no answer within 1 s"):
        await store.set_user(REALM, "alice", keys("alice"))
    assert time.monotonic() - before < 4
    other.execute("ROLLBACK")
    other.close()
    assert await store.set_user(REALM, "alice", keys("alice")) is True


async def test_a_file_put_in_its_place_is_the_one_that_is_read(store: Store, file: Path, tmp_path: Path) -> None:
    """One without a write-ahead log, as coturn makes them."""
    (tmp_path / "new").touch()
    file.touch()
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    other = open_store(StoreUrl("sqlite", str(tmp_path / "new")), 1.0)
    await other.prepare()
    await other.set_user(REALM, "bob", keys("bob"))
    await other.close()
    (tmp_path / "new").replace(file)
    assert await names(store, REALM) == ["bob"]


async def test_a_file_that_goes_and_comes_back(store: Store, file: Path, tmp_path: Path) -> None:
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    file.rename(tmp_path / "away")
    for _ in range(2):
        with pytest.raises(Unavailable, match="there is no such file; turnsvr user add makes it"):
            await store.user(REALM, "alice")
    (tmp_path / "away").rename(file)
    assert await store.user(REALM, "alice") == keys("alice")


async def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    store = open_store(StoreUrl("sqlite", str(tmp_path / "nowhere" / "users")), 1.0)
    with pytest.raises(Unavailable, match="its directory does not exist"):
        await store.prepare()
    assert list(tmp_path.iterdir()) == []
    await store.close()


async def test_a_file_that_is_no_database(store: Store, file: Path) -> None:
    file.write_text("users:\n  alice: wonderland\n" * 100)
    with pytest.raises(Unavailable, match="file is not a database"):
        await store.user(REALM, "alice")
    with pytest.raises(Unavailable):
        await store.prepare()
    assert file.read_text().startswith("users:")


@pytest.mark.parametrize("name", ["a b", "100%", "q?mode=memory", "#", "ä", "'", '"', ";", ":memory:"])
async def test_any_path_is_a_path(tmp_path: Path, name: str) -> None:
    store = open_store(StoreUrl("sqlite", str(tmp_path / name)), 1.0)
    await store.prepare()
    await store.set_user(REALM, "alice", keys("alice"))
    await store.close()
    assert {path.name.partition("-")[0] for path in tmp_path.iterdir()} == {name}


async def test_a_path_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = open_store(StoreUrl.parse("sqlite:users"), 1.0)
    await store.prepare()
    assert await store.set_user(REALM, "alice", keys("alice")) is True
    await store.close()
    assert (tmp_path / "users").exists()


@pytest.mark.parametrize("text", ["", "bc807ee29df3c9ffa736523fb2c4e8e", "g" * 32, "ab" * 24, "é" * 32])
async def test_a_key_that_is_none_lets_nobody_in(store: Store, file: Path, text: str) -> None:
    await store.prepare()
    with sqlite3.connect(file) as connection:
        connection.execute("INSERT INTO turnusers_lt VALUES (?, 'alice', ?)", (REALM, text))
        connection.execute("INSERT INTO turnusers_lt VALUES (?, 'bob', NULL)", (REALM,))
    connection.close()
    assert await store.user(REALM, "alice") is None
    assert await store.user(REALM, "bob") is None
