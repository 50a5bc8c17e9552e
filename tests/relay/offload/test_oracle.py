"""The pump is the oracle: the same frames, with the programs below it and without, come out byte for byte alike.

But for the identification of IPv4 and the flow label of IPv6, which each chooses, and for datagrams that came with a
wrong checksum: the pump's kernel drops them, the programs pass them on as wrong as they are.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from bench.lab.frames import Check, Datagram, channel_data
from bench.lab.network import CLIENT, PEER, SERVER, within
from tests.relay.offload.lab import CHANNEL, End, Lab, Opened
from turnsvr.relay.offload.programs import Programs
from turnsvr.relay.offload.settings import Mode
from turnsvr.stun.address import Address, Family

V4, V6 = Family.IPV4, Family.IPV6
_STEP = 0.007
"""Seconds between frames: a flow that was held goes on by the programs."""
_TOS = (0, 1, 2, 3, 0xB8, 0xB9, 0xFF)
_MTU = 1500
_MARK = Datagram(Address(CLIENT[V4].host, 50_099), SERVER[V4], bytes.fromhex("000100002112a442") + bytes(12))


@dataclass(frozen=True)
class Case:
    """A frame that is sent; is_up: by the client."""

    name: str
    data: bytes
    is_up: bool
    tos: int = 0
    ttl: int = 64
    dont_fragment: bool = False
    check: Check = "right"
    is_carried: bool | None = True
    """None where that depends on the families: a frame may not become too small."""
    shape: dict[str, object] = field(default_factory=dict)
    vlan: bool = False


def payload(size: int) -> bytes:
    return bytes(at * 7 % 256 for at in range(size))


def cases(largest_up: int, largest_down: int, largest_in: int) -> Iterator[Case]:
    """largest: bytes of data that fit the path each way, and what a peer can send."""
    for size in (40, 41, 42, 43, 160, 1000):
        for trailing in range(4):
            data = channel_data(CHANNEL, payload(size), b"\xa5\x5a\x77"[:trailing])
            yield Case(f"up {size} and {trailing}", data, True)
        yield Case(f"down {size}", payload(size), False)
    for tos in _TOS:
        yield Case(f"up tos {tos}", channel_data(CHANNEL, payload(100)), True, tos=tos)
        yield Case(f"down tos {tos}", payload(100), False, tos=tos)
    for ttl in (2, 64, 255):
        yield Case(f"up ttl {ttl}", channel_data(CHANNEL, payload(100)), True, ttl=ttl)
        yield Case(f"down ttl {ttl}", payload(100), False, ttl=ttl)
    yield Case("up DF", channel_data(CHANNEL, payload(100)), True, dont_fragment=True)
    yield Case("down DF", payload(100), False, dont_fragment=True)
    yield Case("up as large as fits", channel_data(CHANNEL, payload(largest_up)), True)
    yield Case("down as large as fits", payload(largest_down), False)
    # What goes up.
    yield Case("up ttl 1", channel_data(CHANNEL, payload(100)), True, ttl=1, is_carried=False)
    yield Case("down ttl 1", payload(100), False, ttl=1, is_carried=False)
    yield Case("up empty", channel_data(CHANNEL, b""), True, is_carried=None)
    yield Case("down empty", b"", False, is_carried=None)
    yield Case("up one byte", channel_data(CHANNEL, b"x", bytes(3)), True, is_carried=None)
    yield Case("down one byte", b"x", False, is_carried=None)
    yield Case("up with much behind", channel_data(CHANNEL, payload(100), bytes(4)), True, is_carried=False)
    yield Case("up too short", channel_data(CHANNEL, payload(100))[:-1], True, is_carried=False)
    yield Case("up another channel", channel_data(CHANNEL + 1, payload(100)), True, is_carried=False)
    yield Case("up nonsense", payload(100)[:1] + b"\xff" * 50, True, is_carried=False)
    if largest_down < largest_in:
        yield Case("down too large by one", payload(largest_down + 1), False, is_carried=False)
    yield Case("up tagged", channel_data(CHANNEL, payload(100)), True, vlan=True, is_carried=False)
    yield Case("up again", channel_data(CHANNEL, payload(100)), True)
    yield Case("down again", payload(100), False)


def only_ipv4(is_up: bool, data: bytes) -> Iterator[Case]:
    """What only IPv4 has on the way in."""
    direction = "up" if is_up else "down"
    yield Case(f"{direction} without a checksum", data, is_up, check="none", is_carried=False)
    yield Case(f"{direction} with options", data, is_up, shape={"options": b"\x01" * 4}, is_carried=False)
    yield Case(f"{direction} fragment", data, is_up, shape={"fragment": 0x2000}, is_carried=False)


@pytest.fixture(scope="module")
def lab(programs: Programs) -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.mark.parametrize("mode", ["xdp", "tc"])
@pytest.mark.parametrize("client", [V4, V6])
@pytest.mark.parametrize("peer", [V4, V6])
async def test_the_pump_says_the_same(lab: Lab, programs: Programs, mode: Mode, client: Family, peer: Family) -> None:
    if mode not in programs.programs:
        pytest.skip(f"{mode}: {programs.refused}")
    heads = {V4: 28, V6: 48}
    fits_both = min(_MTU - heads[client] - 4, _MTU - heads[peer])
    sent = list(cases(fits_both, fits_both, _MTU - heads[peer]))
    if client is V4:
        sent += only_ipv4(True, channel_data(CHANNEL, payload(100)))
    if peer is V4:
        sent += only_ipv4(False, payload(100))
    with within(lab.server):
        expected = await outcome(lab, None, client, peer, sent)
        found = await outcome(lab, mode, client, peer, sent)
    wrong = {
        case.name: (expected[case.name], found[case.name]) for case in sent if expected[case.name] != found[case.name]
    }
    assert not wrong


async def outcome(
    lab: Lab, mode: Mode | None, client: Family, peer: Family, sent: list[Case]
) -> dict[str, list[tuple[str, bytes]]]:
    """What arrives where for each."""
    served = lab.serve(mode)
    try:
        session = served.open(CLIENT[client], peer)
        # One relayed port in both runs, that what leaves may be compared.
        assert session.relayed.port
        session.bind(PEER[peer])
        await asyncio.sleep(0.05)
        for end in (lab.client, lab.peer):
            end.frames()
        found = {}
        if mode is not None:
            await warm_up(session, PEER[peer])
        for case in sent:
            before = served.status.carried if mode is not None else None
            give(lab, session, PEER[peer], case)
            await asyncio.sleep(_STEP)
            found[case.name] = await arrived(lab, session)
            if mode is not None and case.is_carried is not None:
                assert (served.status.carried != before) is case.is_carried, (case.name, served.status)
        return found
    finally:
        served.shutdown()


async def warm_up(session: Opened, peer: Address) -> None:
    """Until both directions are carried."""
    lab, served = session.served.lab, session.served
    for _ in range(300):
        before = served.status.carried
        give(lab, session, peer, Case("up", channel_data(CHANNEL, payload(99)), True))
        give(lab, session, peer, Case("down", payload(99), False))
        await asyncio.sleep(_STEP)
        now = served.status.carried
        lab.client.frames(), lab.peer.frames()
        if now.packets_from_client > before.packets_from_client and now.packets_to_client > before.packets_to_client:
            await asyncio.sleep(0.03)
            return
    raise AssertionError(served.status)


def give(lab: Lab, session: Opened, peer: Address, case: Case) -> None:
    end: End = lab.client if case.is_up else lab.peer
    one, other = (session.five_tuple.client, session.five_tuple.server) if case.is_up else (peer, session.relayed)
    sent = Datagram(one, other, case.data, end.server_mac, end.mac, case.tos, case.ttl, case.dont_fragment)
    frame = sent.frame(case.check, **case.shape)  # type: ignore[arg-type]
    end.send_frame(frame[:12] + b"\x81\0\0\x07" + frame[12:] if case.vlan else frame)


async def arrived(lab: Lab, session: Opened) -> list[tuple[str, bytes]]:
    """What came where. A Binding request that is answered shows that the pump has done all that came before it."""
    lab.client.send(_MARK)
    found: list[tuple[str, bytes]] = []
    for _ in range(5_000):
        frames = lab.client.frames()
        answers = [frame for frame in frames if frame[36:38] == _MARK.source.port.to_bytes(2)]
        found += [("client", frame) for frame in frames if frame not in answers]
        if answers:
            found += [("peer", frame) for frame in lab.peer.frames()]
            return [(where, comparable(frame, session.relayed.port)) for where, frame in found]
        await asyncio.sleep(0.001)
    raise TimeoutError("the pump answers no more")


def comparable(frame: bytes, port: int) -> bytes:
    """A frame without what is chosen for each: identification, flow label, the port of the relay, their checksums."""
    changed = bytearray(frame)
    if frame[12:14] == b"\x08\x00":
        changed[18:20] = changed[24:26] = bytes(2)
        udp, first = 34, int.from_bytes(frame[20:22]) & 0x1FFF == 0
    else:
        changed[15] &= 0xF0
        changed[16:18] = bytes(2)
        udp, first = 54, frame[20] == 17
    if first:
        for at in (udp, udp + 2):
            if int.from_bytes(frame[at : at + 2]) == port:
                changed[at : at + 2] = bytes(2)
                check = int.from_bytes(frame[udp + 6 : udp + 8])
                changed[udp + 6 : udp + 8] = ((check + port - 1) % 0xFFFF + 1).to_bytes(2)
    return bytes(changed)
