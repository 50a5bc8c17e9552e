"""One program, run on single frames by BPF_PROG_TEST_RUN. Its interface is 1, the loopback of such runs."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace
from enum import Enum
from typing import NamedTuple

from bench.lab.frames import Check, Datagram, read
from turnsvr.relay.offload import layout, system
from turnsvr.relay.offload.layout import ChannelFlow, Direction, FlowState, Hop, Reason
from turnsvr.relay.offload.programs import ProgramKind, Programs
from turnsvr.stun.address import Address

OWN, ROUTER = b"\x02\0\0\0\0\x01", b"\x02\0\0\0\0\x02"
OTHER_OWN, PEER = b"\x02\0\0\0\0\x03", b"\x02\0\0\0\0\x04"
INTERFACE, OTHER_INTERFACE = 1, 77
GENERATION = 5
SLOT, NUMBER = 3, 1001
CHANNEL = 0x4ABC
HOUR = 3600 * 10**9


class Verdict(Enum):
    UP = "up"
    DROPPED = "dropped"
    BACK = "leaves by the interface that it came in by"
    AWAY = "leaves by another"


_VERDICTS = {
    "xdp": {1: Verdict.DROPPED, 2: Verdict.UP, 3: Verdict.BACK, 4: Verdict.AWAY},
    "tc": {2: Verdict.DROPPED, 0xFFFFFFFF: Verdict.UP, 7: Verdict.AWAY},
}


class Done(NamedTuple):
    verdict: Verdict
    frame: bytes


@dataclass(frozen=True, slots=True)
class Ends:
    client: Address
    server: Address
    relay: Address
    peer: Address


V4 = Ends(
    Address("192.0.2.10", 50_000),
    Address("192.0.2.1", 3478),
    Address("198.51.100.1", 49_200),
    Address("198.51.100.9", 6000),
)
V6 = Ends(
    Address("2001:db8:1::10", 50_000), Address("2001:db8:1::1", 3478),
    Address("2001:db8:2::1", 49_200), Address("2001:db8:2::9", 6000),
)  # fmt: skip
ENDS = {
    "IPv4": V4,
    "IPv6": V6,
    "IPv4 to IPv6": replace(V4, relay=V6.relay, peer=V6.peer),
    "IPv6 to IPv4": replace(V6, relay=V4.relay, peer=V4.peer),
}


def boot() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Bench:
    def __init__(self, programs: Programs, kind: ProgramKind) -> None:
        self.programs = programs
        self.kind = kind
        self.ends = V4
        programs.update("rules", 0, layout.RULES.pack(GENERATION))
        self.hop(0, Hop(INTERFACE, OWN, ROUTER, returns_frames=True, takes_frames=True))
        self.hop(1, Hop(OTHER_INTERFACE, OTHER_OWN, PEER, returns_frames=True, takes_frames=True))
        self.session()
        self._before = self.reasons(), self.traffic()

    def hop(self, at: int, hop: Hop) -> None:
        self.programs.update("hops", at, hop.pack())

    def session(
        self, until: int = HOUR, bandwidth: float = 0.0, debts: tuple[int, int] = (0, 0), is_new: bool = True
    ) -> None:
        self.programs.update("sessions", SLOT, layout.pack_session(boot() + until, NUMBER, bandwidth, debts))
        if is_new:
            self.programs.update("buckets", SLOT, layout.BUCKET.pack(0, 0))

    def wait(self, seconds: float) -> None:
        """For the kernel's clock, which nobody can set."""
        time.sleep(seconds)

    def bind(self, ends: Ends, *, leaves_by: tuple[int, int] = (0, 0), **changes: int) -> None:
        """Both directions of a channel. leaves_by: hops of what the client sends, and of what the peer does."""
        self.ends = ends
        given = {
            "number": NUMBER,
            "slot": SLOT,
            "channel_until": HOUR,
            "permission_until": HOUR,
            "generation": GENERATION,
            "mtu": 1500,
            "ttl": 64,
            **changes,
        }
        given["channel_until"] += boot()
        given["permission_until"] += boot()
        for at, flow in enumerate(flows_of(ends)):
            state = FlowState(**given, came_by=leaves_by[1 - at], leaves_by=leaves_by[at])
            self.programs.update("flows", flow.key(), layout.pack_flow(flow, state))

    def unbind(self) -> None:
        for flow in flows_of(self.ends):
            self.programs.delete("flows", flow.key())

    def give(self, frame: bytes, *, interface: int = INTERFACE, gso: int = 0) -> Done:
        context = b""
        if self.kind == "tc":
            skb = bytearray(192)
            struct.pack_into("=II", skb, 36, interface, 1)
            struct.pack_into("=I", skb, 164, gso and 2)
            struct.pack_into("=I", skb, 176, gso)
            context = bytes(skb)
        verdict, left, _ = system.run(self.programs.programs[self.kind], frame, context=context)
        return Done(_VERDICTS[self.kind][verdict], left)

    def from_client(
        self, data: bytes, check: Check = "right", *, tos: int = 0, ttl: int = 64, dont_fragment: bool = False
    ) -> Done:
        sent = Datagram(self.ends.client, self.ends.server, data, OWN, ROUTER, tos, ttl, dont_fragment)
        return self.give(sent.frame(check))

    def from_peer(
        self, data: bytes, check: Check = "right", *, tos: int = 0, ttl: int = 64, dont_fragment: bool = False
    ) -> Done:
        sent = Datagram(self.ends.peer, self.ends.relay, data, OWN, PEER, tos, ttl, dont_fragment)
        return self.give(sent.frame(check))

    def carried(self, done: Done) -> Datagram:
        """What has left, by the interface that it came in by or another."""
        assert done.verdict in (Verdict.BACK, Verdict.AWAY), (done, self.counted())
        return read(done.frame)

    def reasons(self) -> dict[Reason, int]:
        found = {}
        for reason in Reason:
            values = self.programs.lookup("reasons", reason)
            assert values is not None
            found[reason] = sum(number for (number,) in layout.REASON.iter_unpack(values))
        return found

    def traffic(self) -> list[int]:
        """Packets and bytes from the client and to it, and what was dropped: (up, down, up, down, dropped)."""
        values = self.programs.lookup("traffic", SLOT)
        assert values is not None
        return [sum(each) for each in zip(*layout.TRAFFIC.iter_unpack(values), strict=True)]

    def counted(self) -> dict[Reason, int]:
        """What has been counted since this was made, by reason."""
        return {reason: count for reason, now in self.reasons().items() if (count := now - self._before[0][reason])}

    def moved(self) -> list[int]:
        """traffic() since this was made."""
        return [now - before for now, before in zip(self.traffic(), self._before[1], strict=True)]


def flows_of(ends: Ends) -> tuple[ChannelFlow, ChannelFlow]:
    return (
        ChannelFlow(Direction.FROM_CLIENT, CHANNEL, ends.client, ends.server, ends.relay, ends.peer),
        ChannelFlow(Direction.TO_CLIENT, CHANNEL, ends.peer, ends.relay, ends.server, ends.client),
    )
