"""Builds the compiled parts where there is a C compiler; without one the install goes on and their plain twins serve.

They are the pump and the load generator. Everything else about the distribution is in pyproject.toml.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

_COMPILED = ("turnsvr.relay._pump", "turnsvr.client._load")


def _place(module: str) -> Path:
    """The module's path without a suffix."""
    return Path(*module.split("."))


def _give_reason(module: Path, reason: str) -> None:
    """Write beside where the module would be why it is not there; its users read it."""
    module.parent.mkdir(parents=True, exist_ok=True)
    module.with_name(f"{module.name}_missing.txt").write_text(" ".join(reason.split()) + "\n")


class _BuildWithout(build_py):
    """Builds the Python modules, and gives the reason for there being no others."""

    reason = ""

    def run(self) -> None:
        super().run()
        root = Path() if self.editable_mode else Path(self.build_lib)
        for module in _COMPILED:
            _give_reason(root / _place(module), self.reason)


def _without(reason: str) -> dict[str, object]:
    _BuildWithout.reason = reason
    return {"cmdclass": {"build_py": _BuildWithout}}


def _with_compiled() -> dict[str, object]:
    """What setup() takes to try and build them."""
    from Cython.Build import build_ext
    from Cython.Distutils.extension import Extension

    class BuildCompiled(build_ext):  # type: ignore[misc]
        """Builds extensions that may fail, and remembers why they did."""

        def build_extension(self, ext: Extension) -> None:
            module = Path(self.get_ext_fullpath(ext.name)).with_name(_place(ext.name).name)
            try:
                super().build_extension(ext)
            except Exception as error:
                _give_reason(module, f"the build failed: {error}")
                raise
            module.with_name(f"{module.name}_missing.txt").unlink(missing_ok=True)

    def extension(name: str) -> Extension:
        place = _place(name)
        return Extension(
            name,
            [str(place.with_suffix(".pyx"))],
            depends=[str(path) for pattern in ("*.pxi", "*.pxd", "*.h") for path in place.parent.glob(pattern)],
            include_dirs=[str(place.parent)],
            extra_compile_args=["-O3", "-Wall"],
            optional=True,
        )

    return {"ext_modules": [extension(name) for name in _COMPILED], "cmdclass": {"build_ext": BuildCompiled}}


def _compiled() -> dict[str, object]:
    if sys.platform != "linux":
        return _without(f"it needs Linux, and this is {sys.platform}")
    try:
        return _with_compiled()
    except ImportError as error:
        return _without(f"there was no Cython: {error}")


setup(**_compiled())
