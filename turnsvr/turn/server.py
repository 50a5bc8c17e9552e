"""The rules' front door: bytes and times go in, commands come out.

requests.py takes a request to its handler; responses.py writes the one answer of each. What a handler needs to know
about allocations is in allocation.py, about credentials in authentication.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from turnsvr.limits import AnswerLimit
from turnsvr.plane import Challenge
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.stun.errors import ErrorCode, MalformedMessage
from turnsvr.stun.framing import is_channel_data
from turnsvr.stun.message import HEADER_SIZE, Class, Message, Method
from turnsvr.turn import (
    allocate,
    binding,
    channel,
    connectionbind,
    elsewhere,
    icmp,
    mobility,
    moving,
    permission,
    refresh,
    send,
)
from turnsvr.turn.allocation import Allocation, Allocations
from turnsvr.turn.authentication import Key
from turnsvr.turn.commands import (
    CloseRelay,
    Command,
    EndReason,
)
from turnsvr.turn.config import ServerConfig
from turnsvr.turn.moving import Adopted
from turnsvr.turn.nonce import SECRET_SIZE
from turnsvr.turn.peerconnections import PeerConnection
from turnsvr.turn.peerrelaying import PeerRelaying
from turnsvr.turn.requests import Requests
from turnsvr.turn.reservations import Reservations
from turnsvr.turn.responses import Responses
from turnsvr.turn.snapshot import Document
from turnsvr.turn.state import State, release
from turnsvr.turn.tickets import Tickets
from turnsvr.turn.waiting import WaitingRequests


class Server:
    """STUN and TURN (RFC 8489, RFC 8656), driven only through arguments.

    Times are seconds on any monotonic clock that is not negative. random(n) gives n unpredictable bytes. After
    each call the caller carries out commands(), in order.
    """

    def __init__(self, config: ServerConfig, *, random: Callable[[int], bytes], limiter: AnswerLimit) -> None:
        self._commands: list[Command] = []
        self._waiting = WaitingRequests()
        secret = random(SECRET_SIZE)
        self._state = State(
            config=config,
            random=random,
            allocations=Allocations(),
            reservations=Reservations(),
            emit=self._commands.append,
            end=self._end,
            tickets=Tickets(secret),
        )
        self._set_rates(config)
        self._responses = Responses(self._state, limiter, secret)
        self._requests = Requests(self._state, self._responses, self._waiting)
        self._peers = PeerRelaying(self._state, self._responses)

    # Messages

    def receive(self, data: bytes, five_tuple: FiveTuple, now: float) -> None:
        """A whole message or ChannelData frame from a client, that no route covered. Never raises."""
        self.handle_timeout(now)
        try:
            if is_channel_data(data):
                mobility.data_came(self._state, five_tuple, now)
                channel.channel_data(self._state, data, five_tuple, now)
                return
            message = Message.parse(data, classic=self._state.config.rfc3489)
            if message.message_class is Class.REQUEST:
                self._requests.receive(message, five_tuple, now)
            elif message.message_class is Class.INDICATION and message.method == Method.SEND:
                mobility.data_came(self._state, five_tuple, now)
                send.send_indication(self._state, message, five_tuple, now)
        except MalformedMessage:
            return

    def peer_error(
        self, allocation: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes, now: float
    ) -> None:
        """An ICMP error came back for a packet to this peer: type and code of its family, 4 bytes of error data.

        With icmp_indications the client is told if a permission covers the peer and the type is one it can use
        (RFC 8656 section 11.5).
        """
        self.handle_timeout(now)
        icmp.peer_error(self._state, allocation, peer, icmp_type, icmp_code, data, now)

    def peer_fenced(self, allocation: int, peer: Address) -> None:
        """The data plane has let a packet for this peer go nowhere, since the permission does not cover its port."""
        permission.peer_fenced(self._state, allocation, peer)

    # Credentials

    def credential(self, request: int, keys: Sequence[Key], now: float, *, refusal: str = "unknown user") -> None:
        """The answer to FindCredential: candidates in the order to try them; without any, refusal says why."""
        self.handle_timeout(now)
        self._requests.credential(request, keys, now, refusal)

    def credential_failed(self, request: int, now: float) -> None:
        """FindCredential cannot be answered: the client gets 500."""
        self._requests.credential_failed(request, now)

    def waits(self, five_tuple: FiveTuple) -> bool:
        """Whether a request of this client waits for its credential."""
        return self._waiting.of(five_tuple)

    def who_waits(self, request: int) -> FiveTuple | None:
        """The client whose FindCredential has no answer yet; None for one that has, or is given up."""
        return self._waiting.client(request)

    # Relays

    def relay_opened(
        self, allocation: int, addresses: Sequence[Address], failures: Mapping[Family, ErrorCode], now: float
    ) -> None:
        """OpenRelay worked, at least in part: advertised addresses, and what kept the other family away."""
        pending = self._state.pending.pop(allocation, None)
        if pending is None:
            self._commands.append(CloseRelay(allocation))
            return
        if pending.abandoned:
            allocate.close_abandoned(self._state, pending)
            return
        self.handle_timeout(now)
        response = allocate.opened(self._state, pending, addresses, failures, now)
        self._responses.answer(pending.message, pending.allocation.five_tuple, response)

    def relay_failed(self, allocation: int, code: ErrorCode, now: float) -> None:
        """OpenRelay did not work: 440 or 508."""
        pending = self._state.pending.pop(allocation, None)
        if pending is None:
            return
        reject = allocate.failed(self._state, pending, code)
        if reject is not None:
            self._responses.refuse(pending.message, pending.allocation.five_tuple, pending.proof, reject, now)

    # Connections to peers (RFC 6062)

    def peer_connected(self, connection: int, now: float) -> None:
        """ConnectPeer worked."""
        self.handle_timeout(now)
        self._peers.connected(connection, now)

    def peer_failed(self, connection: int, now: float, *, forbidden: bool = False) -> None:
        """ConnectPeer did not work: 447, or 403 where nothing may be reached there but relayed addresses."""
        self._peers.failed(connection, now, forbidden=forbidden)

    def peer_arrived(self, allocation: int, peer: Address, inside: bool, now: float) -> int | None:
        """A peer has connected to a relayed transport address: the number of its connection, None to close that.

        inside: the peer is a relayed transport address of this server.
        """
        self.handle_timeout(now)
        return self._peers.arrived(allocation, peer, inside, now)

    def peer_connections(self) -> int:
        """Connections to peers, also those that are being made."""
        return len(self._state.connections)

    def is_bound(self, five_tuple: FiveTuple) -> bool:
        """Whether this connection of a client reaches peers over TCP, or has an allocation that does."""
        allocation = self._state.allocations.of(five_tuple)
        return self._state.connections.of_client(five_tuple) is not None or (allocation is not None and allocation.tcp)

    def connections_of(self, allocation: int) -> list[PeerConnection]:
        """Those of one allocation: to be read, never changed."""
        return self._state.connections.of(allocation)

    def disconnected(self, five_tuple: FiveTuple, now: float) -> None:
        """A stream client's connection is gone, and with it what hung on its five-tuple."""
        self._waiting.forget(five_tuple)
        self._peers.client_left(five_tuple)
        allocation = self._state.allocations.of(five_tuple)
        if allocation is not None and not mobility.connection_closed(self._state, allocation, five_tuple, now):
            self._end(allocation, EndReason.DISCONNECTED, now)

    # Time

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called; None for never."""
        state = self._state
        times = (
            state.allocations.deadlines.next(),
            state.reservations.deadlines.next(),
            state.connections.deadlines.next(),
        )
        return min([when for when in times if when is not None], default=None)

    def handle_timeout(self, now: float) -> None:
        """End what has expired by now."""
        allocations, reservations = self._state.allocations, self._state.reservations
        connections = self._state.connections
        if not (
            allocations.deadlines.may_be_due(now)
            or reservations.deadlines.may_be_due(now)
            or connections.deadlines.may_be_due(now)
        ):
            return
        for number, what in allocations.deadlines.due(now):
            allocation = allocations.get(number)
            if allocation is None:
                continue
            if isinstance(what, Family):
                refresh.expire_family(self._state, allocation, what, now)
            elif isinstance(what, str):
                allocations.drop_permission(allocation, what)
            else:
                allocations.drop_channel(allocation, what)
        for token in reservations.deadlines.due(now):
            release(self._state, token)
        self._peers.expire(now)

    def _end(self, allocation: Allocation, reason: EndReason, now: float) -> None:
        mobility.forget_announced(self._state, allocation)
        self._peers.end(allocation, answer=reason is not EndReason.DISCONNECTED)
        self._state.allocations.remove(allocation)
        pending = self._state.pending.get(allocation.number)
        if pending is not None:
            pending.abandoned = True
            return
        self._commands.append(allocation.ended(reason, now))
        self._commands.append(CloseRelay(allocation.number))

    # Control

    @property
    def answers(self) -> Mapping[tuple[int, int], int]:
        """Requests by method and outcome: 200, an error code, or 0 where a bound kept them from an answer."""
        return self._responses.counts

    def commands(self) -> list[Command]:
        """What is to be done, in order; handed out once."""
        commands = self._commands.copy()
        self._commands.clear()
        return commands

    def reconfigure(self, config: ServerConfig, now: float) -> None:
        """Go by another config from now on; allocations live on, but those whose realm is gone, and so do nonces.

        A permission for a peer that is refused from now on ends at once; others cover the ports that are open then.
        """
        before = self._state.config
        self._state.config = config
        self._set_rates(config)
        self._responses.reconfigure()
        for allocation in self._state.allocations:
            realm, old = config.find(allocation.realm), before.find(allocation.realm)
            if realm is None:
                self._end(allocation, EndReason.REVOKED, now)
            else:
                permission.judge_anew(self._state, allocation, None if old is None else old.policy, realm.policy)
                self._peers.judge_anew(allocation, realm.policy)

    def _set_rates(self, config: ServerConfig) -> None:
        self._state.rates.rate = config.allocation_rate_per_user
        self._state.connect_rates.rate = config.peer_connect_rate_per_user
        self._state.connect_rates_of_addresses.rate = config.peer_connect_rate_per_address

    @property
    def draining(self) -> bool:
        """Whether new allocations are refused."""
        return self._state.draining

    def drain(self, draining: bool = True) -> None:
        """Refuse new allocations from now on, or with False take them again."""
        self._state.draining = draining

    def end(self, allocation: int, reason: EndReason, now: float) -> None:
        """End one allocation; an unknown one is fine."""
        found = self._state.allocations.get(allocation)
        if found is not None:
            self._end(found, reason, now)

    def shutdown(self, now: float) -> None:
        """End every allocation, give up every reserved port, and forget the requests that wait."""
        self.drain()
        self._waiting.clear()
        for allocation in self._state.allocations:
            self._end(allocation, EndReason.SHUTDOWN, now)
        for token in list(self._state.reservations):
            release(self._state, token)

    def allocation_of(self, five_tuple: FiveTuple) -> int | None:
        """The allocation of a client, if it has one."""
        return self._state.allocations.number_of(five_tuple)

    def about(self, data: bytes, five_tuple: FiveTuple) -> Allocation | None:
        """The allocation that a message from or to here belongs to: to be read, never changed.

        It is the one of the five-tuple, or what a ConnectionBind or a Refresh with a ticket names.
        """
        found = self._state.allocations.of(five_tuple)
        if found is not None or is_channel_data(data):
            return found
        try:
            message = Message.parse(data)
            if message.method == Method.CONNECTION_BIND:
                return connectionbind.allocation_of(self._state, message)
            if message.method == Method.REFRESH and a.MOBILITY_TICKET in message:
                return mobility.allocation_of(self._state, message)
        except MalformedMessage:
            pass
        return None

    def serves(self, five_tuple: FiveTuple) -> bool:
        """Whether this connection of a client has an allocation, or is bound to one to a peer."""
        state = self._state
        return state.allocations.of(five_tuple) is not None or state.connections.of_client(five_tuple) is not None

    def allocations(self) -> Iterator[Allocation]:
        """Every allocation that has its relay, in the order in which they began: to be read, never changed."""
        return (allocation for allocation in self._state.allocations if allocation.relayed)

    def allocation(self, number: int) -> Allocation | None:
        """The one of this number, once it has its relay: to be read, never changed."""
        found = self._state.allocations.get(number)
        return found if found is not None and found.relayed else None

    # Moving to another process: see moving.py

    def write(self, now: float) -> Document:
        """All that the rules know but the allocations."""
        return moving.write_rules(self._state, self._responses, now)

    def write_allocation(self, allocation: Allocation) -> Document:
        return moving.write_one(self._state, allocation)

    def read(self, document: Document) -> None:
        """Go on from what write() gave. Raises Unreadable."""
        moving.read_rules(self._state, self._responses, document)

    def adopt(self, document: Document) -> Adopted | Allocation:
        """Take what write_allocation() gave, or return it where its realm is not served here. Raises Unreadable."""
        return moving.adopt(self._state, document)

    def forget(self, numbers: Iterable[int], *, counted: bool) -> None:
        """Let go of allocations without a word; counted: another process serves them from here on."""
        moving.forget(self._state, numbers, counted=counted)

    def numbers(self) -> set[int]:
        """Of all allocations."""
        return self._state.allocations.numbers()

    def forget_reservations(self) -> None:
        """Let go of every reserved port without a word: another process holds them."""
        for token in list(self._state.reservations):
            self._state.reservations.remove(token)

    def forget_answers(self) -> None:
        """Count requests anew: what was counted, another process goes on with."""
        self._responses.counts.clear()

    def forget_waiting(self, five_tuple: FiveTuple) -> None:
        """A client's requests are another process's to judge."""
        self._waiting.forget(five_tuple)

    def count_elsewhere(self, number: int, realm: str, quota_user: str) -> None:
        """Count an allocation that another process of this server serves."""
        self._state.allocations.count_elsewhere(number, (realm, quota_user))

    def homeless_elsewhere(self) -> list[int]:
        """Allocations of other processes of this server whose realm is not served here."""
        find = self._state.config.find
        return [number for number, realm in self._state.allocations.elsewhere() if find(realm) is None]

    def is_about_another(self, data: bytes) -> bool:
        """Whether what begins a connection names what another process of this server may serve: see elsewhere.py."""
        return elsewhere.is_about_another(self._state, data)

    def discount_elsewhere(self, number: int) -> None:
        """It has ended there; unknown ones are fine."""
        self._state.allocations.discount_elsewhere(number)

    def binding_suffix(self, listener: Address) -> bytes:
        """Encoded attributes that follow XOR-MAPPED-ADDRESS in the answer to a plain Binding request there."""
        response = Message(Method.BINDING, Class.SUCCESS, bytes(12))
        binding.describe(response, listener, listener, self._state.config)
        return response.encode()[HEADER_SIZE:]

    def challenge(self, listener: Address) -> Challenge | None:
        """What the pump may answer by itself to Allocate requests there, until the next reconfigure()."""
        return self._responses.challenge_at(listener)

    def __len__(self) -> int:
        """Allocations, also those whose relay is still being opened."""
        return len(self._state.allocations)
