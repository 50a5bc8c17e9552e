"""Compiled modules are loaded while they are of the same code as the .py files, which are loaded otherwise."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from dataclasses import FrozenInstanceError
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import FunctionType

import pytest

from turnsvr import compiled_modules, plane
from turnsvr.relay import api
from turnsvr.stun import message
from turnsvr.turn import commands

SOURCES = ("turnsvr/one.py", "turnsvr/room/two.py")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two sources, and what a build leaves of them."""
    monkeypatch.delenv(compiled_modules.VARIABLE, raising=False)
    for source in SOURCES:
        path = tmp_path / source
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"# {source}\n")
        compiled = (tmp_path / "compiled" / source).with_suffix(EXTENSION_SUFFIXES[0])
        compiled.parent.mkdir(parents=True, exist_ok=True)
        compiled.touch()
    lines = [f"{compiled_modules.digest_of(tmp_path / source)}  {source}\n" for source in SOURCES]
    (tmp_path / "compiled" / compiled_modules.MANIFEST).write_text("".join(lines))
    return tmp_path


def unusable(root: Path) -> str:
    with pytest.raises(compiled_modules.Unusable) as caught:
        compiled_modules.find_compiled(root / "compiled", root)
    return str(caught.value)


def test_they_are_found_by_the_names_of_their_modules(root: Path) -> None:
    found = compiled_modules.find_compiled(root / "compiled", root)
    assert found.keys() == {"turnsvr.one", "turnsvr.room.two"}
    finder = compiled_modules.CompiledFinder(str(root / "compiled"), str(root))
    spec = finder.find_spec("turnsvr.room.two", None)
    assert spec is not None
    assert spec.origin == str(found["turnsvr.room.two"])
    assert finder.find_spec("turnsvr.three", None) is None
    assert finder.describe() == "compiled"


def test_what_was_decided_first_holds(root: Path) -> None:
    """Else some of the modules would be compiled and some not."""
    finder = compiled_modules.CompiledFinder(str(root / "compiled"), str(root))
    changed = root / SOURCES[1]
    with changed.open("a") as source:
        source.write("\n")
    assert finder.find_spec("turnsvr.one", None) is None
    changed.write_text(f"# {SOURCES[1]}\n")
    assert finder.find_spec("turnsvr.room.two", None) is None
    assert finder.describe() == "interpreted (turnsvr/room/two.py is not what was compiled on install)"


def test_one_source_that_has_changed_puts_all_out_of_use(root: Path) -> None:
    with (root / SOURCES[1]).open("a") as source:
        source.write("\n")
    assert unusable(root) == "turnsvr/room/two.py is not what was compiled on install"


def test_one_source_that_is_gone_puts_all_out_of_use(root: Path) -> None:
    (root / SOURCES[0]).unlink()
    assert unusable(root) == "turnsvr/one.py is not what was compiled on install"


def test_those_for_another_python_are_left_alone(root: Path) -> None:
    for each in (root / "compiled").rglob(f"*{EXTENSION_SUFFIXES[0]}"):
        each.rename(each.parent / f"{each.name.partition('.')[0]}.cpython-27-x86_64-linux-gnu.so")
    assert unusable(root) == "they were compiled for another Python"


def test_the_build_may_have_left_a_reason(root: Path) -> None:
    (root / "compiled" / compiled_modules.MANIFEST).unlink()
    assert unusable(root) == "they were not compiled on install"
    (root / "compiled" / compiled_modules.REASON).write_text("the build failed: no compiler\n")
    assert unusable(root) == "the build failed: no compiler"


def test_this_installation_has_them_and_uses_them() -> None:
    """TURNSVR_REQUIRE_PUMP=1 makes their absence a failure."""
    if os.environ.get(compiled_modules.VARIABLE) == "interpreted":
        assert compiled_modules.describe() == "interpreted (TURNSVR_RULES says so)"
    elif compiled_modules.describe() != "compiled" and os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
        pytest.fail(compiled_modules.describe())
    assert (message.__file__ or "").endswith(EXTENSION_SUFFIXES[0]) is (compiled_modules.describe() == "compiled")


def test_the_interpreted_rules_can_be_asked_for() -> None:
    program = "from turnsvr import compiled_modules; from turnsvr.stun import message"
    program += "; print(compiled_modules.describe(), message.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, compiled_modules.VARIABLE: "interpreted"},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.startswith("interpreted (TURNSVR_RULES says so) ")
    assert done.stdout.endswith("turnsvr/stun/message.py\n")


@pytest.mark.parametrize("module", [plane, commands, api], ids=lambda module: module.__name__.rpartition(".")[2])
def test_values_that_are_made_for_each_request_are_made_by_compiled_code(module: object) -> None:
    """An __init__ of `dataclass` stays interpreted: eighteen of them were a tenth of an allocation cycle."""
    if compiled_modules.describe() != "compiled":
        pytest.skip(f"the rules are {compiled_modules.describe()}")
    values = [value for value in vars(module).values() if isinstance(value, type) and dataclasses.is_dataclass(value)]
    assert values
    assert [value.__name__ for value in values if isinstance(value.__init__, FunctionType)] == []


def test_a_compiled_value_is_what_the_frozen_one_is() -> None:
    """But for its being frozen, which the types alone hold where it is compiled."""
    one, same = commands.CloseRelay(1), commands.CloseRelay(allocation=1, family=None)
    assert one == same
    assert hash(one) == hash(same)
    assert one != commands.CloseRelay(2)
    assert repr(one) == "CloseRelay(allocation=1, family=None)"
    assert dataclasses.replace(one, allocation=2) == commands.CloseRelay(2)
    with pytest.raises(TypeError):
        commands.CloseRelay()  # type: ignore[call-arg]
    if compiled_modules.describe() != "compiled":
        with pytest.raises(FrozenInstanceError):
            one.allocation = 2  # type: ignore[misc]
