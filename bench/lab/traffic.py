"""Packets that the kernel makes at one far end and counts at the other, by two programs and a process that runs one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, NamedTuple

from bench.lab.frames import Datagram, channel_data
from bench.lab.network import VethPair, within
from turnsvr.client.load_values import HISTOGRAM_SIZE
from turnsvr.relay.offload import elf, layout, system
from turnsvr.stun.address import Address
from turnsvr.stun.framing import CHANNEL_FIRST

MOST_FLOWS: Final = 256
_SOURCE: Final = Path(__file__).with_name("traffic.bpf.c")
_HEAD: Final = 64
MARK: Final = 0x62614C7276736E74
_PLAN: Final = Struct(f"=QQQIIII{_HEAD}s")
_PORTS: Final = Struct("!HH")
_DRIVER: Final = system.XDP_DRIVER_MODE
_PATIENCE: Final = 10.0


class LabUnavailable(Exception):
    """This machine cannot be such a laboratory; the text says what is missing."""


class Ports(NamedTuple):
    """Of one flow's packets, as they are sent."""

    source: int
    destination: int


@dataclass(frozen=True, slots=True)
class Flows:
    """What is sent from one far end: addresses of the packets, whose ports do not count, and each flow's ports."""

    source: str
    destination: str
    ports: Sequence[Ports]
    in_channel: bool
    """Whether each is ChannelData, of the first channel."""


class Counted(NamedTuple):
    """What one run gave: packets sent, and how many arrived by bucket of load_values.bucket_of()."""

    sent: int
    arrived: Sequence[int]
    seconds: float

    @property
    def delivered(self) -> int:
        return sum(self.arrived)


class Traffic:
    """The two programs in the kernel; a context manager. Needs root, clang and Linux 5.18."""

    def __init__(self, folder: Path) -> None:
        """Raises LabUnavailable."""
        built = _compile(folder)
        self._stack = ExitStack()
        try:
            self._load(built)
        except (OSError, ValueError) as error:
            self.close()
            raise LabUnavailable(f"the kernel takes no programs: {error}") from None

    def _load(self, built: bytes) -> None:
        sender, counter = elf.read(built, "sender"), elf.read(built, "counter")
        self._tables = {}
        for name in ("plans", "arrived"):
            spec = sender.tables[name]
            made = system.create_map(spec.kind, spec.key_size, spec.value_size, spec.entries, spec.flags, name)
            self._tables[name] = self._keep(made)
        self._plan_size = sender.tables["plans"].value_size
        self._values = Struct(f"={system.possible_cpus()}Q")
        code = sender.linked(self._tables)
        self.sender = self._keep(system.load_program(system.PROGRAM_XDP, code, "sender", system.ATTACH_XDP))
        code = counter.linked(self._tables)
        self.counter = self._keep(system.load_program(system.PROGRAM_XDP, code, "counter", system.ATTACH_XDP))

    def _keep(self, descriptor: int) -> int:
        self._stack.callback(os.close, descriptor)
        return descriptor

    def count_at(self, pair: VethPair) -> None:
        """Count, and take away, what arrives at its far end, which takes frames of programs from now on."""
        with within(pair.namespace):
            interface = socket.if_nametoindex(pair.name)
            try:
                self._keep(system.attach(self.counter, interface, system.ATTACH_XDP, _DRIVER))
            except OSError as error:
                raise LabUnavailable(f"veth takes no XDP program: {error}") from None

    def plan(self, pair: VethPair, flows: Flows, size: int, rate: float) -> bytes:
        """Have the sender send packets of so many bytes of payload, so many a second. Returns a frame to send."""
        payload = MARK.to_bytes(8, sys.byteorder).ljust(size, b"\0")
        data = channel_data(CHANNEL_FIRST, payload) if flows.in_channel else payload
        ends = Address(flows.source, 0), Address(flows.destination, 0)
        frame = Datagram(*ends, data, to_mac=pair.server_mac, from_mac=pair.mac).frame()
        with within(pair.namespace):
            interface = socket.if_nametoindex(pair.name)
        plan = _PLAN.pack(
            int(1e9 / rate), 0, 0, interface, len(flows.ports), int(flows.in_channel), 0, frame[:_HEAD]
        ) + b"".join(_PORTS.pack(*each) for each in flows.ports)
        system.update(self._tables["plans"], bytes(4), plan.ljust(self._plan_size, b"\0"))
        return frame

    def sent(self) -> int:
        """By this plan."""
        plan = system.lookup(self._tables["plans"], bytes(4), self._plan_size)
        return int(_PLAN.unpack_from(plan or bytes(self._plan_size))[2])

    def arrived(self) -> list[int]:
        """At either far end since these were loaded."""
        table, size = self._tables["arrived"], self._values.size
        return [
            sum(self._values.unpack(system.lookup(table, at.to_bytes(4, sys.byteorder), size) or bytes(size)))
            for at in range(HISTOGRAM_SIZE)
        ]

    def close(self) -> None:
        self._stack.close()


class Sender:
    """A process at a far end that has the kernel send, on a core of its own."""

    def __init__(self, traffic: Traffic, pair: VethPair, core: int) -> None:
        with within(pair.namespace):
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", "bench.lab.sending", str(traffic.sender), str(core)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                pass_fds=[traffic.sender],
                cwd=Path(__file__).parents[2],
                process_group=0,
            )
        self._answer()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, frame: bytes, seconds: float) -> None:
        """Returns when that time is over. Raises LabUnavailable."""
        assert self._process.stdin
        print(seconds, frame.hex(), file=self._process.stdin, flush=True)
        self._answer()

    def _answer(self) -> None:
        assert self._process.stdout
        said = self._process.stdout.readline().strip()
        if said != "ready":
            raise LabUnavailable(f"the kernel sends no frames that a program makes: {said or 'the sender has ended'}")

    def close(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()


def _compile(folder: Path) -> bytes:
    clang = shutil.which("clang")
    if clang is None:
        raise LabUnavailable("clang is not installed")
    built = folder / "traffic.bpf.o"
    room = Path(layout.__file__).parent / "bpf"
    include = ["-I", str(room), "-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
    command = [clang, "-O2", "-target", "bpf", "-mcpu=v3", *include, "-c", str(_SOURCE), "-o", str(built)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)  # noqa: S603
    if done.returncode:
        raise LabUnavailable(f"clang fails: {done.stderr.strip()[-500:]}")
    return built.read_bytes()
