"""Every command explains itself."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.cli.conftest import Run
from turnsvr import __version__
from turnsvr.cli import main

COMMANDS = {"run", "check", "schema", "credentials", "secret", "probe", "version"}


def test_the_commands_are_all_there() -> None:
    assert main.commands.keys() >= COMMANDS


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_shows_an_example(run: Run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"  turnsvr {name}" in result.stdout
    assert not result.stderr


@pytest.mark.parametrize("name", sorted(main.commands))
def test_the_list_of_commands_says_what_each_begins_its_help_with(run: Run, name: str) -> None:
    """The list is made without the commands, which take long to import."""
    (line,) = [line for line in run("--help").stdout.splitlines() if line.split()[:1] == [name]]
    told = " ".join((main.commands[name].help or "").split())
    assert told.startswith(line.split(maxsplit=1)[1].rstrip("."))


@pytest.mark.parametrize("name", sorted(main.commands))
def test_help_fits_a_terminal(run: Run, name: str) -> None:
    assert max(map(len, run(name, "--help").stdout.splitlines())) <= 100


def test_the_group_gives_the_first_steps(run: Run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for step in ("turnsvr run", "turnsvr secret", "turnsvr check turnsvr.yaml", "turnsvr probe"):
        assert step in result.stdout
    assert "..." not in result.stdout.partition("Commands:")[2]


def test_every_option_is_explained() -> None:
    for command in main.commands.values():
        for parameter in command.params:
            assert parameter.param_type_name == "argument" or getattr(parameter, "help", None), parameter.name


def test_version_says_what_runs_compiled_and_why(run: Run) -> None:
    result = run("version")
    assert result.exit_code == 0
    first, second, third, fourth, fifth, sixth = result.stdout.splitlines()
    assert first == f"turnsvr {__version__}"
    assert second.startswith(f"python {sys.version_info.major}.{sys.version_info.minor}")
    assert third.startswith("pump ")
    assert fourth.startswith(("offload programs for ", "offload none ("))
    assert fifth.startswith("rules ")
    assert sixth.startswith(("TLS in the pump (OpenSSL ", "TLS in asyncio ("))


def test_version_option(run: Run) -> None:
    assert run("--version").stdout == f"turnsvr {__version__}\n"


def test_an_unknown_command_is_a_usage_error(run: Run) -> None:
    result = run("serve")
    assert result.exit_code == 2
    assert "No such command" in result.stderr


@pytest.mark.parametrize("room", ["turnsvr.app", "turnsvr.relay", "turnsvr.net", "turnsvr.client", "aioice", "asyncio"])
def test_the_server_is_not_loaded_to_print_help(room: str) -> None:
    program = f"import sys, turnsvr.cli; sys.exit({room!r} in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
