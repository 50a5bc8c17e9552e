"""Threads of this process, as the kernel sees them."""

from __future__ import annotations

import os


def threads() -> set[str]:
    """Their numbers."""
    return set(os.listdir("/proc/self/task"))


def sleeps(thread: str) -> int:
    """How often it went to sleep."""
    return int(_field(thread, "voluntary_ctxt_switches"))


def is_asleep(thread: str) -> bool:
    return _field(thread, "State") == "S"


def _field(thread: str, name: str) -> str:
    with open(f"/proc/self/task/{thread}/status") as status:
        return next(line.split()[1] for line in status if line.startswith(f"{name}:"))
