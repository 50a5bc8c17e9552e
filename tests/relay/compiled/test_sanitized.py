"""The tests of the pump once more, with AddressSanitizer and UndefinedBehaviorSanitizer in it.

Asked for with TURNSVR_SANITIZE=1: it takes minutes, and a gcc with its sanitizers.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
FLAGS = "-O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize=alignment"

pytestmark = pytest.mark.skipif(os.environ.get("TURNSVR_SANITIZE") != "1", reason="TURNSVR_SANITIZE=1 runs it")


def _library(name: str) -> str:
    return subprocess.run(
        ["gcc", f"-print-file-name={name}"], capture_output=True, text=True, check=True
    ).stdout.strip()


def test_under_the_sanitizers(tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("*.so", "*.c", "__pycache__")
    for name in ("turnsvr", "tests", "bench"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=ignored)
    for name in ("setup.py", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    (tmp_path / "README.md").touch()
    environment = {**os.environ, "CFLAGS": FLAGS, "LDFLAGS": "-fsanitize=address,undefined"}
    build = [sys.executable, "-W", "ignore", "setup.py", "-q", "build_ext", "--inplace"]
    subprocess.run(build, cwd=tmp_path, env=environment, check=True)
    environment |= {
        "LD_PRELOAD": " ".join(map(_library, ("libasan.so", "libubsan.so"))),
        # The interpreter keeps what it allocates, and is no concern of this test.
        "ASAN_OPTIONS": "detect_leaks=0:halt_on_error=1:abort_on_error=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
        "TURNSVR_REQUIRE_PUMP": "1",
        "TURNSVR_SANITIZE": "0",
        "PYTHONMALLOC": "malloc",
    }
    # Not the tests that measure memory or build again.
    chosen = "not portable and not soak and not thousand and not build"
    options = ["-q", "-x", "-n", "2", "-p", "no:cacheprovider", "-k", chosen]
    tests = [sys.executable, "-m", "pytest", *options, "tests/relay", "tests/net/test_tcp_relaying.py"]
    done = subprocess.run(tests, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stdout[-4_000:] + done.stderr[-8_000:]
