"""Imports packages without others that they would load as well, if those are installed."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def absent(*names: str) -> Iterator[None]:
    """For as long as this lasts, packages that are not loaded yet cannot be imported."""
    hidden = [name for name in names if name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None stands for "not to be found"
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]
