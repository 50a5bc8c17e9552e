"""Requests whose credential is being looked up: at most so many, and each of a client's once."""

from __future__ import annotations

from itertools import count
from typing import Final, final

from turnsvr.stun.address import FiveTuple
from turnsvr.stun.message import Message
from turnsvr.turn.authentication import Claim

MAX_WAITING = 10_000
"""One more request is dropped, and its client will ask again."""


@final
class WaitingRequest:
    """What is to be judged once the credential is there."""

    __slots__ = ("allocation", "claim", "five_tuple", "message")

    def __init__(self, message: Message, five_tuple: FiveTuple, claim: Claim, allocation: int | None) -> None:
        """allocation: the client's when it asked; one that it has made since is another."""
        self.message: Final = message
        self.five_tuple: Final = five_tuple
        self.claim: Final = claim
        self.allocation: Final = allocation


class WaitingRequests:
    """The table of such requests, by the number that they are asked for under."""

    def __init__(self) -> None:
        self._requests: dict[int, WaitingRequest] = {}
        self._asked: set[tuple[FiveTuple, bytes]] = set()
        self._by_client: dict[FiveTuple, int] = {}
        self._numbers = count(1)

    def __len__(self) -> int:
        return len(self._requests)

    @property
    def full(self) -> bool:
        return len(self._requests) >= MAX_WAITING

    def has(self, message: Message, five_tuple: FiveTuple) -> bool:
        """Whether this is the retransmission of a request that waits."""
        return (five_tuple, message.transaction_id) in self._asked

    def of(self, five_tuple: FiveTuple) -> bool:
        """Whether a request of this client waits."""
        return five_tuple in self._by_client

    def client(self, number: int) -> FiveTuple | None:
        """The client whose request has this number; None when none of that number waits any more."""
        waiting = self._requests.get(number)
        return waiting.five_tuple if waiting is not None else None

    def add(self, message: Message, five_tuple: FiveTuple, claim: Claim, allocation: int | None) -> int:
        """Keep a request that is not there yet; returns its number."""
        number = next(self._numbers)
        self._requests[number] = WaitingRequest(message, five_tuple, claim, allocation)
        self._asked.add((five_tuple, message.transaction_id))
        self._by_client[five_tuple] = self._by_client.get(five_tuple, 0) + 1
        return number

    def pop(self, number: int) -> WaitingRequest | None:
        """Remove a request and return it; None where it was forgotten meanwhile."""
        waiting = self._requests.pop(number, None)
        if waiting is not None:
            self._asked.discard((waiting.five_tuple, waiting.message.transaction_id))
            others = self._by_client.pop(waiting.five_tuple) - 1
            if others:
                self._by_client[waiting.five_tuple] = others
        return waiting

    def forget(self, five_tuple: FiveTuple) -> None:
        """The client is gone."""
        for number in [number for number, waiting in self._requests.items() if waiting.five_tuple == five_tuple]:
            self.pop(number)

    def clear(self) -> None:
        self._requests.clear()
        self._asked.clear()
        self._by_client.clear()
