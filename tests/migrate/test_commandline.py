"""coturn's options on a command line and in compose files."""

from __future__ import annotations

import pytest

from turnsvr.migrate.commandline import command_in_compose, lines_of

LINES = b"listening-port=3478\nuse-auth-secret\nstatic-auth-secret=northern lights\nrealm=example.org\n"
LIST = '[-n, --listening-port=3478, --use-auth-secret, "--static-auth-secret=northern lights", --realm=example.org]'
TEXT = "-n -p 3478 --use-auth-secret --static-auth-secret='northern lights' -r example.org"


@pytest.mark.parametrize("command", [LIST, f'"{TEXT}"', f'"turnserver {TEXT}"', f'[sh, -c, "exec turnserver {TEXT}"]'])
def test_a_compose_file_is_its_command(command: str) -> None:
    data = f"services:\n  app: {{image: app, command: [--x]}}\n  turn: {{image: coturn/coturn, command: {command}}}\n"
    arguments = command_in_compose(data.encode())
    assert arguments is not None
    assert lines_of(arguments) == LINES


@pytest.mark.parametrize(
    "data", [b"", b"realm=a\n", b"services: []", b"services: {a: {command: 3}}", b"\xff\xfe", b"a: ["]
)
def test_other_files_are_none(data: bytes) -> None:
    assert command_in_compose(data) is None


def test_a_value_holds_no_further_line() -> None:
    assert lines_of(["--realm=a\nno-auth"]) == b"realm=a no-auth\n"


def test_words_without_an_option_are_left_out() -> None:
    assert lines_of(["x", "--realm", "a", "b", "--no-cli"]) == b"realm=a\nno-cli\n"
