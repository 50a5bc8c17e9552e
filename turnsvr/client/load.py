"""`turnsvr bench`: loads a TURN server with relayed packets and says what arrived."""

from __future__ import annotations

import json as json_module
import socket
import sys
from collections.abc import Sequence
from typing import Any

import click

from turnsvr.client import uri
from turnsvr.client.load_flows import CORE, Flows, OfferedTraffic, relay_flows
from turnsvr.client.load_session import LoadError, classic_login
from turnsvr.client.load_sweep import MOST_LOSS, SweepStep, best, search
from turnsvr.client.load_values import TAG_SIZE, Direction, Shape, Wrap
from turnsvr.stun.address import Address

__all__ = ["Direction", "Shape", "Wrap", "run"]

FIRST_RATE = 1_000.0
"""Packets a second that a sweep begins with."""
_SWEEP_FACTOR = 2.0
_SWEEP_STEPS = 16
_MAX_FLOWS = 4_096
_MAX_SIZE = 1_400
_WRAPS = {Wrap.CHANNEL: "ChannelData", Wrap.INDICATION: "Send and Data indications"}


def run(
    url: str,
    username: str,
    password: str,
    *,
    direction: Direction = Direction.UP,
    flows: int = 16,
    size: int = 1000,
    shape: Shape = Shape.SINGLES,
    wrap: Wrap = Wrap.CHANNEL,
    rate: float | None = None,
    seconds: float = 1.0,
    peer_host: str | None = None,
    json: bool = False,
) -> int:
    """Load the server at url and print a table, or JSON; answers the exit status: 1 when nothing arrived.

    flows: allocations at once, 1 to 4096; size: bytes of payload, 12 to 1400; rate: packets a second over all flows,
    None to search for the most that arrives with at most 1 % loss; seconds: of each run. peer_host: address of this
    host that the peers' sockets take, by default the one that leads to the server.
    """
    if not 1 <= flows <= _MAX_FLOWS or not TAG_SIZE <= size <= _MAX_SIZE or not 0 < seconds <= 3600:
        return _fail(f"flows go from 1 to {_MAX_FLOWS}, sizes from {TAG_SIZE} to {_MAX_SIZE} bytes, seconds to 3600")
    if rate is not None and not 0 < rate < 1e9:
        return _fail("the rate must be a positive number of packets a second")
    try:
        server, leg = _resolve(url)
        traffic = OfferedTraffic(direction, flows, shape, size, wrap, leg.transport)
        peer_host = peer_host or _local_host(server)
        with _open(server, username, password, traffic, peer_host) as opened:
            steps = _measure(opened, traffic, rate, seconds)
    except (LoadError, uri.BadUri, OSError) as error:
        return _fail(str(error))
    found = best(steps)
    click.echo(json_module.dumps(_as_json(traffic, steps, found), indent=2) if json else _table(traffic, steps, found))
    if not found.counts.delivered:
        return _fail(f"{found.counts.sent} packets were sent and none arrived{_own_address(server, peer_host)}")
    return 0


def _own_address(server: Address, peer_host: str) -> str:
    """Why, where the peers are at the server's own address: there it grants permissions for relays alone."""
    if peer_host != server.host:
        return ""
    return f"; the peers are at {peer_host}, the server's own address: allow it with peers.allow, or run this elsewhere"


def _resolve(url: str) -> tuple[Address, uri.Leg]:
    named = uri.parse(url)
    if not named.is_turn:
        raise uri.BadUri(f"{url!r} relays nothing; write turn:host or turns:host")
    leg = named.legs()[0]
    name = socket.getaddrinfo(named.host, leg.port, type=socket.SOCK_DGRAM)[0][4]
    return Address(str(name[0]), int(name[1])), leg


def _local_host(server: Address) -> str:
    """The address of this host that packets to the server leave from."""
    with socket.socket(server.family.socket_family, socket.SOCK_DGRAM) as probe:
        probe.connect(server)
        return str(probe.getsockname()[0])


def _open(server: Address, username: str, password: str, traffic: OfferedTraffic, peer_host: str) -> Flows:
    login = classic_login(username, password)
    with click.progressbar(length=traffic.flows, label="Allocations", file=sys.stderr) as bar:
        return relay_flows(server, login, traffic, peer_host=peer_host, progress=bar.update)


def _measure(flows: Flows, traffic: OfferedTraffic, rate: float | None, seconds: float) -> list[SweepStep]:
    with click.progressbar(length=1 if rate else _SWEEP_STEPS, label="Loads", file=sys.stderr) as bar:

        def measure(asked: float) -> SweepStep:
            step = SweepStep(asked, flows.run(traffic.load(asked, seconds)))
            bar.update(1)
            return step

        steps = [measure(rate)] if rate else search(measure, FIRST_RATE, factor=_SWEEP_FACTOR, steps=_SWEEP_STEPS)
        bar.update(bar.length or 0)
    return steps


def _table(traffic: OfferedTraffic, steps: Sequence[SweepStep], found: SweepStep) -> str:
    """What was measured, a line for each load, and what came of it. Of a load that was run again the last run shows."""
    last = {step.asked: step for step in steps} | {found.asked: found}
    lines = [_title(traffic), f"{'offered/s':>12} {'delivered/s':>12} {'loss %':>8} {'p50 ms':>9} {'p99 ms':>9}"]
    for step in sorted(last.values(), key=lambda step: step.asked):
        counts = step.counts
        notes = [text for applies, text in _notes(step, found) if applies]
        lines.append(
            f"{step.asked:12,.0f} {counts.rate:12,.0f} {100 * counts.loss:8.2f} {1000 * counts.quantile(0.5):9.3f} "
            f"{1000 * counts.quantile(0.99):9.3f}  {', '.join(notes)}".rstrip()
        )
    lines.append(_summary(traffic, found))
    if CORE == "plain":
        lines.append("The compiled generator was not built on install: this is the slow one in Python.")
    return "\n".join(lines)


def _title(traffic: OfferedTraffic) -> str:
    allocations = "1 allocation" if traffic.flows == 1 else f"{traffic.flows} allocations"
    way = "clients to peers" if traffic.direction is Direction.UP else "peers to clients"
    return (
        f"{allocations}, {way}, {traffic.shape.value} of {traffic.size} bytes, "
        f"{_WRAPS[traffic.wrap]} over {traffic.transport.value.upper()}"
    )


def _summary(traffic: OfferedTraffic, found: SweepStep) -> str:
    bits = found.counts.rate * traffic.size * 8
    said = f"{found.counts.rate:,.0f} packets/s, {bits / 1e6:,.1f} Mbit/s of payload"
    return f"Delivered: {said}" if found.carried else f"Every load lost more than {MOST_LOSS:.0%}; least at {said}"


def _notes(step: SweepStep, found: SweepStep) -> Sequence[tuple[bool, str]]:
    counts = step.counts
    return (
        (step is found, "most that arrived" if step.carried else "least lost"),
        (counts.generator_limited, "the generator could send no more"),
        (counts.disturbed, "disturbed by other programs here"),
        (counts.overrun > 0, f"{counts.overrun} lost here, not by the server"),
        (counts.duplicates > 0, f"{counts.duplicates} duplicates"),
        (counts.reordered > 0, f"{counts.reordered} out of order"),
    )


def _as_json(traffic: OfferedTraffic, steps: Sequence[SweepStep], found: SweepStep) -> dict[str, Any]:
    return {
        "traffic": {
            "direction": traffic.direction.value,
            "flows": traffic.flows,
            "shape": traffic.shape.value,
            "size": traffic.size,
            "wrap": traffic.wrap.value,
            "transport": traffic.transport.value,
        },
        "generator": CORE,
        "best": steps.index(found),
        "steps": [step_as_json(step) for step in steps],
    }


def step_as_json(step: SweepStep) -> dict[str, Any]:
    """Rates in packets a second, loss 0..1, latencies in seconds (null when nothing arrived)."""
    counts = step.counts
    return {
        "offered_rate": step.asked,
        "delivered_rate": counts.rate,
        "sent": counts.sent,
        "delivered": counts.delivered,
        "loss": counts.loss,
        "duplicates": counts.duplicates,
        "reordered": counts.reordered,
        "latency_p50": counts.quantile(0.5) if counts.delivered else None,
        "latency_p99": counts.quantile(0.99) if counts.delivered else None,
        "generator_limited": counts.generator_limited,
        "disturbed": counts.disturbed,
        "lost_at_generator": counts.overrun,
    }


def _fail(text: str) -> int:
    click.echo(f"turnsvr: {text}", err=True)
    return 1
