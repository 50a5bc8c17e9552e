"""Builds the compiled pump where there is a C compiler; without one the install goes on and the portable pump serves.

Everything else about the distribution is in pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_ROOM = Path("turnsvr", "relay")
_REASON = "_pump_missing.txt"
"""Stands beside the package's modules where the pump was not built and says why; turnsvr.relay.compiled reads it."""


def _give_reason(folder: Path, reason: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _REASON).write_text(" ".join(reason.split()) + "\n")


class _BuildWithout(build_py):
    """Puts the reason beside the modules."""

    reason = ""

    def run(self) -> None:
        super().run()
        _give_reason(_ROOM if self.editable_mode else Path(self.build_lib) / _ROOM, self.reason)


def _without(reason: str) -> dict[str, object]:
    _BuildWithout.reason = reason
    return {"cmdclass": {"build_py": _BuildWithout}}


def _with_pump() -> dict[str, object]:
    """What setup() takes to try and build the pump."""
    from Cython.Build import build_ext
    from Cython.Distutils.extension import Extension

    class BuildPump(build_ext):  # type: ignore[misc]
        """Builds an extension that may fail, and remembers why it did."""

        def build_extension(self, ext: Extension) -> None:
            folder = Path(self.get_ext_fullpath(ext.name)).parent
            try:
                super().build_extension(ext)
            except Exception as error:
                _give_reason(folder, f"the build failed: {error}")
                raise
            (folder / _REASON).unlink(missing_ok=True)

    pump = Extension(
        "turnsvr.relay._pump",
        [str(_ROOM / "_pump.pyx")],
        depends=[str(path) for pattern in ("*.pxi", "*.pxd", "*.h") for path in _ROOM.glob(pattern)],
        include_dirs=[str(_ROOM)],
        extra_compile_args=["-O3", "-Wall"],
        optional=True,
    )
    return {"ext_modules": [pump], "cmdclass": {"build_ext": BuildPump}}


def _pump() -> dict[str, object]:
    if sys.platform != "linux":
        return _without(f"it needs Linux, and this is {sys.platform}")
    try:
        return _with_pump()
    except ImportError as error:
        return _without(f"there was no Cython: {error}")


setup(**_pump())
