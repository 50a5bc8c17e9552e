"""Asks a STUN server how it sees a local address: one Binding request, sent again until it is answered."""

from __future__ import annotations

import asyncio
import secrets
import socket
from typing import Any

from turnsvr.app.external.background import in_thread
from turnsvr.stun.address import Address, Family
from turnsvr.stun.attributes import XOR_MAPPED_ADDRESS
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import Class, Message, Method

_WAITS = (0.5, 1.0, 1.5)
"""Seconds after each transmission."""
_NAME_SECONDS = 3.0


async def seen_from(server: tuple[str, int], local: str) -> str:
    """The IP address at which the server, by name or address and port, sees packets of this local address.

    Raises OSError, also where there is no answer.
    """
    family = Address(local, 0).family
    to = await in_thread(lambda: _resolved(server, family), _NAME_SECONDS)
    loop = asyncio.get_running_loop()
    transport, asking = await loop.create_datagram_endpoint(_Asking, local_addr=(local, 0), remote_addr=to)
    try:
        for wait in _WAITS:
            transport.sendto(asking.request)
            done, _ = await asyncio.wait([asking.answer], timeout=wait)
            if done:
                return asking.answer.result()
        raise TimeoutError("no answer")
    finally:
        asking.answer.cancel()
        transport.close()


def _resolved(server: tuple[str, int], family: Family) -> tuple[str, int]:
    try:
        found = socket.getaddrinfo(*server, family.socket_family, socket.SOCK_DGRAM)
    except UnicodeError:
        raise OSError("not a host name") from None
    return str(found[0][4][0]), int(found[0][4][1])


class _Asking(asyncio.DatagramProtocol):
    """A connected socket: what comes from elsewhere never gets here, and an answer has our transaction id."""

    def __init__(self) -> None:
        self._id = secrets.token_bytes(12)
        self.request = Message(Method.BINDING, Class.REQUEST, self._id).encode(fingerprint=True)
        self.answer: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        try:
            message = Message.parse(data)
            mapped = message.get(XOR_MAPPED_ADDRESS)
        except MalformedMessage:
            return
        answers = message.message_class is Class.SUCCESS and message.transaction_id == self._id
        if answers and mapped is not None and not self.answer.done():
            self.answer.set_result(mapped.host)

    def error_received(self, exc: Exception) -> None:
        if not self.answer.done():
            self.answer.set_exception(exc)
