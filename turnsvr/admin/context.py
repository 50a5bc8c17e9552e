"""What the admin room asks of the server around it."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Literal, Protocol

from turnsvr.net.tracing.traces import Traces
from turnsvr.relay.counts import Counters, Totals
from turnsvr.stun.address import Address, Family, FiveTuple
from turnsvr.web.figures import Figures

Level = Literal["debug", "info", "warning", "error"]
PacketReader = Literal["pump", "asyncio"]
"""Who reads a client's packets from its socket."""


class AllocationUser(Protocol):
    """The user of an allocation."""

    @property
    def username(self) -> str: ...
    @property
    def quota_user(self) -> str: ...


class Channel(Protocol):
    @property
    def peer(self) -> Address: ...
    @property
    def deadline(self) -> float: ...


class PeerConnection(Protocol):
    """A connection to a peer over TCP, to be read at once."""

    @property
    def peer(self) -> Address: ...
    @property
    def stage(self) -> Enum:
        """Its value is a word for it."""

    @property
    def client(self) -> FiveTuple | None:
        """The client's connection that it is joined with."""


class Allocation(Protocol):
    """A live allocation, to be read at once: the next turn of the loop may change or end it."""

    @property
    def number(self) -> int: ...
    @property
    def five_tuple(self) -> FiveTuple: ...
    @property
    def tcp(self) -> bool:
        """Whether it reaches its peers over TCP."""

    @property
    def realm(self) -> str: ...
    @property
    def key(self) -> AllocationUser: ...
    @property
    def shown(self) -> str:
        """The user as lists may show it."""

    @property
    def until(self) -> float | None:
        """When the access token ends that it was made with; None for another credential."""

    @property
    def started(self) -> float: ...
    @property
    def relayed(self) -> Mapping[Family, Address]: ...
    @property
    def expires(self) -> Mapping[Family, float]: ...
    @property
    def permissions(self) -> Mapping[str, float]: ...
    @property
    def channels(self) -> Mapping[int, Channel]: ...


class CannotReload(Exception):
    """The server runs without a settings file."""


class CannotUpgrade(Exception):
    """No successor goes on; the server serves as before, and the text says why."""


@dataclass(frozen=True, slots=True)
class Upgraded:
    """What a successor has taken over."""

    pid: int
    version: str
    sessions: int
    """That moved."""
    staying: int
    """Sessions that stay in the process that served them: of TLS and DTLS clients, and those that relay over TCP."""
    seconds: float
    """For which no packet was read, as measured here."""


class Ending(Exception):
    """The server has drained and ends: nothing can be taken back any more."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of reading the settings again; with mistakes the old ones stay, all of them."""

    file: str
    mistakes: tuple[str, ...] = ()
    restart: tuple[str, ...] = ()
    """Names of settings that have changed and hold until a restart."""


@dataclass(frozen=True, slots=True)
class LevelInForce:
    """The least severe lines that are logged, and for how many seconds until the settings' own; None for good."""

    level: Level
    remaining: float | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server is like now, besides its sessions."""

    version: str
    pump: str
    """Which, and why where there was a choice."""
    offload: tuple[str, ...]
    """What carries channels in the kernel, for people; empty where the settings ask for nothing."""
    uptime: float
    listening: tuple[str, ...]
    admin: tuple[str, ...]
    relay: tuple[str, ...]
    external: tuple[str, ...]
    """External addresses that are found by themselves, each with where it is from; for people."""
    realms: tuple[str, ...]
    figures: Figures
    problems: Sequence[str]
    """Sentences that say why it is not ready, besides draining."""
    open_files: Mapping[str, int]
    """How many the system allows (limit, where there is one), and the share of each part."""


class AdminContext(Protocol):
    """The server around the admin room. Every method is called on its event loop."""

    @property
    def token(self) -> str | None:
        """What callers over TCP must bring."""

    def tls_context(self) -> ssl.SSLContext | None:
        """What new TLS connections take now; None without TLS."""

    def now(self) -> float:
        """Seconds on the clock of deadlines."""

    async def refresh(self) -> None:
        """Bring what other processes of this server serve up to date, within half a second."""

    def sessions(self) -> Iterator[Allocation]:
        """Every live allocation, in the order in which they began."""

    def session(self, number: int) -> Allocation | None: ...

    def __len__(self) -> int:
        """Sessions."""

    def peer_connections(self, number: int) -> Sequence[PeerConnection]:
        """A session's connections to peers: to be read, never changed."""

    def counters(self, number: int) -> Counters: ...

    def totals(self) -> Totals: ...

    def pump(self) -> str:
        """Name of the pump that serves sessions."""

    def reader(self, five_tuple: FiveTuple) -> PacketReader: ...

    async def facts(self) -> Facts: ...

    def end(self, numbers: Iterable[int]) -> int:
        """End these sessions, of which unknown ones are fine; returns how many ended."""

    def revoke(self, username: str, until: float | None = None) -> bool:
        """Refuse a time-limited user name until it expires; False for any other, and for one that has expired.

        until: when an access token of this id ends, by the loop's clock; it is refused instead. Raises TooManyRevoked.
        """

    @property
    def traces(self) -> Traces:
        """What operators follow of clients."""

    def drain(self) -> None:
        """Take no new sessions; the server ends with the last one."""

    def resume(self) -> None:
        """Take new sessions again; raises Ending."""

    def reload(self) -> Reloaded:
        """Read the settings again; raises CannotReload."""

    def hand_over(self, successor: socket.socket) -> None:
        """A process wants to go on where this one serves; the socket is the context's from here on."""

    async def renew(self) -> Upgraded | None:
        """Have a successor take what only a restart changes; None where that is the operator's to do.

        Raises CannotUpgrade.
        """

    async def upgrade(self, program: str | None) -> Upgraded:
        """Have a successor go on, of this program or of the one that runs; raises CannotUpgrade."""

    def log_level(self) -> LevelInForce: ...

    def set_log_level(self, level: Level, seconds: float | None) -> LevelInForce:
        """For so many seconds, or until the next reload."""
