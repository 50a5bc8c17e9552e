"""A process that serves with programs, in the namespace that it was started in, until it is killed."""

from __future__ import annotations

import asyncio
import sys
from typing import cast

from bench.lab.network import SERVER
from tests.relay.offload.lab import SETTINGS
from tests.relay.world import Notes
from turnsvr import relay
from turnsvr.relay.offload.settings import Mode, OffloadSettings


async def main(mode: Mode) -> None:
    pump = relay.make(SETTINGS, Notes(), offload=OffloadSettings(mode))
    for address in SERVER.values():
        pump.listen(address)
    status = relay.offloaded(pump)
    assert status is not None
    assert not status.problem, status
    print("serving", flush=True)
    await asyncio.sleep(60)


if __name__ == "__main__":
    asyncio.run(main(cast(Mode, sys.argv[1])))
