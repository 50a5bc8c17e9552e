"""The few messages that a pump reads and writes by itself, without turnsvr.stun.message: bytes in, bytes out.

They are what a relay spends its time on, so each is one pass over the bytes with no object between.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from turnsvr.stun.address import Address, pack_address, pack_xor_address, unpack_xor_address
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.integrity import fingerprint
from turnsvr.stun.message import COOKIE_BYTES, HEADER_SIZE

MAX_DATA = 65_507
"""Bytes of application data in one packet: what an IPv4 datagram holds."""

BINDING_REQUEST = b"\x00\x01\x00\x00" + COOKIE_BYTES
"""How a Binding request without attributes begins; a transaction id of 12 bytes follows, and no more."""

SEND_INDICATION = b"\x00\x16"
_DATA_INDICATION = b"\x00\x17"
_BINDING_SUCCESS = b"\x01\x01"

_XOR_PEER_ADDRESS = 0x0012
_DATA = 0x0013
_DONT_FRAGMENT = 0x001A
_SOFTWARE = 0x8022
_FINGERPRINT = 0x8028

_NO_TRANSACTION = COOKIE_BYTES + bytes(12)
_CACHED_ADDRESSES = 4096


class TransactionIds:
    """Endless transaction ids of 12 random bytes, drawn from the source many at a time."""

    __slots__ = ("_pool", "_randbytes")

    def __init__(self, randbytes: Callable[[int], bytes]) -> None:
        """randbytes must be cryptographic."""
        self._randbytes = randbytes
        self._pool: list[bytes] = []

    def __next__(self) -> bytes:
        if not self._pool:
            many = self._randbytes(12 * 256)
            self._pool = [many[at : at + 12] for at in range(0, len(many), 12)]
        return self._pool.pop()


class SendIndication(NamedTuple):
    """What a plain Send indication asks for."""

    peer: Address
    data: bytes
    dont_fragment: bool


def is_possible_message(data: bytes) -> bool:
    """Whether data, whose first byte is below 0x40, is as long as its STUN header says."""
    return len(data) >= HEADER_SIZE and (data[2] << 8 | data[3]) + HEADER_SIZE == len(data)


def parse_send_indication(message: bytes) -> SendIndication | None:
    """The plain Send indication in a possible message, or None when the rules must look at it.

    Plain: exactly one XOR-PEER-ADDRESS and one DATA, besides them nothing but DONT-FRAGMENT and SOFTWARE, in any
    order, each of a size it may have, and at the end perhaps a FINGERPRINT, which is right.
    """
    if message[4:8] != COOKIE_BYTES:
        return None
    peer: Address | None = None
    data: bytes | None = None
    dont_fragment = False
    at, size = HEADER_SIZE, len(message)
    while at < size:
        if size - at < 4:
            return None
        number = message[at] << 8 | message[at + 1]
        start = at + 4
        end = start + (message[at + 2] << 8 | message[at + 3])
        if end > size:
            return None
        if number == _DATA and data is None:
            data = message[start:end]
        elif number == _XOR_PEER_ADDRESS and peer is None:
            peer = _peer(message[start:end], message)
            if peer is None:
                return None
        elif number == _DONT_FRAGMENT and end == start:
            dont_fragment = True
        elif number == _FINGERPRINT:
            if end - start != 4 or end != size or message[start:end] != fingerprint(message[:at]).to_bytes(4, "big"):
                return None
        elif number != _SOFTWARE:
            return None
        at = end + (-end & 3)
    if peer is None or data is None or at != size:
        return None
    return SendIndication(peer, data, dont_fragment)


def data_indication(transaction_id: bytes, peer: Address, data: bytes) -> bytes:
    """A Data indication; raises ValueError when one message cannot hold it."""
    if ":" in peer[0]:
        attribute = b"\x00\x12\x00\x14" + pack_xor_address(peer, COOKIE_BYTES + transaction_id)
    else:
        attribute = _peer_attribute_ipv4(peer)
    size = len(data)
    padding = -size & 3
    length = len(attribute) + 4 + size + padding
    if length > 0xFFFF:
        raise ValueError(f"{size} bytes are too many for a Data indication")
    head = _DATA_INDICATION + length.to_bytes(2, "big") + COOKIE_BYTES + transaction_id
    return head + attribute + b"\x00\x13" + size.to_bytes(2, "big") + data + bytes(padding)


def binding_success(request: bytes, client: Address, tell_mapped: bool, suffix: bytes) -> bytes:
    """The answer to a Binding request of 20 bytes: XOR-MAPPED-ADDRESS, perhaps MAPPED-ADDRESS, encoded attributes."""
    value = pack_xor_address(client, request[4:20])
    size = len(value).to_bytes(2, "big")
    body = b"\x00\x20" + size + value
    if tell_mapped:
        body += b"\x00\x01" + size + pack_address(client)
    body += suffix
    return _BINDING_SUCCESS + len(body).to_bytes(2, "big") + request[4:20] + body


def _peer(value: bytes, message: bytes) -> Address | None:
    try:
        if len(value) == 8:
            return _unpack_ipv4(value)
        return unpack_xor_address(value, message[4:20])
    except MalformedMessage:
        return None


# An IPv4 address is masked with the cookie alone, so its spelling on the wire never changes.


@lru_cache(_CACHED_ADDRESSES)
def _unpack_ipv4(value: bytes) -> Address:
    return unpack_xor_address(value, _NO_TRANSACTION)


@lru_cache(_CACHED_ADDRESSES)
def _peer_attribute_ipv4(peer: Address) -> bytes:
    return b"\x00\x12\x00\x08" + pack_xor_address(Address(*peer), _NO_TRANSACTION)
