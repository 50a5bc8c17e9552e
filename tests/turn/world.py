"""The rules with a world around them in memory: a virtual clock, seeded randomness, clients, and a model data plane."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from enum import Enum
from itertools import count
from random import Random
from typing import Any, TypeAlias, assert_never

from tests.credentials.callers import CALLER
from tests.turn.plane import Plane
from turnsvr.credentials.api import Credential, Source
from turnsvr.credentials.static import StaticUsers
from turnsvr.limits import AnswerLimiter
from turnsvr.plane import ConnectPeer, OpenRelay
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.framing import pack_channel_data
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256, userhash
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.authentication import ALGORITHMS, MD5, SHA256
from turnsvr.turn.commands import (
    AllocationEnded,
    AllocationMoved,
    AllocationRefreshed,
    AllocationStarted,
    AuthenticationFailed,
    BindChannel,
    CloseRelay,
    Command,
    DisconnectPeer,
    Event,
    ExpectClient,
    ExtendRelay,
    FindCredential,
    JoinPeer,
    MoveRelay,
    PeerRefused,
    Permit,
    ReleaseReservation,
    RequestRefused,
    Send,
    SendToPeer,
)
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.server import Server

REALM = "example.org"
USERS = {"alice": "wonderland", "bob": "builder"}
SERVER = Address("192.0.2.1", 3478)
PEER = Address("8.8.4.4", 4000)
OTHER_PEER = Address("1.1.1.1", 5000)
PEER_V6 = Address("2606:4700::1111", 6000)

Pair: TypeAlias = tuple[a.Attribute[Any], Any]
UDP_RELAY: Pair = (a.REQUESTED_TRANSPORT, 17)
TCP_RELAY: Pair = (a.REQUESTED_TRANSPORT, 6)


class Style(Enum):
    """How a client proves who it is: integrity attribute and password algorithm."""

    PLAIN = "MESSAGE-INTEGRITY, no PASSWORD-ALGORITHM"
    MD5 = "MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM MD5"
    SHA256 = "MESSAGE-INTEGRITY-SHA256, PASSWORD-ALGORITHM SHA-256"


class World:
    """A server whose commands are carried out. With hold_credentials or hold_relays the answers wait for a call."""

    def __init__(
        self,
        config: ServerConfig | None = None,
        *,
        source: Source | None = None,
        limiter: AnswerLimiter | None = None,
        seed: int = 1,
    ) -> None:
        config = config or ServerConfig(RealmConfig(REALM))
        self.now = 1000.0
        self.wall_time = 1_800_000_000.0
        self.random = Random(seed)
        self.source: Source = source or StaticUsers(USERS)
        limiter = AnswerLimiter(0) if limiter is None else limiter
        self.server = Server(config, random=self.random.randbytes, limiter=limiter)
        self.plane = Plane()
        self.mail: defaultdict[FiveTuple, list[bytes]] = defaultdict(list)
        self.events: list[Event] = []
        self.commands: list[Command] = []
        """Every command since the last clear()."""
        self.hold_credentials = False
        self.hold_relays = False
        self.lookups: list[FindCredential] = []
        self.opens: list[OpenRelay] = []
        self._ports = count(10_000)

    def client(self, username: str = "alice", password: str | None = None, **how: Any) -> Client:
        """A client at an address of its own; `how` as Client takes it."""
        password = USERS.get(username, "") if password is None else password
        how.setdefault("address", Address("198.51.100.7", next(self._ports)))
        return Client(self, username, password, **how)

    def receive(self, data: bytes, five_tuple: FiveTuple) -> None:
        self.server.receive(data, five_tuple, self.now)
        self.carry_out()

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with every timeout called at its moment."""
        target = self.now + seconds
        while (when := self.server.next_timeout()) is not None and when <= target:
            self.now = max(self.now, when)
            self.server.handle_timeout(self.now)
            self.carry_out()
        self.now = target

    def clear(self) -> None:
        self.commands.clear()
        self.events.clear()
        self.plane.relayed.clear()

    def of(self, kind: type[Any]) -> list[Any]:
        """Commands of one kind since the last clear()."""
        return [command for command in self.commands if isinstance(command, kind)]

    def carry_out(self) -> None:
        while commands := self.server.commands():
            for command in commands:
                self.commands.append(command)
                self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case Send():
                self.mail[command.five_tuple].append(command.data)
            case FindCredential():
                self.lookups.append(command)
                if not self.hold_credentials:
                    self.answer_lookup(command)
            case OpenRelay():
                self.opens.append(command)
                if not self.hold_relays:
                    self.answer_open(command)
            case CloseRelay():
                self.plane.close(command.allocation, command.family)
            case ExtendRelay():
                self.plane.extend(command)
            case Permit():
                self.plane.permit(command)
            case BindChannel():
                self.plane.bind(command)
            case SendToPeer():
                self.plane.send_to_peer(command, self.now)
            case ExpectClient():
                self.plane.expect(command)
            case MoveRelay():
                self.plane.move(command)
            case ConnectPeer():
                self.plane.connect(command)
            case JoinPeer():
                self.plane.join(command)
            case DisconnectPeer():
                self.plane.disconnect(command)
            case ReleaseReservation():
                self.plane.release(command.token)
            case (
                AllocationStarted()
                | AllocationRefreshed()
                | AllocationMoved()
                | AllocationEnded()
                | AuthenticationFailed()
                | PeerRefused()
                | RequestRefused()
            ):
                self.events.append(command)
            case _:
                assert_never(command)

    # Answers, at once or late

    def keys(self, command: FindCredential) -> tuple[Credential, ...]:
        username = command.username
        if username is None and command.userhash is not None:
            username = self.source.by_userhash(command.userhash, command.realm)
        caller = replace(CALLER, token=command.token)
        return self.source.find_now(username or "", command.realm, self.wall_time, caller) or ()

    def answer_lookup(self, command: FindCredential) -> None:
        self.lookups.remove(command)
        keys = self.keys(command)
        refusal = "" if keys else self.source.refusal(command.username or "", self.wall_time).value
        self.server.credential(command.request, keys, self.now, refusal=refusal)

    def fail_lookup(self, command: FindCredential) -> None:
        self.lookups.remove(command)
        self.server.credential_failed(command.request, self.now)

    def answer_open(self, command: OpenRelay) -> None:
        self.opens.remove(command)
        addresses, failures = self.plane.open(command)
        if addresses:
            self.server.relay_opened(command.allocation, addresses, failures, self.now)
        else:
            code = next(iter(failures.values()), ErrorCode.INSUFFICIENT_CAPACITY)
            self.server.relay_failed(command.allocation, code, self.now)

    def connected(self, connection: int) -> None:
        """A connection to a peer is there."""
        self.plane.connected(connection)
        self.server.peer_connected(connection, self.now)
        self.carry_out()

    def connect_fails(self, connection: int, *, forbidden: bool = False) -> None:
        self.plane.connections.pop(connection)
        self.server.peer_failed(connection, self.now, forbidden=forbidden)
        self.carry_out()

    def arrive(self, allocation: int, peer: Address, *, inside: bool = False) -> int | None:
        """A peer connects to a relayed transport address; the number of its connection."""
        number = self.server.peer_arrived(allocation, peer, inside, self.now)
        if number is not None:
            self.plane.arrived(number, allocation)
        self.carry_out()
        return number

    def fail_open(self, command: OpenRelay) -> None:
        self.opens.remove(command)
        self.server.relay_failed(command.allocation, ErrorCode.INSUFFICIENT_CAPACITY, self.now)

    def answer_all(self) -> None:
        """Every answer that was held back, the oldest first."""
        while self.lookups or self.opens:
            if self.lookups:
                self.answer_lookup(self.lookups[0])
            else:
                self.answer_open(self.opens[0])
            self.carry_out()


class Client:
    """A TURN client. Each request gives its answer, or None where there is none."""

    def __init__(
        self,
        world: World,
        username: str,
        password: str,
        *,
        address: Address,
        server: Address = SERVER,
        transport: Transport = Transport.UDP,
        style: Style = Style.PLAIN,
        hashed: bool = False,
        realm: str = REALM,
    ) -> None:
        self.world = world
        self.username = username
        self.password = password
        self.style = style
        self.hashed = hashed
        self.realm = realm
        self.five_tuple = FiveTuple(transport, address, server)
        self.nonce: bytes | None = None
        self.algorithms: tuple[a.PasswordAlgorithm, ...] = ALGORITHMS
        """As the last challenge offered them."""

    @property
    def key(self) -> bytes:
        make = long_term_key_sha256 if self.style is Style.SHA256 else long_term_key
        return make(self.username, self.realm, self.password)

    def message(self, method: int, *pairs: Pair, message_class: Class = Class.REQUEST) -> Message:
        message = Message(method, message_class, self.world.random.randbytes(12))
        for attribute, value in pairs:
            message.add(attribute, value)
        return message

    def sign(self, message: Message, **keys: Any) -> bytes:
        """The bytes of a request with credentials, as the style says; `keys` go to Message.encode instead."""
        if self.hashed:
            message.add(a.USERHASH, userhash(self.username, self.realm))
        else:
            message.add(a.USERNAME, self.username)
        message.add(a.REALM, self.realm).add(a.NONCE, self.nonce or self.challenge())
        if self.style is not Style.PLAIN:
            message.add(a.PASSWORD_ALGORITHMS, self.algorithms)
            chosen = SHA256 if self.style is Style.SHA256 else MD5
            message.add(a.PASSWORD_ALGORITHM, a.PasswordAlgorithm(chosen))
        if not keys:
            keys = {"key" if self.style is Style.PLAIN else "sha256_key": self.key}
        return message.encode(**keys)

    def challenge(self) -> bytes:
        """A fresh nonce, from a 401; it is kept for what follows."""
        answer = self.transact(self.message(Method.REFRESH).encode())
        assert answer is not None
        return self._take(answer)

    def _take(self, challenge: Message) -> bytes:
        """Go by what a 401 or 438 offers; its nonce."""
        nonce = challenge.get(a.NONCE)
        assert nonce is not None
        self.nonce = nonce
        self.algorithms = challenge.get(a.PASSWORD_ALGORITHMS) or ALGORITHMS
        return nonce

    def transact(self, data: bytes) -> Message | None:
        """Deliver bytes; the one answer to them, whose integrity is checked when it has one."""
        answers = self.deliver(data)
        assert len(answers) <= 1
        return self.check(answers[0]) if answers else None

    def deliver(self, data: bytes) -> list[bytes]:
        """Deliver bytes; what is waiting for this client then."""
        self.world.receive(data, self.five_tuple)
        return self.mailbox()

    def mailbox(self) -> list[bytes]:
        return self.world.mail.pop(self.five_tuple, [])

    def check(self, data: bytes) -> Message:
        answer = Message.parse(data, classic=True)
        if a.MESSAGE_INTEGRITY in answer:
            assert self.style is Style.PLAIN
            assert answer.integrity_ok(self.key)
        if a.MESSAGE_INTEGRITY_SHA256 in answer:
            assert answer.integrity_sha256_ok(self.key)
        return answer

    def request(self, method: int, *pairs: Pair) -> Message:
        """An authenticated request that is answered, by a signed answer; a stale nonce is replaced."""
        answer = self.transact(self.sign(self.message(method, *pairs)))
        assert answer is not None
        if code(answer) == 438:
            self._take(answer)
            answer = self.transact(self.sign(self.message(method, *pairs)))
            assert answer is not None
        return answer

    def allocate(self, *pairs: Pair) -> Message:
        return self.request(Method.ALLOCATE, UDP_RELAY, *pairs)

    def allocate_tcp(self, *pairs: Pair) -> Message:
        return self.request(Method.ALLOCATE, TCP_RELAY, *pairs)

    def connect(self, peer: Address) -> Message | None:
        """A Connect request; its answer if there is one at once."""
        if self.nonce is None:
            self.challenge()
        return self.transact(self.sign(self.message(Method.CONNECT, (a.XOR_PEER_ADDRESS, peer))))

    def bind_connection(self, number: int) -> Message:
        return self.request(Method.CONNECTION_BIND, (a.CONNECTION_ID, number))

    def refresh(self, *pairs: Pair) -> Message:
        return self.request(Method.REFRESH, *pairs)

    def permit(self, *peers: Address) -> Message:
        return self.request(Method.CREATE_PERMISSION, *((a.XOR_PEER_ADDRESS, peer) for peer in peers))

    def bind(self, number: int, peer: Address) -> Message:
        return self.request(Method.CHANNEL_BIND, (a.CHANNEL_NUMBER, number), (a.XOR_PEER_ADDRESS, peer))

    def send(self, peer: Address, data: bytes, *pairs: Pair) -> list[SendToPeer]:
        """A Send indication; what was relayed for it."""
        pairs = ((a.XOR_PEER_ADDRESS, peer), (a.DATA, data), *pairs)
        return self._relay(self.message(Method.SEND, *pairs, message_class=Class.INDICATION).encode())

    def channel_data(self, number: int, data: bytes) -> list[SendToPeer]:
        """ChannelData; what was relayed for it."""
        return self._relay(pack_channel_data(number, data, padded=self.five_tuple.transport.is_stream))

    def _relay(self, data: bytes) -> list[SendToPeer]:
        before = len(self.world.plane.relayed)
        assert not self.deliver(data)
        return self.world.plane.relayed[before:]

    def disconnect(self) -> None:
        self.world.server.disconnected(self.five_tuple, self.world.now)
        self.world.carry_out()


def raw(message: Message, number: int, value: bytes = b"") -> Message:
    """Append an attribute that no codec would write."""
    message._attributes.append((number, value))
    return message


def code(answer: Message | None) -> int:
    """The error code of an answer; 0 for success."""
    assert answer is not None
    assert answer.message_class in {Class.SUCCESS, Class.ERROR}
    error = answer.get(a.ERROR_CODE)
    assert (error is None) == (answer.message_class is Class.SUCCESS)
    return error.code if error is not None else 0


def names(answer: Message | None) -> list[str]:
    """Attributes of an answer by name, in order."""
    assert answer is not None
    return [a.ATTRIBUTES[number].name for number in answer.numbers()]
