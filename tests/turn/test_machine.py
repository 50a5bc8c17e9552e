"""Everything at once: clients, users, time and hostile bytes in any order, and what must hold after each step.

TURNSVR_MACHINE_EXAMPLES sets how many random histories are tried; without it 100 are, the same each time that the same
modules are loaded: Hypothesis also tries constants which it finds in those.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.turn.world import (
    OTHER_PEER,
    PEER,
    PEER_V6,
    REALM,
    SERVER,
    UDP_RELAY,
    Client,
    Pair,
    Style,
    World,
    raw,
)
from turnsvr.limits import AnswerLimiter
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.framing import pack_channel_data
from turnsvr.stun.message import Class, Message, Method
from turnsvr.turn.commands import AllocationEnded, AllocationStarted, EndReason
from turnsvr.turn.config import RealmConfig, ServerConfig
from turnsvr.turn.deadlines import _SWEEP_AT_LEAST, Deadlines
from turnsvr.turn.policy import PeerPolicy, RangeSet, network_range

EXAMPLES = int(os.environ.get("TURNSVR_MACHINE_EXAMPLES", "0"))

SHOP = "shop.example"
NO_OTHER_PEER = PeerPolicy(deny=RangeSet([network_range(f"{OTHER_PEER.host}/32")]))

CONFIG = ServerConfig(
    RealmConfig(REALM, allocations_per_user=3),
    realms={SHOP: RealmConfig(SHOP, NO_OTHER_PEER, allocations=2, allocations_per_user=1)},
    origins={"https://shop.example": SHOP},
    allocations=6,
    permissions_per_allocation=2,
    channels_per_allocation=2,
    reservations=3,
    max_lifetime=1200,
    nonce_lifetime=900,
    rfc3489=True,
    icmp_indications=True,
    anonymity=True,
)

USERS = [("alice", REALM), ("bob", REALM), ("alice", SHOP), ("bob", "nowhere.example")]
CLIENTS = [
    ("alice", REALM, Transport.UDP, Style.PLAIN, False),
    ("alice", REALM, Transport.UDP, Style.SHA256, True),
    ("bob", REALM, Transport.UDP, Style.MD5, False),
    ("bob", REALM, Transport.TCP, Style.PLAIN, False),
    ("alice", SHOP, Transport.TLS, Style.SHA256, False),
    ("alice", SHOP, Transport.UDP, Style.PLAIN, False),
    ("bob", SHOP, Transport.UDP, Style.SHA256, True),
]
PEERS = [
    PEER,
    Address(PEER.host, 9),
    OTHER_PEER,
    Address("8.8.8.8", 1),
    PEER_V6,
    Address("2606:4700::2", 7),
    Address("10.0.0.1", 1),
    Address("::ffff:8.8.8.8", 1),
    Address(PEER.host, 0),
]

clients = st.integers(0, len(CLIENTS) - 1)
peers = st.sampled_from(PEERS)
numbers = st.sampled_from([0x4000, 0x4001, 0x4002, 0x3FFF, 0x7FFF])
lifetimes = st.none() | st.sampled_from([0, 1, 700, 1200, 9999])
families = st.sampled_from([0, 1, 2, 3])
times = st.sampled_from([0.0, 0.5, 10.0, 29.5, 30.0, 120.0, 299.5, 300.0, 301.0, 600.0, 900.0])


class Rules(RuleBasedStateMachine):
    """The data plane's model asserts by itself that each packet relayed has a live permission."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(CONFIG, limiter=AnswerLimiter(1000))
        self.clients = [self._client(*kind, number) for number, kind in enumerate(CLIENTS)]
        self.tokens: list[bytes] = [bytes(8)]
        self.last: bytes = b""
        self.down = False

    def _client(self, user: str, realm: str, transport: Transport, style: Style, hashed: bool, number: int) -> Client:
        address = Address("198.51.100.7", 1000 + number)
        return self.world.client(user, realm=realm, transport=transport, style=style, hashed=hashed, address=address)

    def _request(
        self, who: int, method: int, *pairs: Pair, user: tuple[str, str] | None = None, hostile: bytes = b""
    ) -> None:
        """user: a name and a realm in place of the client's own."""
        client = self.clients[who]
        client.nonce = client.nonce or self._nonce(client)
        if client.nonce is None:
            return
        message = client.message(method, *pairs)
        if hostile:
            raw(message, int.from_bytes(hostile[:2], "big"), hostile[2:])
        itself = client.username, client.realm
        client.username, client.realm = user or itself
        self.last = client.sign(message)
        client.username, client.realm = itself
        self._deliver(client, self.last)

    def _nonce(self, client: Client) -> bytes | None:
        """From a 401, or from the limiter's silence none."""
        answers = client.deliver(client.message(Method.REFRESH).encode())
        return Message.parse(answers[-1]).get(a.NONCE) if answers else None

    def _deliver(self, client: Client, data: bytes) -> None:
        for answer in client.deliver(data):
            self._read(client, answer)

    def _read(self, client: Client, data: bytes) -> None:
        message = Message.parse(data, classic=True)
        token = message.get(a.RESERVATION_TOKEN)
        if token is not None:
            self.tokens.append(token)
        nonce = message.get(a.NONCE)
        if nonce is not None:
            client.nonce = nonce

    # What clients do

    @rule(
        who=clients,
        lifetime=lifetimes,
        family=st.none() | families,
        additional=st.sampled_from([None, None, 2, 1]),
        even=st.sampled_from([None, None, False, True, True]),
        protocol=st.sampled_from([17] * 8 + [6]),
        user=st.sampled_from([None] * 9 + USERS),
    )
    def allocate(
        self,
        who: int,
        lifetime: int | None,
        family: int | None,
        additional: int | None,
        even: bool | None,
        protocol: int,
        user: tuple[str, str] | None,
    ) -> None:
        pairs: list[Pair] = [(a.REQUESTED_TRANSPORT, protocol)]
        pairs += [(a.LIFETIME, lifetime)] if lifetime is not None else []
        pairs += [(a.REQUESTED_ADDRESS_FAMILY, family)] if family is not None else []
        pairs += [(a.ADDITIONAL_ADDRESS_FAMILY, additional)] if additional is not None else []
        pairs += [(a.EVEN_PORT, a.EvenPort(even))] if even is not None else []
        self._request(who, Method.ALLOCATE, *pairs, user=user)

    @rule(who=clients, pair=st.sampled_from([[], [], [(a.ADDITIONAL_ADDRESS_FAMILY, 2)]]), reserve=st.booleans())
    def allocate_plainly(self, who: int, pair: list[Pair], reserve: bool) -> None:
        pairs = pair or [(a.EVEN_PORT, a.EvenPort(reserve))]
        self._request(who, Method.ALLOCATE, UDP_RELAY, *pairs)

    @rule(who=clients, which=st.integers(0, 20))
    def claim(self, who: int, which: int) -> None:
        self._request(who, Method.ALLOCATE, UDP_RELAY, (a.RESERVATION_TOKEN, self.tokens[which % len(self.tokens)]))

    @rule(who=clients, lifetime=lifetimes, family=st.none() | families, user=st.sampled_from([None] * 9 + USERS))
    def refresh(self, who: int, lifetime: int | None, family: int | None, user: tuple[str, str] | None) -> None:
        pairs: list[Pair] = [(a.LIFETIME, lifetime)] if lifetime is not None else []
        pairs += [(a.REQUESTED_ADDRESS_FAMILY, family)] if family is not None else []
        self._request(who, Method.REFRESH, *pairs, user=user)

    @rule(who=clients, some=st.lists(peers, max_size=4))
    def permit(self, who: int, some: list[Address]) -> None:
        self._request(who, Method.CREATE_PERMISSION, *((a.XOR_PEER_ADDRESS, peer) for peer in some))

    @rule(who=clients, number=numbers, peer=peers)
    def bind(self, who: int, number: int, peer: Address) -> None:
        self._request(who, Method.CHANNEL_BIND, (a.CHANNEL_NUMBER, number), (a.XOR_PEER_ADDRESS, peer))

    @rule(who=clients, which=st.integers(0, 3))
    def bind_plainly(self, who: int, which: int) -> None:
        peer = (PEER, Address(PEER.host, 9), OTHER_PEER, PEER_V6)[which]
        self._request(who, Method.CHANNEL_BIND, (a.CHANNEL_NUMBER, 0x4000 + which), (a.XOR_PEER_ADDRESS, peer))

    @rule(who=clients, peer=peers, dont_fragment=st.booleans())
    def send(self, who: int, peer: Address, dont_fragment: bool) -> None:
        client = self.clients[who]
        pairs: list[Pair] = [(a.XOR_PEER_ADDRESS, peer), (a.DATA, b"data")]
        pairs += [(a.DONT_FRAGMENT, True)] if dont_fragment else []
        self._deliver(client, client.message(Method.SEND, *pairs, message_class=Class.INDICATION).encode())

    @rule(who=clients, number=numbers)
    def channel_data(self, who: int, number: int) -> None:
        self._deliver(self.clients[who], pack_channel_data(number, b"data", padded=True))

    @rule(who=clients)
    def binding(self, who: int) -> None:
        client = self.clients[who]
        self._deliver(client, client.message(Method.BINDING).encode())

    @rule(who=clients)
    def disconnect(self, who: int) -> None:
        if CLIENTS[who][2].is_stream:
            self.clients[who].disconnect()
            self.clients[who].mailbox()

    # What strangers do

    @rule(who=clients)
    def retransmit(self, who: int) -> None:
        self._deliver(self.clients[who], self.last or bytes(20))

    @rule(
        who=clients,
        method=st.sampled_from(list(Method)),
        number=st.integers(0, 0xFFFF) | st.sampled_from(sorted(a.ATTRIBUTES)),
        value=st.binary(max_size=24),
    )
    def hostile_attribute(self, who: int, method: Method, number: int, value: bytes) -> None:
        pairs = [UDP_RELAY] if method is Method.ALLOCATE else []
        self._request(who, method, *pairs, hostile=number.to_bytes(2, "big") + value)

    @rule(who=clients, data=st.binary(max_size=64))
    def noise(self, who: int, data: bytes) -> None:
        self._deliver(self.clients[who], data)

    @rule(who=clients, at=st.integers(0, 400), bit=st.integers(0, 7))
    def flip_a_bit(self, who: int, at: int, bit: int) -> None:
        if self.last:
            data = bytearray(self.last)
            data[at % len(data)] ^= 1 << bit
            self._deliver(self.clients[who], bytes(data))

    @rule(host=st.integers(0, 255), method=st.sampled_from([Method.BINDING, Method.ALLOCATE, Method.REFRESH]))
    def spoofed(self, host: int, method: Method) -> None:
        stranger = self.world.client(address=Address(f"203.0.113.{host}", 1), server=SERVER)
        stranger.deliver(stranger.message(method).encode())

    # What time, the data plane and the operator do

    @rule(seconds=times)
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    @rule(seconds=times)
    def pass_time_with_a_late_timer(self, seconds: float) -> None:
        self.world.now += seconds
        self.world.server.handle_timeout(self.world.now)
        self.world.carry_out()

    @rule(credentials=st.booleans(), relays=st.booleans())
    def hold(self, credentials: bool, relays: bool) -> None:
        self.world.hold_credentials, self.world.hold_relays = credentials, relays

    @rule(which=st.integers(0, 9), fails=st.booleans())
    def answer_lookup(self, which: int, fails: bool) -> None:
        if self.world.lookups:
            lookup = self.world.lookups[which % len(self.world.lookups)]
            (self.world.fail_lookup if fails else self.world.answer_lookup)(lookup)
            self.world.carry_out()

    @rule(which=st.integers(0, 9), fails=st.booleans())
    def answer_open(self, which: int, fails: bool) -> None:
        if self.world.opens:
            command = self.world.opens[which % len(self.world.opens)]
            (self.world.fail_open if fails else self.world.answer_open)(command)
            self.world.carry_out()

    @rule()
    def read_mail(self) -> None:
        for client in self.clients:
            for data in client.mailbox():
                self._read(client, data)

    @rule(family=st.sampled_from([None, None, *Family]))
    def break_a_family(self, family: Family | None) -> None:
        self.world.plane.broken = {} if family is None else {family: ErrorCode.INSUFFICIENT_CAPACITY}

    @rule(number=st.integers(1, 20), peer=peers, icmp_type=st.sampled_from([1, 2, 3, 11, 200]))
    def peer_error(self, number: int, peer: Address, icmp_type: int) -> None:
        self.world.server.peer_error(number, peer, icmp_type, 0, bytes(4), self.world.now)
        self.world.carry_out()

    @rule(number=st.integers(1, 20))
    def revoke(self, number: int) -> None:
        self.world.server.end(number, EndReason.REVOKED, self.world.now)
        self.world.carry_out()

    @precondition(lambda self: not self.down)
    @rule(really=st.sampled_from([False] * 9 + [True]))
    def shut_down(self, really: bool) -> None:
        if really:
            self.down = True
            self.world.server.shutdown(self.world.now)
            self.world.carry_out()

    # What must hold

    @invariant()
    def the_data_plane_lives_no_longer_than_the_rules(self) -> None:
        world, now = self.world, self.world.now
        state = world.server._state
        for number, session in world.plane.sessions.items():
            allocation = state.allocations.get(number)
            assert allocation is not None
            assert session.relayed == allocation.relayed
            assert now < session.deadline == max(allocation.expires.values())
            for host, deadline in session.permissions.items():
                assert deadline <= now or deadline == allocation.permissions[host]
            for channel, (peer, deadline) in session.channels.items():
                bound = allocation.channels.get(channel)
                assert deadline <= now or (bound is not None and (peer, deadline) == (bound.peer, bound.deadline))
                assert deadline <= session.permissions[peer.host]
        claimed = {command.claim for command in world.opens} & set(world.plane.held)
        assert set(world.plane.held) - claimed == set(state.reservations)

    @invariant()
    def nothing_is_kept_past_its_time(self) -> None:
        now = self.world.now
        state = self.world.server._state
        for allocation in state.allocations:
            assert all(now < deadline for deadline in allocation.expires.values())
            assert all(now < deadline for deadline in allocation.permissions.values())
            assert all(now < channel.deadline for channel in allocation.channels.values())
            assert allocation.numbers == {channel.peer: number for number, channel in allocation.channels.items()}
            assert allocation.expires.keys() == allocation.relayed.keys()
            assert bool(allocation.relayed) != (allocation.number in state.pending)
        when = self.world.server.next_timeout()
        assert when is None or when > now

    @invariant()
    def every_deadline_is_somebodys(self) -> None:
        state = self.world.server._state
        expected = sum(len(one.expires) + len(one.permissions) + len(one.channels) for one in state.allocations)
        assert len(state.allocations.deadlines) == expected
        assert len(state.reservations.deadlines) == len(state.reservations)
        every: list[Deadlines[Any]] = [state.allocations.deadlines, state.reservations.deadlines]
        for deadlines in every:
            assert len(deadlines._heap) <= 2 * len(deadlines) + _SWEEP_AT_LEAST

    @invariant()
    def no_table_passes_its_bound(self) -> None:
        server = self.world.server
        state = server._state
        assert len(server) + sum(one.abandoned for one in state.pending.values()) <= CONFIG.allocations
        assert len(state.reservations) <= CONFIG.reservations
        for allocation in state.allocations:
            assert len(allocation.permissions) <= CONFIG.permissions_per_allocation
            assert len(allocation.channels) <= CONFIG.channels_per_allocation
        assert len(state.pending) == len(self.world.opens)
        assert len(server._waiting) == len(server._waiting._asked) <= len(self.world.lookups)

    @invariant()
    def quotas_add_up(self) -> None:
        state = self.world.server._state
        users = Counter(allocation.owner for allocation in state.allocations)
        assert state.allocations._by_owner._counts == users
        assert all(count <= CONFIG.rules_of(realm).allocations_per_user for (realm, _), count in users.items())
        by_realm = Counter(allocation.realm for allocation in state.allocations)
        assert state.allocations._by_realm._counts == by_realm
        assert by_realm[SHOP] <= CONFIG.realms[SHOP].allocations
        assert len(state.allocations._by_five_tuple) == len(state.allocations)
        held = Counter(state.reservations._owners.values())
        assert state.reservations._by_owner._counts == held
        assert all(count <= CONFIG.rules_of(realm).allocations_per_user for (realm, _), count in held.items())

    @invariant()
    def realms_keep_apart(self) -> None:
        for allocation in self.world.server.allocations():
            policy = CONFIG.rules_of(allocation.realm).policy
            assert allocation.realm in {REALM, SHOP}
            assert not any(policy.refusal(host) for host in allocation.permissions)

    @invariant()
    def each_start_has_its_end(self) -> None:
        started = {event.allocation for event in self.world.events if isinstance(event, AllocationStarted)}
        ended = [event.allocation for event in self.world.events if isinstance(event, AllocationEnded)]
        assert len(ended) == len(set(ended))
        assert started - set(ended) == self.world.plane.sessions.keys()

    @invariant()
    def after_shutdown_nothing_is_left(self) -> None:
        if self.down:
            self.empty(openings=True)

    def empty(self, *, openings: bool) -> None:
        server = self.world.server
        assert len(server) == 0
        assert not self.world.plane.sessions
        assert not self.world.plane.held
        assert not server._state.reservations
        assert server.next_timeout() is None
        if not openings:
            assert not len(server._waiting)
            assert not server._state.pending

    def teardown(self) -> None:
        """Time alone must end everything, and a shutdown what is on its way."""
        self.world.pass_time(CONFIG.max_lifetime + 1)
        started = [allocation for allocation in self.world.server._state.allocations if allocation.relayed]
        assert not started
        self.world.server.shutdown(self.world.now)
        self.world.carry_out()
        self.world.answer_all()
        self.empty(openings=False)


TestRules = Rules.TestCase
TestRules.settings = settings(
    max_examples=EXAMPLES or 100,
    derandomize=not EXAMPLES,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
