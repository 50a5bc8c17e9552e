"""The steps of a hand-over, by name, so that tests can end or stop either process at each of them."""

from __future__ import annotations

import os
import signal
from typing import Final

VARIABLE: Final = "TURNSVR_TEST_HAND_OVER"
"""For tests alone: `STEP=kill` or `STEP=stop`, the signal that this process sends itself when it reaches the step."""

GIVER: Final = ("asked", "frozen", "kept", "half-sent", "sent", "parted", "told", "gone")
TAKER: Final = ("begun", "half-read", "read", "ready", "may-serve", "armed", "serves")


def reached(step: str) -> None:
    """Reach a step: one of GIVER or TAKER, or behind them `left` and, with a service manager, `sealed`."""
    wanted = os.environ.get(VARIABLE)
    if wanted and wanted.partition("=")[0] == step:
        os.kill(os.getpid(), signal.SIGKILL if wanted.endswith("=kill") else signal.SIGSTOP)
