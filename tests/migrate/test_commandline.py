"""coturn's options on a command line and in compose files."""

from __future__ import annotations

import pytest

from turnsvr.migrate.commandline import command_of
from turnsvr.migrate.compose import command_in_compose
from turnsvr.migrate.source import SourceError

LINES = b"listening-port=3478\nuse-auth-secret\nstatic-auth-secret=northern lights\nrealm=example.org\n"
LIST = '[-n, --listening-port=3478, --use-auth-secret, "--static-auth-secret=northern lights", --realm=example.org]'
TEXT = "-n -p 3478 --use-auth-secret --static-auth-secret='northern lights' -r example.org"


@pytest.mark.parametrize("command", [LIST, f'"{TEXT}"', f'"turnserver {TEXT}"', f'[sh, -c, "exec turnserver {TEXT}"]'])
def test_a_compose_file_is_its_command(command: str) -> None:
    data = f"services:\n  app: {{image: app, command: [--x]}}\n  turn: {{image: coturn/coturn, command: {command}}}\n"
    command_read = command_in_compose(data.encode())
    assert command_read is not None
    assert command_read.lines == LINES


@pytest.mark.parametrize("data", [b"", b"realm=a\n", b"services: []", b"\xff\xfe", b"a: ["])
def test_other_files_are_none(data: bytes) -> None:
    assert command_in_compose(data) is None


def test_a_value_holds_no_further_line() -> None:
    assert command_of(["--realm=a\nno-auth"]).lines == b"realm=a no-auth\n"


def test_words_without_an_option_are_left_out() -> None:
    assert command_of(["x", "--realm", "a", "b", "--no-cli"]).lines == b"realm=a\nno-cli\n"


def compose(service: str, **files: str) -> bytes | None:
    """The lines of a service that stands in a compose file, with files beside it."""
    data = f"services:\n  turn:\n    image: coturn/coturn\n{service}"
    command = command_in_compose(data.encode(), lambda name: files.get(name.strip("./").replace(".", "_"), ""))
    return None if command is None else command.lines


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


@pytest.mark.parametrize(
    ("options", "lines"),
    [
        ("-a -v -z -o -u a:b -l stdout", b"lt-cred-mech\nverbose\nno-auth\ndaemon\nuser=a:b\nlog-file=stdout\n"),
        ("-q 4 -Q 100 -s64000", b"user-quota=4\ntotal-quota=100\nmax-bps=64000\n"),
        ("-S -e host=db -O ip=1", b"stun-only\npsql-userdb=host=db\nredis-statsdb=ip=1\n"),
    ],
)
def test_every_short_option_has_its_long_name(options: str, lines: bytes) -> None:
    assert command_of(options.split()).lines == lines


@pytest.mark.parametrize("option", ["-c /etc/t.conf", "-c/etc/t.conf"])
def test_the_file_that_a_command_names_is_no_line(option: str) -> None:
    command = command_of([*option.split(), "--realm=a"])
    assert (command.file, command.lines, command.alone) == ("/etc/t.conf", b"realm=a\n", False)
    assert command_of(["-n"]).alone


@pytest.mark.parametrize("engine", ["docker", "/usr/bin/podman"])
def test_what_docker_run_says_is_not_coturns(engine: str) -> None:
    run = "run -d --network host --name coturn -v /srv/coturn/d:/var/lib/coturn -e DETECT_EXTERNAL_IP=yes"
    image = "docker.io/coturn/coturn:4.6-alpine -n --realm=example.org --cert /etc/coturn/c.pem"
    command = command_of([engine, *run.split(), *image.split()])
    assert command.lines == b"realm=example.org\ncert=/etc/coturn/c.pem\nexternal-ip=auto\n"


MOUNTED = "    volumes: [data:/var/lib, './t.conf:/etc/coturn/turnserver.conf:ro']\n"


@pytest.mark.parametrize(
    ("service", "file"),
    [
        (MOUNTED, "./t.conf"),
        (MOUNTED + "    command: [-c, /etc/coturn/turnserver.conf, --no-cli]\n", "./t.conf"),
        (MOUNTED + "    command: [-n, --no-cli]\n", ""),
        ("    volumes: ['${D:-./etc}/:/etc/coturn/']\n", "./etc/turnserver.conf"),
        ("    volumes: [{type: bind, source: ./a, target: /x.conf}]\n    entrypoint: turnserver -c /x.conf\n", "./a"),
    ],
)
def test_a_mounted_file_counts(service: str, file: str) -> None:
    data = f"services:\n  turn:\n    image: instrumentisto/coturn\n{service}"
    command = command_in_compose(data.encode())
    assert command is not None
    assert command.file == file


@pytest.mark.parametrize(
    "data",
    [
        b"services: {a: {command: 3}}",
        b"services: {db: {image: postgres, command: [-c, max_connections=5]}}",
        b"services: {turn: {image: coturn/coturn, environment: {REALM: a.org}, ports: ['3478:3478']}}",
        b"services: {turn: {image: coturn/coturn, command: [-c, /etc/elsewhere.conf]}}",
    ],
)
def test_where_coturn_is_told_nothing_is_said(data: bytes) -> None:
    with pytest.raises(SourceError):
        command_in_compose(data)
