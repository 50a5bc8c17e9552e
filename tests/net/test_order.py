"""One client's bytes in the order in which they came: what follows a request waits for its answer."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable

import pytest

from tests.conftest import PASSWORD, PATIENCE, USER, Serve
from turnsvr import relay
from turnsvr.app.application import Application
from turnsvr.client.credentials import Login, challenged
from turnsvr.client.link import ClientLink, DatagramLink, StreamLink, new_request, tls_context
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import AllocateOptions, TurnClient
from turnsvr.credentials.api import Caller, Credential, Refusal, Source
from turnsvr.relay.compiled import tls as pump_tls
from turnsvr.relay.counts import Drop
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.framing import pack_channel_data
from turnsvr.stun.message import Class, Message, Method

CHANNEL = 0x4001
ROUNDS = 30


@pytest.fixture(params=["portable", "compiled", "compiled, but for TLS"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    if kind.startswith("compiled") and relay.describe().startswith("portable"):
        if os.environ.get("TURNSVR_REQUIRE_PUMP") == "1":
            pytest.fail(relay.describe())
        pytest.skip(relay.describe())
    return kind


@pytest.fixture(params=["udp", "tcp", "tls", "udp IPv6", "tcp IPv6"])
def transport(request: pytest.FixtureRequest, kind: str, monkeypatch: pytest.MonkeyPatch) -> str:
    transport: str = request.param
    if kind.endswith("TLS"):
        if transport != "tls":
            pytest.skip("as without TLS")
        monkeypatch.setattr(pump_tls, "missing", lambda: "OpenSSL is out of reach")
    return transport


@pytest.fixture
async def served(serve: Serve, kind: str) -> Application:
    return await start(serve, kind)


async def start(serve: Serve, kind: str) -> Application:
    listen = [f"{transport}://{host}:0" for transport in ("udp", "tcp", "tls") for host in ("127.0.0.1", "[::1]")]
    return await serve(
        pump={"kind": kind.partition(",")[0]},
        listen=listen,
        relay={"addresses": ["127.0.0.1"]},
        limits={"allocations_per_user": 100},
    )


class Slow:
    """A source of credentials that answers when told to."""

    anonymity = False
    md5_alone = False

    def __init__(self, application: Application) -> None:
        self._known: Source = application.rooms.engine.lookups.source
        self.answers = asyncio.Event()
        application.rooms.engine.lookups.source = self

    async def find(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...]:
        await self.answers.wait()
        return await self._known.find(username, realm, wall_time, caller)

    def find_now(self, username: str, realm: str, wall_time: float, caller: Caller) -> tuple[Credential, ...] | None:
        return None

    def by_userhash(self, userhash: bytes, realm: str) -> str | None:
        return None

    def refusal(self, username: str, wall_time: float) -> Refusal:
        return Refusal.UNKNOWN


class Peer:
    """Takes down what is relayed to it."""

    def __init__(self) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind(("127.0.0.1", 0))
        self.address = Address(*self.socket.getsockname())

    async def receive(self, count: int) -> list[bytes]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE):
            return [await loop.sock_recv(self.socket, 65_536) for _ in range(count)]

    def nothing(self) -> bool:
        try:
            self.socket.recv(65_536)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    peer = Peer()
    yield peer
    peer.socket.close()


class Client(TurnClient):
    """One that can send several things at once, without waiting for an answer."""

    def __init__(self, link: ClientLink) -> None:
        super().__init__(link, Login(USER, PASSWORD))

    @classmethod
    async def open(cls, application: Application, transport: str) -> Client:
        name, _, family = transport.partition(" ")
        host = "::1" if family else "127.0.0.1"
        server = next(
            Address(each.host, each.port)
            for each in application.listening
            if each.transport == name and each.host == host
        )
        if name == "udp":
            return cls(await DatagramLink.open(server))
        return cls(await StreamLink.open(server, tls=tls_context(insecure=True) if name == "tls" else None))

    async def challenge(self) -> None:
        """Learn realm and nonce."""
        with pytest.raises(TransactionFailed) as failure:
            await self.link.request(new_request(Method.ALLOCATE))
        assert self.login is not None
        self.session = challenged(self.login, failure.value.response.message)

    def signed(self, method: Method, fill: Callable[[Message], object] = lambda message: None) -> bytes:
        request = new_request(method)
        fill(request)
        assert self.session is not None
        return self.session.sign(request)

    def bind(self, peer: Address, channel: int = CHANNEL) -> bytes:
        return self.signed(
            Method.CHANNEL_BIND, lambda it: it.add(a.CHANNEL_NUMBER, channel).add(a.XOR_PEER_ADDRESS, peer)
        )

    def permission(self, peer: Address) -> bytes:
        return self.signed(Method.CREATE_PERMISSION, lambda it: it.add(a.XOR_PEER_ADDRESS, peer))

    def allocation(self) -> bytes:
        return self.signed(Method.ALLOCATE, AllocateOptions().add_to)

    def data(self, data: bytes, channel: int = CHANNEL) -> bytes:
        return pack_channel_data(channel, data, padded=self.link.transport.is_stream)

    def at_once(self, *frames: bytes) -> None:
        """In one write, or in as many datagrams."""
        if self.link.transport.is_stream:
            self.link.send(b"".join(frames))
        else:
            for frame in frames:
                self.link.send(frame)


def indication(peer: Address, data: bytes) -> bytes:
    return Message(Method.SEND, Class.INDICATION, bytes(12)).add(a.XOR_PEER_ADDRESS, peer).add(a.DATA, data).encode()


@pytest.fixture
async def client(served: Application, transport: str) -> AsyncIterator[Client]:
    client = await Client.open(served, transport)
    yield client
    await client.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


def numbered(count: int) -> list[bytes]:
    return [b"%04d" % number for number in range(count)]


async def test_a_channel_carries_what_comes_right_behind_its_request(client: Client, peer: Peer) -> None:
    await client.allocate()
    others = [Peer() for _ in range(ROUNDS)]
    for number, other in enumerate(others):
        # A peer that has a channel may not have another: each round has one of its own, at a port of its own.
        channel, data = CHANNEL + number, numbered(5)
        client.at_once(client.bind(other.address, channel), *(client.data(each, channel) for each in data))
        assert await other.receive(len(data)) == data
    for other in others:
        other.socket.close()


async def test_a_permission_holds_for_what_comes_right_behind_its_request(client: Client, peer: Peer) -> None:
    await client.allocate()
    data = numbered(20)
    client.at_once(client.permission(peer.address), *(indication(peer.address, each) for each in data))
    assert await peer.receive(len(data)) == data


@pytest.mark.parametrize("slow", [False, True], ids=["at once", "looked up"])
async def test_everything_in_one_write(served: Application, client: Client, peer: Peer, slow: bool) -> None:
    await client.challenge()
    source = Slow(served) if slow else None
    data = numbered(5)
    client.at_once(
        client.allocation(),
        client.permission(peer.address),
        indication(peer.address, b"first"),
        client.bind(peer.address),
        *map(client.data, data),
    )
    if source is not None:
        await asyncio.sleep(0.05)
        assert peer.nothing()
        source.answers.set()
    assert await peer.receive(1 + len(data)) == [b"first", *data]


async def test_what_is_refused_permits_nothing(served: Application, client: Client, peer: Peer) -> None:
    await client.allocate()
    refused = Address("10.1.2.3", 5000)
    client.at_once(client.bind(refused), client.data(b"abc"), client.data(b"def"))
    client.at_once(client.bind(peer.address, CHANNEL + 1), client.data(b"permitted", CHANNEL + 1))
    assert await peer.receive(1) == [b"permitted"]
    assert served.pump.totals().drops[Drop.NO_CHANNEL] == 2


async def test_what_follows_a_request_that_fails_is_judged_by_itself(
    served: Application, client: Client, peer: Peer
) -> None:
    """Its look-up takes too long, and it gets 500; the next ones work."""
    await client.challenge()
    source = Slow(served)
    served.rooms.engine.lookups._timeout = 0.1
    client.at_once(client.allocation(), client.data(b"too early"))
    await until(lambda: served.rooms.engine.lookups.failures > 0)
    source.answers.set()
    client.at_once(client.allocation(), client.bind(peer.address), client.data(b"abc"))
    assert await peer.receive(1) == [b"abc"]
    assert served.pump.totals().drops[Drop.NO_SESSION] == 1


@pytest.mark.parametrize("transport", ["tcp", "tls"], indirect=True)
@pytest.mark.parametrize("slow", [False, True], ids=["at once", "looked up"])
async def test_all_that_came_before_the_end_is_judged_in_order(
    served: Application, client: Client, peer: Peer, slow: bool
) -> None:
    """The client says goodbye right behind it, and nobody waits for the answers."""
    await client.allocate()
    source = Slow(served) if slow else None
    frames, data = [client.bind(peer.address), client.data(b"first")], numbered(20)
    for number, each in enumerate(data, 1):
        frames += [client.bind(Address("127.0.0.1", number), CHANNEL + number), client.data(each)]
    client.at_once(*frames)
    await client.link.close()
    if source is not None:
        await asyncio.sleep(0.05)
        source.answers.set()
    assert await peer.receive(1 + len(data)) == [b"first", *data]
    await until(lambda: not (served.connections or served.rooms.engine._kept))
    assert not served.pump.totals().waiting


async def test_whoever_vanishes_leaves_nothing_behind(served: Application, transport: str, peer: Peer) -> None:
    client = await Client.open(served, transport)
    await client.challenge()
    source = Slow(served)
    client.at_once(client.allocation(), client.bind(peer.address), *map(client.data, numbered(5)))
    await asyncio.sleep(0.05)
    if isinstance(client.link, StreamLink):
        client.link.abort()
    else:
        await client.close()
    await asyncio.sleep(0.05)
    source.answers.set()
    await until(
        lambda: not (served.pump.totals().waiting or served.rooms.engine.lookups.under_way or served.rooms.engine._kept)
    )
    other = await Client.open(served, transport)
    await other.challenge()
    other.at_once(other.allocation(), other.bind(peer.address), other.data(b"another's"))
    # What came before the end may be relayed or not, whoever came afterwards is.
    while await peer.receive(1) != [b"another's"]:
        pass
    await other.close()


@pytest.mark.parametrize("transport", ["udp", "udp IPv6"], indirect=True)
async def test_a_retransmission_is_answered_once(served: Application, client: Client, peer: Peer) -> None:
    await client.challenge()
    source = Slow(served)
    before = served.pump.totals().sent_up
    request, answers = client.allocation(), list[bytes]()
    client.link.handler = lambda frame, source: answers.append(frame)
    for _ in range(50):
        client.at_once(request)
    client.at_once(client.bind(peer.address), client.data(b"abc"))
    await until(lambda: served.pump.totals().sent_up >= before + 51)
    source.answers.set()
    assert await peer.receive(1) == [b"abc"]
    await asyncio.sleep(0.02)
    assert [Message.parse(answer).transaction_id for answer in answers].count(request[8:20]) == 1


@pytest.mark.parametrize("transport", ["udp", "udp IPv6"], indirect=True)
async def test_a_few_datagrams_wait_and_more_are_dropped(served: Application, client: Client, peer: Peer) -> None:
    await client.challenge()
    source = Slow(served)
    client.at_once(client.allocation(), client.bind(peer.address))
    data = numbered(100)
    client.at_once(*map(client.data, data))
    await until(lambda: served.pump.totals().drops[Drop.NO_SESSION] == 68)
    source.answers.set()
    assert await peer.receive(32) == data[:32]
    client.at_once(client.data(b"afterwards"))
    assert await peer.receive(1) == [b"afterwards"]


async def test_nobody_else_waits(served: Application, client: Client, transport: str, peer: Peer) -> None:
    other = await Client.open(served, transport)
    await other.allocate()
    await other.bind_channel(peer.address, CHANNEL)
    await client.challenge()
    Slow(served)
    client.at_once(client.allocation(), client.data(b"never"))
    for data in numbered(5):
        other.at_once(other.data(data))
        assert await peer.receive(1) == [data]
    await other.close()
