"""Which packets leave together: whatever is joined, each flow's receiver gets the same packets in the same order."""

from __future__ import annotations

from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

_pump = pytest.importorskip("turnsvr.relay.compiled._pump", reason="the compiled pump was not built")

MAX_SEGMENTS = 64
MAX_BYTES = 65_507

flows = st.integers(0, 5) | st.integers(0, 65_535)
sizes = st.sampled_from([0, 1, 160, 1000, 1472, 9000]) | st.integers(0, MAX_BYTES)
arrivals = st.lists(st.tuples(flows, sizes), max_size=300)
trains = st.lists(st.tuples(st.integers(0, 2), st.sampled_from([160, 1000]), st.integers(1, 150)), max_size=6).map(
    lambda parts: [(flow, size) for flow, size, count in parts for _ in range(count)][:1000]
)

Arrivals = list[tuple[int, int]]


def received(run: list[int], packets: Arrivals) -> list[int]:
    """Sizes that the receiver of one UDP_SEGMENT message sees: all of its bytes, cut by the size of the first."""
    total, segment = sum(packets[at][1] for at in run), packets[run[0]][1]
    return [min(segment, total - at) for at in range(0, total, segment)] if segment else [0] * len(run)


@given(arrivals | trains)
def test_each_flow_gets_its_packets_in_order(packets: Arrivals) -> None:
    seen: dict[int, list[int]] = {}
    for run in _pump.group(packets):
        assert len({packets[at][0] for at in run}) == 1
        assert received(run, packets) == [packets[at][1] for at in run]
        seen.setdefault(packets[run[0]][0], []).extend(run)
    wanted: dict[int, list[int]] = {}
    for at, (flow, _) in enumerate(packets):
        wanted.setdefault(flow, []).append(at)
    assert seen == wanted


@given(arrivals | trains)
def test_the_kernel_takes_every_run(packets: Arrivals) -> None:
    for run in _pump.group(packets):
        assert 1 <= len(run) <= MAX_SEGMENTS
        assert sum(packets[at][1] for at in run) <= MAX_BYTES
        assert len(run) == 1 or all(packets[at][1] for at in run)


@given(arrivals | trains)
def test_without_gso_each_packet_leaves_alone(packets: Arrivals) -> None:
    runs = _pump.group(packets, gso=False)
    assert sorted(runs) == [[at] for at in range(len(packets))]


@given(arrivals | trains)
def test_neighbours_are_joined_whenever_they_may_be(packets: Arrivals) -> None:
    for flow in {flow for flow, _ in packets}:
        runs = [run for run in _pump.group(packets) if packets[run[0]][0] == flow]
        for run, following in pairwise(runs):
            in_run = [packets[at][1] for at in run]
            size = packets[following[0]][1]
            assert (
                not size
                or size > in_run[0]
                or in_run[-1] < in_run[0]
                or len(run) == MAX_SEGMENTS
                or sum(in_run) + size > MAX_BYTES - 20
            )


@given(st.integers(1, 400), st.integers(1, 1000))
def test_equal_packets_fill_their_runs(count: int, size: int) -> None:
    runs = _pump.group([(1, size)] * count)
    assert list(accumulate(map(len, runs))) == [*range(MAX_SEGMENTS, count, MAX_SEGMENTS), count]


def test_flows_that_alternate_are_gathered() -> None:
    runs = _pump.group([(number % 4, 1000) for number in range(64)])
    assert sorted(map(len, runs)) == [16] * 4


def test_more_than_one_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="more than 1024 arrivals"):
        _pump.group([(0, 1)] * 1025)
