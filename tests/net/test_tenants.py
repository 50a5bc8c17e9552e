"""A connection from the address and port of one that has just ended: neither has anything of the other's."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import struct
from collections.abc import Callable, Iterator
from typing import Self

import pytest

from tests.conftest import PATIENCE, Serve, address_of, free_port
from tests.net.test_handshakes import hello
from tests.net.test_streams import insecure, until
from tests.net.test_streams import serve as serve  # noqa: PLC0414 - with each pump
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.framing import StreamSplitter
from turnsvr.stun.integrity import long_term_key
from turnsvr.stun.message import Class, Message, Method

USERS = {"alice": "wonderland", "bob": "builder"}
TRIES = 60


class Caller:
    """A client in a thread, whose port is given and whose connection it may end without a word."""

    def __init__(self, server: Address, port: int, user: str, tls: ssl.SSLContext | None = None) -> None:
        self._user = user
        family = socket.AF_INET6 if ":" in server.host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(PATIENCE)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind((server.host, port))
        self.socket.connect(tuple(server))
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket)
        self._splitter = StreamSplitter()
        self._frames: list[bytes] = []
        self._nonce = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def reset(self) -> None:
        """End with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if isinstance(self.socket, ssl.SSLSocket):
            socket.socket(fileno=self.socket.detach()).close()
        else:
            self.socket.close()

    def read(self) -> bytes:
        """The next frame."""
        while not self._frames:
            data = self.socket.recv(65_536)
            assert data, "the server has closed the connection"
            self._frames += self._splitter.feed(data)
        return self._frames.pop(0)

    def signed(self, method: int, add: Callable[[Message], object]) -> bytes:
        """A request with credentials; its nonce is that of the last challenge."""
        message = Message(method, Class.REQUEST, secrets.token_bytes(12))
        add(message)
        message.add(a.USERNAME, self._user).add(a.REALM, "example.org").add(a.NONCE, self._nonce)
        return message.encode(key=long_term_key(self._user, "example.org", USERS[self._user]))

    def ask(self, method: int, add: Callable[[Message], object]) -> Message:
        """The next frame after a request, which is to be its answer."""
        data = self.signed(method, add)
        self.socket.sendall(data)
        answer = Message.parse(self.read())
        assert answer.transaction_id == data[8:20], answer
        return answer

    def challenged(self) -> None:
        """Get a nonce."""
        plain = Message(Method.ALLOCATE, Class.REQUEST, secrets.token_bytes(12))
        self.socket.sendall(plain.add(a.REQUESTED_TRANSPORT, 17).encode())
        answer = Message.parse(self.read())
        nonce = answer.get(a.NONCE)
        assert answer.transaction_id == plain.transaction_id, answer
        assert nonce is not None
        self._nonce = nonce

    def allocate(self) -> Address:
        """The relayed address."""
        self.challenged()
        answer = self.ask(Method.ALLOCATE, lambda message: message.add(a.REQUESTED_TRANSPORT, 17))
        assert answer.message_class is Class.SUCCESS, answer.get(a.ERROR_CODE)
        relayed = answer.get(a.XOR_RELAYED_ADDRESS)
        assert relayed is not None
        return relayed

    def permit(self, peer: Address) -> None:
        answer = self.ask(Method.CREATE_PERMISSION, lambda message: message.add(a.XOR_PEER_ADDRESS, peer))
        assert answer.message_class is Class.SUCCESS


@pytest.fixture
def peer() -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        yield peer


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_what_was_for_the_one_before_never_comes(serve: Serve, peer: socket.socket, tls: bool) -> None:
    application = await serve(credentials={"users": USERS})
    server, context = address_of(application, "tcp"), insecure() if tls else None

    def take_turns() -> None:
        port = free_port()
        for number in range(TRIES):
            before = Caller(server, port, "alice", context)
            to_alice = before.allocate()
            before.permit(Address(*peer.getsockname()))
            peer.sendto(b"for alice", to_alice)
            before.reset()
            with Caller(server, port, "bob", context) as after:
                for _ in range(3):
                    peer.sendto(b"for alice", to_alice)
                to_bob = after.allocate()
                after.permit(Address(*peer.getsockname()))
                if to_bob != to_alice:
                    peer.sendto(b"for alice", to_alice)
                peer.sendto(b"for bob %d" % number, to_bob)
                assert Message.parse(after.read()).get(a.DATA) == b"for bob %d" % number
                after.reset()

    await asyncio.to_thread(take_turns)
    await until(lambda: application.connections == 0 and len(application.server) == 0)
    async with asyncio.timeout(5):
        await application.stop()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_whatever_the_one_before_was_about(serve: Serve, host: str) -> None:
    """Nothing said, half a message, half a handshake or all of its first flight: its place is the next one's."""
    listener = f"tcp://[{host}]:0" if ":" in host else f"tcp://{host}:0"
    application = await serve(
        listen=[listener],
        credentials={"users": USERS},
        limits={"connections_per_address": 1},
    )
    server = address_of(application, "tcp")

    def take_turns() -> None:
        port = free_port()
        for said in (b"", b"\x00\x01", b"\x16\x03", hello(), b"GET / HTTP/1.1\r\n\r\n"):
            before = Caller(server, port, "alice")
            before.socket.sendall(said)
            before.reset()
            with Caller(server, port, "bob") as after:
                after.allocate()
                after.reset()

    await asyncio.to_thread(take_turns)
    await until(lambda: application.connections == 0 and len(application.server) == 0)
