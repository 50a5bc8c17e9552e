"""Names of hosts to addresses, by the system's resolver, within a time."""

from __future__ import annotations

import asyncio
import socket
import threading
from contextlib import suppress
from errno import EINVAL, ETIMEDOUT
from typing import Any

from turnsvr.stun.address import Address


async def resolve(host: str, patience: float | None = None) -> tuple[Address, ...]:
    """Its addresses, port 0, as the system orders them; patience in seconds bounds the look-up. Raises OSError.

    A look-up that takes too long goes on in its thread, as the system's resolver cannot be stopped, and is ignored.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[tuple[Any, ...]]] = loop.create_future()

    def tell(result: list[tuple[Any, ...]] | OSError) -> None:
        if answer.done():
            return
        if isinstance(result, OSError):
            answer.set_exception(result)
        else:
            answer.set_result(result)

    def look_up() -> None:
        result: list[tuple[Any, ...]] | OSError
        try:
            result = list(socket.getaddrinfo(host, 0, type=socket.SOCK_DGRAM))
        except OSError as error:
            result = error
        except UnicodeError:
            result = OSError(EINVAL, "not a host name")
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result)

    threading.Thread(target=look_up, name="resolver", daemon=True).start()
    try:
        async with asyncio.timeout(patience):
            found = await answer
    except TimeoutError:
        raise OSError(ETIMEDOUT, "the name service does not answer") from None
    return tuple(dict.fromkeys(Address(str(item[4][0]), int(item[4][1])) for item in found))
