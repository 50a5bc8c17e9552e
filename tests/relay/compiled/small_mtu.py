"""A program for a network namespace of its own, where the path is too narrow for what the pump would send as segments.

A Data indication is 36 bytes longer than the data in it: packets that came joined and whole leave in fragments, which
the kernel does not do with segments. Exits with a failure when any is lost, or when the pump is not told once.
"""

from __future__ import annotations

import asyncio
import subprocess
from dataclasses import replace

import structlog

from tests.relay.compiled.trains import numbered, send_train
from tests.relay.world import SETTINGS, World, channel_data, read_from_relay
from turnsvr.relay.api import RelayAddress

MTU = 1280
FITS = MTU - 28
"""Bytes that fit a packet, without the IPv4 and UDP headers."""


async def main() -> None:
    with structlog.testing.capture_logs() as logs:
        world = World("compiled", replace(SETTINGS, relay_addresses=(RelayAddress("127.0.0.1", "127.0.0.1"),)))
        session, peer = world.session(), world.endpoint()
        session.permit("127.0.0.1")
        payloads = numbered(16, FITS)
        for _ in range(2):
            send_train(world, peer, payloads, session.relayed)
            got = [read_from_relay(await session.receive()) for _ in payloads]
            assert got == [(peer.address, data) for data in payloads]
        totals = await world.settled()
        assert not sum(totals.drops.values()), totals
        # One call for the train in vain, then one a packet; the next train is not tried as one.
        assert totals.sends <= 1 + 16 + 16, totals
        session.bind(0x4000, peer.address)
        frames = [channel_data(0x4000, data[4:]) for data in payloads]
        send_train(world, session.endpoint, frames, session.five_tuple.server)
        assert [(await peer.receive())[0] for _ in frames] == [data[4:] for data in payloads]
        # The other way is another path: nothing spoke against joining there.
        assert (await world.settled()).sends == totals.sends + 1
        await world.until(lambda: bool(logs))
        world.end()
    assert [entry["log_level"] for entry in logs] == ["warning"], logs


if __name__ == "__main__":
    subprocess.run(["ip", "link", "set", "lo", "mtu", str(MTU), "up"], check=True)
    asyncio.run(main())
