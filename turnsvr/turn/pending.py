"""An Allocate request that has passed its checks, and the allocation whose relay is being opened for it."""

from __future__ import annotations

from typing import Final, final

from turnsvr.stun.address import Family
from turnsvr.stun.message import Message
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import Proof


@final
class AllocateRequest:
    """What the client wants, once it is known to be well formed and served here."""

    def __init__(
        self,
        families: tuple[Family, ...],
        lifetime: int,
        *,
        even_port: bool = False,
        reserve: bool = False,
        token: bytes | None = None,
        dual: bool = False,
        missing: Family | None = None,
        mobile: bool = False,
        tcp: bool = False,
    ) -> None:
        """lifetime in seconds.

        dual: whether a relayed transport address of each family was asked for. missing: a family of a dual allocation
        that is not served here; it gets ADDRESS-ERROR-CODE 440. mobile: whether a mobility ticket was asked for. tcp:
        whether peers are to be reached over TCP.
        """
        self.families: Final = families
        self.lifetime: Final = lifetime
        self.even_port: Final = even_port
        self.reserve: Final = reserve
        self.token: Final = token
        self.dual: Final = dual
        self.missing: Final = missing
        self.mobile: Final = mobile
        self.tcp: Final = tcp


@final
class PendingAllocation:
    """An allocation whose relay is being opened."""

    __slots__ = ("abandoned", "allocation", "deadline", "message", "proof", "request", "reserve")

    def __init__(
        self,
        allocation: Allocation,
        message: Message,
        proof: Proof,
        request: AllocateRequest,
        reserve: bytes | None,
        deadline: float,
    ) -> None:
        self.allocation: Final = allocation
        self.message: Final = message
        self.proof: Final = proof
        self.request: Final = request
        self.reserve: Final = reserve
        self.deadline: Final = deadline
        self.abandoned = False
        """The allocation ended before its relay was there: what is opened is to be closed at once."""
