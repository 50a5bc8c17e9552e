"""The load generator's core in plain Python: what _load.pyx does, some ten times slower, where that was not built."""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Sequence
from contextlib import ExitStack
from struct import Struct

from turnsvr.client.load_tls import read_tls, write_tls
from turnsvr.client.load_values import (
    HISTOGRAM_SIZE,
    TAG_SIZE,
    WARM_UP,
    Framing,
    Load,
    LoadCounts,
    Receiver,
    Sender,
    bucket_of,
)
from turnsvr.stun.attributes import DATA
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter, is_channel_data, unpack_channel_data
from turnsvr.stun.message import Message

SOL_UDP = 17
UDP_SEGMENT = 103

_TAG = Struct("=HHII")
_TICKS = 1e7
_MOST_DEBT = 0.005
"""Seconds that sending may lag behind, eight packets or bursts if that is longer; what is due beyond is given up and
counted as lagged."""
_NAP = 0.001
_UNITS = 32
_BINDING_TAG_AT = 8
_BINDING_SUCCESS = b"\x01\x01"


class _Outlet:
    """One flow's way out."""

    def __init__(self, sender: Sender, number: int, load: Load, stack: ExitStack) -> None:
        self.sender = sender
        self.number = number
        self.next = 0
        self.rest = b""
        self.lost = False
        self.socket = stack.enter_context(socket.socket(fileno=os.dup(sender.descriptor)))
        self.body = bytes(load.size - TAG_SIZE)
        if sender.stream:
            self.body += bytes(-(len(sender.prefix) + load.size) % 4)
        else:
            self.socket.setsockopt(SOL_UDP, UDP_SEGMENT, len(sender.prefix) + load.size if load.segments else 0)

    def packet(self, run: int) -> bytes:
        tag = _TAG.pack(run, self.number, self.next & 0xFFFFFFFF, int(time.time() * _TICKS) & 0xFFFFFFFF)
        self.next += 1
        return self.sender.prefix + tag + self.body

    def write(self, data: bytes) -> int:
        """Bytes a connection takes; raises OSError when it is gone."""
        if self.sender.tls:
            return write_tls(self.sender.tls, data)
        try:
            return self.socket.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0


class _Inlet:
    """One socket at which packets arrive."""

    def __init__(self, receiver: Receiver, stack: ExitStack) -> None:
        self.receiver = receiver
        self.socket = stack.enter_context(socket.socket(fileno=os.dup(receiver.descriptor)))
        self.splitter = StreamSplitter() if receiver.stream else None

    def frames(self) -> list[bytes]:
        """What one read gives; raises OSError when the socket has an error, MalformedMessage when a stream is lost."""
        try:
            data = read_tls(self.receiver.tls) if self.receiver.tls else self.socket.recv(65536, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        if self.splitter is None:
            return [data]
        if not data and not self.receiver.tls:
            raise ConnectionResetError("closed")
        return self.splitter.feed(data)

    def payload(self, frame: bytes) -> bytes:
        """What carries the tag, empty for what is no packet of ours."""
        match self.receiver.arrival:
            case Framing.RAW:
                return frame
            case Framing.BINDING:
                return frame[_BINDING_TAG_AT : _BINDING_TAG_AT + TAG_SIZE] if frame[:2] == _BINDING_SUCCESS else b""
            case _:
                try:
                    if is_channel_data(frame):
                        return unpack_channel_data(frame)[1]
                    return Message.parse(frame).get(DATA) or b""
                except MalformedMessage:
                    return b""


class _Run:
    def __init__(self, senders: Sequence[Sender], receivers: Sequence[Receiver], load: Load, stack: ExitStack) -> None:
        self.load = load
        self.run = load.run & 0xFFFF
        self.outlets = [_Outlet(sender, number, load, stack) for number, sender in enumerate(senders)]
        self.epoll = stack.enter_context(select.epoll())
        self.inlets: dict[int, _Inlet] = {}
        for receiver in receivers:
            inlet = _Inlet(receiver, stack)
            self.inlets[inlet.socket.fileno()] = inlet
            self.epoll.register(inlet.socket, select.EPOLLIN)
        self.seen: list[set[int]] = [set() for _ in senders]
        self.highest = [-1] * len(senders)
        self.turn = 0
        self.counting = False
        self.sent = self.delivered = self.in_window = self.duplicates = self.reordered = 0
        self.foreign = self.lagged = self.blocked = self.refused = 0
        self.latency = [0] * HISTOGRAM_SIZE

    def loop(self) -> None:
        load = self.load
        start = now = due_at = time.monotonic()
        end = start + load.seconds
        unit = load.burst / load.rate
        while now < end:
            self.counting = now - start >= load.seconds * WARM_UP
            if unit and (debt := now - due_at - max(_MOST_DEBT, 8 * unit)) > 0:
                self.lagged += int(debt / unit) * load.burst
                due_at += int(debt / unit) * unit
            units = 0
            while due_at <= now and units < _UNITS:
                self._send_unit()
                due_at += unit
                units += 1
            got = self._drain(0)
            now = time.monotonic()
            if not got and unit and due_at - now > _NAP:
                self._drain(min(due_at, end) - now)
                now = time.monotonic()
        self.counting = False
        quiet_since, end = now, now + load.settle
        while now < end and now - quiet_since < load.quiet and self.delivered < self.sent:
            if self._drain(_NAP):
                quiet_since = time.monotonic()
            now = time.monotonic()

    def _send_unit(self) -> None:
        outlet = self.outlets[self.turn]
        self.turn = (self.turn + 1) % len(self.outlets)
        burst = self.load.burst
        if outlet.sender.stream:
            self._send_stream(outlet)
            return
        packets = [outlet.packet(self.run) for _ in range(burst)]
        for message in [b"".join(packets)] if self.load.segments else packets:
            count = burst if self.load.segments else 1
            try:
                if outlet.sender.to:
                    outlet.socket.sendto(message, socket.MSG_DONTWAIT, outlet.sender.to)
                else:
                    outlet.socket.send(message, socket.MSG_DONTWAIT)
                self.sent += count
            except BlockingIOError:
                self.blocked += count
            except OSError:
                self.refused += 1
                self.sent += count

    def _send_stream(self, outlet: _Outlet) -> None:
        burst = self.load.burst
        try:
            if not outlet.lost and outlet.rest:
                outlet.rest = outlet.rest[outlet.write(outlet.rest) :]
            if outlet.lost or outlet.rest:
                self.blocked += burst
                return
            data = b"".join(outlet.packet(self.run) for _ in range(burst))
            self.sent += burst
            outlet.rest = data[outlet.write(data) :]
        except OSError:
            self.refused += 1
            outlet.lost, outlet.rest = True, b""

    def _drain(self, patience: float) -> int:
        ready = self.epoll.poll(patience)
        for descriptor, _ in ready:
            inlet = self.inlets[descriptor]
            for _ in range(_UNITS):
                try:
                    frames = inlet.frames()
                except (OSError, MalformedMessage):
                    self.refused += 1
                    if inlet.splitter is not None:
                        self.epoll.unregister(descriptor)
                    break
                if not frames:
                    break
                ticks = int(time.time() * _TICKS) & 0xFFFFFFFF
                for frame in frames:
                    self._take(inlet.payload(frame), ticks)
        return len(ready)

    def _take(self, payload: bytes, ticks: int) -> None:
        if len(payload) != self.load.size:
            self.foreign += 1
            return
        run, flow, sequence, stamp = _TAG.unpack_from(payload)
        if run != self.run or flow >= len(self.outlets):
            return
        if sequence >= self.outlets[flow].next:
            self.foreign += 1
            return
        if sequence in self.seen[flow]:
            self.duplicates += 1
            return
        self.seen[flow].add(sequence)
        if sequence < self.highest[flow]:
            self.reordered += 1
        else:
            self.highest[flow] = sequence
        self.delivered += 1
        self.in_window += self.counting
        late = (ticks - stamp) & 0xFFFFFFFF
        self.latency[bucket_of(late if late < 1 << 31 else 0)] += 1


def exchange(
    senders: Sequence[Sender], receivers: Sequence[Receiver], load: Load, tls: tuple[int, int, int] | None = None
) -> LoadCounts:
    """As turnsvr.client._load.exchange; tls and Load.kernel_times make no difference here."""
    if not senders or not receivers or load.size < TAG_SIZE or not load.rate > 0:
        raise ValueError("a run needs senders, receivers, a payload of at least 12 bytes and a positive rate")
    with ExitStack() as stack:
        run = _Run(senders, receivers, load, stack)
        run.loop()
    return LoadCounts(
        sent=run.sent,
        delivered=run.delivered,
        in_window=run.in_window,
        window=load.seconds * (1 - WARM_UP),
        duplicates=run.duplicates,
        reordered=run.reordered,
        foreign=run.foreign,
        lagged=run.lagged,
        blocked=run.blocked,
        refused=run.refused,
        overrun=0,
        latency=tuple(run.latency),
    )
