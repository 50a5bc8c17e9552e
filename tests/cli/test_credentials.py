from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.credentials.callers import CALLER
from turnsvr.credentials.shared_secret import SharedSecrets
from turnsvr.stun.integrity import long_term_key

SECRET = "north-north-north"


def serves(username: str, password: str) -> bool:
    found = SharedSecrets([SECRET]).find_now(username, "r", time.time(), CALLER)
    return [candidate.md5_key for candidate in found] == [long_term_key(username, "r", password)]


def test_ice_servers_from_a_settings_file(run: Run, settings_file: Path) -> None:
    result = run("credentials", "-c", settings_file, "--user", "alice", "--ttl", "10m", "--host", "turn.example.org")
    assert result.exit_code == 0
    stun, turn = json.loads(result.stdout)["iceServers"]
    assert stun == {"urls": ["stun:turn.example.org:3478"]}
    assert turn["urls"] == ["turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp"]
    assert serves(turn["username"], turn["credential"])
    expiry, _, user = turn["username"].partition(":")
    assert user == "alice"
    assert 590 < int(expiry) - time.time() <= 600


def test_urls_follow_the_listeners(run: Run, settings_file: Path) -> None:
    settings_file.write_text(
        f"credentials: {{secret: {SECRET}}}\nlisten: ['udp://*:80', 'tls://*:443']\ntls: {{certificate: c, key: k}}"
    )
    result = run("credentials", "-c", settings_file, "--host", "h", "--format", "ice-servers")
    stun, turn = json.loads(result.stdout)["iceServers"]
    assert stun["urls"] + turn["urls"] == ["stun:h:80", "turn:h:80?transport=udp", "turns:h:443?transport=tcp"]


def test_a_pair_is_two_lines(run: Run) -> None:
    username, password = run("credentials", "--format", "pair", TURN_SECRET=SECRET).stdout.splitlines()
    assert username.isdigit()
    assert serves(username, password)


def test_a_pair_as_json(run: Run) -> None:
    pair = json.loads(run("credentials", "--format", "pair", "--json", TURN_SECRET=SECRET).stdout)
    assert pair.keys() == {"username", "password"}
    assert serves(**pair)


def test_text_is_for_people(run: Run) -> None:
    result = run("credentials", "--host", "h", "--format", "text", "--user", "alice", TURN_SECRET=SECRET)
    lines = [line.split(maxsplit=1) for line in result.stdout.splitlines()]
    assert [label for label, _ in lines] == ["username:", "password:", "ttl:", "expires:", "urls:", "urls:", "urls:"]
    assert serves(lines[0][1], lines[1][1])
    assert lines[2][1] == "3600"


def test_text_as_json(run: Run) -> None:
    values = json.loads(run("credentials", "--json", "--ttl", "90s", TURN_SECRET=SECRET).stdout)
    assert values.keys() == {"username", "password", "ttl", "expires"}
    assert values["ttl"] == 90


def test_the_password_is_the_drafts(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("north\n")
    result = run("credentials", "--secret-file", tmp_path / "secret", "--format", "pair", "--user", "mbzrxpgjys")
    username, password = result.stdout.splitlines()
    digest = hmac.new(b"north", username.encode(), hashlib.sha1).digest()
    assert password == base64.b64encode(digest).decode()


def test_a_secret_from_standard_input(run: Run) -> None:
    result = run("credentials", "--secret-file", "-", "--format", "pair", stdin=f"{SECRET}\n")
    assert serves(*result.stdout.splitlines())


def test_the_newest_of_several_secrets_is_taken(run: Run, settings_file: Path) -> None:
    settings_file.write_text(f"credentials: {{secrets: [{SECRET}, old]}}")
    assert serves(*run("credentials", "-c", settings_file, "--format", "pair").stdout.splitlines())


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "name the secret's place"),
        (["--host", "h", "--ttl", "soon"], "is not a duration; write it as 30s"),
        (["--format", "ice-servers"], "ice-servers needs --host"),
        (["--format", "yaml"], "'yaml' is not one of"),
        (["-c", "FILE", "--secret-file", "x"], "either from --config or from --secret-file"),
    ],
)
def test_usage_errors(run: Run, settings_file: Path, arguments: list[str], text: str) -> None:
    result = run("credentials", *[str(settings_file) if word == "FILE" else word for word in arguments])
    assert result.exit_code == 2
    assert text in result.stderr
    assert result.stdout == ""


def test_a_file_without_a_shared_secret(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {users: {alice: wonderland}}")
    result = run("credentials", "-c", settings_file)
    assert result.exit_code == 1
    assert result.stderr == "turnsvr: the settings file has no shared secret under credentials\n"


@pytest.mark.parametrize("arguments", [["--user", "a" * 600], ["--ttl", "99999999999d"]])
def test_what_cannot_be_made(run: Run, arguments: list[str]) -> None:
    result = run("credentials", *arguments, TURN_SECRET=SECRET)
    assert result.exit_code == 1
    assert result.stderr.startswith("turnsvr: ")
    assert SECRET not in result.output


def test_an_empty_secret_file(run: Run, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("\n")
    result = run("credentials", "--secret-file", tmp_path / "secret")
    assert result.exit_code == 1
    assert result.stderr == "turnsvr: the shared secret is empty\n"


def test_a_secret_file_that_is_not_there(run: Run, tmp_path: Path) -> None:
    result = run("credentials", "--secret-file", tmp_path / "secret")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


def test_no_option_takes_a_secret(run: Run) -> None:
    assert "--secret " not in run("credentials", "--help").stdout
    assert run("credentials", "--secret", SECRET).exit_code == 2


def test_a_new_secret_each_time(run: Run) -> None:
    made = {run("secret").stdout for _ in range(3)}
    assert len(made) == 3
    assert all(len(bytes.fromhex(text.strip())) == 32 for text in made)
