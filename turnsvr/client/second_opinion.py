"""aioice's TURN client as a second opinion on what ours found: two of its allocations talk to each other."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, cast

from turnsvr.client.credentials import Login
from turnsvr.client.transaction import ClientError
from turnsvr.stun.address import Address, Transport

_INTERVAL = 0.3
_PAYLOAD = b"a second opinion"


class Disagreement(ClientError):
    """aioice cannot do what our own client could; the text is its own."""


def available() -> bool:
    """Whether aioice is installed."""
    return importlib.util.find_spec("aioice") is not None


async def echo(transport: Transport, server: Address, logins: Sequence[Login], patience: float) -> float:
    """Round-trip time in seconds through two allocations of aioice, one for each login, over UDP or TCP.

    Raises Disagreement, after patience seconds at the latest; closing takes as long again at most.
    """
    endpoints: list[_Endpoint] = []
    try:
        async with asyncio.timeout(patience):
            for login in logins:
                endpoints.append(await _open(transport, server, login))  # noqa: PERF401 - those opened have to close
            return await _exchange(*endpoints)
    except TimeoutError:
        raise Disagreement(f"aioice had no echo within {patience:g} s") from None
    except Exception as error:
        raise Disagreement(f"aioice failed: {error or type(error).__name__}") from error
    finally:
        for endpoint in endpoints:
            endpoint.transport.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(patience):
                for endpoint in endpoints:
                    await endpoint.lost.wait()


class _Endpoint(asyncio.DatagramProtocol):
    transport: asyncio.DatagramTransport

    def __init__(self) -> None:
        self.received: asyncio.Queue[tuple[bytes, tuple[Any, ...]]] = asyncio.Queue()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[Any, ...]) -> None:
        self.received.put_nowait((data, addr))

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()

    @property
    def relayed(self) -> tuple[str, int]:
        return cast("tuple[str, int]", self.transport.get_extra_info("sockname"))


async def _open(transport: Transport, server: Address, login: Login) -> _Endpoint:
    from aioice.turn import create_turn_endpoint

    _, endpoint = await create_turn_endpoint(
        _Endpoint,
        server_addr=(server.host, server.port),
        username=login.username,
        password=login.password,
        transport="tcp" if transport.is_stream else "udp",
    )
    return endpoint


async def _exchange(one: _Endpoint, other: _Endpoint) -> float:
    """aioice binds a channel as it sends first, so the way is open once each has sent to the other."""
    loop = asyncio.get_running_loop()
    while True:
        other.transport.sendto(_PAYLOAD, one.relayed)
        one.transport.sendto(_PAYLOAD, other.relayed)
        with suppress(TimeoutError):
            async with asyncio.timeout(_INTERVAL):
                await other.received.get()
                sent_at = loop.time()
                other.transport.sendto(_PAYLOAD + b" answered", one.relayed)
                while (await one.received.get())[0] == _PAYLOAD:
                    pass
                return loop.time() - sent_at
