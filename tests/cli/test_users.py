"""The commands user, secret and realm, as an operator runs them on databases."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from turnsvr.cli import storeaccess
from turnsvr.config import loads
from turnsvr.config.locations import StoreUrl
from turnsvr.stores import hexkeys, open_store
from turnsvr.stores.api import UserKeys

REALM = "example.org"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where databases that nobody names are, in place of this machine's; neither directory is there yet."""
    monkeypatch.setattr(storeaccess, "SYSTEM_FILE", tmp_path / "system" / "turnsvr.sqlite")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("TURN_STORE", raising=False)
    return tmp_path / "data" / "turnsvr" / "turnsvr.sqlite"


def key_of(url: str, name: str, realm: str = REALM) -> UserKeys | None:
    async def find() -> UserKeys | None:
        store = open_store(StoreUrl.parse(url), 10)
        try:
            return await store.user(realm, name)
        finally:
            await store.close()

    return asyncio.run(find())


def test_nobody_names_a_database(run: Run, home: Path) -> None:
    result = run("user", "add", "alice", "--realm", REALM, stdin="wonderland\n")
    assert result.exit_code == 0, result.output
    assert str(home) in result.stderr
    settings = result.stderr.splitlines()[-1]
    assert loads(settings, "stderr").credentials.store is not None
    store = loads(settings, "stderr").credentials.store
    assert store is not None
    assert store.url == StoreUrl("sqlite", str(home))
    assert home.stat().st_mode & 0o777 == 0o600
    assert home.parent.stat().st_mode & 0o777 == 0o700
    listed = run("user", "list")
    assert listed.stdout == f"{REALM}\talice\n"
    assert listed.stderr == f"turnsvr: in {home}\n"


def test_the_systems_file_comes_first_when_it_can_be_written(run: Run, home: Path) -> None:
    storeaccess.SYSTEM_FILE.parent.mkdir()
    run("user", "add", "alice", "--realm", REALM, stdin="wonderland\n")
    assert storeaccess.SYSTEM_FILE.exists()
    assert not home.exists()


def test_nothing_to_list_yet(run: Run, home: Path) -> None:
    result = run("user", "list")
    assert result.exit_code == storeaccess.UNAVAILABLE
    assert "there is no such file; turnsvr user add makes it" in result.stderr
    assert not home.exists()


def test_the_settings_name_store_and_realm(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "turnsvr.yaml"
    file.write_text(f"realm: {REALM}\ncredentials: {{store: 'sqlite:{tmp_path}/users'}}\n")
    result = run("user", "add", "alice", "-c", file, stdin="wonderland\n")
    assert (result.exit_code, result.stderr) == (0, "")
    assert run("user", "list", "-c", file).stdout == f"{REALM}\talice\n"
    assert key_of(f"sqlite:{tmp_path}/users", "alice") == hexkeys.of_password(REALM, "alice", "wonderland")
    assert run("user", "list", "--store", f"sqlite:{tmp_path}/users").stdout == f"{REALM}\talice\n"


@pytest.mark.parametrize("url", ["postgresql://turn:hush-hush@db/turn", "redis://:hush-hush@db/0"])
def test_a_password_does_not_stand_on_the_command_line(run: Run, url: str) -> None:
    result = run("user", "list", "--store", url)
    assert result.exit_code == 2
    assert "every user of this machine could read" in result.stderr
    assert "TURN_STORE" in result.stderr
    assert "hush" not in result.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["user", "add", "alice"], "name the realm"),
        (["user", "add", "al\nice", "--realm", REALM], "NAME is no user name"),
        (["user", "add", "alice", "--realm", 'ex"ample'], "--realm is no realm"),
        (["user", "list", "--store", "oracle://db/turn"], "--store is no address of a database"),
        (["secret", "add", "--new", "--secret-file", "x", "--realm", REALM], "either --new or --secret-file"),
        (["secret", "remove", "abc", "--realm", REALM], "at least 8 hexadecimal digits"),
        (["realm", "set", "--realm", REALM], "name a limit"),
        (["realm", "set", "--realm", REALM, "--max-bps", "500000"], "write it with its unit"),
        (["realm", "set", "--realm", REALM, "--user-quota", "few"], "--user-quota is a number, or none"),
        (["realm", "allow", "next door", "--realm", REALM], "RANGE is not an address range"),
    ],
)
def test_what_makes_no_sense(run: Run, home: Path, arguments: list[str], text: str) -> None:
    result = run(*arguments, stdin="wonderland\n")
    assert result.exit_code == 2
    assert text in result.stderr
    assert not home.exists()


@pytest.mark.parametrize("stdin", ["", "\n", "two\nlines\n", "bell\a\n"])
def test_a_password_that_is_none(run: Run, home: Path, stdin: str) -> None:
    result = run("user", "add", "alice", "--realm", REALM, stdin=stdin)
    assert result.exit_code == 1
    assert result.stderr.startswith("turnsvr: the password is ")
    assert not home.exists()


def test_a_database_that_does_not_answer(run: Run, tmp_path: Path) -> None:
    url = f"postgresql://turn:hush-hush@localhost/turn?socket={tmp_path}"
    result = run("user", "list", TURN_STORE=url)
    assert result.exit_code == storeaccess.UNAVAILABLE
    assert result.stderr == f"turnsvr: postgresql://{tmp_path}/turn: no such file or directory\n"


def test_an_option_of_a_url_that_is_not_known(run: Run) -> None:
    result = run("user", "list", "--store", "postgresql://turn@localhost/turn?sslmdoe=require")
    assert result.exit_code == 1
    assert "has the unknown option 'sslmdoe'; known are sslmode, sslrootcert" in result.stderr


def test_hostile_names_do_nothing_to_a_terminal(run: Run, home: Path) -> None:
    run("user", "add", "alice", "--realm", REALM, stdin="wonderland\n")

    async def add() -> None:
        store = open_store(StoreUrl("sqlite", str(home)), 10)
        await store.set_user(REALM, "\x1b]0;owned\x07\n", hexkeys.of_password(REALM, "x", "y"))
        await store.close()

    asyncio.run(add())
    assert run("user", "list").stdout == f"{REALM}\t\\x1b]0;owned\\x07\\n\n{REALM}\talice\n"


def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(home: Path) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "turnsvr", "user", "add", "alice", "--realm", REALM]
    url = f"sqlite:{home.parent.parent.parent}/users"
    with subprocess.Popen(
        command,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=os.environ | {"TURN_STORE": url},
        start_new_session=True,
    ) as process:
        os.close(terminal)
        seen = b""
        for prompt in (b"Password: ", b"confirmation: "):
            while not seen.endswith(prompt):
                seen += os.read(controller, 1024)
            os.write(controller, b"wonderland\n")
        try:
            while some := os.read(controller, 1024):
                seen += some
        except OSError:  # how Linux tells that the other end has closed
            pass
        assert process.wait(20) == 0
    os.close(controller)
    assert b"added user alice" in seen
    assert b"wonderland" not in seen
    assert key_of(url, "alice") == hexkeys.of_password(REALM, "alice", "wonderland")


def test_a_password_is_no_argument(run: Run) -> None:
    for command in ("add", "password"):
        assert "--password " not in run("user", command, "--help").stdout
        assert run("user", command, "alice", "--password", "x").exit_code == 2


@pytest.mark.parametrize("command", ["user", "secret", "realm"])
def test_every_command_explains_itself(run: Run, command: str) -> None:
    for name in re.findall(r"^  ([a-z]+)  ", run(command, "--help").stdout.partition("Commands:")[2], re.MULTILINE):
        result = run(command, name, "--help")
        assert result.exit_code == 0
        assert f"  turnsvr {command} {name}" in result.stdout
        assert max(map(len, result.stdout.splitlines())) <= 100


# Keys of access tokens


def test_a_key_of_access_tokens_is_made_listed_and_removed(run: Run, home: Path) -> None:
    made = run("oauth-key", "add", "north", "--new")
    assert made.exit_code == 0, made.output
    assert len(b64decode(made.stdout.strip())) == 32
    again = run("oauth-key", "add", "north", "--new")
    assert again.exit_code == 1
    assert "there is a key north" in again.stderr
    options = ("--algorithm", "A128GCM", "--not-before", "2026-06-01", "--lifetime", "90d", "--realm", REALM)
    key = b64encode(bytes(range(16))).decode()
    assert run("oauth-key", "add", "south", *options, stdin=f"{key}\n").exit_code == 0
    listed = run("oauth-key", "list").stdout
    assert listed == (f"north\tA256GCM\t-\t-\t-\nsouth\tA128GCM\t2026-06-01T00:00:00Z\t2026-08-30T00:00:00Z\t{REALM}\n")
    assert json.loads(run("oauth-key", "list", "--json", "--realm", REALM).stdout) == [
        {
            "kid": "south",
            "algorithm": "A128GCM",
            "not_before": "2026-06-01T00:00:00Z",
            "ends": "2026-08-30T00:00:00Z",
            "realm": REALM,
        }
    ]
    assert run("oauth-key", "remove", "north").exit_code == 0
    assert run("oauth-key", "remove", "north").exit_code == 1
    assert made.stdout.strip() not in listed


@pytest.mark.parametrize(
    ("arguments", "text", "told"),
    [
        (("north",), "cXVpdGUgc2hvcnQ=", "has 11 bytes; write 32 bytes"),
        (("north",), "no base64!", "is no base64"),
        (("north",), "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDEK", "one of coturn's examples"),
        (("n" * 129, "--new"), "", "is no name of a key"),
        (("north", "--new", "--lifetime", "soon"), "", "is not a duration"),
        (("north", "--new", "--not-before", "soon"), "", "is no time"),
        (("north", "--new", "--key-file", "-"), "", "either --new or --key-file"),
    ],
)
def test_what_is_no_key_of_access_tokens(
    run: Run, home: Path, arguments: tuple[str, ...], text: str, told: str
) -> None:
    result = run("oauth-key", "add", *arguments, stdin=text)
    assert result.exit_code != 0
    assert told in result.stderr
