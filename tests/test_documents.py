"""What the documents for contributors name exists: files, functions, make targets, variables."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
DOCUMENTS = (
    "CONTRIBUTING.md",
    "README.md",
    "bench/README.md",
    "docs/architecture.md",
    "docs/bench.md",
    "docs/decisions/README.md",
    "docs/operations.md",
    "tests/README.md",
)
TOP = ("bench", "conf", "docs", "scripts", "systemd", "tests", "turnsvr", ".ci")
FILE = re.compile(r"`((?:[\w.-]+/)*[\w.-]+(?:\.(?:py|pxi|pyx|pxd|pyi|h|md|yaml|json)|/))`")
FUNCTION = re.compile(r"`(\w+)\(\)`")
WHERE = re.compile(r"`([\w/]+\.(?:py|pxi))`:\s+(`\w+\(\)`(?:(?:,| and|, and)\s+`\w+\(\)`)*)")
LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[\w-]+)?\)")
TARGET = re.compile(r"\bmake ([a-z-]+)(?=[`\s]|$)")
VARIABLE = re.compile(r"\bTURNSVR_[A-Z_]+\b")


def text_of(document: str) -> str:
    return (ROOT / document).read_text()


def code_of(document: str) -> str:
    """Blocks and spans of code: there `make x` is a command, and not a sentence."""
    return "\n".join(re.findall(r"```.*?```|`[^`\n]+`", text_of(document), re.DOTALL))


def sources() -> str:
    paths = (path for folder in ("turnsvr", "bench") for path in sorted((ROOT / folder).rglob("*")))
    return "\n".join(path.read_text() for path in paths if path.suffix in (".py", ".pyx", ".pxi"))


def place_of(named: str, document: str) -> Path:
    """A name without a folder of the repository starts in turnsvr/, in tests/README.md in tests/."""
    if named.split("/", maxsplit=1)[0] in TOP or (ROOT / named).is_file():
        return ROOT / named
    return ROOT / ("tests" if document == "tests/README.md" else "turnsvr") / named


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/architecture.md", "docs/security.md", "tests/README.md"])
def test_every_file_that_is_named_exists(document: str) -> None:
    named = set(FILE.findall(text_of(document)))
    assert named
    assert sorted(name for name in named if not place_of(name, document).exists()) == []


@pytest.mark.parametrize("document", [*DOCUMENTS, "docs/security.md"])
def test_every_link_leads_to_a_file(document: str) -> None:
    links = set(LINK.findall(text_of(document)))
    assert sorted(link for link in links if not (ROOT / document).parent.joinpath(link).exists()) == []


def is_defined(function: str, code: str) -> bool:
    return re.search(rf"^ *(?:(?:async )?def|cdef .*\b) ?\*?{function}\(", code, re.MULTILINE) is not None


def test_every_function_of_the_walks_exists() -> None:
    code = sources()
    named = set(FUNCTION.findall(text_of("docs/architecture.md")))
    assert len(named) > 40
    assert sorted(name for name in named if not is_defined(name, code)) == []


def test_every_function_is_in_the_file_that_is_named_with_it() -> None:
    found = WHERE.findall(text_of("docs/architecture.md"))
    assert len(found) > 20
    missing = [
        f"{file}: {name}"
        for file, names in found
        for name in FUNCTION.findall(names)
        if not is_defined(name, place_of(file, "docs/architecture.md").read_text())
    ]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_target_of_make_exists(document: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", text_of("Makefile"), re.MULTILINE))
    assert set(TARGET.findall(code_of(document))) <= targets


def test_help_lists_every_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text_of("Makefile"), re.MULTILINE)
    assert set(re.findall(r"^make ([a-z-]+)", shown, re.MULTILINE)) == set(phony.split()) - {"install"}


@pytest.mark.parametrize("document", ["docs/architecture.md", "tests/README.md"])
def test_every_variable_of_the_tests_is_told(document: str) -> None:
    used: set[str] = set()
    for folder in ("tests", "turnsvr"):
        for path in (ROOT / folder).rglob("*.py"):
            used |= set(re.findall(r"""["'](TURNSVR_[A-Z_]+)["']""", path.read_text()))
    settings = {
        each.removeprefix("TURNSVR_").partition("_")[0] for each in VARIABLE.findall(text_of("docs/container.md"))
    }
    told = {each for each in used if each.removeprefix("TURNSVR_").partition("_")[0] not in settings}
    assert told == set(VARIABLE.findall(text_of(document)))
