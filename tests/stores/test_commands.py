"""The commands user, secret and realm on every kind of database; tests/cli/test_users.py has what else they do."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.stores.conftest import Database
from tests.stores.test_contract import REALM
from turnsvr.cli import main
from turnsvr.stores import hexkeys
from turnsvr.stores.api import Tables, UserKeys


def key_of(database: Database, name: str, realm: str = REALM) -> UserKeys | None:
    async def find() -> UserKeys | None:
        store = database.open()
        try:
            return await store.user(realm, name)
        finally:
            await store.close()

    return asyncio.run(find())


def tables_of(database: Database) -> Tables:
    async def read() -> Tables:
        store = database.open()
        try:
            return await store.tables()
        finally:
            await store.close()

    return asyncio.run(read())


@pytest.fixture
def on(database: Database) -> Callable[..., str]:
    """Runs a command on a database of each kind, whose URL is in the environment; its output, when it ends well."""

    def invoke(*arguments: str, stdin: str = "", status: int = 0) -> str:
        environ = {"TURN_STORE": database.url}
        result = CliRunner().invoke(main, arguments, input=stdin, env=environ, prog_name="turnsvr")
        assert result.exit_code == status, result.output
        assert "p@ss" not in result.output
        assert "p%40ss" not in result.output
        return result.output

    return invoke


def test_users_on_every_kind_of_database(on: Callable[..., str], database: Database) -> None:
    assert on("user", "add", "alice", "--realm", REALM, stdin="wonderland\n") == f"added user alice of realm {REALM}\n"
    assert key_of(database, "alice") == hexkeys.of_password(REALM, "alice", "wonderland")

    text = on("user", "add", "alice", "--realm", REALM, stdin="other\n", status=1)
    assert "alice of realm example.org exists" in text
    assert "turnsvr user password" in text
    assert key_of(database, "alice") == hexkeys.of_password(REALM, "alice", "wonderland")

    on("user", "password", "alice", "--realm", REALM, stdin="other\n")
    assert key_of(database, "alice") == hexkeys.of_password(REALM, "alice", "other")
    assert "there is no user bob" in on("user", "password", "bob", "--realm", REALM, stdin="x\n", status=1)

    on("user", "add", "bob", "--realm", "other.org", "--password-file", "-", stdin="builder\n")
    assert on("user", "list") == f"{REALM}\talice\nother.org\tbob\n"
    assert on("user", "list", "--realm", "other.org") == "other.org\tbob\n"
    assert json.loads(on("user", "list", "--json")) == [
        {"realm": REALM, "name": "alice"},
        {"realm": "other.org", "name": "bob"},
    ]
    assert on("user", "remove", "alice", "--realm", REALM) == (
        f"removed user alice of realm {REALM}\nsessions live on until they are ended: turnsvr kick --user alice\n"
    )
    assert "there is no user alice" in on("user", "remove", "alice", "--realm", REALM, status=1)
    assert on("user", "list", "--realm", REALM) == ""


def test_secrets_on_every_kind_of_database(on: Callable[..., str], database: Database, tmp_path: Path) -> None:
    new = on("secret", "add", "--new", "--realm", REALM).strip()
    assert re.fullmatch("[0-9a-f]{64}", new)
    file = tmp_path / "secret"
    file.write_text("north-north-north\n")
    on("secret", "add", "--secret-file", str(file), "--realm", REALM)
    assert "already" in on("secret", "add", "--secret-file", str(file), "--realm", REALM, status=1)
    assert sorted(tables_of(database).realms[REALM].secrets) == sorted([new, "north-north-north"])

    listed = on("secret", "list")
    assert new not in listed
    assert "north" not in listed
    assert re.fullmatch(rf"({REALM}\t[0-9a-f]{{16}}\n){{2}}", listed)
    entries = json.loads(on("secret", "list", "--show", "--json"))
    named = {entry["secret"]: entry["fingerprint"] for entry in entries}
    assert named.keys() == {new, "north-north-north"}

    assert "no such secret" in on("secret", "remove", "0123456789abcdef", "--realm", REALM, status=1)
    on("secret", "remove", named[new], "--realm", REALM)
    on("secret", "remove", "--realm", REALM, stdin="north-north-north\n")
    assert "no such secret" in on("secret", "remove", "--realm", REALM, stdin="north-north-north\n", status=1)
    assert on("secret", "list") == ""


def test_realms_on_every_kind_of_database(on: Callable[..., str], database: Database) -> None:
    assert on("realm", "set", "--realm", REALM, "--max-bps", "4Mbit/s", "--user-quota", "0")
    on("realm", "origin", "https://app.example.org", "--realm", REALM)
    on("realm", "allow", "10.1.0.0/16", "192.0.2.7", "--realm", REALM)
    on("realm", "deny", "2001:db8::/32", "--every-realm")
    assert "already" in on("realm", "allow", "10.1.0.0/16", "--realm", REALM, status=1)
    assert "already" in on("realm", "origin", "https://app.example.org", "--realm", REALM, status=1)
    assert yaml.safe_load(on("realm", "list")) == {
        "*": {"secrets": 0, "denied": ["2001:db8::/32"]},
        REALM: {
            "secrets": 0,
            "max-bps": "4 Mbit/s",
            "user-quota": 0,
            "origins": ["https://app.example.org"],
            "allowed": ["10.1.0.0/16", "192.0.2.7"],
        },
    }
    tables = tables_of(database)
    assert tables.realms[REALM].max_bps == 500_000
    on("realm", "set", "--realm", REALM, "--max-bps", "none", "--user-quota", "7", "--total-quota", "100")
    on("realm", "allow", "10.1.0.0-10.1.255.255", "--realm", REALM, "--remove")
    on("realm", "origin", "https://app.example.org", "--remove")
    assert json.loads(on("realm", "list", "--realm", REALM, "--json")) == {
        REALM: {"secrets": 0, "total-quota": 100, "user-quota": 7, "allowed": ["192.0.2.7"]}
    }
    assert "no such" in on("realm", "allow", "10.1.0.0/16", "--realm", REALM, "--remove", status=1)
    assert "no such" in on("realm", "origin", "https://app.example.org", "--remove", status=1)
