"""Where the server keeps what has to outlive it."""

from __future__ import annotations

import os
from pathlib import Path

_STATE = "/var/lib/turnsvr"
"""Where state is kept when systemd names no other directory."""


def state_directory(name: str) -> Path:
    """A directory below the one that systemd made for the service, of several the first, or else the usual one."""
    return Path(os.environ.get("STATE_DIRECTORY", "").partition(":")[0] or _STATE, name)
