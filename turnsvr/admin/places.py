"""Where a server's admin socket is when no place is named: one rule for the server and for its callers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

SYSTEM_DIRECTORY = Path("/run/turnsvr")
_NAME = "admin.sock"


def places(environ: Mapping[str, str] = os.environ) -> tuple[Path, ...]:
    """Sockets in the order to try them.

    The service manager's directory (RuntimeDirectory= in systemd), the system's, the user's own (XDG_RUNTIME_DIR).
    """
    directories: list[Path] = []
    if managed := environ.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        directories.append(Path(managed))
    directories.append(SYSTEM_DIRECTORY)
    if own := environ.get("XDG_RUNTIME_DIR"):
        directories.append(Path(own) / "turnsvr")
    return tuple(dict.fromkeys(directory / _NAME for directory in directories))
