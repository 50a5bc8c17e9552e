"""An allocation's state, as plain data, and the tables that hold allocations (RFC 8656 sections 3.2, 5 and 9).

Every change of a table goes through Allocations, so that its indexes, quotas and deadlines always agree.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from turnsvr.stun.address import Address, Family, FiveTuple, family_of
from turnsvr.turn.authentication import Key, Proof
from turnsvr.turn.commands import AllocationEnded, EndReason
from turnsvr.turn.counts import Counts
from turnsvr.turn.deadlines import Deadlines
from turnsvr.turn.lifetimes import FINISHED_LIFETIME
from turnsvr.turn.reservations import Owner

_MAX_FINISHED: Final = 1024
"""Answers kept for clients that ask again after their allocation is gone; the oldest goes first."""


@final
class ChannelBinding:
    """What a channel number is bound to, and until when."""

    __slots__ = ("deadline", "peer")

    def __init__(self, peer: Address, deadline: float) -> None:
        self.peer: Final = peer
        self.deadline: Final = deadline


@final
class Allocation:
    """One client's relay. Deadlines are seconds on the caller's clock; what is past its deadline does not count."""

    __slots__ = (
        "announced",
        "channels",
        "expires",
        "five_tuple",
        "is_left",
        "key",
        "named_realm",
        "number",
        "numbers",
        "owner",
        "permissions",
        "realm",
        "relayed",
        "response",
        "shown",
        "started",
        "tcp",
        "tickets",
        "transaction_id",
        "until",
        "username",
    )

    def __init__(
        self,
        number: int,
        five_tuple: FiveTuple,
        proof: Proof,
        started: float,
        transaction_id: bytes,
        *,
        tcp: bool = False,
    ) -> None:
        """transaction_id: of the Allocate request that makes it, with this proof. tcp: whether it reaches peers over
        TCP.
        """
        key = proof.key
        self.number: Final = number
        self.five_tuple = five_tuple
        self.announced: FiveTuple | None = None
        """Where its client will be, by a Refresh with a ticket (RFC 8016)."""
        self.is_left = False
        """Whether the connection of five_tuple is closed, and it waits for its client."""
        self.tickets = 0
        """How many mobility tickets it has had, of which the last one is good; 0 where its client wants none."""
        self.realm: Final = proof.realm
        """The one whose rules hold."""
        self.named_realm: Final = proof.claim.realm
        """The one that the client's requests name."""
        self.username = ""
        self.until: float | None = None
        """When the access token ends that it was made or refreshed with last, and the allocation with it."""
        self.use_key(key, started)
        self.shown: Final = key.shown
        """The user name as logs and lists may show it."""
        self.owner: Final[Owner] = proof.realm, key.quota_user
        """For which limits count it."""
        self.started: Final = started
        self.transaction_id: Final = transaction_id
        self.tcp: Final = tcp
        self.response = b""
        """The answer to that request, for its retransmissions; empty while the relay is being opened."""
        self.relayed: Final[dict[Family, Address]] = {}
        self.expires: Final[dict[Family, float]] = {}
        self.permissions: Final[dict[str, float]] = {}
        """Deadline by peer IP address."""
        self.channels: Final[dict[int, ChannelBinding]] = {}
        self.numbers: Final[dict[Address, int]] = {}
        """Channel number by peer address: the other way round."""

    def use_key(self, key: Key, now: float) -> None:
        """Go by this key from now on: that of the same user, or of a newer access token."""
        self.key = key
        self.username = key.username
        self.until = None if key.valid_for is None else now + key.valid_for

    def ended(self, reason: EndReason, now: float) -> AllocationEnded:
        """The event of its end."""
        return AllocationEnded(
            self.number,
            self.shown,
            self.five_tuple,
            tuple(self.relayed.values()),
            now - self.started,
            reason,
            self.realm,
        )

    def time_left(self, now: float) -> float | None:
        """Seconds that its access token has left; None where there is none."""
        return None if self.until is None else self.until - now

    def may_reach(self, host: str, now: float) -> bool:
        """Whether a live permission covers this peer IP address."""
        deadline = self.permissions.get(host)
        return deadline is not None and now < deadline

    def bind(self, number: int, peer: Address, deadline: float) -> None:
        """Bind a number to a peer; neither has another one."""
        self.channels[number] = ChannelBinding(peer, deadline)
        self.numbers[peer] = number

    def channel(self, number: int, now: float) -> Address | None:
        """The peer that a live channel is bound to."""
        channel = self.channels.get(number)
        return channel.peer if channel is not None and now < channel.deadline else None

    def channel_of(self, peer: Address, now: float) -> int | None:
        """The live channel that is bound to a peer."""
        number = self.numbers.get(peer)
        return number if number is not None and self.channel(number, now) is not None else None


Expiring = tuple[int, Family | str | int]
"""An allocation's number, and what of it expires: the relay of a family, a permission, a channel.

Family comes first where it matters: it is an IntEnum, and channel numbers start far above it.
"""


class Allocations:
    """The allocations of a server, found by number and by five-tuple, counted by realm and by user."""

    def __init__(self) -> None:
        self._by_number: dict[int, Allocation] = {}
        self._by_five_tuple: dict[FiveTuple, Allocation] = {}
        self._by_owner: Counts[Owner] = Counts()
        self._by_realm: Counts[str] = Counts()
        self._finished: dict[tuple[FiveTuple, bytes], tuple[bytes, float]] = {}
        self._elsewhere: dict[int, Owner] = {}
        self.deadlines: Deadlines[Expiring] = Deadlines()

    @property
    def everywhere(self) -> int:
        """How many there are, with those that another process of this server serves."""
        return len(self._by_number) + len(self._elsewhere)

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Allocation]:
        return iter(list(self._by_number.values()))

    def numbers(self) -> set[int]:
        """Of all that there are."""
        return set(self._by_number)

    def get(self, number: int) -> Allocation | None:
        return self._by_number.get(number)

    def of(self, five_tuple: FiveTuple) -> Allocation | None:
        return self._by_five_tuple.get(five_tuple)

    def number_of(self, five_tuple: FiveTuple) -> int | None:
        """The number of the allocation on a five-tuple, if there is one."""
        allocation = self._by_five_tuple.get(five_tuple)
        return allocation.number if allocation is not None else None

    def count(self, owner: Owner) -> int:
        """How many allocations this user of a realm has."""
        return self._by_owner.of(owner)

    def count_realm(self, realm: str) -> int:
        """How many allocations the users of this realm have together."""
        return self._by_realm.of(realm)

    def add(self, allocation: Allocation) -> None:
        self._by_number[allocation.number] = allocation
        self._by_five_tuple[allocation.five_tuple] = allocation
        self._by_owner.increment(allocation.owner)
        self._by_realm.increment(allocation.realm)

    def adopt(self, allocation: Allocation) -> None:
        """Add one that has its relays, permissions and channels already, with their deadlines."""
        self.add(allocation)
        for family, deadline in allocation.expires.items():
            self.deadlines.set((allocation.number, family), deadline)
        for host, deadline in allocation.permissions.items():
            self.deadlines.set((allocation.number, host), deadline)
        for number, channel in allocation.channels.items():
            self.deadlines.set((allocation.number, number), channel.deadline)

    def count_elsewhere(self, number: int, owner: Owner) -> None:
        """Count an allocation that another process of this server serves."""
        if number not in self._elsewhere:
            self._elsewhere[number] = owner
            self._by_owner.increment(owner)
            self._by_realm.increment(owner[0])

    def elsewhere(self) -> list[tuple[int, str]]:
        """Number and realm of each allocation that another process of this server serves."""
        return [(number, owner[0]) for number, owner in self._elsewhere.items()]

    def is_elsewhere(self, number: int) -> bool:
        """Whether another process of this server serves the allocation of this number."""
        return number in self._elsewhere

    def discount_elsewhere(self, number: int) -> None:
        """It has ended there; unknown ones are fine."""
        owner = self._elsewhere.pop(number, None)
        if owner is not None:
            self._by_owner.decrement(owner)
            self._by_realm.decrement(owner[0])

    def remove(self, allocation: Allocation) -> None:
        for family in allocation.relayed:
            self.deadlines.discard((allocation.number, family))
        for host in allocation.permissions:
            self.deadlines.discard((allocation.number, host))
        for number in allocation.channels:
            self.deadlines.discard((allocation.number, number))
        del self._by_number[allocation.number]
        del self._by_five_tuple[allocation.five_tuple]
        self.announce(allocation, None)
        self._by_owner.decrement(allocation.owner)
        self._by_realm.decrement(allocation.realm)

    def announce(self, allocation: Allocation, five_tuple: FiveTuple | None) -> None:
        """Have it found here as well, in the place of where it was announced before; with None nowhere else."""
        if allocation.announced is not None:
            del self._by_five_tuple[allocation.announced]
        allocation.announced = five_tuple
        if five_tuple is not None:
            self._by_five_tuple[five_tuple] = allocation

    def move(self, allocation: Allocation) -> None:
        """Have it found where it was announced, and there alone."""
        if allocation.announced is not None:
            del self._by_five_tuple[allocation.five_tuple]
            allocation.five_tuple = allocation.announced
            allocation.announced = None
            allocation.is_left = False

    def extend(self, allocation: Allocation, family: Family, deadline: float) -> None:
        """Let the relay of one family live until deadline."""
        allocation.expires[family] = deadline
        self.deadlines.set((allocation.number, family), deadline)

    def drop_family(self, allocation: Allocation, family: Family) -> None:
        """Remove one relayed transport address with its permissions and channels (RFC 8656 section 8.1)."""
        del allocation.relayed[family], allocation.expires[family]
        self.deadlines.discard((allocation.number, family))
        for host in [host for host in allocation.permissions if family_of(host) is family]:
            self.drop_permission(allocation, host)
        for number in [n for n, channel in allocation.channels.items() if channel.peer.family is family]:
            self.drop_channel(allocation, number)

    def permit(self, allocation: Allocation, host: str, deadline: float) -> None:
        allocation.permissions[host] = deadline
        self.deadlines.set((allocation.number, host), deadline)

    def drop_permission(self, allocation: Allocation, host: str) -> None:
        del allocation.permissions[host]
        self.deadlines.discard((allocation.number, host))

    def bind(self, allocation: Allocation, number: int, peer: Address, deadline: float) -> None:
        allocation.bind(number, peer, deadline)
        self.deadlines.set((allocation.number, number), deadline)

    def drop_channel(self, allocation: Allocation, number: int) -> None:
        peer = allocation.channels.pop(number).peer
        del allocation.numbers[peer]
        self.deadlines.discard((allocation.number, number))

    def finish(self, five_tuple: FiveTuple, transaction_id: bytes, response: bytes, now: float) -> None:
        """Keep the answer that ended an allocation, for its retransmissions."""
        if len(self._finished) >= _MAX_FINISHED:
            del self._finished[next(iter(self._finished))]
        self._finished[five_tuple, transaction_id] = response, now + FINISHED_LIFETIME

    def answers_kept(self, now: float) -> list[tuple[FiveTuple, bytes, bytes, float]]:
        """Those that finish() has kept: client, transaction, answer, until when."""
        return [(*key, *kept) for key, kept in self._finished.items() if now < kept[1]]

    def keep_answer(self, five_tuple: FiveTuple, transaction_id: bytes, response: bytes, until: float) -> None:
        """As finish() has kept it elsewhere."""
        if len(self._finished) < _MAX_FINISHED:
            self._finished[five_tuple, transaction_id] = response, until

    def finished(self, five_tuple: FiveTuple, transaction_id: bytes, now: float) -> bytes | None:
        """The kept answer to this very request."""
        kept = self._finished.get((five_tuple, transaction_id))
        return kept[0] if kept is not None and now < kept[1] else None
