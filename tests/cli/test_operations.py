"""docs/operations.md against the program: what it tells people to type exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from turnsvr.admin.places import SYSTEM_DIRECTORY
from turnsvr.admin.routes import operations
from turnsvr.cli import main

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "operations.md").read_text()
COMMANDS = sorted({match[1] for match in re.finditer(r"^\$ turnsvr ([^|&;#\n]+)", TEXT, re.MULTILINE)})


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_line_can_be_parsed(line: str) -> None:
    name, *arguments = shlex.split(line)
    command = main.commands[name]
    command.make_context(name, arguments, resilient_parsing=False)


def test_every_command_over_the_interface_is_told_of() -> None:
    for name, command in main.commands.items():
        if any(parameter.name == "socket" for parameter in command.params):
            assert f"`turnsvr {name}" in TEXT, name


def test_every_endpoint_and_its_conditions_are_told_of() -> None:
    nobody: Any = None
    for operation in operations(nobody, nobody):
        assert f"`{operation.method} {operation.path}" in TEXT
        told = TEXT[TEXT.index(f"`{operation.method} {operation.path}") :]
        for name, field in operation.asked.model_fields.items():
            assert re.search(rf"\b{field.alias or name}\b", told), name


def test_the_places_are_those_of_the_program() -> None:
    assert f"`{SYSTEM_DIRECTORY}/admin.sock`" in TEXT


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", TEXT):
        assert (DOCS / target).exists(), target
