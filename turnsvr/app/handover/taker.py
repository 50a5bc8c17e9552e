"""The process that succeeds a server: it asks, builds its rooms from what it gets, and serves when it may.

Where the server says no, or is silent, this process does not serve: it ends, and the server goes on. Where the server
has ended in the middle, this process goes on with what has arrived.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Final

import structlog

from turnsvr import __version__
from turnsvr.admin.handover import PREFACE
from turnsvr.app.errors import StartError
from turnsvr.app.handover import document
from turnsvr.app.handover.beside import Incoming
from turnsvr.app.handover.document import MovedSession, Staying
from turnsvr.app.handover.steps import reached
from turnsvr.app.handover.wire import Closed, Process, Talk, Wire, close_all, kind_of
from turnsvr.net.engine import Engine
from turnsvr.net.movable import GivenConnection, MovableStreams
from turnsvr.relay.api import PumpSettings
from turnsvr.relay.moving import BoundSocket, MovablePump, StreamRest
from turnsvr.relay.sockets import wildcard
from turnsvr.stun.address import Address, FiveTuple
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.moving import Adopted
from turnsvr.turn.server import Server
from turnsvr.turn.snapshot import (
    Document,
    Unreadable,
    Value,
    read_address,
    read_document,
    read_five_tuple,
    read_int,
    read_list,
    read_row,
    read_str,
)

_READING: Final = 20.0
"""Seconds between two messages, and until we may serve once we are ready."""
_ENDING: Final = 2.0
"""Seconds in which a server whose connection has closed must end, to have ended in the middle."""
_UNBOUNDED: Final = 1 << 30
"""Permissions and channels of a session, where another process has allowed them."""

Sockets = dict[tuple[str, int], int]
"""Descriptors by host and port."""

Listen = Callable[[Address, list[int]], object]
"""Serves UDP sockets that are bound at this address."""

_log = structlog.get_logger()


class Taker:
    """One succession."""

    serves_first = False
    """Whether to relay before HTTP serves: where no other process relays meanwhile."""

    def __init__(self, wire: Talk) -> None:
        self._wire = wire
        self._rules: Document = {}
        self._others: Document = {}
        self.run: str | None = None
        """Names the run of the server that goes on here; None where it has not told so."""
        self._sessions: list[MovedSession] = []
        self._connections: list[GivenConnection] = []
        self._udp: dict[Address, list[int]] = {}
        self._tcp: dict[Address, int] = {}
        self._held: list[tuple[bytes, BoundSocket]] = []
        self._refused: list[tuple[Allocation, MovedSession]] = []
        """Sessions whose realm is not served here. They end when the server has let go, and not before."""
        self._last_connection = 0
        self._is_alone = False
        """The server has ended."""
        self.http: Sockets = {}
        """HTTP listeners of apps and browsers, and of the operator."""
        self.admin: Sockets = {}
        self.staying: list[Staying] = []
        """Sessions that stay with the server until they end."""

    @classmethod
    async def at(cls, path: str) -> Taker:
        """Of the server whose admin socket this is. Raises StartError."""
        connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connected.settimeout(_READING)
            connected.connect(path)
            connected.sendall(PREFACE)
        except OSError as error:
            connected.close()
            raise StartError(f"no server to take over from answers at {path}: {error.strerror or error}") from None
        return cls(Wire(connected))

    @classmethod
    async def on(cls, descriptor: int) -> Taker:
        """Of the process that has started this one, over a socket that it has left open."""
        return cls(Wire(socket.socket(fileno=descriptor), Process.numbered(os.getppid())))

    # Reading

    async def read(self) -> None:
        """Ask, and read all that there is. Raises StartError where the server goes on."""
        try:
            await self._wire.send(
                {
                    "kind": "ask",
                    "reads": list(document.READABLE),
                    "version": __version__,
                    "pid": os.getpid(),
                }
            )
            while await self._read_one():
                pass
        except (Unreadable, TimeoutError) as error:
            await self.give_up(str(error) or "the server did not go on in time")
        except Closed as error:
            await self._alone_or_not(str(error))
        reached("read")

    async def _read_one(self) -> bool:
        """Whether there is more. Raises Closed, TimeoutError, Unreadable, StartError."""
        message, descriptors = await self._wire.receive(_READING)
        kind = kind_of(message)
        if kind == "refused":
            raise StartError(f"the server does not hand over: {read_str(message.get('reason'), 'reason')}")
        if kind == "begin":
            document.check_version(message.get("version"))
            reached("begun")
        elif kind == "rules":
            self._rules = read_document(message.get("rules"), "rules")
            self._others = read_document(message.get("others"), "others")
            self.run = document.read_run(self._others["run"]) if "run" in self._others else None
        elif kind == "staying":
            self.staying = document.read_staying(message.get("are"))
            self._last_connection = read_int(message.get("last_connection"), "last_connection")
        elif kind == "sockets":
            self._read_sockets(read_list(message.get("are"), "are"), descriptors)
            reached("half-read")
        elif kind == "sessions":
            self._read_sessions(read_list(message.get("are"), "are"), descriptors)
        elif kind == "connections":
            are = read_list(message.get("are"), "are")
            self._connections += map(document.read_connection, are, descriptors)
        elif kind == "end":
            if read_int(message.get("sessions"), "sessions") != len(self._sessions):
                raise Unreadable("fewer sessions than there are")
            return False
        else:
            raise Unreadable(f"a message {kind!a}")
        return True

    def _read_sockets(self, are: Iterable[Value], descriptors: Iterable[int]) -> None:
        for each, descriptor in zip(are, descriptors, strict=True):
            row = list(read_list(each, "sockets"))
            kind = read_str(row[0] if row else None, "sockets")
            if kind == "held":
                self._held.append(document.read_held(row, descriptor))
                continue
            _, host, port = read_row(row, 3, "sockets")
            address = read_address([host, port]) if kind in ("udp", "tcp") else None
            if kind == "udp" and address is not None:
                self._udp.setdefault(address, []).append(descriptor)
            elif kind == "tcp" and address is not None:
                self._tcp[address] = descriptor
            elif kind in ("web", "admin"):
                where = read_str(host, "sockets"), read_int(port, "sockets")
                (self.http if kind == "web" else self.admin)[where] = descriptor
            else:
                raise Unreadable(f"a socket {kind!a}")

    def _read_sessions(self, are: Iterable[Value], descriptors: list[int]) -> None:
        at = 0
        for each in are:
            count = document.relays_of(each)
            self._sessions.append(document.read_session(each, descriptors[at : at + count]))
            at += count
        if at != len(descriptors):
            raise Unreadable("other sockets than those of the sessions")

    async def _alone_or_not(self, reason: str) -> None:
        """The connection has closed: go on where the server has ended, and has said enough; else raise StartError."""
        process = self._wire.process
        if process is None or not await process.wait_end(_ENDING):
            raise StartError(f"the server goes on as before: the connection to it is gone ({reason})")
        if not self._rules:
            raise StartError("the server has ended before it said anything")
        _log.warning("the server has ended in the middle of the hand-over", sessions=len(self._sessions))
        self._is_alone = True

    async def give_up(self, reason: str) -> None:
        """Have the server go on as before; raises StartError."""
        with contextlib.suppress(Closed, TimeoutError):
            async with asyncio.timeout(1.0):
                await self._wire.send({"kind": "failed", "reason": reason})
        raise StartError(f"not taken over, and the server goes on as before: {reason}")

    # Building

    def bring_rules(self, server: Server) -> None:
        """Have the rules go on from what was read. Raises StartError."""
        try:
            server.read(self._rules)
        except Unreadable as error:
            raise StartError(f"not understood: {error}") from None
        for each in self.staying:
            server.count_elsewhere(each.number, each.realm, each.quota_user)

    def udp(self, address: Address) -> list[int]:
        """Sockets of the server's listener at this address, which are the caller's from here on."""
        return self._udp.pop(address, [])

    def tcp(self, address: Address) -> int | None:
        return self._tcp.pop(address, None)

    def bring_sessions(
        self,
        engine: Engine,
        streams: MovableStreams,
        settings: PumpSettings,
        others: Incoming,
        listen: Listen,
    ) -> None:
        """Bring sessions, held ports, connections and figures into the rooms.

        listen: serves a listener that the settings do not have, whose sessions go on.

        Raises StartError.
        """
        pump, now = engine.pump, asyncio.get_running_loop().time()
        try:
            self._keep_listeners(listen)
            pump.reconfigure(replace(settings, max_permissions=_UNBOUNDED, max_channels=_UNBOUNDED))
            self._sessions.reverse()
            while self._sessions:
                self._bring(engine, pump, self._sessions[-1], others, now)
            pump.reconfigure(settings)
            while self._held:
                pump.hold(*self._held.pop())
            for each in self.staying:
                for relayed in each.relayed:
                    pump.know(relayed, True)
            streams.begin_behind(self._last_connection)
            connections, self._connections = self._connections, []
            streams.take(connections, now)
            others.read(self._others)
        except Unreadable as error:
            raise StartError(f"not understood: {error}") from None
        except OSError as error:
            raise StartError(f"no room for what was handed over: {error.strerror}") from None
        engine.carry_out()

    def _keep_listeners(self, listen: Listen) -> None:
        """Listeners that the settings do not have any more: those of sessions serve on, the others are closed."""
        servers = set()
        for each in self._sessions:
            five_tuple = read_five_tuple(each.allocation.get("client"))
            if not five_tuple.transport.is_stream:
                servers.add(five_tuple.server)
                servers.add(Address(wildcard(five_tuple.server.family), five_tuple.server.port))
        for address, descriptors in self._udp.items():
            if address in servers:
                listen(address, descriptors)
                _log.info("a listener serves on for its sessions", listen=str(address))
            else:
                close_all(descriptors)
        close_all(self._tcp.values())
        self._udp.clear()
        self._tcp.clear()

    def _bring(self, engine: Engine, pump: MovablePump, session: MovedSession, others: Incoming, now: float) -> None:
        taken = engine.server.adopt(session.allocation)
        self._sessions.pop()
        if not isinstance(taken, Adopted):
            close_all(each.descriptor for each in session.state.relays)
            self._refused.append((taken, session))
            return
        pump.take(replace(taken.relay, bandwidth=session.state.bandwidth), session.state)
        for permit in taken.permissions:
            pump.permit(permit.allocation, permit.host, permit.deadline, permit.ports)
        for channel in taken.channels:
            pump.bind_channel(channel.allocation, channel.channel, channel.peer, channel.deadline)
        others.adopted(taken.allocation, now)

    # The moment

    async def serve(self, engine: Engine, streams: MovableStreams, others: Incoming) -> None:
        """Wait until the server has let go, and serve. Raises StartError where it has not, and then nothing serves."""
        was_enabled = gc.isenabled()
        gc.collect()
        gc.disable()  # a collection would take longer than the moment
        try:
            go = await self._await_go()
            await self._arm(go, engine, streams, others)
        finally:
            if was_enabled:
                gc.enable()
        reached("armed")
        if not self._is_alone:
            with contextlib.suppress(Closed):
                await self._wire.send({"kind": "serving"})
        reached("serves")
        now = asyncio.get_running_loop().time()
        for allocation, session in self._refused:
            others.refused(allocation, session, now)
        self._refused.clear()

    async def _await_go(self) -> Document:
        """The server's last word; an empty one where it has ended before. Raises StartError."""
        if self._is_alone:
            return {}
        reached("ready")
        try:
            await self._wire.send({"kind": "ready"})
            message, descriptors = await self._wire.receive(_READING)
            close_all(descriptors)
            reached("may-serve")
            if kind_of(message) == "go":
                return message
            raise Unreadable(str(message.get("reason") or "it does not let go"))
        except (Unreadable, TimeoutError) as error:
            await self.give_up(str(error) or "the server did not let go in time")
        except Closed as error:
            await self._alone_or_not(str(error))
        return {}

    async def _arm(self, go: Document, engine: Engine, streams: MovableStreams, others: Incoming) -> None:
        """Begin to serve. Nothing that the message says makes this fail, since the server has let go."""
        pump = engine.pump
        gone: list[int] = []
        missing: list[FiveTuple] = []
        rests: dict[FiveTuple, StreamRest] = {}
        waiting: list[tuple[FiveTuple, list[bytes]]] = []
        try:
            if go:
                gone = [read_int(each, "gone") for each in read_list(go.get("gone"), "gone")]
                missing = [read_five_tuple(each) for each in read_list(go.get("missing"), "missing")]
                rests = document.read_rests(go.get("rests"))
                waiting = document.read_waiting(go.get("waiting"))
                others.revoke(read_document(go.get("others"), "others"))
        except Unreadable as error:
            _log.error("the last word of the server was not understood", reason=str(error))
        self._refused = [each for each in self._refused if each[0].number not in gone]
        for number in gone:
            pump.close(number)
            others.left(number)
        engine.server.forget(gone, counted=False)
        streams.discard(missing)
        for five_tuple, rest in rests.items():
            pump.feed(five_tuple, rest)
        await streams.attach(rests)
        for five_tuple, messages in waiting:
            for data in messages:
                pump.receive(five_tuple, data)
        pump.arm()
        streams.serve()

    def wire(self) -> Wire | None:
        """The connection to the server, which settles and then serves what stays; None where it has ended."""
        return self._wire if isinstance(self._wire, Wire) and not self._is_alone else None

    def close(self) -> None:
        """Talk to the server no more, after this process could not start."""
        self._wire.close()

    def close_unused(self) -> None:
        """Close HTTP listeners that the settings do not have any more. Call it once everything serves."""
        for sockets in (self.http, self.admin):
            close_all(sockets.values())
            sockets.clear()
