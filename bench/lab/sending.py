"""The sender's process: runs the program of a descriptor, in its namespace, for as long as a line of its input says."""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Final

from turnsvr.relay.offload import system

_FOR_EVER: Final = 1 << 31
_BATCH: Final = 8
"""Frames that leave together at most: a lone packet does not wait for others."""


def main(program: int, core: int) -> None:
    os.sched_setaffinity(0, {core})
    signal.signal(signal.SIGALRM, lambda *_: None)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, frame = line.split()
        signal.setitimer(signal.ITIMER_REAL, float(seconds))
        try:
            system.run(program, bytes.fromhex(frame), repeat=_FOR_EVER, flags=system.LIVE_FRAMES, batch=_BATCH)
        except system.BpfError as error:
            if error.errno != errno.EINTR:
                print(error, flush=True)
                return
        print("ready", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
