"""What a user downloads: the sdist, the wheel that is built from it, and an environment with that and no extra."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Callable, Iterator
from fcntl import LOCK_EX, flock
from importlib.metadata import Distribution, distribution
from pathlib import Path
from zipfile import ZipFile

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

_BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def _build(kind: str, source: Path, directory: Path) -> Path:
    """What the build backend makes of a source tree, with the packages that are at hand."""
    command = [sys.executable, "-W", "ignore", "-c", _BUILD, kind, str(directory)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False, timeout=1200)
    assert not done.returncode, done.stdout + done.stderr
    return directory / done.stdout.splitlines()[-1]


def _once(factory: pytest.TempPathFactory, pattern: str, make: Callable[[Path], Path]) -> Path:
    """The file of this pattern that make() leaves in the directory it is given; made once for all workers of a run."""
    base = factory.getbasetemp()
    shared = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "distributions"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("w") as lock:
        flock(lock, LOCK_EX)
        return next(shared.glob(pattern), None) or make(shared)


@pytest.fixture(scope="session")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (REPOSITORY / "setup.py").exists():
        pytest.skip("needs the source tree")

    def make(directory: Path) -> Path:
        clone = tmp_path_factory.mktemp("source") / "turnsvr"
        subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
        return _build("build_sdist", clone, directory)

    return _once(tmp_path_factory, "*.tar.gz", make)


@pytest.fixture(scope="session")
def wheel(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the sdist alone."""

    def make(directory: Path) -> Path:
        unpacked = tmp_path_factory.mktemp("unpacked")
        subprocess.run(["tar", "-C", str(unpacked), "-xf", str(sdist)], check=True)
        (source,) = unpacked.iterdir()
        return _build("build_wheel", source, directory)

    return _once(tmp_path_factory, "*.whl", make)


@pytest.fixture(scope="session")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of commands of an environment with the wheel, what it depends on, and nothing else."""
    directory = tmp_path_factory.mktemp("bare")
    venv.create(directory, symlinks=True)
    packages = next((directory / "lib").glob("python*")) / "site-packages"
    with ZipFile(wheel) as archive:
        archive.extractall(packages)
    (metadata,) = packages.glob("turnsvr-*.dist-info")
    for name in _needed(Distribution.at(metadata)):
        _link(distribution(name), packages)
    command = directory / "bin" / "turnsvr"
    command.write_text(f"#!{directory}/bin/python\nfrom turnsvr.cli import main\nmain()\n")
    command.chmod(0o755)
    return command.parent


def _needed(one: Distribution) -> Iterator[str]:
    """The distributions that one needs without an extra, and those that they need."""
    seen: set[str] = set()
    waiting = list(_required(one, set()))
    while waiting:
        name, extras = waiting.pop()
        if name not in seen:
            seen.add(name)
            yield name
            waiting += _required(distribution(name), extras)


def _required(one: Distribution, extras: set[str]) -> Iterator[tuple[str, set[str]]]:
    from packaging.requirements import Requirement

    for text in one.requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            yield re.sub(r"[-_.]+", "-", requirement.name).lower(), set(requirement.extras)


def _link(one: Distribution, packages: Path) -> None:
    tops = {path.parts[0] for path in one.files or () if path.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        target = packages / top
        if not target.exists():
            target.symlink_to(Path(str(one.locate_file(top))).resolve())
