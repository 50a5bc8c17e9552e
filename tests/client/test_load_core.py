"""The generator counts what arrives: against networks that lose, double and swap, with both cores."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.client.load_world import Exchange, Forwarder, core, patient, udp_sockets
from turnsvr.client.load_values import TAG_SIZE, Framing, Load, Receiver, Sender
from turnsvr.stun.framing import pack_channel_data

CHANNEL = 0x4001


@pytest.fixture(params=["_load", "load_plain"])
def exchange(request: pytest.FixtureRequest) -> Exchange:
    return core(request.param)


@pytest.fixture
def sink() -> Iterator[socket.socket]:
    with udp_sockets(1) as (sock,):
        yield sock


@pytest.fixture
def senders() -> Iterator[list[socket.socket]]:
    with udp_sockets(3) as sockets:
        yield sockets


def to(address: tuple[str, int], sockets: list[socket.socket], prefix: bytes = b"") -> list[Sender]:
    return [Sender(sock.fileno(), prefix, to=address) for sock in sockets]


@pytest.mark.parametrize(("burst", "segments"), [(1, False), (8, False), (16, True)])
def test_everything_arrives_where_nothing_is_lost(
    exchange: Exchange, sink: socket.socket, senders: list[socket.socket], burst: int, segments: bool
) -> None:
    load = patient(200, 4_000, 0.2, burst=burst, segments=segments)
    counts = exchange(to(sink.getsockname(), senders), [Receiver(sink.fileno())], load)
    assert counts.sent > 0
    assert counts.sent % burst == 0
    assert (counts.delivered, counts.loss) == (counts.sent, 0)
    assert (counts.duplicates, counts.reordered, counts.foreign, counts.refused) == (0, 0, 0, 0)
    assert sum(counts.latency) == counts.delivered
    assert 0 <= counts.quantile(0.5) <= counts.quantile(0.99) < 20


def test_no_more_is_offered_than_was_asked_for(
    exchange: Exchange, sink: socket.socket, senders: list[socket.socket]
) -> None:
    counts = exchange(to(sink.getsockname(), senders), [Receiver(sink.fileno())], patient(100, 1_000, 0.3))
    assert 0 < counts.sent <= 301


def test_lost_packets_are_lost(exchange: Exchange, sink: socket.socket, senders: list[socket.socket]) -> None:
    with Forwarder(sink.getsockname(), lambda number, data: () if number % 5 == 0 else (data,)) as network:
        counts = exchange(to(network.address, senders), [Receiver(sink.fileno())], patient(100, 2_000, 0.3))
    assert network.received == counts.sent > 50
    lost = -(-counts.sent // 5)
    assert counts.delivered == counts.sent - lost
    assert counts.loss == pytest.approx(lost / counts.sent)
    assert (counts.duplicates, counts.foreign) == (0, 0)


def test_the_segments_of_a_train_are_lost_one_by_one(
    exchange: Exchange, sink: socket.socket, senders: list[socket.socket]
) -> None:
    with Forwarder(sink.getsockname(), lambda number, data: () if number % 3 == 0 else (data,)) as network:
        load = patient(100, 2_000, 0.3, burst=16, segments=True)
        counts = exchange(to(network.address, senders), [Receiver(sink.fileno())], load)
    assert network.received == counts.sent >= 16
    assert counts.delivered == counts.sent - -(-counts.sent // 3)


def test_doubled_packets_count_once(exchange: Exchange, sink: socket.socket, senders: list[socket.socket]) -> None:
    with Forwarder(sink.getsockname(), lambda number, data: (data, data) if number % 4 == 0 else (data,)) as network:
        counts = exchange(to(network.address, senders), [Receiver(sink.fileno())], patient(100, 2_000, 0.3))
        # The last one's double may still be under way when the last packet has come.
        assert counts.delivered == counts.sent
        assert 0 <= -(-counts.sent // 4) - counts.duplicates <= 1


def test_swapped_packets_are_out_of_order_and_not_lost(
    exchange: Exchange, sink: socket.socket, senders: list[socket.socket]
) -> None:
    held: list[bytes] = []

    def swap(number: int, data: bytes) -> tuple[bytes, ...]:
        if number % 2 == 0:
            held.append(data)
            return ()
        return data, held.pop()

    with Forwarder(sink.getsockname(), swap) as network:
        counts = exchange(to(network.address, senders[:1]), [Receiver(sink.fileno())], patient(100, 2_000, 0.2))
    assert counts.delivered == counts.sent - counts.sent % 2
    assert counts.reordered == counts.sent // 2


def test_what_is_cut_or_of_another_run_is_not_delivered(
    exchange: Exchange, sink: socket.socket, senders: list[socket.socket]
) -> None:
    with Forwarder(sink.getsockname(), lambda _, data: (data[:-1],)) as network:
        counts = exchange(to(network.address, senders), [Receiver(sink.fileno())], patient(100, 1_000, 0.1))
    assert (counts.delivered, counts.foreign) == (0, counts.sent)

    with Forwarder(sink.getsockname(), lambda _, data: (b"\xff\xff" + data[2:],)) as network:
        counts = exchange(to(network.address, senders), [Receiver(sink.fileno())], patient(100, 1_000, 0.1))
    assert network.received == counts.sent > 0
    assert (counts.delivered, counts.loss) == (0, 1)


def test_nothing_is_delivered_where_nobody_listens(exchange: Exchange, sink: socket.socket) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as gone:
        gone.bind(("127.0.0.1", 0))
        address = gone.getsockname()
    with udp_sockets(1) as (client,):
        client.connect(address)
        load = Load(100, 1_000, 0.1, settle=0.2)
        counts = exchange([Sender(client.fileno())], [Receiver(sink.fileno())], load)
    assert (counts.delivered, counts.rate, counts.loss) == (0, 0, 1)
    assert counts.refused > 0


@pytest.mark.parametrize("cut", [1, 7, 1000])
def test_frames_of_a_connection_are_found_however_it_is_cut(exchange: Exchange, cut: int) -> None:
    """The sender's prefix is a ChannelData header, so the receiver sees what a TURN client would."""
    near, far = socket.socketpair()
    with near, far:
        for end in (near, far):
            end.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, cut)
        prefix = pack_channel_data(CHANNEL, bytes(101), padded=True)[:4]
        counts = exchange(
            [Sender(near.fileno(), prefix, stream=True)],
            [Receiver(far.fileno(), Framing.CLIENT, stream=True)],
            patient(101, 2_000, 0.2, burst=8),
        )
    assert counts.delivered == counts.sent > 0
    assert counts.foreign == 0


def test_a_connection_that_takes_nothing_blocks_and_loses_nothing(exchange: Exchange) -> None:
    near, far = socket.socketpair()
    with near, far, udp_sockets(1) as (elsewhere,):
        near.setblocking(False)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        load = Load(1000, 20_000, 0.2, settle=0.1)
        counts = exchange([Sender(near.fileno(), stream=True)], [Receiver(elsewhere.fileno())], load)
    assert 0 < counts.sent < 100
    assert counts.blocked > 0
    assert counts.delivered == 0


def test_a_connection_that_is_gone_is_refused(exchange: Exchange) -> None:
    near, far = socket.socketpair()
    far.close()
    with near, udp_sockets(1) as (elsewhere,):
        near.setblocking(False)
        counts = exchange(
            [Sender(near.fileno(), stream=True)], [Receiver(elsewhere.fileno())], Load(100, 1_000, 0.1, settle=0.1)
        )
    assert (counts.delivered, counts.refused) == (0, 1)


@pytest.mark.parametrize(
    "load", [Load(TAG_SIZE - 1, 100, 0.1), Load(100, 0, 0.1), Load(100, -1, 0.1)], ids=["short", "still", "backwards"]
)
def test_a_load_that_cannot_be_is_refused(
    exchange: Exchange, sink: socket.socket, senders: list[socket.socket], load: Load
) -> None:
    with pytest.raises(ValueError, match=r"payload|rate"):
        exchange(to(sink.getsockname(), senders), [Receiver(sink.fileno())], load)


@pytest.mark.parametrize(("exact", "distinct"), [(True, 8), (False, 1)])
def test_exact_loads_stamp_each_packet_when_it_leaves(
    sink: socket.socket, senders: list[socket.socket], exact: bool, distinct: int
) -> None:
    """A stamp for a whole batch makes its last packets late by what the generator takes to send the others."""
    load = Load(100, 10_000, 0.02, burst=8, quiet=0.01, kernel_times=exact)
    with udp_sockets(1) as (watched,):
        sent = core("_load")(to(watched.getsockname(), senders[:1]), [Receiver(sink.fileno())], load).sent
        stamps = [struct.unpack_from("=HHII", watched.recv(200))[3] for _ in range(sent)]
    assert sent >= 8
    bursts = [stamps[at : at + 8] for at in range(0, sent, 8)]
    assert max(len(set(burst)) for burst in bursts) == distinct
    assert all(burst == sorted(burst) for burst in bursts)
