"""The programs, a frame at a time: what they carry leaves as the pump would send it, and the rest goes up unchanged."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bench.lab.frames import Check, Datagram, channel_data
from tests.relay.offload.bench import (
    CHANNEL,
    ENDS,
    OTHER_OWN,
    OWN,
    PEER,
    ROUTER,
    V4,
    V6,
    Bench,
    Verdict,
)
from turnsvr.relay.offload.layout import Hop, Reason
from turnsvr.stun.address import Address

VOICE = bytes(range(160))


@pytest.mark.parametrize("ends", ENDS.values(), ids=ENDS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.binary(min_size=18, max_size=1400),
    trailing=st.binary(max_size=3),
    tos=st.integers(0, 255),
    ttl=st.integers(2, 255),
    is_noted=st.booleans(),
)
@example(data=b"\xff" * 18, trailing=b"", tos=0, ttl=2, is_noted=False)
@example(data=bytes(1400), trailing=b"\xff\xff\xff", tos=255, ttl=255, is_noted=True)
def test_both_directions(
    bench: Bench, ends: object, data: bytes, trailing: bytes, tos: int, ttl: int, is_noted: bool
) -> None:
    """is_noted: the sender forbids fragments, which is between it and the server."""
    assert isinstance(ends, type(V4))
    bench.bind(ends)
    out = bench.carried(
        bench.from_client(channel_data(CHANNEL, data, trailing), tos=tos, ttl=ttl, dont_fragment=is_noted)
    )
    assert out == Datagram(ends.relay, ends.peer, data, ROUTER, OWN, tos)
    back = bench.carried(bench.from_peer(data, tos=tos, ttl=ttl, dont_fragment=is_noted))
    assert back == Datagram(ends.server, ends.client, channel_data(CHANNEL, data), ROUTER, OWN, tos)


def test_it_counts_as_the_pump_does(bench: Bench) -> None:
    bench.bind(V4)
    bench.from_client(channel_data(CHANNEL, VOICE, b"\0\0"))
    bench.from_peer(VOICE[:100])
    bench.from_peer(VOICE[:100])
    assert bench.moved() == [1, 2, 160, 200, 0]
    assert bench.counted() == {Reason.CARRIED: 3}


def test_another_interface(bench: Bench) -> None:
    bench.bind(V4, leaves_by=(1, 0))
    done = bench.from_client(channel_data(CHANNEL, VOICE))
    assert done.verdict is Verdict.AWAY
    assert bench.carried(done) == Datagram(V4.relay, V4.peer, VOICE, PEER, OTHER_OWN)


def test_an_interface_that_takes_no_frames(bench: Bench) -> None:
    if bench.kind == "tc":
        pytest.skip("packets leave by any interface")
    bench.hop(1, Hop(77, OTHER_OWN, PEER))
    bench.bind(V4, leaves_by=(1, 0))
    assert bench.from_client(channel_data(CHANNEL, VOICE)).verdict is Verdict.UP
    assert bench.counted() == {Reason.NO_TRANSMIT: 1}


def goes_up(bench: Bench, sent: Datagram, reason: Reason | None, check: Check = "right", **shape: object) -> None:
    """A frame goes up, byte for byte, and is counted under the reason: None where it is nobody's."""
    frame = sent.frame(check, **shape)  # type: ignore[arg-type]
    done = bench.give(frame)
    assert (done.verdict, done.frame) == (Verdict.UP, frame)
    assert bench.counted() == ({} if reason is None else {reason: 1})
    assert bench.moved() == [0, 0, 0, 0, 0]


UP = Datagram(V4.client, V4.server, channel_data(CHANNEL, VOICE), OWN, ROUTER)
UP6 = Datagram(V6.client, V6.server, channel_data(CHANNEL, VOICE), OWN, ROUTER)
DOWN = Datagram(V4.peer, V4.relay, VOICE, OWN, ROUTER)
DOWN6 = Datagram(V6.peer, V6.relay, VOICE, OWN, ROUTER)


@pytest.mark.parametrize(
    ("sent", "reason", "check", "shape"),
    [
        (UP, Reason.NO_CHECKSUM, "none", {}),
        (UP, Reason.PARTIAL_CHECKSUM, "partial", {}),
        (DOWN, Reason.NO_CHECKSUM, "none", {}),
        (DOWN, Reason.PARTIAL_CHECKSUM, "partial", {}),
        (UP6, Reason.NO_CHECKSUM, "none", {}),
        (UP6, Reason.PARTIAL_CHECKSUM, "partial", {}),
        (DOWN6, Reason.PARTIAL_CHECKSUM, "partial", {}),
        (UP, None, "right", {"fragment": 0x2000}),
        (UP, None, "right", {"fragment": 0x0001}),
        (DOWN, None, "right", {"fragment": 0x2000}),
        (UP, None, "right", {"options": b"\x01" * 4}),
        (UP6, None, "right", {"options": b"\x11\0" + bytes(6)}),
        (replace(UP, ttl=1), None, "right", {}),
        (replace(UP, ttl=0), None, "right", {}),
        (replace(UP6, ttl=1), None, "right", {}),
        (replace(DOWN, ttl=1), None, "right", {}),
        (replace(UP, data=channel_data(CHANNEL, VOICE, bytes(4))), Reason.LENGTHS, "right", {}),
        (replace(UP, data=channel_data(CHANNEL, VOICE)[:-1]), Reason.LENGTHS, "right", {}),
        (replace(UP, data=channel_data(CHANNEL, b"")), Reason.TOO_SMALL, "right", {}),
        (replace(UP, data=channel_data(CHANNEL, VOICE[:17])), Reason.TOO_SMALL, "right", {}),
        (replace(DOWN, data=b""), Reason.TOO_SMALL, "right", {}),
        (replace(DOWN, data=VOICE[:13]), Reason.TOO_SMALL, "right", {}),
        (replace(UP, data=channel_data(CHANNEL + 1, VOICE)), None, "right", {}),
        (replace(UP, data=VOICE), None, "right", {}),
        (replace(UP, data=b"\x40"), None, "right", {}),
        (replace(UP, source=Address("192.0.2.10", 50_001)), None, "right", {}),
        (replace(UP, source=Address("192.0.2.11", 50_000)), None, "right", {}),
        (replace(UP, destination=Address("192.0.2.2", 3478)), None, "right", {}),
        (replace(DOWN, source=Address("198.51.100.9", 6001)), None, "right", {}),
        (replace(UP, to_mac=PEER), Reason.OTHER_INTERFACE, "right", {}),
        (replace(UP, to_mac=b"\xff" * 6), Reason.OTHER_INTERFACE, "right", {}),
        (replace(DOWN, data=bytes(1469)), Reason.TOO_LARGE, "right", {}),
        (replace(DOWN6, data=bytes(1449)), Reason.TOO_LARGE, "right", {}),
    ],
)  # fmt: skip
def test_what_goes_up(
    bench: Bench, sent: Datagram, reason: Reason | None, check: Check, shape: dict[str, object]
) -> None:
    bench.bind(V6 if ":" in sent.source.host else V4)
    goes_up(bench, sent, reason, check, **shape)


def test_a_vlan_that_nobody_knows(bench: Bench) -> None:
    bench.bind(V4)
    frame = UP.frame()
    tagged = frame[:12] + b"\x81\x00\x00\x05" + frame[12:]
    assert bench.give(tagged).verdict is Verdict.UP
    assert bench.moved() == [0, 0, 0, 0, 0]


def test_lengths_that_disagree(bench: Bench) -> None:
    """IP says more or less than UDP does, or than there is."""
    bench.bind(V4)
    frame = bytearray(UP.frame())
    frame[38:40] = (len(frame) - 34 - 1).to_bytes(2)
    assert bench.give(bytes(frame)).verdict is Verdict.UP
    assert bench.give(UP.frame()[:-1]).verdict is Verdict.UP
    if bench.kind == "xdp":  # the kernel makes no such packets of its own for the other
        assert bench.give(UP.frame()[:30]).verdict is Verdict.UP
    assert bench.moved() == [0, 0, 0, 0, 0]


def test_a_broken_ip_header(bench: Bench) -> None:
    bench.bind(V4)
    frame = bytearray(UP.frame())
    frame[24] ^= 1
    assert bench.give(bytes(frame)).verdict is Verdict.UP
    assert bench.moved() == [0, 0, 0, 0, 0]


def test_a_wrong_checksum_stays_wrong(bench: Bench) -> None:
    """Nobody computes it on the way: the receiver drops it, as it would from any router."""
    bench.bind(V4)
    done = bench.from_client(channel_data(CHANNEL, VOICE), "wrong")
    with pytest.raises(AssertionError, match="UDP checksum"):
        bench.carried(done)


def test_ethernet_padding_does_not_leave(bench: Bench) -> None:
    bench.bind(V4)
    frame = UP.frame() + b"secret"
    assert bench.carried(bench.give(frame)).data == VOICE


@pytest.mark.parametrize("level", ["session", "permission_until", "channel_until"])
def test_deadlines(bench: Bench, level: str) -> None:
    bench.bind(V4, **{name: -1 for name in ("permission_until", "channel_until") if name == level})  # type: ignore[arg-type]
    if level == "session":
        bench.session(until=-1)
    goes_up(bench, UP, Reason.EXPIRED)


def test_a_slot_that_is_another_session_s(bench: Bench) -> None:
    bench.bind(V4, number=999)
    goes_up(bench, UP, Reason.OLD)


def test_another_generation_of_routes(bench: Bench) -> None:
    bench.bind(V4, generation=4)
    goes_up(bench, UP, Reason.OLD)


def test_an_unknown_neighbour(bench: Bench) -> None:
    bench.bind(V4)
    bench.hop(0, Hop())
    goes_up(bench, UP, Reason.UNKNOWN_HOP)


def test_a_neighbour_s_new_address(bench: Bench) -> None:
    bench.bind(V4)
    bench.hop(0, Hop(1, OWN, PEER, returns_frames=True, takes_frames=True))
    assert bench.carried(bench.give(UP.frame())).to_mac == PEER


def test_data_of_a_peer_that_look_like_channel_data(bench: Bench) -> None:
    bench.bind(V4)
    data = channel_data(CHANNEL, VOICE)
    assert bench.carried(bench.from_peer(data)).data == channel_data(CHANNEL, data)


def test_bandwidth(bench: Bench) -> None:
    bench.bind(V4)
    bench.session(bandwidth=1000.0)
    verdicts = [bench.from_client(channel_data(CHANNEL, VOICE)).verdict for _ in range(9)]
    assert verdicts.count(Verdict.DROPPED) == 3
    assert bench.from_peer(VOICE).verdict is not Verdict.DROPPED
    assert bench.moved() == [6, 1, 960, 160, 3]
    assert bench.counted() == {Reason.CARRIED: 7, Reason.OVER_BANDWIDTH: 3}


def test_bandwidth_that_the_pump_has_spent(bench: Bench) -> None:
    bench.bind(V4)
    bench.session(bandwidth=1000.0)
    bench.from_client(channel_data(CHANNEL, VOICE))
    bench.session(bandwidth=1000.0, debts=(600_000_000, 0), is_new=False)
    verdicts = [bench.from_client(channel_data(CHANNEL, VOICE)).verdict for _ in range(3)]
    assert verdicts.count(Verdict.DROPPED) == 2


def test_what_went_up_holds_what_follows(bench: Bench) -> None:
    """Till the flow has been silent for a while: the pump's way is longer."""
    bench.bind(V4)
    assert bench.give(UP.frame("none")).verdict is Verdict.UP
    assert bench.give(UP.frame()).verdict is Verdict.UP
    assert bench.give(DOWN.frame()).verdict is not Verdict.UP
    bench.wait(0.006)
    assert bench.give(UP.frame()).verdict is not Verdict.UP
    assert bench.counted() == {Reason.NO_CHECKSUM: 1, Reason.WAITS: 1, Reason.CARRIED: 2}


def test_a_train_goes_up(bench: Bench) -> None:
    if bench.kind == "xdp":
        pytest.skip("there is nothing joined yet")
    bench.bind(V4)
    assert bench.give(UP.frame(), gso=1000).verdict is Verdict.UP
    assert bench.counted() == {Reason.TRAIN: 1}
