"""TURN clients for load: the requests of one five-tuple in order, as a machine that takes answers and gives requests.

Requests are put together from bytes made once, so that thousands of clients a second cost the generator little.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field

from turnsvr.client.credentials import Login, Security, challenged
from turnsvr.stun.address import Address, pack_xor_address
from turnsvr.stun.attributes import (
    CHANNEL_NUMBER,
    DATA,
    ERROR_CODE,
    LIFETIME,
    NONCE,
    REALM,
    REQUESTED_TRANSPORT,
    USERNAME,
    XOR_PEER_ADDRESS,
    XOR_RELAYED_ADDRESS,
)
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.framing import CHANNEL_FIRST
from turnsvr.stun.integrity import append_sha1
from turnsvr.stun.message import COOKIE_BYTES, HEADER_SIZE, Class, Message, Method

SETUP = (Method.ALLOCATE, Method.CREATE_PERMISSION, Method.CHANNEL_BIND)
CYCLE = (*SETUP, Method.REFRESH)
"""An allocation from its first request to its end."""

_UDP = bytes((17, 0, 0, 0))
_MAX_CHALLENGES = 3
_ALLOW = "peers.allow (in coturn allowed-peer-ip)"


class LoadError(Exception):
    """The server does not do what the load needs; the text says what it answered."""


class PortTaken(LoadError):
    """437: the server still holds an allocation of an earlier client at this address and port."""


@dataclass(slots=True)
class TurnSession:
    """One client's requests: request() is what to send, until answer() says that the steps are done."""

    login: Login
    peer: Address
    steps: Sequence[Method] = SETUP
    relayed: Address | None = None
    done: bool = False
    _at: int = 0
    _challenges: int = 0
    _credentials: bytes = b""
    _key: bytes = b""
    _transaction: bytes = b""
    _request: bytes = field(default=b"", repr=False)

    @property
    def channel(self) -> int:
        return CHANNEL_FIRST

    def request(self) -> bytes:
        """The request that waits for an answer; the same bytes until it came."""
        if not self._request:
            self._request = self._encode(self.steps[self._at])
        return self._request

    def answer(self, frame: bytes) -> bool:
        """Take what arrived; True when it answered the request that waits. Raises LoadError for a refusal."""
        if len(frame) < HEADER_SIZE or frame[8:HEADER_SIZE] != self._transaction or not self._request:
            return False
        success = frame[0] & 0x01 and not frame[1] & 0x10
        try:
            if not success:
                self._refused(Message.parse(frame))
            elif self.steps[self._at] is Method.ALLOCATE:
                self.relayed = Message.parse(frame).get(XOR_RELAYED_ADDRESS)
        except MalformedMessage as error:
            raise LoadError(f"the server answers with {error}") from None
        self._request = b""
        if success:
            self._at += 1
            self.done = self._at == len(self.steps)
        return True

    def finish(self) -> bytes:
        """A request that ends the allocation; its answer is not waited for."""
        return self._encode(Method.REFRESH)

    def data_prefix(self, size: int, *, indication: bool) -> bytes:
        """What goes before a payload of this size: a ChannelData header, or a Send indication up to its data."""
        if not indication:
            return self.channel.to_bytes(2, "big") + size.to_bytes(2, "big")
        transaction = secrets.token_bytes(12)
        mask = COOKIE_BYTES + transaction
        body = _attribute(XOR_PEER_ADDRESS.number, pack_xor_address(self.peer, mask))
        body += DATA.number.to_bytes(2, "big") + size.to_bytes(2, "big")
        length = len(body) + size + -size % 4
        return b"\x00\x16" + length.to_bytes(2, "big") + mask + body

    def _encode(self, method: Method) -> bytes:
        self._transaction = secrets.token_bytes(12)
        mask = COOKIE_BYTES + self._transaction
        body = self._body(method, mask) + self._credentials
        message = int(method | Class.REQUEST).to_bytes(2, "big") + len(body).to_bytes(2, "big") + mask + body
        return append_sha1(self._key, message) if self._key else message

    def _body(self, method: Method, mask: bytes) -> bytes:
        match method:
            case Method.ALLOCATE:
                return _attribute(REQUESTED_TRANSPORT.number, _UDP)
            case Method.REFRESH:
                return _attribute(LIFETIME.number, bytes(4))
            case Method.CHANNEL_BIND:
                channel = _attribute(CHANNEL_NUMBER.number, self.channel.to_bytes(2, "big") + bytes(2))
                return channel + _attribute(XOR_PEER_ADDRESS.number, pack_xor_address(self.peer, mask))
            case _:
                return _attribute(XOR_PEER_ADDRESS.number, pack_xor_address(self.peer, mask))

    def _refused(self, response: Message) -> None:
        error = response.get(ERROR_CODE)
        code = error.code if error else 0
        self._challenges += 1
        asked = code == ErrorCode.STALE_NONCE or (code == ErrorCode.UNAUTHENTICATED and not self._key)
        if not asked or self._challenges > _MAX_CHALLENGES:
            text = f"{code} {error.reason}" if error else "an error without a code"
            if code == ErrorCode.FORBIDDEN and self.steps[self._at] is not Method.ALLOCATE:
                text += f": the server refuses {self.peer.host}, this machine, as a peer; allow it with {_ALLOW}"
            kind = PortTaken if code == ErrorCode.ALLOCATION_MISMATCH else LoadError
            raise kind(f"{self.steps[self._at].name} was refused: {text}")
        session = challenged(self.login, response)
        self._key = session.key
        self._credentials = (
            _attribute(USERNAME.number, self.login.username.encode())
            + _attribute(REALM.number, session.realm.encode())
            + _attribute(NONCE.number, session.nonce)
        )


def classic_login(username: str, password: str) -> Login:
    """Credentials as every server takes them: MD5 key and MESSAGE-INTEGRITY."""
    return Login(username, password, security=Security.CLASSIC)


def _attribute(number: int, value: bytes) -> bytes:
    return number.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value + bytes(-len(value) % 4)
