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


def compose(service: str, **files: str) -> bytes | None:
    """The lines of a service that stands in a compose file, with files beside it."""
    data = f"services:\n  turn:\n    image: coturn/coturn\n{service}"
    arguments = command_in_compose(data.encode(), lambda name: files.get(name.strip("./").replace(".", "_"), ""))
    return None if arguments is None else lines_of(arguments)


@pytest.mark.parametrize(
    ("service", "files", "lines"),
    [
        ("    command: ['--realm=${R}']\n", {"env": "R=example.org"}, b"realm=example.org\n"),
        ("    command: ['--realm=$R']\n", {"env": "# R=x\nexport R='example.org'"}, b"realm=example.org\n"),
        ("    command: ['--realm=${R:-a.org}']\n", {}, b"realm=a.org\n"),
        ("    command: ['--realm=${R:-a.org}']\n", {"env": "R="}, b"realm=a.org\n"),
        ("    command: ['--realm=${R-a.org}']\n", {"env": "R=b.org"}, b"realm=b.org\n"),
        ("    command: ['--realm=${R:?say it}']\n", {"env": "R=b.org"}, b"realm=b.org\n"),
        ("    command: ['--static-auth-secret=${S}']\n", {}, b"static-auth-secret=${S}\n"),
        ("    command: ['--realm=$${R}']\n    environment: {R: a.org}\n", {}, b"realm=a.org\n"),
        ("    command: ['--realm=$$R']\n    environment: ['R=a.org']\n", {}, b"realm=a.org\n"),
        ("    command: ['--realm=$$R']\n    environment: ['R=${X}']\n", {"env": "X=a.org"}, b"realm=a.org\n"),
        ("    command: ['--realm=$$R']\n    env_file: turn.env\n", {"turn_env": 'R="a.org"'}, b"realm=a.org\n"),
        ("    command: ['--realm=$$R']\n    env_file: [./turn.env]\n", {"turn_env": "R=a.org"}, b"realm=a.org\n"),
        ("    command: ['--realm=$$R']\n    env_file: [{path: turn.env}]\n", {"turn_env": "R=a.org"}, b"realm=a.org\n"),
        (
            "    command: ['--realm=$$R']\n    env_file: turn.env\n    environment: {R: b.org}\n",
            {"turn_env": "R=a.org"},
            b"realm=b.org\n",
        ),
        ("    command: sh -c 'exec turnserver --realm=$$R'\n    environment: {R: a.org}\n", {}, b"realm=a.org\n"),
        ("    command: ['--external-ip=$$(detect-external-ip)']\n", {}, b"external-ip=auto\n"),
        ("    environment: {DETECT_EXTERNAL_IP: 'yes'}\n", {}, b"external-ip=auto\n"),
        ("    environment: [DETECT_EXTERNAL_IP=no]\n    command: [--no-cli]\n", {}, b"no-cli\n"),
        ("    env_file: absent.env\n    command: [--no-cli]\n", {}, b"no-cli\n"),
    ],
)
def test_variables_are_put_in(service: str, files: dict[str, str], lines: bytes) -> None:
    assert compose(service, **files) == lines


@pytest.mark.parametrize("odd", ["environment: 3", "environment: [3, null]", "env_file: {a: 1}", "env_file: [null, 3]"])
def test_odd_sections_are_no_mistake(odd: str) -> None:
    assert compose(f"    {odd}\n    command: [--no-cli]\n") == b"no-cli\n"
