"""TLS that the pump speaks itself: what clients may do with records, and what they may not."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import os
import random
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.conftest import PATIENCE
from tests.relay.compiled.conftest import WorldFactory
from tests.relay.compiled.stream_client import Contexts, StreamClient, TlsEnd, client_context, server_context
from tests.relay.world import SETTINGS, World, channel_data, now, request, send_indication
from turnsvr.client import libssl, load_tls
from turnsvr.net.tls import TlsFiles
from turnsvr.relay.api import TlsContext
from turnsvr.relay.compiled import tls as tls_room
from turnsvr.relay.compiled._pump import find_libssl
from turnsvr.relay.counts import Drop
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.attributes import SOFTWARE

VERSIONS = [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3]
_ALERT = 21
"""Content type of a record (RFC 8446 section 5.1); TLS 1.3 shows it only of records that are not encrypted."""

Connect = Callable[..., StreamClient]


@pytest.fixture(params=VERSIONS, ids=lambda version: version.name)
def version(request: pytest.FixtureRequest) -> ssl.TLSVersion:
    chosen: ssl.TLSVersion = request.param
    return chosen


@pytest.fixture
def server(certificate: TlsFiles) -> TlsContext:
    return server_context(certificate.certificate, certificate.key)


@pytest.fixture
def connect(server: TlsContext, version: ssl.TLSVersion) -> Iterator[Connect]:
    clients: list[StreamClient] = []

    def make(world: World, *, session: bool = True, room: int = 0) -> StreamClient:
        tls = Contexts(server, client_context(version))
        clients.append(StreamClient(world, session=session, tls=tls, room=room))
        return clients[-1]

    yield make
    for client in clients:
        client.socket.close()


def end_of(client: StreamClient) -> TlsEnd:
    assert client.tls is not None
    return client.tls


def padded(channel: int, data: bytes) -> bytes:
    return channel_data(channel, data, bytes(-len(data) % 4))


@pytest.mark.parametrize("step", [1, 7, 1000, 20_000, 1_000_000])
async def test_records_may_come_in_any_pieces(make_world: WorldFactory, connect: Connect, step: int) -> None:
    """Many frames in a record, and one frame over several of them."""
    world = make_world()
    client, peer = connect(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    count = 4 if step < 7 else 20
    frames = [padded(0x4000, bytes([number]) * number * 150) for number in range(count)]
    frames += [request().encode(), send_indication(peer.address, bytes(40_000)).encode()]
    world.sent += len(frames)
    records = end_of(client).seal(b"".join(frames))
    for at in range(0, len(records), step):
        await client.send_raw(records[at : at + step])
        if step < 7:
            await asyncio.sleep(0)
    got = [(await peer.receive())[0] for _ in range(count + 1)]
    assert got == [*(bytes([number]) * number * 150 for number in range(count)), bytes(40_000)]
    await world.until(lambda: bool(world.notes.messages))
    assert world.notes.messages == [(client.five_tuple, frames[-2])]
    await world.settled()


async def test_more_than_one_read_brings_all_at_once(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client = connect(world, session=False)
    message = request().add(SOFTWARE, "s" * 700).encode()
    count = 600_000 // len(message)
    await client.send(message * count, count)
    await world.until(lambda: len(world.notes.messages) == count)


async def test_each_frame_is_a_record(make_world: WorldFactory, connect: Connect) -> None:
    """Relayed ones and answers, also of those that leave together; only what exceeds a record takes more."""
    world = make_world()
    client, peer = connect(world), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    sizes = [0, 1, 2, 3, 4, 171, 1000, 1001, 16_380, 16_381, 40_000]
    records: list[bytes] = []
    for size in sizes:
        peer.send(bytes(size), client.relayed)
        while b"".join(records) != padded(0x4000, bytes(size)):
            records += await client.read_some()
        assert len(records) == max(1, -(-len(padded(0x4000, bytes(size))) // 16_384))
        records.clear()
    answers = [request().add(SOFTWARE, "s" * number).encode() for number in range(50)]
    for answer in answers:
        world.pump.send(client.five_tuple, answer)
    while len(records) < len(answers):
        records += await client.read_some()
    assert records == answers


async def test_what_comes_with_the_end_of_the_handshake_is_taken(
    make_world: WorldFactory, server: TlsContext, version: ssl.TLSVersion
) -> None:
    """The first frames leave in one segment with the client's last words of the handshake."""
    world = make_world()
    message = request().encode()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    served.setblocking(False)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context(version).wrap_bio(incoming, outgoing)
    handshake = server.handshake(served.fileno())
    connected.settimeout(10)
    with connected:
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                connected.sendall(outgoing.read())
                assert handshake.step() in ("read", "")
                incoming.write(connected.recv(65_536))
        client.write(message)
        connected.sendall(outgoing.read())
        async with asyncio.timeout(10):
            while handshake.step():  # noqa: ASYNC110 - it has no event
                await asyncio.sleep(0)
        five_tuple = FiveTuple(Transport.TLS, Address("127.0.0.1", 1), Address("127.0.0.1", 2))
        world.sent += 1
        assert world.pump.adopt(served.detach(), five_tuple, b"", handshake)
        await world.until(lambda: bool(world.notes.messages))
        assert world.notes.messages == [(five_tuple, message)]


async def test_a_client_that_says_goodbye_is_answered_first(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client = connect(world, session=False)
    message, answer = request().encode(), request().encode()
    taken = world.notes.client_messages

    def answering(batch: list[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        world.pump.send(client.five_tuple, answer)
        return taken(batch)

    world.notes.client_messages = answering  # type: ignore[assignment,method-assign]
    await client.send_raw(end_of(client).seal(message) + end_of(client).close_notify())
    rest = await client.rest()
    assert end_of(client).open(rest) == [answer]
    assert end_of(client).heard_goodbye
    assert world.notes.closed == [(client.five_tuple, "closed by the client")]
    assert world.notes.messages == [(client.five_tuple, message)]


@pytest.mark.parametrize("how", ["hang_up", "shutdown"])
async def test_whoever_is_hung_up_on_is_told(make_world: WorldFactory, connect: Connect, how: str) -> None:
    world = make_world()
    client = connect(world)
    if how == "shutdown":
        world.pump.shutdown()
    else:
        world.pump.hang_up(client.five_tuple)
    rest = await client.rest()
    assert end_of(client).open(rest) == []
    assert end_of(client).heard_goodbye
    assert not world.notes.closed


def damaged(record: bytes) -> bytes:
    return record[:-1] + bytes((record[-1] ^ 1,))


GARBAGE: dict[str, Callable[[bytes], bytes]] = {
    "no record at all": lambda record: b"GET / HTTP/1.1\r\n\r\n",
    "plain STUN": lambda record: request().encode(),
    "a bit that is another": damaged,
    "a record twice": lambda record: record + record,
    "longer than a record may be": lambda record: record[:3] + b"\xff\xff" + bytes(70_000),
    "another content type": lambda record: b"\x63" + record[1:],
    "an old version": lambda record: record[:1] + b"\x02\x00" + record[3:],
    "nothing in it": lambda record: record[:3] + b"\0\0",
    "a handshake anew, unencrypted": lambda record: b"\x16\x03\x01\x00\x04\x01\x00\x00\x00",
    "an alert that nobody encrypted": lambda record: b"\x15\x03\x03\x00\x02\x02\x28",
}


@pytest.mark.parametrize("garbage", GARBAGE)
async def test_what_is_no_tls_ends_that_connection_alone(
    make_world: WorldFactory, connect: Connect, garbage: str
) -> None:
    world = make_world()
    client, other, peer = connect(world), connect(world), world.endpoint()
    message = request().encode()
    await client.send(message)
    await client.send_raw(GARBAGE[garbage](end_of(client).seal(padded(0x4000, b""))))
    rest = await client.rest()
    with contextlib.suppress(ssl.SSLError):
        assert end_of(client).open(rest) == []
    await world.until(lambda: bool(world.notes.closed))
    assert world.notes.closed == [(client.five_tuple, "broken TLS")]
    assert world.notes.messages == [(client.five_tuple, message)]
    world.pump.bind_channel(other.number, 0x4000, peer.address, now(60))
    await other.send(padded(0x4000, b"lives on"))
    assert (await peer.receive())[0] == b"lives on"
    peer.send(b"both ways", other.relayed)
    assert await other.read() == padded(0x4000, b"both ways")


async def test_a_client_that_goes_in_the_middle_of_a_record(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    client = connect(world)
    await client.send_raw(end_of(client).seal(padded(0x4000, bytes(1000)))[:500])
    client.socket.shutdown(socket.SHUT_WR)
    await world.until(lambda: bool(world.notes.closed))
    assert world.notes.closed == [(client.five_tuple, "closed by the client")]
    assert await client.is_closed()


async def test_damage_anywhere_harms_nobody_else(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    chance = random.Random(20_26)
    other, peer = connect(world), world.endpoint()
    world.pump.bind_channel(other.number, 0x4000, peer.address, now(60))
    for _ in range(40):
        client = connect(world, session=False)
        records = bytearray(end_of(client).seal(request().encode() * 5) + end_of(client).seal(bytes(2000)))
        for _ in range(chance.randrange(1, 4)):
            records[chance.randrange(len(records))] ^= 1 << chance.randrange(8)
        await client.send_raw(bytes(records[: chance.randrange(1, len(records) + 1)]))
        with contextlib.suppress(OSError):  # the pump may have closed it already
            client.socket.shutdown(socket.SHUT_WR)
        await client.rest()
    await world.until(lambda: len(world.notes.closed) == 40)
    peer.send(b"still there", other.relayed)
    assert await other.read() == padded(0x4000, b"still there")


async def test_a_session_is_resumed_by_its_ticket(make_world: WorldFactory, server: TlsContext) -> None:
    world = make_world()
    context = client_context(ssl.TLSVersion.TLSv1_3)
    first = StreamClient(world, session=False, tls=Contexts(server, context))
    world.pump.send(first.five_tuple, request().encode())
    await first.read()
    session = end_of(first).object.session
    assert session is not None
    assert session.has_ticket
    with socket.create_server(("127.0.0.1", 0)) as listener:
        connected = socket.create_connection(listener.getsockname())
        served, _ = listener.accept()
    with connected, served:
        for each in (connected, served):
            each.setblocking(False)
        again = TlsEnd(context)
        again.object.session = session
        again.shake_hands(connected, server.handshake(served.fileno()))
        assert again.object.session_reused
    first.socket.close()


class KeyUpdater:
    """A client that asks for new keys, which Python's ssl cannot: OpenSSL called directly, over the client's socket."""

    def __init__(self, connected: socket.socket, server: TlsContext, served: socket.socket) -> None:
        library = libssl.library()
        for name, arguments in (("SSL_key_update", [ctypes.c_void_p, ctypes.c_int]), ("SSL_do_handshake", None)):
            function = getattr(library, name)
            function.restype = ctypes.c_int
            function.argtypes = arguments or [ctypes.c_void_p]
        self._library = library
        self._tls = library.SSL_new(load_tls._context())
        library.SSL_set_fd(self._tls, connected.fileno())
        library.SSL_ctrl(self._tls, load_tls._CTRL_MODE, load_tls._MODE_PARTIAL_WRITE, None)
        handshake = server.handshake(served.fileno())
        while library.SSL_connect(self._tls) != 1 or handshake.step():
            with contextlib.suppress(ConnectionError):
                handshake.step()
        self.handshake = handshake

    def ask(self) -> bool:
        """Take new keys for what we send and ask for those of the other side; whether that could be sent."""
        asked: int = self._library.SSL_key_update(self._tls, 1)
        sent: int = self._library.SSL_do_handshake(self._tls)
        return asked == sent == 1

    def write(self, data: bytes) -> None:
        assert load_tls.write_tls(self._tls, data) == len(data)

    def read(self) -> bytes:
        return load_tls.read_tls(self._tls)

    def close(self) -> None:
        self._library.SSL_free(self._tls)


@pytest.fixture
async def updater(make_world: WorldFactory, server: TlsContext) -> AsyncIterator[tuple[World, FiveTuple, KeyUpdater]]:
    """One that the pump has adopted, with hardly any room between the two."""
    world = make_world(replace(SETTINGS, stream_buffer=16_384))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connected.connect(listener.getsockname())
        served, _ = listener.accept()
    with connected:
        for each in (connected, served):
            each.setblocking(False)
        client = KeyUpdater(connected, server, served)
        client_end, server_end = (Address(*each.getsockname()[:2]) for each in (connected, served))
        five_tuple = FiveTuple(Transport.TLS, client_end, server_end)
        assert world.pump.adopt(served.detach(), five_tuple, b"", client.handshake)
        yield world, five_tuple, client
        client.close()


async def test_keys_may_be_updated(updater: tuple[World, FiveTuple, KeyUpdater]) -> None:
    world, five_tuple, client = updater
    for number in range(1, 20):
        assert client.ask()
        message, answer = request().encode(), request().encode()
        client.write(message)
        world.sent += 1
        await world.until(lambda number=number: len(world.notes.messages) == number)  # type: ignore[misc]
        assert world.notes.messages[-1] == (five_tuple, message)
        world.pump.send(five_tuple, answer)
        got = b""
        while not got:
            got = client.read()
            await asyncio.sleep(0.001)
        assert got == answer


async def test_who_asks_for_keys_and_reads_none_is_cut_off(updater: tuple[World, FiveTuple, KeyUpdater]) -> None:
    """What we would keep for such a client has a bound."""
    world, five_tuple, client = updater
    for _ in range(20_000):
        if not client.ask():
            await asyncio.sleep(0.001)
        if world.notes.closed:
            break
        await asyncio.sleep(0)
    assert world.notes.closed == [(five_tuple, "broken TLS")]


@pytest.fixture
def left(server: TlsContext) -> Iterator[KeyUpdater]:
    """One that the pump has not adopted, with hardly any room between the two."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        connected = socket.socket()
        connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connected.connect(listener.getsockname())
        served, _ = listener.accept()
    with connected, served:
        for each in (connected, served):
            each.setblocking(False)
        client = KeyUpdater(connected, server, served)
        yield client
        client.close()


async def received(client: KeyUpdater) -> bytes:
    async with asyncio.timeout(PATIENCE):
        while (data := client.handshake.receive(16_384)) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
    return data


async def test_what_is_no_turn_goes_on_record_by_record(left: KeyUpdater) -> None:
    """Both ways, also where the client reads slowly and takes new keys meanwhile."""
    assert left.handshake.protocol == ""
    left.write(b"a" * 10_000)
    assert await received(left) == b"a" * 10_000
    sent, records = 0, [bytes((number,)) * 16_384 for number in range(100)]
    while left.handshake.send(records[sent]):
        sent += 1
    assert sent < 100
    got = b""
    async with asyncio.timeout(PATIENCE):
        while len(got) < 16_384 * len(records):
            got += left.read()
            if sent < len(records) and left.handshake.send(records[sent]):
                sent += 1
                if sent % 10 == 0:
                    left.ask()
                    left.write(b"still there")
                    assert await received(left) == b"still there"
            await asyncio.sleep(0)
    assert got == b"".join(records)
    for wrong in (b"", bytes(16_385)):
        with pytest.raises(ValueError, match="16384"):
            left.handshake.send(wrong)


async def test_who_asks_for_keys_and_reads_none_is_cut_off_here_too(left: KeyUpdater) -> None:
    def ask_on() -> None:
        for _ in range(100_000):
            left.ask()
            left.handshake.receive(16_384)

    with pytest.raises(ConnectionError):
        ask_on()


async def test_a_slow_client_blocks_nobody_and_its_goodbye_waits_for_nothing(
    make_world: WorldFactory, connect: Connect
) -> None:
    world = make_world(replace(SETTINGS, stream_buffer=16_384))
    client, peer = connect(world, room=4_096), world.endpoint()
    world.pump.bind_channel(client.number, 0x4000, peer.address, now(60))
    while not world.pump.totals().drops[Drop.SLOW_CLIENT]:
        for _ in range(5):
            peer.send(bytes(1000), client.relayed)
        await world.settled()
    world.pump.hang_up(client.five_tuple)
    rest = await client.rest()
    whole = end_of(client).open(rest)
    assert whole
    assert set(whole) == {padded(0x4000, bytes(1000))}


async def test_over_two_lanes(make_world: WorldFactory, connect: Connect) -> None:
    """What one lane takes out of its records another puts into its own."""
    world = make_world(replace(SETTINGS, threads=2))
    clients = [connect(world) for _ in range(8)]
    for client in clients:
        for number, other in enumerate(clients):
            if other is not client:
                world.pump.bind_channel(client.number, 0x4000 + number, other.relayed, now(60))
    for mine, client in enumerate(clients):
        for number, other in enumerate(clients):
            if other is not client:
                await client.send(padded(0x4000 + number, bytes([mine, number]) * 50))
                assert await other.read() == padded(0x4000 + mine, bytes([mine, number]) * 50)


async def test_nothing_is_left_of_connections(make_world: WorldFactory, connect: Connect) -> None:
    world = make_world()
    gc.collect()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        clients = [connect(world, session=False) for _ in range(20)]
        for number, client in enumerate(clients):
            if number % 2:
                client.socket.close()
            else:
                world.pump.hang_up(client.five_tuple)
        for client in clients[::2]:
            assert await client.is_closed()
            client.socket.close()
        clients.clear()
    await world.until(lambda: len(world.notes.closed) == 30)
    await world.until(lambda: len(os.listdir("/proc/self/fd")) <= before)


async def test_a_handshake_is_used_once_and_with_its_own_socket(make_world: WorldFactory, server: TlsContext) -> None:
    world = make_world()
    five_tuple = FiveTuple(Transport.TLS, Address("127.0.0.1", 1), Address("127.0.0.1", 2))
    one, other = socket.socketpair()
    with one, other:
        handshake = server.handshake(one.fileno())
        with pytest.raises(ValueError, match="not over"):
            world.pump.adopt(one.fileno(), five_tuple, b"", handshake)
        one.setblocking(False)
        other.setblocking(False)
        TlsEnd(client_context()).shake_hands(other, handshake)
        with pytest.raises(ValueError, match="another connection"):
            world.pump.adopt(other.fileno(), five_tuple, b"", handshake)


async def test_a_handshake_that_fails_says_why(server: TlsContext) -> None:
    for spoken, why in (
        (b"\x16\x03\x01\x00\x04\x01\x00\x00\x00", "length"),
        (b"GET / HTTP/1.1\r\n\r\n", "http request"),
        (b"", "closed"),
    ):
        one, other = socket.socketpair()
        with one, other:
            one.setblocking(False)
            handshake = server.handshake(one.fileno())
            other.sendall(spoken)
            other.shutdown(socket.SHUT_WR)
            with pytest.raises(ConnectionError, match=why):
                handshake.step()


def test_files_that_will_not_do(tmp_path: Path, certificate: TlsFiles) -> None:
    """Nobody is asked for a pass phrase, and no reason has anything of a key in it."""
    key = ec.generate_private_key(ec.SECP256R1())
    encrypted = tmp_path / "encrypted.pem"
    encrypted.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    another = tmp_path / "another.pem"
    another.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    missing = tmp_path / "missing.pem"
    for chain, secret in (
        (certificate.certificate, encrypted),
        (certificate.certificate, another),
        (certificate.certificate, missing),
        (certificate.key, certificate.key),
        (missing, certificate.key),
    ):
        with pytest.raises(ValueError, match=r"^[A-Za-z ()]+$"):
            server_context(chain, secret)


def test_where_openssl_cannot_be_used_it_says_why(monkeypatch: pytest.MonkeyPatch, certificate: TlsFiles) -> None:
    assert tls_room.describe().startswith("in the pump (OpenSSL 3")
    assert find_libssl(None, ssl.OPENSSL_VERSION_NUMBER) == ""  # it was found before
    monkeypatch.setattr(tls_room, "missing", lambda: "OpenSSL is older than 3.0")
    assert tls_room.describe() == "in asyncio (OpenSSL is older than 3.0)"
    like = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    assert tls_room.make_context(like, certificate.certificate, certificate.key, ()) is None
