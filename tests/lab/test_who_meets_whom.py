"""Two ICE agents behind every pair of NATs: directly where that is possible, else through our relay; always somehow."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from itertools import combinations_with_replacement
from pathlib import Path

import aioice
import aioice.stun
import pytest

from tests.client.coturn import PASSWORD, USER
from tests.lab.conftest import OURS
from tests.lab.netlab import Lab, Site
from tests.lab.routers import Kind

KINDS = (
    Kind.OPEN,
    Kind.FULL_CONE,
    Kind.RESTRICTED,
    Kind.PORT_RESTRICTED,
    Kind.SYMMETRIC,
    Kind.FIREWALL,
    Kind.UDP_BLOCKED,
)
TABLE = Path(__file__).with_name("who_meets_whom.txt")
"""What the README shows; TURNSVR_WRITE_TABLES=1 writes it anew."""

DIRECT, RELAYED, NEVER = "direct", "relayed", "never"

_PAIRS_AT_ONCE = 4
_PATIENCE = 60

_STRICT = {Kind.PORT_RESTRICTED, Kind.SYMMETRIC, Kind.FIREWALL}
"""Who lets in only the very address and port that it has sent to."""


def expected(one: Kind, other: Kind) -> str:
    """A symmetric NAT shows a port to its peer that nobody could name before, so a strict peer never lets it in."""
    if Kind.UDP_BLOCKED in (one, other):
        return RELAYED
    hopeless = (one is Kind.SYMMETRIC and other in _STRICT) or (other is Kind.SYMMETRIC and one in _STRICT)
    return RELAYED if hopeless else DIRECT


@pytest.fixture
def quick_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """ICE checks that give up after three seconds: on these links an answer takes a millisecond or never comes."""
    monkeypatch.setattr(aioice.stun, "RETRY_RTO", 0.1)
    monkeypatch.setattr(aioice.stun, "RETRY_MAX", 4)


@asynccontextmanager
async def agent(site: Site, server: str, *, controlling: bool, relay: bool) -> AsyncIterator[aioice.Connection]:
    """An agent at a site, its candidates gathered; with relay it may use our TURN server, over TCP if it must."""

    async def start() -> aioice.Connection:
        address = (server, OURS.port)
        connection = aioice.Connection(
            ice_controlling=controlling,
            stun_server=None if site.kind is Kind.UDP_BLOCKED else address,
            turn_server=address if relay else None,
            turn_username=USER,
            turn_password=PASSWORD,
            turn_transport="tcp" if site.kind is Kind.UDP_BLOCKED else "udp",
            use_ipv6=False,
        )
        await connection.gather_candidates()
        return connection

    connection = await site.client.call(start)
    try:
        yield connection
    finally:
        await site.client.call(connection.close)


async def introduce(connection: aioice.Connection, site: Site, other: aioice.Connection) -> None:
    """Tell an agent what a signalling server would."""
    candidates, username, password = other.local_candidates, other.local_username, other.local_password

    async def tell() -> None:
        connection.remote_username, connection.remote_password = username, password
        for candidate in candidates:
            await connection.add_remote_candidate(candidate)
        await connection.add_remote_candidate(None)

    await site.client.call(tell)


async def meet(one: Site, other: Site, server: str, *, relay: bool) -> set[str] | None:
    """The types of the candidates that were chosen, on both sides, once data went both ways; None when none was."""
    async with AsyncExitStack() as stack:
        caller = await stack.enter_async_context(agent(one, server, controlling=True, relay=relay))
        callee = await stack.enter_async_context(agent(other, server, controlling=False, relay=relay))
        await introduce(caller, one, callee)
        await introduce(callee, other, caller)
        outcomes = await asyncio.gather(
            one.client.call(caller.connect), other.client.call(callee.connect), return_exceptions=True
        )
        failures = [outcome for outcome in outcomes if outcome is not None]
        if failures:
            assert all(isinstance(failure, ConnectionError) for failure in failures), failures
            return None

        async def say(connection: aioice.Connection, words: bytes) -> bytes:
            await connection.send(words)
            return await connection.recv()

        heard = await asyncio.gather(
            one.client.call(lambda: say(caller, b"hello")), other.client.call(lambda: say(callee, b"good day"))
        )
        assert list(heard) == [b"good day", b"hello"]
        chosen = [connection._nominated[1] for connection in (caller, callee)]  # aioice tells it nowhere else
        return {candidate.type for pair in chosen for candidate in (pair.local_candidate, pair.remote_candidate)}


async def how(one: Site, other: Site, server: str) -> str:
    """How two sites meet: first without a relay at hand, then with one."""
    if await meet(one, other, server, relay=False):
        return DIRECT
    chosen = await meet(one, other, server, relay=True)
    if chosen is None:
        return NEVER
    assert "relay" in chosen, chosen
    return RELAYED


def table(found: dict[tuple[Kind, Kind], str]) -> str:
    """The result as text."""
    width = max(len(kind.value) for kind in KINDS)
    columns = [max(len(kind.value), len(RELAYED)) for kind in KINDS]
    lines = [" " * width + "  " + "  ".join(k.value.ljust(size) for k, size in zip(KINDS, columns, strict=True))]
    for row in KINDS:
        cells = (found[min_first(row, column)].ljust(size) for column, size in zip(KINDS, columns, strict=True))
        lines.append(row.value.ljust(width) + "  " + "  ".join(cells))
    return "".join(line.rstrip() + "\n" for line in lines)


def min_first(one: Kind, other: Kind) -> tuple[Kind, Kind]:
    return (one, other) if KINDS.index(one) <= KINDS.index(other) else (other, one)


@pytest.mark.usefixtures("quick_checks")
async def test_every_pair_connects(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = list(combinations_with_replacement(KINDS, 2))
    found: dict[tuple[Kind, Kind], str] = {}
    with ExitStack() as stack:
        callers, callees = ({kind: stack.enter_context(lab.site(kind)) for kind in KINDS} for _ in range(2))
        permits = asyncio.Semaphore(_PAIRS_AT_ONCE)

        async def try_pair(one: Kind, other: Kind) -> None:
            async with permits, asyncio.timeout(_PATIENCE):
                found[one, other] = await how(callers[one], callees[other], lab.servers_v4[0])

        await asyncio.gather(*(try_pair(*pair) for pair in pairs))
    text = table(found)
    with capsys.disabled():
        print(f"\nWho meets whom, and how:\n{text}")
    assert found == {pair: expected(*pair) for pair in pairs}
    if os.environ.get("TURNSVR_WRITE_TABLES") == "1":
        TABLE.write_text(text)
    assert TABLE.read_text() == text
