"""The Binding method: what address a client is seen at (RFC 8489 section 12), and the behaviour tests of RFC 5780."""

from __future__ import annotations

from typing import Final

from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address, FiveTuple, Transport
from turnsvr.stun.errors import ErrorCode
from turnsvr.stun.message import Class, Message
from turnsvr.turn.config import OtherAddress, ServerConfig
from turnsvr.turn.reject import Reject

_CHANGE_IP: Final = 0x04
_CHANGE_PORT: Final = 0x02
_MAX_PADDING: Final = 1500
"""Bytes of PADDING in an answer: about an Ethernet MTU, and never more than the request had."""


def answer(message: Message, five_tuple: FiveTuple, config: ServerConfig) -> tuple[FiveTuple, Message]:
    """The success response, and the path it takes; raises Reject or MalformedMessage."""
    other = config.other_addresses.get(five_tuple.server)
    _refuse_unserved(message, five_tuple, other)
    response = message.reply(Class.SUCCESS)
    source = _source(message, five_tuple.server, other)
    if message.is_classic:
        _describe_classic(response, five_tuple, source, other)
    else:
        response.add(a.XOR_MAPPED_ADDRESS, five_tuple.client)
        if other is not None:
            response.add(a.MAPPED_ADDRESS, five_tuple.client)
        describe(response, five_tuple.server, source, config)
    padding = message.get(a.PADDING)
    if padding is not None:
        response.add(a.PADDING, bytes(min(len(padding), _MAX_PADDING)))
    port = message.get(a.RESPONSE_PORT)
    client = five_tuple.client if port is None else Address(five_tuple.client.host, port)
    return FiveTuple(five_tuple.transport, client, source, five_tuple.connection), response


def describe(response: Message, server: Address, source: Address, config: ServerConfig) -> None:
    """Add what a Binding answer from `source` says of a listener, to every client."""
    other = config.other_addresses.get(server)
    if other is not None:
        response.add(a.RESPONSE_ORIGIN, source)
        if other.host is not None:
            response.add(a.OTHER_ADDRESS, Address(other.host, other.port))
    if config.software is not None:
        response.add(a.SOFTWARE, config.software)


def _refuse_unserved(message: Message, five_tuple: FiveTuple, other: OtherAddress | None) -> None:
    """RFC 5780 section 6.1: 420 where an attribute cannot be served, 400 for PADDING with RESPONSE-PORT.

    Only UDP answers can leave from another address or go to another port. What asks for nothing can be served by every
    listener over every transport: a CHANGE-REQUEST without a flag, the client's own port, no bytes of PADDING.
    """
    unserved = []
    can_choose = five_tuple.transport is Transport.UDP and other is not None
    change, port, padding = message.get(a.CHANGE_REQUEST), message.get(a.RESPONSE_PORT), message.get(a.PADDING)
    flags = change & (_CHANGE_IP | _CHANGE_PORT) if change is not None else 0
    if flags and (not can_choose or (flags & _CHANGE_IP and other is not None and other.host is None)):
        unserved.append(a.CHANGE_REQUEST.number)
    if port is not None and port != five_tuple.client.port and not can_choose:
        unserved.append(a.RESPONSE_PORT.number)
    if padding and other is None:
        unserved.append(a.PADDING.number)
    if unserved:
        raise unknown_attributes(*unserved)
    if port == 0 or (port is not None and padding is not None):
        raise Reject(ErrorCode.BAD_REQUEST)


def _source(message: Message, server: Address, other: OtherAddress | None) -> Address:
    """Where the answer leaves from (RFC 5780 section 6.1, table 1)."""
    change = message.get(a.CHANGE_REQUEST)
    if not change or other is None:
        return server
    host = other.host if change & _CHANGE_IP and other.host else server.host
    return Address(host, other.port if change & _CHANGE_PORT else server.port)


def _describe_classic(response: Message, five_tuple: FiveTuple, source: Address, other: OtherAddress | None) -> None:
    """What an RFC 3489 client expects (its section 8.1); it knows no other attribute."""
    response.add(a.MAPPED_ADDRESS, five_tuple.client)
    response.add(a.SOURCE_ADDRESS, source)
    if other is not None and other.host is not None:
        response.add(a.CHANGED_ADDRESS, Address(other.host, other.port))


def unknown_attributes(*numbers: int) -> Reject:
    """420 with the list (RFC 8489 section 6.3.1); RFC 3489 section 11.2.10 wants an even number of them."""

    def details(response: Message) -> None:
        odd = response.is_classic and len(numbers) % 2
        response.add(a.UNKNOWN_ATTRIBUTES, (*numbers, numbers[-1]) if odd else numbers)

    return Reject(ErrorCode.UNKNOWN_ATTRIBUTE, details=details)


def classic_error(code: ErrorCode) -> a.Error:
    """ERROR-CODE with a reason phrase of a multiple of four characters (RFC 3489 section 11.2.9)."""
    return a.Error(int(code), code.reason + " " * (-len(code.reason) % 4))
