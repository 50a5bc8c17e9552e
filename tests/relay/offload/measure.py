"""What a packet of a channel costs the server's processors, lone packets that the kernel makes: python -m … RATE SIZE.

The client's packets come as a network card would bring them (live frames of BPF_PROG_TEST_RUN). The server is charged
with the kernel's threads that receive for its interfaces (threaded NAPI) and with this process less the sender. On a
machine that does other things only ratios are worth anything; each is measured several times, in turn.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import subprocess
import sys
import sysconfig
import time
from dataclasses import replace
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory

from tests.relay.offload.frames import channel_data
from tests.relay.offload.lab import CHANNEL, CLIENT, PEER, SET_GRO, SETTINGS, Lab, run, tune, within
from turnsvr.relay.offload import elf, layout, system
from turnsvr.relay.offload.settings import Mode
from turnsvr.stun.address import Address, Family

_BATCH = 128
_CLIENTS = 64
_FIRST_PORT = 40_000
_SOURCE = Path(__file__).with_name("sender.bpf.c")
_ROUNDS = 5
_SECONDS = 1.0


class Sender:
    """A program that has frames leave by the client's end, of one client after the other."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        built = folder / "sender.bpf.o"
        room = Path(layout.__file__).parent / "bpf"
        include = ["-I", str(room), "-idirafter", f"/usr/include/{sysconfig.get_config_var('MULTIARCH')}"]
        command = ["clang", "-O2", "-target", "bpf", "-mcpu=v3", *include, "-c", str(_SOURCE), "-o", str(built)]
        subprocess.run(command, check=True, timeout=60)
        found = elf.read(built.read_bytes(), "xdp")
        plan = found.tables["plans"]
        table = system.create_map(plan.kind, plan.key_size, plan.value_size, plan.entries, plan.flags, "plans")
        code = found.linked({"plans": table})
        self._program = system.load_program(system.PROGRAM_XDP, code, "sender", system.ATTACH_XDP)
        with within(lab.client.namespace):
            interface = socket.if_nametoindex(lab.client.name)
        system.update(table, bytes(4), Struct("=IIII").pack(interface, _CLIENTS, _FIRST_PORT, 0))

    def send(self, frame: bytes, count: int) -> None:
        system.run(self._program, frame, repeat=count, flags=system.LIVE_FRAMES)


def receivers() -> list[Path]:
    """The threads that receive for the server's interfaces."""
    found = []
    for comm in Path("/proc").glob("[0-9]*/comm"):
        try:
            if comm.read_text().startswith(("napi/sc-", "napi/sp-")):
                found.append(comm.parent / "schedstat")
        except OSError:
            continue
    return found


def used(threads: list[Path]) -> float:
    """Seconds of processor time so far, of these and of this process without this thread."""
    kernel = sum(int(each.read_text().split()[0]) for each in threads)
    return kernel / 1e9 + time.process_time() - time.thread_time()


async def measure(lab: Lab, sender: Sender, mode: Mode | None, rate: int, size: int) -> tuple[float, float]:
    """Microseconds a packet, and the share of packets that arrived."""
    served = lab.serve(mode, settings=replace(SETTINGS, max_sessions=_CLIENTS))
    try:
        for number in range(_CLIENTS):
            session = served.open(Address(CLIENT[Family.IPV4].host, _FIRST_PORT + number))
            session.bind(PEER[Family.IPV4])
        sent = session.up(channel_data(CHANNEL, bytes(size)))
        frame = replace(sent, to_mac=lab.client.server_mac, from_mac=lab.client.mac).frame()
        await _send(lab, sender, frame, rate, 1.5)
        await asyncio.sleep(0.05)
        threads, before = receivers(), served.pump.totals().relayed.packets_from_client
        began = used(threads)
        count = await _send(lab, sender, frame, rate, _SECONDS)
        await asyncio.sleep(0.02)
        took = used(threads) - began
        arrived = served.pump.totals().relayed.packets_from_client - before
        return took / max(arrived, 1) * 1e6, arrived / count
    finally:
        served.shutdown()


async def _send(lab: Lab, sender: Sender, frame: bytes, rate: int, seconds: float) -> int:
    """Returns how many."""
    sent, began = 0, time.monotonic()
    while (now := time.monotonic()) < began + seconds:
        due = min(int((now - began) * rate) - sent, _BATCH)
        if due >= _BATCH // 4:
            with within(lab.client.namespace):
                sender.send(frame, due)
            sent += due
        await asyncio.sleep(0)
    return max(sent, 1)


async def main(rate: int, size: int, folder: str) -> None:
    lab = Lab()
    try:
        for name, interface in (("server", "sc"), ("server", "sp"), ("client", "cs"), ("peer", "ps")):
            with within(lab._names[name]):
                tune(interface, SET_GRO, 1)
            there = f"echo 1 > /sys/class/net/{interface}/threaded"
            run("ip", "netns", "exec", lab._names[name], "sh", "-c", there)
        for each in (CLIENT, PEER):  # the neighbours know each other, as they do where somebody has allocated
            lab.in_server("ping", "-q", "-c", "1", "-W", "2", each[Family.IPV4].host)
        sender = Sender(lab, Path(folder))
        modes: list[Mode | None] = [None, "tc", "xdp"]
        found: dict[str, list[float]] = {}
        with within(lab.server):
            for _ in range(_ROUNDS):
                for mode in modes:
                    cost, share = await measure(lab, sender, mode, rate, size)
                    found.setdefault(mode or "pump", []).append(cost)
                    print(f"{mode or 'pump':5} {cost:6.2f} us a packet, {share:4.0%} arrived", flush=True)
        middle = {name: statistics.median(each) for name, each in found.items()}
        for name, cost in middle.items():
            print(f"{name:5} {cost:6.2f} us, pump / {name} {middle['pump'] / cost:5.2f}")
    finally:
        lab.close()


if __name__ == "__main__":
    with TemporaryDirectory() as temporary:
        asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), temporary))
