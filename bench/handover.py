"""What clients notice of an upgrade: `python -m bench.handover` has flows run through a server, and upgrades that.

With --restart systemd restarts it, one of this host's that runs beside everything else, as root; with --kill the server
is killed, and systemd starts it again.

Each packet carries its number and the time when it was sent; the kernel notes when it arrived. So a sender that is late
costs nothing, and what a packet has waited is known to some microseconds. Over TCP the client's program notes it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import resource
import secrets
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from bench.servers import make_certificate
from bench.systemd import Systemd
from turnsvr.admin.client import AdminClient
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink, StreamLink, open_link, tls_context
from turnsvr.client.turn import AllocateOptions, PeerData, TurnClient
from turnsvr.stun.address import Address, Family, Transport
from turnsvr.stun.framing import pack_channel_data

_STAMP = struct.Struct("!Id")
_SO_TIMESTAMPNS = 35
_TIME = struct.Struct("@qq")
_CHANNEL = 0x4000
_HOST = "127.0.0.1"
_HOSTS = {Family.IPV4: _HOST, Family.IPV6: "::1"}
_SPELT = (_HOST, "[::1]")
_USER, _PASSWORD = "bench", secrets.token_hex(8)


@dataclass(slots=True)
class Way:
    """One direction of a flow."""

    name: str
    sent: int = 0
    numbers: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)

    def arrived(self, data: bytes, at: float) -> None:
        number, sent_at = _STAMP.unpack(data[:12])
        self.numbers.append(number)
        self.waits.append(at - sent_at)

    def line(self) -> str:
        different = set(self.numbers)
        behind = sum(after < before for before, after in zip(self.numbers, self.numbers[1:], strict=False))
        waits = sorted(self.waits)
        return (
            f"{self.name:10} sent {self.sent:7}  lost {self.sent - len(different):3}  "
            f"twice {len(self.numbers) - len(different):3}  out of order {behind:3}  "
            f"transit {waits[len(waits) // 2] * 1000:.2f} ms, longest {waits[-1] * 1000:.2f} ms"
        )


class Flow:
    """A client and a peer that send each other packets at a steady rate, from threads of their own."""

    def __init__(self, transport: str, client: socket.socket, server: Address, peer: socket.socket, relayed: Address):
        self.up, self.down = Way(f"{transport} up"), Way(f"{transport} down")
        self._is_stream = transport.startswith("tcp")
        self._client, self._server, self._peer, self._relayed = client, server, peer, relayed
        self._stopping = threading.Event()
        self._threads = [threading.Thread(target=self._receive_up), threading.Thread(target=self._receive_down)]

    def start(self, rate: float) -> None:
        self._sender = threading.Thread(target=self._send, args=(rate,))
        for each in (*self._threads, self._sender):
            each.start()

    def stop(self) -> None:
        """Send no more, and give what is on its way time to arrive."""
        self._stopping.set()
        self._sender.join()
        time.sleep(0.5)

    def end(self) -> None:
        """After stop(): hear no more, which over TCP ends the session."""
        if self._is_stream:
            self._client.shutdown(socket.SHUT_RDWR)
        for each in self._threads:
            each.join()

    def _send(self, rate: float) -> None:
        due = time.monotonic()
        number = 0
        while not self._stopping.is_set():
            data = _STAMP.pack(number, time.time()) + bytes(148)
            frame = pack_channel_data(_CHANNEL, data, padded=self._is_stream)
            self._transmit(frame)
            self._peer.sendto(data, self._relayed)
            number += 1
            self.up.sent = self.down.sent = number
            due += 1 / rate
            time.sleep(max(0.0, due - time.monotonic()))

    def _transmit(self, frame: bytes) -> None:
        if self._is_stream:
            self._client.sendall(frame)
        else:
            self._client.sendto(frame, self._server)

    def _over(self) -> bool:
        return self._stopping.is_set() and not self._sender.is_alive()

    def _receive_up(self) -> None:
        while (got := _receive(self._peer)) is not None or not self._over():
            if got is not None:
                self.up.arrived(*got)

    def _receive_down(self) -> None:
        if not self._is_stream:
            while (got := _receive(self._client)) is not None or not self._over():
                if got is not None:
                    self.down.arrived(got[0][4:], got[1])
            return
        rest = b""
        self._client.settimeout(None)
        while data := self._client.recv(65536):
            at = time.time()
            rest += data
            while len(rest) >= 164:
                self.down.arrived(rest[4:164], at)
                rest = rest[164:]


class SecuredFlow(Flow):
    """One over TLS or DTLS, whose client is the loop's. When a packet arrived down there its program notes."""

    def __init__(self, name: str, client: TurnClient, server: Address, peer: socket.socket) -> None:
        self._loop, self._turn = asyncio.get_running_loop(), client
        super().__init__(name, peer, server, peer, client.relayed[0])
        self._reading = self._loop.create_task(self._read())
        self._threads.pop()

    def _transmit(self, frame: bytes) -> None:
        self._loop.call_soon_threadsafe(self._turn.link.send, frame)

    async def _read(self) -> None:
        while True:
            received = await self._turn.receive()
            if isinstance(received, PeerData):
                self.down.arrived(received.data, time.time())


def _receive(sock: socket.socket) -> tuple[bytes, float] | None:
    """A datagram, and when it arrived; None after a while without one."""
    try:
        data, ancillary, _, _ = sock.recvmsg(2048, 64)
    except TimeoutError:
        return None
    seconds, nanoseconds = _TIME.unpack(ancillary[0][2][:16])
    return data, seconds + nanoseconds / 1e9


def _stamped(sock: socket.socket) -> socket.socket:
    sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    sock.settimeout(0.3)
    return sock


async def _open(transport: str, family: Family, port: int) -> tuple[Flow, TurnClient]:
    server = Address(_HOSTS[family], port)
    link = await open_link(Transport(transport), server, tls=tls_context(insecure=True))
    client = TurnClient(link, Login(_USER, _PASSWORD))
    await client.allocate(AllocateOptions(family=family))
    peer = _stamped(socket.socket(family.socket_family, socket.SOCK_DGRAM))
    peer.bind((server.host, 0))
    await client.bind_channel(Address(*peer.getsockname()[:2]), _CHANNEL)
    name = f"{transport}{'6' if family is Family.IPV6 else ''}"
    if Transport(transport).is_encrypted:
        return SecuredFlow(name, client, server, peer), client
    assert isinstance(link, StreamLink | DatagramLink)
    descriptor = link._socket.get_extra_info("socket").fileno()
    asyncio.get_running_loop()._remove_reader(descriptor)  # type: ignore[attr-defined]  # threads read from here on
    raw = socket.socket(fileno=os.dup(descriptor))
    raw.setblocking(True)
    if transport == "udp":
        _stamped(raw)
    return Flow(name, raw, server, peer, client.relayed[0]), client


async def _idle(server: Address, count: int) -> list[TurnClient]:
    """So many sessions that send nothing."""
    clients: list[TurnClient] = []
    for at in range(0, count, 50):
        some = [
            TurnClient(await DatagramLink.open(server), Login(_USER, _PASSWORD)) for _ in range(min(50, count - at))
        ]
        await asyncio.gather(*(each.allocate() for each in some))
        clients += some
    return clients


async def _measure(arguments: argparse.Namespace, directory: Path) -> None:
    port = 31_478
    file = directory / "turnsvr.yaml"
    legs = [(transport, Family.IPV4) for transport in (("udp",) if arguments.kill else ("udp", "tcp"))]
    settings = f"listen: [udp://{_HOST}:{port}, tcp://{_HOST}:{port}]\n"
    if arguments.all_legs:
        legs = [(transport, family) for transport in ("udp", "tcp", "tls", "dtls") for family in Family]
        certificate, key = make_certificate(directory)
        listen = ", ".join(f"'{transport}://{host}:{port}'" for transport in ("udp", "tcp") for host in _SPELT)
        listen += "".join(f", '{transport}://{host}:{port + 1}'" for transport in ("tls", "dtls") for host in _SPELT)
        settings = f"listen: [{listen}]\ntls: {{certificate: {certificate}, key: {key}}}\n"
    hosts = ", ".join(f"'{host}'" for host in (_HOSTS.values() if arguments.all_legs else [_HOST]))
    allocations = arguments.sessions + 100
    file.write_text(
        f"realm: bench\n{settings}relay: {{addresses: [{hosts}]}}\n"
        f"peers: {{allow: [{hosts}]}}\ncredentials: {{users: {{{_USER}: {_PASSWORD}}}}}\n"
        f"pump: {{kind: {arguments.kind}}}\nadmin: {{socket: {directory}/admin.sock}}\n"
        f"survive: {'crash' if arguments.kill else 'restart'}\n"
        f"limits: {{allocations: {allocations}, allocations_per_user: {allocations}, allocation_rate_per_user: 0, "
        "connections: 100}\n"  # so that relays have the open files
    )
    running = (
        Restarted(file, directory, arguments.kill) if arguments.restart or arguments.kill else Upgraded(file, directory)
    )
    with running:
        for few in re.findall("fewer open files.*", running.log):
            print(few)
        server = Address(_HOST, port)
        idle = await _idle(server, arguments.sessions)
        opened = [await _open(each, family, port + (each in ("tls", "dtls"))) for each, family in legs]
        for flow, _ in opened:
            flow.start(arguments.rate)
        for _ in range(arguments.upgrades):
            await asyncio.sleep(arguments.seconds)
            await asyncio.to_thread(running.again)
        await asyncio.sleep(arguments.seconds)
        for flow, _ in opened:
            await asyncio.to_thread(flow.stop)
        await asyncio.sleep(1.0)  # what the old processes have told of is half a second old at the most
        counted = await asyncio.to_thread(_counted, directory)
        for flow, _ in opened:
            await asyncio.to_thread(flow.end)
        for took in re.findall(running.tells, running.log):
            print(took)
        for flow, _ in opened:
            print(flow.up.line(), flow.down.line(), sep="\n")
        for flow, client in opened:
            traffic = counted.get((client.link.transport.value, str(client.link.local)))
            if traffic != (flow.up.sent, flow.down.sent):
                print(f"{flow.up.name}: sent {flow.up.sent} each way, and the server has counted {traffic}")
        print(f"{len(counted)} sessions of {len(opened) + len(idle)} live")


def _counted(directory: Path) -> dict[tuple[str, str], tuple[int, int]]:
    """Packets from clients and to them, as the server has counted them, by the client's transport and address."""
    sessions = AdminClient.on_socket(directory / "admin.sock").every_session()
    return {
        (each["transport"], each["client"]): (
            each["traffic"]["from_client"]["packets"],
            each["traffic"]["to_client"]["packets"],
        )
        for each in sessions
    }


class Upgraded:
    """A server, and the processes that succeed it by `turnsvr upgrade`."""

    tells = r"handed over.*"

    def __init__(self, file: Path, directory: Path) -> None:
        self._file, self._directory = file, directory

    def __enter__(self) -> Self:
        with (self._directory / "log").open("wb") as errors:
            self._first = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "turnsvr", "run", "-c", str(self._file)], stderr=errors
            )
        while " serving " not in self.log:
            time.sleep(0.1)
        return self

    def again(self) -> None:
        command = [sys.executable, "-m", "turnsvr", "upgrade", "--socket", f"{self._directory}/admin.sock"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603

    def __exit__(self, *exception: object) -> None:
        pids = [self._first.pid, *(int(each) for each in re.findall(r"handed over pid=(\d+)", self.log))]
        for pid in reversed(pids):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    @property
    def log(self) -> str:
        return (self._directory / "log").read_text()


class Restarted:
    """A server that systemd restarts, or starts again after it was killed."""

    tells = r"sessions wait for the next process.*|the process before this one has crashed.*|session ended.*"

    def __init__(self, file: Path, directory: Path, is_killed: bool) -> None:
        self._is_killed = is_killed
        self._log = directory / "log"
        self._systemd = Systemd(directory / "units", f"{sys.executable} -m turnsvr run -c {file}", self._log)

    def __enter__(self) -> Self:
        self._systemd.__enter__()
        try:
            self._systemd.systemctl("start", "turnsvr.service")
        except BaseException:
            self._systemd.__exit__()
            raise
        return self

    def again(self) -> None:
        served, began = self.log.count(" serving "), time.monotonic()
        if self._is_killed:
            os.kill(self._systemd.main_pid(), signal.SIGKILL)
            while self.log.count(" serving ") == served:
                time.sleep(0.01)
        else:
            self._systemd.systemctl("restart", "turnsvr.service")
        print(f"the next process served after {time.monotonic() - began:.2f} s")

    def __exit__(self, *exception: object) -> None:
        try:
            self._systemd.systemctl("stop", "turnsvr.service")
        finally:
            self._systemd.__exit__()

    @property
    def log(self) -> str:
        return self._log.read_text()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sessions", type=int, default=0, help="further sessions, which send nothing")
    parser.add_argument("--rate", type=float, default=1000.0, help="packets a second each way of each flow")
    parser.add_argument("--upgrades", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="before, between and after them")
    parser.add_argument("--restart", action="store_true", help="by systemctl restart in place of upgrades")
    parser.add_argument("--kill", action="store_true", help="by SIGKILL, with survive: crash; UDP alone goes on")
    parser.add_argument("--all-legs", action="store_true", help="flows over UDP, TCP, TLS and DTLS, IPv4 and IPv6")
    parser.add_argument("--kind", default="auto", help="of the pump")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(_measure(parser.parse_args(), Path(directory)))


if __name__ == "__main__":
    main()
