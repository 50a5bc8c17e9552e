"""Compiled twins: extension modules that mypyc makes of our own .py files, loaded in their place.

setup.py makes them where it can and lists in a manifest the .py files they are made of. They are taken all together,
and only while every one of those files is byte for byte what it was; otherwise the .py files serve, which are the same
code. TURNSVR_RULES=interpreted leaves the twins alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
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


class TwinFinder(MetaPathFinder):
    """Finds modules that have a twin."""

    def __init__(self, twins: Mapping[str, Path]) -> None:
        self._twins = twins

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        twin = self._twins.get(fullname)
        return None if twin is None else spec_from_file_location(fullname, twin)


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
    try:
        return sha256(source.read_bytes()).hexdigest()
    except FileNotFoundError:
        return ""


def install() -> None:
    """Have twins found where they may be."""
    with suppress(Unusable):
        sys.meta_path.insert(0, TwinFinder(_usable()))


def describe() -> str:
    """Whether the rules run compiled, and why not."""
    if any(isinstance(finder, TwinFinder) for finder in sys.meta_path):
        return "compiled"
    try:
        _usable()
    except Unusable as why:
        return f"interpreted ({why})"
    return "interpreted (they were compiled after this program had started)"


def _usable() -> dict[str, Path]:
    """What may be loaded here and now; raises Unusable."""
    if os.environ.get(VARIABLE) == "interpreted":
        raise Unusable(f"{VARIABLE} says so")
    folder = Path(__file__).with_name(FOLDER)
    try:
        return find_twins(folder, folder.parents[1])
    except (OSError, UnicodeDecodeError) as error:
        raise Unusable(str(error)) from error


def _module_name(twin: Path) -> str:
    return ".".join((*twin.parts[:-1], twin.name.removesuffix(_SUFFIX)))
