"""Compiled twins: extension modules that mypyc makes of our own .py files, loaded in their place.

setup.py makes them where it can and lists in a manifest the .py files they are made of. They are taken all together,
and only while every one of those files is byte for byte what it was; otherwise the .py files serve, which are the same
code. TURNSVR_RULES=interpreted leaves the twins alone. Nothing is read before a module that has a twin is imported:
commands that need none of them start without.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from pathlib import Path
    from types import ModuleType

VARIABLE = "TURNSVR_RULES"
"""The environment variable that says `interpreted`, or anything else."""

FOLDER = "_twins"
"""Beside this file: the twins by their modules' paths, and the manifest."""
MANIFEST = "sources.txt"
"""In the folder: SHA-256 and path of each source, as sha256sum writes them, the paths from the folder of turnsvr."""
REASON = "missing.txt"
"""In the folder: why there are no twins, where the build knows."""

_SUFFIX = EXTENSION_SUFFIXES[0]


class Unusable(Exception):
    """There are no twins that may be loaded; the text says why."""


class TwinFinder:
    """Finds the modules that have a twin. Whether twins may be loaded is settled once, when the first is wanted."""

    def __init__(self, folder: str, root: str) -> None:
        """root is what the manifest's paths start from."""
        self._folder = folder
        self._root = root
        self._twins: Mapping[str, Path] | None = None
        self._reason = ""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not os.path.exists(os.path.join(self._folder, *fullname.split(".")) + _SUFFIX):
            return None
        twin = self._settled().get(fullname)
        if twin is None:
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(fullname, twin)

    def describe(self) -> str:
        """Whether the twins serve, and why not."""
        return "compiled" if self._settled() else f"interpreted ({self._reason})"

    def _settled(self) -> Mapping[str, Path]:
        if self._twins is None:
            self._twins = {}
            try:
                self._twins = self._usable()
            except Unusable as why:
                self._reason = str(why)
        return self._twins

    def _usable(self) -> Mapping[str, Path]:
        """Raises Unusable."""
        from pathlib import Path

        if os.environ.get(VARIABLE) == "interpreted":
            raise Unusable(f"{VARIABLE} says so")
        try:
            return find_twins(Path(self._folder), Path(self._root))
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(str(error)) from error


def find_twins(folder: Path, root: Path) -> dict[str, Path]:
    """The twins in a folder by the name of their module; root is what the manifest's paths start from.

    Raises Unusable when there are none for this Python, or they are not made of the sources under root.
    """
    try:
        manifest = (folder / MANIFEST).read_text().splitlines()
    except FileNotFoundError:
        reason = folder / REASON
        raise Unusable(reason.read_text().strip() if reason.exists() else "they were not compiled on install") from None
    for line in manifest:
        digest, _, source = line.partition("  ")
        if digest_of(root / source) != digest:
            raise Unusable(f"{source} is not what was compiled on install")
    found = {_module_name(twin.relative_to(folder)): twin for twin in folder.rglob(f"*{_SUFFIX}")}
    if not found:
        raise Unusable("they were compiled for another Python")
    return found


def digest_of(source: Path) -> str:
    """SHA-256 of a file in hex; of one that is not there, nothing."""
    from hashlib import sha256

    try:
        return sha256(source.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def install() -> None:
    """Have twins found where they may be."""
    sys.meta_path.insert(0, _FINDER)


def describe() -> str:
    """Whether the rules run compiled, and why not."""
    return _FINDER.describe()


def _module_name(twin: Path) -> str:
    return ".".join((*twin.parts[:-1], twin.name.removesuffix(_SUFFIX)))


_HERE = os.path.dirname(os.path.abspath(__file__))
_FINDER = TwinFinder(os.path.join(_HERE, FOLDER), os.path.dirname(_HERE))
