"""What crosses from the rules to the data plane: values that `turn` makes and a pump of `relay` takes.

Both rooms import this one, and neither the other. An allocation of the rules is a session of a pump, under one number.
"""

from __future__ import annotations

from dataclasses import dataclass

from turnsvr.stun.address import Address, Family, FiveTuple


@dataclass(frozen=True, slots=True)
class OpenRelay:
    """A session to open, with relayed transport addresses of these families, in the order in which they are wanted.

    even_port asks for an even port. With reserve, for one family only, the next port is held under that token; with
    claim the port that is held under that token is used. bandwidth in bytes a second each way as long as the session
    lives, 0 for no limit; None for what the pump is set to, now and after a reload.
    """

    allocation: int
    five_tuple: FiveTuple
    families: tuple[Family, ...]
    deadline: float
    """Seconds on the clock of time.monotonic(), when the session ends."""
    even_port: bool = False
    reserve: bytes | None = None
    claim: bytes | None = None
    bandwidth: float | None = None
    tcp: bool = False
    """Whether peers are reached over TCP (RFC 6062): it listens for them there, and relays no datagrams."""


@dataclass(frozen=True, slots=True)
class ConnectPeer:
    """A TCP connection to open from a session's relayed transport address to a peer.

    inside: it may only reach another session's relayed transport address.
    """

    allocation: int
    connection: int
    """Its number, the CONNECTION-ID; there is no other connection of this number."""
    peer: Address
    inside: bool = False


@dataclass(frozen=True, slots=True, repr=False)
class Challenge:
    """The answer to a plain Allocate request, taken apart for a pump that gives it without asking the rules.

    Its encoded attributes are before, a token, after. The token ends the nonce and is the client's own, 22 characters:
    in base64 without padding the expiry, int(now + lifetime) + 1, in 4 bytes, and a MAC of 12 bytes, BLAKE2s (RFC 7693)
    with this key and person over that expiry, the client's port in 2 bytes, and its IP address in 4 or 16. Numbers are
    big-endian.
    """

    before: bytes
    after: bytes
    key: bytes
    """At most 32 bytes."""
    person: bytes
    """At most 8 bytes."""
    lifetime: float
    """Seconds."""
