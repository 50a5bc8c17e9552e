"""The programs on their way into the kernel: with what rights, from what file, and what is said where it fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from turnsvr.relay.offload import elf, layout, programs, system
from turnsvr.relay.offload.programs import Absent, ProgramKind, Programs, object_of

SIZES = {"flows": 4, "sessions": 2, "buckets": 2, "traffic": 2, "hops": 2}

LOAD = f"""
from turnsvr.relay.offload.programs import Absent, Programs
try:
    print(*Programs({SIZES}).programs)
except Absent as error:
    print(error)
"""


def load_with(*capabilities: str) -> str:
    """What comes of it for root with these capabilities alone."""
    if shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    kept = ",".join(["-all", *(f"+{name}" for name in capabilities)])
    command = ["setpriv", "--bounding-set", kept, "--inh-caps", kept, sys.executable, "-c", LOAD]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


@pytest.mark.usefixtures("programs")
def test_two_capabilities_are_enough() -> None:
    assert "xdp" in load_with("bpf", "net_admin")


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize("only", [(), ("bpf",), ("net_admin",)])
def test_what_is_missing_is_named(only: tuple[str, ...]) -> None:
    assert load_with(*only) == "it needs CAP_BPF and CAP_NET_ADMIN"


def test_never_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(programs, "_ROOM", tmp_path)
    monkeypatch.setattr(programs, "_MISSING", tmp_path / "programs_missing.txt")
    with pytest.raises(Absent, match="it was not built on install"):
        Programs(SIZES)
    (tmp_path / "programs_missing.txt").write_text("clang could not build it: no clang\n")
    with pytest.raises(Absent, match="clang could not build it: no clang"):
        Programs(SIZES)


@pytest.mark.usefixtures("programs")
def test_objects_of_other_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "SIZES", {**layout.SIZES, "hops": (4, 24)})
    with pytest.raises(Absent, match="built from other sources: hops"):
        Programs(SIZES)


@pytest.mark.parametrize("kind", ["xdp", "tc"])
def test_damaged_objects(kind: ProgramKind) -> None:
    if reason := programs.missing():
        pytest.skip(reason)
    data = object_of(kind).read_bytes()
    assert elf.read(data, kind).uses
    for size in (0, 3, 17, 63, 64, 200, len(data) // 2, len(data) - 64):
        with pytest.raises(ValueError, match=r"no object|neither"):
            elf.read(data[:size], kind)


@pytest.mark.usefixtures("programs")
def test_a_refused_program_is_explained() -> None:
    """By the verifier: this one ends without a result."""
    with pytest.raises(OSError, match="R0 !read_ok"):
        system.load_program(system.PROGRAM_XDP, bytes([0x95]) + bytes(7), "no_result", system.ATTACH_XDP)


def test_they_are_freed(programs: Programs) -> None:
    held = Programs(SIZES)
    descriptor = held.tables["flows"]
    held.close()
    held.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        system.lookup(descriptor, bytes(40), 120)
