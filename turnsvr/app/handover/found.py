"""What this program has left with the service manager, among the descriptors that a process is given when it starts."""

from __future__ import annotations

import os

from turnsvr.app.handover.recovery import Recovered
from turnsvr.app.handover.store import CRASH, NAME, PREFIX, Kept, StoredHandOver, StoredTaker
from turnsvr.app.handover.wire import close_all


def find(inherited: dict[str, list[int]]) -> tuple[StoredTaker | None, list[str]]:
    """What this process adopts, and all names of this program, which the manager is to forget.

    The descriptors under these names belong to this program from here on.

    What was left for a restart is later than what was kept for a crash; what a later process has left is later still.
    """
    ours = {name: descriptors for name, descriptors in inherited.items() if name.startswith(PREFIX)}
    sources: list[StoredHandOver] = [
        Recovered(ours[name])
        for name in sorted(filter(_is_of_a_process, ours), key=lambda name: int(name[len(CRASH) :]))
    ]
    for descriptor in ours.get(NAME, []):
        try:
            sources.append(Kept(descriptor))
        except OSError:  # no socket
            os.close(descriptor)
    newest = sources.pop() if sources else None
    for each in sources:
        each.discard()
    for name, descriptors in ours.items():
        if name != NAME and not _is_of_a_process(name):
            close_all(descriptors)
    return None if newest is None else StoredTaker(newest), list(ours)


def _is_of_a_process(name: str) -> bool:
    return name.startswith(CRASH) and name[len(CRASH) :].isdecimal()
