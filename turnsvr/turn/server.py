"""The rules' front door: bytes and times go in, commands come out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from turnsvr.limits import AnswerLimiter
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.stun.errors import ErrorCode
from turnsvr.turn.commands import Command, EndReason
from turnsvr.turn.config import ServerConfig


class Key(Protocol):
    """One credential that a user name may stand for."""

    @property
    def username(self) -> str: ...
    @property
    def quota_user(self) -> str: ...
    @property
    def md5_key(self) -> bytes | None: ...
    @property
    def sha256_key(self) -> bytes | None: ...


class Server:
    """STUN and TURN (RFC 8489, RFC 8656), driven only through arguments.

    Times are seconds on any monotonic clock. random(n) gives n unpredictable bytes. After each call the caller
    carries out commands(), in order.
    """

    def __init__(self, config: ServerConfig, *, random: Callable[[int], bytes], limiter: AnswerLimiter) -> None: ...

    def receive(self, data: bytes, five_tuple: FiveTuple, now: float) -> None:
        """A whole message or ChannelData frame from a client, that no route covered. Never raises."""

    def disconnected(self, five_tuple: FiveTuple, now: float) -> None:
        """A stream client's connection is gone."""

    def credential(self, request: int, keys: Sequence[Key], now: float, *, refusal: str = "unknown user") -> None:
        """The answer to FindCredential; without keys, refusal says in the log why."""

    def credential_failed(self, request: int, now: float) -> None:
        """FindCredential cannot be answered: the client gets 500."""

    def relay_opened(
        self, allocation: int, addresses: Sequence[Address], failures: Mapping[Family, ErrorCode], now: float
    ) -> None:
        """OpenRelay worked, at least in part."""

    def relay_failed(self, allocation: int, code: ErrorCode, now: float) -> None:
        """OpenRelay did not work: 440 or 508."""

    def peer_error(
        self, allocation: int, peer: Address, icmp_type: int, icmp_code: int, data: bytes, now: float
    ) -> None:
        """An ICMP error came back from a peer (RFC 8656 section 11.5)."""

    def next_timeout(self) -> float | None:
        """When handle_timeout() wants to be called; None for never."""

    def handle_timeout(self, now: float) -> None:
        """End whatever has expired by now."""

    def commands(self) -> list[Command]:
        """What is to be done, in order; handed out once."""

    def reconfigure(self, config: ServerConfig) -> None:
        """Go by another config from now on; allocations live on."""

    def drain(self) -> None:
        """Refuse new allocations from now on."""

    def end(self, allocation: int, reason: EndReason, now: float) -> None:
        """End one allocation."""

    def shutdown(self, now: float) -> None:
        """End every allocation."""

    def allocation_of(self, five_tuple: FiveTuple) -> int | None:
        """The allocation of a client, if it has one."""

    def binding_suffix(self, listener: Address) -> bytes:
        """Encoded attributes that follow XOR-MAPPED-ADDRESS in the answer to a plain Binding request there."""

    def __len__(self) -> int:
        """Live allocations."""
