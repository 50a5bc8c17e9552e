"""The files that come with the program, for installing it as a service: the unit, sample settings, and the like.

There is one copy of each, in the folders conf and systemd of the source; a wheel has them under turnsvr/share.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_FOLDERS = ("conf", "systemd")
_PACKAGE = Path(__file__).parent


def shipped(name: str) -> Path:
    """A file by its place in the source, as systemd/turnsvr.service. Raises FileNotFoundError."""
    for root in (_PACKAGE / "share", _PACKAGE.parent):
        if name.startswith(_FOLDERS) and (path := root / name).is_file():
            return path
    raise FileNotFoundError(f"{name} does not come with this installation")


def samples() -> Iterator[str]:
    """The names of all of them."""
    root = next(each for each in (_PACKAGE / "share", _PACKAGE.parent) if (each / _FOLDERS[0]).is_dir())
    for folder in _FOLDERS:
        yield from (str(path.relative_to(root)) for path in sorted((root / folder).rglob("*")) if path.is_file())
