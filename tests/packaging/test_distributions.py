"""The sdist and the wheel have all that a server and its operator need, and say what they are."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
from email import message_from_string
from email.message import Message
from pathlib import Path
from zipfile import ZipFile

import pytest

from turnsvr import compiled_modules
from turnsvr.shipped import samples


def names(wheel: Path) -> set[str]:
    with ZipFile(wheel) as archive:
        return set(archive.namelist())


def metadata(wheel: Path) -> Message:
    with ZipFile(wheel) as archive:
        (name,) = (each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
        return message_from_string(archive.read(name).decode())


def test_the_wheel_has_pump_load_generator_and_compiled_rules(wheel: Path) -> None:
    found = names(wheel)
    for part in ("turnsvr/relay/compiled/_pump.", "turnsvr/client/_load.", "turnsvr/_compiled/turnsvr/turn/server."):
        assert any(name.startswith(part) and name.endswith(".so") for name in found), part
    assert f"turnsvr/{compiled_modules.FOLDER}/{compiled_modules.MANIFEST}" in found
    assert not any(name.startswith(("tests/", "bench/")) for name in found)


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
def test_the_wheel_has_the_programs_for_the_kernel(wheel: Path) -> None:
    assert {f"turnsvr/relay/offload/{kind}.bpf.o" for kind in ("xdp", "tc")} <= names(wheel)


def test_the_wheel_has_types_page_and_the_files_of_a_service(wheel: Path) -> None:
    found = names(wheel)
    assert {"turnsvr/py.typed", "turnsvr/web/static/index.html"} <= found
    assert {f"turnsvr/share/{name}" for name in samples()} <= found


def test_the_metadata_are_complete(wheel: Path) -> None:
    told = metadata(wheel)
    assert told["License-Expression"] == "BSD-3-Clause"
    assert told["License-File"] == "LICENSE"
    for field in ("Summary", "Keywords", "Requires-Python", "Description-Content-Type"):
        assert told[field], field
    classifiers = told.get_all("Classifier", [])
    assert "Typing :: Typed" in classifiers
    assert {f"Programming Language :: Python :: 3.{minor}" for minor in (11, 12, 13, 14)} <= set(classifiers)


def test_the_sdist_has_sources_and_licence_and_nothing_that_is_built(sdist: Path) -> None:
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    parts = {
        "turnsvr/relay/compiled/_pump.pyx",
        "turnsvr/relay/compiled/core/table.pxi",
        "turnsvr/relay/offload/bpf/tables.h",
        "turnsvr/relay/offload/bpf/xdp.bpf.c",
    }
    assert {"LICENSE", "setup.py", *parts, "conf/turnsvr.yaml", "systemd/turnsvr.service"} <= found
    assert not [name for name in found if name.endswith((".so", ".o", "_missing.txt")) or "/_compiled/" in name]


def test_the_pump_links_nothing_but_the_system_s_libraries(wheel: Path, tmp_path: Path) -> None:
    """OpenSSL is that of Python itself, found when the program runs; a copy in the wheel would be a second one."""
    with ZipFile(wheel) as archive:
        start = "turnsvr/relay/compiled/_pump."
        name = next(each for each in archive.namelist() if each.startswith(start) and ".so" in each)
        file = Path(archive.extract(name, tmp_path))
    done = subprocess.run(["ldd", str(file)], capture_output=True, text=True, check=True)
    assert not [line for line in done.stdout.splitlines() if "ssl" in line or "crypto" in line]


@pytest.mark.parametrize("part", ["pump compiled", "rules compiled", "TLS in the pump"])
def test_what_is_installed_runs_compiled(bare: Path, tmp_path: Path, part: str) -> None:
    command = [str(bare / "turnsvr"), "version"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env={"PATH": "/usr/bin"})
    assert part in done.stdout, done.stdout + done.stderr
