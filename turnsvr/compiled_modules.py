"""Compiled modules: extension modules that mypyc makes of our own .py files, loaded in their place.

setup.py compiles them where it can and lists in a manifest the .py files they are made of. Either all of them are
loaded or none: all, while every one of those files is byte for byte what it was; otherwise the .py files serve, which
are the same code. TURNSVR_RULES=interpreted asks for the .py files. Nothing is read before the first import of a module
that was compiled: commands that need no such module start without.
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

FOLDER = "_compiled"
"""Beside this file: the compiled modules by their paths, and the manifest."""
MANIFEST = "sources.txt"
"""In the folder: SHA-256 and path of each source, as sha256sum writes them, the paths from the folder of turnsvr."""
REASON = "missing.txt"
"""In the folder: why nothing is compiled, where the build knows."""

_SUFFIX = EXTENSION_SUFFIXES[0]


class Unusable(Exception):
    """There are no compiled modules that may be loaded; the text says why."""


class CompiledFinder:
    """Finds the modules that were compiled. Whether they may be loaded is decided once, when the first is imported."""

    def __init__(self, folder: str, root: str) -> None:
        """root is what the manifest's paths start from."""
        self._folder = folder
        self._root = root
        self._modules: Mapping[str, Path] | None = None
        self._reason = ""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not os.path.exists(os.path.join(self._folder, *fullname.split(".")) + _SUFFIX):
            return None
        compiled = self._decided().get(fullname)
        if compiled is None:
            return None
        from importlib.util import spec_from_file_location

        return spec_from_file_location(fullname, compiled)

    def describe(self) -> str:
        """Whether the compiled modules serve, and why not."""
        return "compiled" if self._decided() else f"interpreted ({self._reason})"

    def _decided(self) -> Mapping[str, Path]:
        if self._modules is None:
            self._modules = {}
            try:
                self._modules = self._usable()
            except Unusable as why:
                self._reason = str(why)
        return self._modules

    def _usable(self) -> Mapping[str, Path]:
        """Raises Unusable."""
        from pathlib import Path

        if os.environ.get(VARIABLE) == "interpreted":
            raise Unusable(f"{VARIABLE} says so")
        try:
            return find_compiled(Path(self._folder), Path(self._root))
        except (OSError, UnicodeDecodeError) as error:
            raise Unusable(str(error)) from error


def find_compiled(folder: Path, root: Path) -> dict[str, Path]:
    """The compiled modules in a folder by name; root is what the manifest's paths start from.

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
    found = {_module_name(each.relative_to(folder)): each for each in folder.rglob(f"*{_SUFFIX}")}
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
    """Load compiled modules from now on, where there are any."""
    sys.meta_path.insert(0, _FINDER)


def describe() -> str:
    """Whether the rules run compiled, and why not."""
    return _FINDER.describe()


def _module_name(compiled: Path) -> str:
    return ".".join((*compiled.parts[:-1], compiled.name.removesuffix(_SUFFIX)))


_HERE = os.path.dirname(os.path.abspath(__file__))
_FINDER = CompiledFinder(os.path.join(_HERE, FOLDER), os.path.dirname(_HERE))
