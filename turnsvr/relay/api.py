"""What every pump promises.

A pump owns the UDP listener sockets, the relay sockets, and a table of sessions: one for each allocation, with
its client, permitted peer addresses, channels, a deadline on each, counters and an optional rate limit. A packet
that the table covers is relayed without leaving the pump; everything else from a client goes up to the Handler.
A deadline is checked as the packet passes, so nothing is relayed past its time even if the rules stall.

What the table covers:

- ChannelData from the client of a live session, on a channel that is bound and live, to a peer whose permission
  is live. Datagrams may carry padding after the claimed length; streams carry it always.
- A Send indication from such a client that holds exactly one XOR-PEER-ADDRESS and one DATA, and besides them
  nothing but DONT-FRAGMENT and SOFTWARE, and at its end perhaps a FINGERPRINT that is right. One with any other
  content goes up, one whose FINGERPRINT is wrong or not the last among them: the rules discard it without a word
  (RFC 8489 section 7.3), so that nothing is relayed here that they would not relay.
- A datagram from a peer whose permission is live: to the client as ChannelData on the peer's live channel, else
  as a Data indication.
- A Binding request of exactly 20 bytes over UDP, answered with XOR-MAPPED-ADDRESS followed by the listener's
  binding_suffix, at most answers_per_address times a second for each client address.
- A plain Allocate request over UDP, where the listener has a Challenge: answered with that, within the same rate. Plain
  is one that is well-formed and has no MESSAGE-INTEGRITY, MESSAGE-INTEGRITY-SHA256, REALM or ORIGIN; the answer has a
  FINGERPRINT if the request has one. A pump may send some of them up, or all: the portable one does.

What is neither covered nor a possible message (the first byte is above 0x7F, or the length is not what the
header says) is dropped and counted. ChannelData that is not covered is dropped and counted, never sent up; so is
a plain Send indication of a live session to a peer without a live permission. Data for port 0, or of more than
65,507 bytes, is MALFORMED; data that does not fit the datagram to its receiver is SEND_FAILED.

Order. The Handler has at most one message of a client at a time. What the client sends until that is judged waits: on a
stream everything, which is not read on then; over UDP further messages, data that the table does not cover yet, and
data for the same peer behind them. What waited is looked up in the table as if it came when the message is judged. At
most 64 messages, 32 datagrams of data and 128 KiB of one client wait: of more, data that the table does not cover are
dropped as if nothing waited, anything else as OVERLOAD. A retransmission of a message that waits is ignored. Other
clients do not wait for it.

Turns. Clients with a message for the Handler are served in turn: a session is a source of its own, clients without one
belong to the source of their address, an IPv4 address or an IPv6 /64, and within it each has its turn too. Sessions and
strangers are served alternately. What waits of either is bounded in bytes, and one source takes a quarter of what is
free at the most. Plain requests that the pump answers itself do not wait.

Relay to relay. A peer address that is a live session's advertised relayed transport address is reached inside
the pump: the other session sees the sender's advertised address as its peer, and its permission is checked as
for any peer. Such a packet counts for both sessions.

DTLS. A client of DTLS is known by its association, whose number is in its five-tuple: one that shakes hands anew at its
addresses is another client, and the one before ends once that is proven (RFC 6347 section 4.2.8). Nothing is kept of a
client that has not shown, by a cookie, that it receives at its address; the cookie is an answer within the same rate
as others, and smaller than what asked for it. Each message is a record and a datagram of its own, ChannelData without
padding. Messages that the pump answers over UDP go up. What does not fit a record, 16,384 bytes, is SEND_FAILED.

Ports. A permission covers some ports of its host, usually all. What is for another port reaches only a relayed
transport address inside; else it is FENCED, and the Handler hears of the first such packet of each permission. What
comes from another port over the network has no permission.

Behind one-to-one NAT, what a permission covers at an advertised host goes to the host behind it, and never out. What
comes from there is from the one of both names by which the client has sent to that port last, of those that it has a
permission for; from the advertised one where it has not sent.

Observing. For an operator's trace the Handler can be told of each packet of a session, as a copy: tell(); and see what
the pump would answer by itself to some hosts: observe(). No packet waits for that; what finds no room is counted.

Identity. A five-tuple names a connection, not only its addresses, and a session's number is used once. What waits in
a pump, or goes between its threads, is about the one that it names; where that one is gone it does nothing.

TCP to peers (RFC 6062). A session that was opened for TCP has listening sockets in the place of relay sockets, and
connections to peers: those that connect(), and those that peers make and the Handler takes. A connection is not read
until it is joined with one of the client's. From then on bytes go from each to the other as they are, with what came
before they were joined: those behind the message that the Handler was judging, and those that the peer had sent. No
more is kept than one read has brought; who sends faster than the other end reads waits. The end of one direction is
passed on behind its bytes, and both ends are closed with the second, with an error of either, and with the session.
Each read counts as a packet of the session, and its bytes are taken from the session's bandwidth: none is dropped, the
next one waits. A relayed transport address for TCP is reached by connections alone, also inside: a peer of which the
policy opens no port must be one.

Times are seconds on the clock of time.monotonic(). All methods are called from the thread that made the pump, and the
Handler is called on that thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from turnsvr.plane import Challenge, ConnectPeer, OpenRelay
from turnsvr.ranges import EVERY_PORT, Ports
from turnsvr.relay.counts import Associations, Counters, Totals
from turnsvr.relay.joining import Joiner
from turnsvr.stun.address import Address, Family, FiveTuple

NO_DTLS = "this pump serves no DTLS"

MAX_OBSERVED = 8
"""Hosts that observe() takes at once."""

TOLD_BYTES = 2048
"""Bytes of a packet that a Handler hears at the most."""

StreamWriter = Callable[[bytes], bool]
"""Queues one whole frame for a stream client; False when its buffer is full and the frame was dropped."""


class RelayFailure(Enum):
    """Why a relayed transport address could not be opened."""

    FAMILY = "address family not served"
    CAPACITY = "no port is free"
    TOKEN = "reservation unknown or expired"


@dataclass(frozen=True, slots=True)
class RelayAddress:
    """An address of this host that relays, and how clients and peers know it.

    advertised differs from host behind one-to-one NAT.
    """

    host: str
    advertised: str

    @property
    def family(self) -> Family:
        return Address(self.host, 0).family


@dataclass(frozen=True, slots=True)
class PumpSettings:
    """What a pump is told at start, and again by reconfigure()."""

    relay_addresses: tuple[RelayAddress, ...] = ()
    ports: tuple[int, int] = (49152, 65535)
    """Lowest and highest relay port, inclusive."""
    bandwidth: float = 0.0
    """Bytes a second that one session may relay in each direction, where its OpenRelay does not say; 0 for no limit.

    Burst: one second's worth.
    """
    answers_per_address: float = 100.0
    """Binding answers and challenges a second to one client address; 0 for no limit."""
    max_permissions: int = 256
    max_channels: int = 256
    """Bounds a session; the rules keep them, a pump may refuse more with RuntimeError."""
    max_sessions: int = 10_000
    gso: bool = True
    busy_poll: float = 0.0
    """Seconds for which a thread that has relayed something looks for more before it sleeps; it gathers none then."""
    threads: int = 1
    socket_buffer: int = 0
    """SO_RCVBUF and SO_SNDBUF of listeners and relay sockets in bytes; 0 leaves them to the pump."""
    stream_buffer: int = 262_144
    """Bytes that may wait for one slow stream client that the pump serves itself."""
    peer_errors: bool = True
    """Whether the Handler is to hear of ICMP errors; else the kernel keeps none for us."""
    associations: int = 10_000
    """DTLS associations at once, handshakes among them."""
    associations_per_address: int = 200
    """From one IPv4 address or one IPv6 /64."""
    idle_timeout: float = 30.0
    """Seconds that an association may stay without a session, before the first one and after each."""
    handshake_timeout: float = 10.0
    """Seconds that a handshake of DTLS may take."""


@dataclass(frozen=True, slots=True)
class Opened:
    """Advertised relayed transport addresses, and the families that failed. At least one of both is not empty.

    A session exists only if addresses is not empty.
    """

    addresses: tuple[Address, ...]
    failures: Mapping[Family, RelayFailure]


class TlsHandshake(Protocol):
    """The server's end of a TLS connection over a socket that does not block, until Pump.adopt() takes it."""

    def step(self) -> Literal["read", "write", ""]:
        """Go on as far as the socket allows: what to wait for, "" when hands are shaken.

        Raises ConnectionError with the reason when it has failed; there is no going on then.
        """

    def receive(self, most: int) -> bytes | None:
        """What the client says, so many bytes at the most, once hands are shaken: None for nothing so far.

        b"" when it has closed the connection. Raises ConnectionError when that is broken.
        """

    def send(self, data: bytes) -> bool:
        """Send 1 to 16,384 bytes; False where the socket has no room, and then the same object is to be sent next.

        Raises ConnectionError when the connection is broken.
        """

    @property
    def protocol(self) -> str:
        """What was agreed upon by ALPN; "" where nothing was."""

    def farewell(self, word: bytes) -> None:
        """Say this and close_notify, as far as the socket takes it; nothing else is to be done with it then."""


class TlsContext(Protocol):
    """A certificate with its key, and what clients may negotiate."""

    @property
    def is_for_datagrams(self) -> bool:
        """Whether it is one of DTLS, for Pump.secure(); handshake() is for the other kind."""

    def handshake(self, descriptor: int) -> TlsHandshake:
        """Begin on a connected socket, which stays the caller's until Pump.adopt() takes both."""


@dataclass(frozen=True, slots=True)
class Relayed:
    """A packet of a session that is observed: application data between the client and a peer, without headers."""

    session: int
    peer: Address
    from_client: bool
    data: bytes
    """The first bytes, TOLD_BYTES at the most."""
    size: int
    """Of all its data."""
    untold: int
    """Packets of the session before this one that went untold, since too many waited."""


class Handler(Protocol):
    """Who hears what the table does not cover."""

    def client_messages(self, batch: Sequence[tuple[FiveTuple, bytes]]) -> Collection[FiveTuple]:
        """Messages that the table does not cover, at most one of a client.

        Returns those clients whose message cannot be judged yet: nothing more of them comes until Pump.proceed().
        five_tuple.server is the address that the datagram was sent to, also on a wildcard listener.
        """

    def peer_error(self, session: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes) -> None:
        """An ICMP error came for a packet to a permitted peer: type and code as the family numbers them.

        data: 4 bytes, the MTU for "too big" errors, else zeros (RFC 8656 section 11.5).
        """

    def peer_fenced(self, session: int, peer: Address) -> None:
        """A packet for this peer went nowhere, since the permission does not cover its port; once a permission."""

    def relayed(self, packet: Relayed) -> None:
        """A packet passed of a session that tell() names."""

    def stream_closed(self, five_tuple: FiveTuple, reason: str) -> None:
        """A connection given to adopt() is gone, or a DTLS association."""

    def peer_arrived(self, session: int, peer: Address, inside: bool) -> int | None:
        """A peer has connected to a session's relayed transport address.

        Returns the number of the connection from here on, None to have it closed. inside: the peer is another session's
        relayed transport address. Behind one-to-one NAT a peer may be asked about twice, by each of its names.
        """

    def peer_connected(self, connection: int) -> None:
        """What connect() has begun is there."""

    def peer_failed(self, connection: int, forbidden: bool) -> None:
        """It could not be made. forbidden: it had to reach a relayed transport address, and there is none."""


class Pump(Protocol):
    """The data plane. One suite of tests covers every implementation."""

    @property
    def name(self) -> str:
        """ "portable" or "compiled", for people."""

    @property
    def takes_tls(self) -> bool:
        """Whether adopt() takes TLS connections; turnsvr.relay.compiled.tls makes their contexts."""

    @property
    def takes_dtls(self) -> bool:
        """Whether listen() serves DTLS; turnsvr.relay.compiled.tls makes its contexts."""

    def listen(
        self,
        address: Address,
        *,
        binding_suffix: bytes = b"",
        mapped_address: bool = False,
        dtls: bool = False,
        descriptors: Sequence[int] = (),
    ) -> Address:
        """Open a UDP listener; port 0 picks one. Returns the bound address. Raises OSError.

        dtls: serve DTLS there as well, told apart by the first byte (RFC 7983), once secure() has given a context.
        Raises ValueError where takes_dtls is False.

        descriptors: sockets that are bound there already, to be served in place of new ones; they are the pump's.

        binding_suffix: encoded attributes that follow XOR-MAPPED-ADDRESS in the answer to a plain Binding request
        (a multiple of four bytes). mapped_address puts MAPPED-ADDRESS between the two, as the tests of RFC 5780 want.
        """

    def secure(self, context: TlsContext) -> None:
        """Begin DTLS associations with this context from now on; those that there are live on with theirs.

        Raises ValueError where takes_dtls is False.
        """

    def challenge(self, listener: Address, challenge: Challenge | None) -> None:
        """Answer plain Allocate requests that come in at this UDP listener from now on; with None send them up."""

    def observe(self, hosts: Sequence[str]) -> None:
        """Send up everything that clients at these IP addresses say from now on, also what would be answered here.

        MAX_OBSERVED at the most, else ValueError.
        """

    def tell(self, session: int, wanted: bool) -> None:
        """Whether the Handler hears of each packet that passes for this session, from now on. Unknown ones are fine.

        Packets over TCP to peers are not told, nor what another path than the pump carries.
        """

    def open(self, request: OpenRelay) -> Opened:
        """Open relay sockets and the session. Never raises for want of ports or of a family: see Opened.

        Raises RuntimeError where the session or its five-tuple is open already. A claimed port is of the family that it
        was reserved in, whatever families says. max_sessions sessions at once, then CAPACITY.
        """

    def close(self, session: int, family: Family | None = None) -> Counters:
        """End a session, or its relay of one family with the permissions and channels of that family.

        Unknown sessions give zero counters.
        """

    def refresh(self, session: int, deadline: float) -> None:
        """Set when the session ends."""

    def permit(self, session: int, host: str, deadline: float, ports: Ports = EVERY_PORT) -> None:
        """Install or refresh a permission for these ports of a peer IP address."""

    def bind_channel(self, session: int, channel: int, peer: Address, deadline: float) -> None:
        """Install or refresh a channel. The permission is a call of its own."""

    def expect(self, five_tuple: FiveTuple, expected: bool) -> None:
        """Whether ChannelData from here, which has no session, go up to the Handler: one is about to move here."""

    def move(self, session: int, five_tuple: FiveTuple) -> None:
        """Have the session's client be here, over any transport, and no longer where it was; it is expected no more.

        An unknown session is fine. Raises RuntimeError where another one is here.
        """

    def release(self, token: bytes) -> None:
        """Give up a held port. Unknown tokens are fine."""

    def send(self, five_tuple: FiveTuple, data: bytes) -> None:
        """Send a whole message to a client.

        Over UDP it leaves from five_tuple.server, which is a listener's address or one that a wildcard listener covers.
        """

    def send_to_peer(self, session: int, peer: Address, data: bytes, *, dont_fragment: bool) -> None:
        """Relay one packet that the rules have already allowed; permission and deadline are checked again."""

    def connect(self, request: ConnectPeer) -> None:
        """Begin a connection to a peer. The Handler hears how it went, later, unless disconnect() comes before."""

    def join(self, connection: int, session: int, five_tuple: FiveTuple) -> None:
        """Join a connection to a peer with one of the session's client, which is adopted or attached.

        The five-tuple has no session. Where either connection is gone, both end. That of an adopted one is told by
        stream_closed(), also by close() and disconnect().
        """

    def disconnect(self, connection: int) -> None:
        """End a connection to a peer, with the client's if they are joined. Unknown ones are fine."""

    def attach(
        self, five_tuple: FiveTuple, write: StreamWriter, resume: Callable[[], None], join: Joiner | None = None
    ) -> None:
        """Make a stream client known, whose bytes the caller reads and writes.

        resume: called when relay() takes frames again that it did not take; it may call relay(). join: has its
        connection be joined with a peer's, if it can be.
        """

    def detach(self, five_tuple: FiveTuple) -> None:
        """Forget it. Its session, if any, stays until close()."""

    def relay(self, five_tuple: FiveTuple, frames: Sequence[bytes]) -> int:
        """Take an attached client's frames, as far as one that the Handler is to see, and none while it has one.

        Returns how many were taken. The others are the caller's to bring again after resume().
        """

    def waits(self, five_tuple: FiveTuple) -> bool:
        """Whether the Handler has, or will have, a message of this attached client."""

    def hurry(self, five_tuple: FiveTuple) -> None:
        """Have the Handler see this attached client's message now, out of turn: its connection is about to end."""

    def proceed(self, five_tuple: FiveTuple) -> None:
        """The message is judged that client_messages() could not judge at once. Clients without one are fine."""

    def adopt(self, descriptor: int, five_tuple: FiveTuple, first: bytes, tls: TlsHandshake | None = None) -> bool:
        """Take over a connected socket: framing, relaying, bounded output. False: the pump does not do that.

        On True the descriptor belongs to the pump. first: bytes already read from it. tls: over which hands were
        shaken; it belongs to the pump then, too. Another connection of the very same five-tuple has ended, since no two
        can be: the Handler hears of that before this returns, and nothing of that one later.
        """

    def hang_up(self, five_tuple: FiveTuple) -> None:
        """Close an adopted connection. Unknown ones are fine."""

    def counters(self, session: int) -> Counters:
        """Counters of one session; zeros when unknown."""

    def totals(self) -> Totals:
        """Counters of the pump."""

    def associations(self) -> Associations:
        """What there is of DTLS; zeros where there is none."""

    def reconfigure(self, settings: PumpSettings) -> None:
        """Take new limits; sessions live on. Addresses and ports hold for new sessions."""

    def shutdown(self) -> None:
        """Close everything. No Handler call comes after it."""
