"""The install succeeds without a compiler or without Cython, and says then what is missing and why."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]

pytestmark = pytest.mark.skipif(not (REPOSITORY / "setup.py").exists(), reason="needs the source tree")

WITHOUT_CYTHON = "import runpy, sys; sys.modules['Cython'] = None; runpy.run_path('setup.py', run_name='__main__')"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A copy of the source tree in which nothing is built, but what Cython has written may be there."""
    ignored = shutil.ignore_patterns("*.so", "*.bpf.o", "__pycache__", "*_missing.txt", "_compiled")
    shutil.copytree(REPOSITORY / "turnsvr", tmp_path / "turnsvr", ignore=ignored)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "README.md").touch()
    return tmp_path


def run(source: Path, *args: str, **environment: str) -> str:
    """Output of Python in the source tree, which must succeed."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", *args],
        cwd=source,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert not done.returncode, done.stdout + done.stderr
    return done.stdout


def installed(source: Path) -> Path:
    (found,) = (source / "build").glob("lib*")
    return found


def described(where: Path) -> str:
    return run(where, "-c", "from turnsvr import relay; print(relay.describe())").strip()


def rules(where: Path) -> str:
    return run(
        where, "-c", "from turnsvr import compiled_modules; print(compiled_modules.describe())", TURNSVR_RULES=""
    ).strip()


def test_without_a_compiler(source: Path) -> None:
    run(source, "setup.py", "-q", "build", CC="/nonexistent/cc")
    described_as = described(installed(source))
    assert described_as.startswith("portable (no compiled pump: the build failed: ")
    assert "/nonexistent/cc" in described_as
    assert rules(installed(source)).startswith("interpreted (the build failed: ")


def test_without_a_compiler_in_place(source: Path) -> None:
    run(source, "setup.py", "-q", "build_ext", "--inplace", CC="/nonexistent/cc")
    assert described(source).startswith("portable (no compiled pump: the build failed: ")


def test_without_cython(source: Path) -> None:
    run(source, "-c", WITHOUT_CYTHON, "-q", "build")
    assert described(installed(source)).startswith("portable (no compiled pump: there was no Cython: ")
    assert rules(installed(source)).startswith("interpreted (there was no Cython: ")


def test_never_built(source: Path) -> None:
    assert described(source) == "portable (no compiled pump: it was not built on install)"
    assert rules(source) == "interpreted (they were not compiled on install)"


def test_rules_that_are_compiled_serve_until_their_source_changes(source: Path) -> None:
    run(source, "setup.py", "-q", "build_rules", "--build-lib", ".")
    assert rules(source) == "compiled"
    with (source / "turnsvr" / "turn" / "server.py").open("a") as server:
        server.write("\n")
    assert rules(source) == "interpreted (turnsvr/turn/server.py is not what was compiled on install)"
    run(source, "-c", "import turnsvr.turn.server")


def test_without_mypyc(source: Path) -> None:
    without = WITHOUT_CYTHON.replace("Cython", "mypyc")
    run(source, "-c", without, "-q", "build_rules", "--build-lib", ".")
    assert rules(source).startswith("interpreted (the build failed: ")


def offload(where: Path) -> str:
    return run(where, "-c", "from turnsvr.relay.offload import programs; print(programs.missing())").strip()


def test_without_clang(source: Path) -> None:
    run(source, "setup.py", "-q", "build_offload", "--build-lib", ".", BPF_CLANG="/nonexistent/clang")
    assert offload(source).startswith("clang could not build it: ")
    assert "/nonexistent/clang" in offload(source)


def test_with_a_clang_that_fails(source: Path) -> None:
    run(source, "setup.py", "-q", "build_offload", "--build-lib", ".", BPF_CLANG="false")
    assert offload(source).startswith("clang could not build it: ")


@pytest.mark.skipif(shutil.which("clang") is None, reason="no clang")
def test_with_clang(source: Path) -> None:
    (source / "turnsvr" / "relay" / "offload" / "programs_missing.txt").write_text("of a build before")
    run(source, "setup.py", "-q", "build_offload", "--build-lib", ".")
    assert offload(source) == ""
