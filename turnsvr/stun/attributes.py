"""One table of attributes: number, name, and how a value goes to bytes and back.

Numbers from RFC 8489 section 18.3, RFC 8656 section 18 and RFC 5780 section 7. Every unpacker raises
MalformedMessage, and nothing else, on bytes it cannot read.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any, Generic, NamedTuple, TypeVar

from turnsvr.stun.address import (
    Address,
    Family,
    pack_address,
    pack_xor_address,
    unpack_address,
    unpack_xor_address,
)
from turnsvr.stun.errors import ErrorCode, MalformedMessage

T = TypeVar("T")

Pack = Callable[[T, bytes], bytes]
Unpack = Callable[[bytes, bytes], T]


class Attribute(Generic[T]):
    """An attribute type. pack and unpack take the 16-byte XOR mask (cookie and transaction id) as well."""

    __slots__ = ("name", "number", "pack", "unpack")

    def __init__(self, number: int, name: str, pack: Pack[T], unpack: Unpack[T]) -> None:
        self.number = number
        self.name = name
        self.pack = pack
        self.unpack = unpack
        ATTRIBUTES[number] = self

    @property
    def comprehension_required(self) -> bool:
        return self.number < 0x8000

    def __repr__(self) -> str:
        return self.name


ATTRIBUTES: dict[int, Attribute[Any]] = {}
"""Every attribute that this implementation understands, by number."""


class Error(NamedTuple):
    """ERROR-CODE: code 300..699 and its reason phrase."""

    code: int
    reason: str

    @classmethod
    def of(cls, code: ErrorCode) -> Error:
        return cls(int(code), code.reason)


class EvenPort(NamedTuple):
    """EVEN-PORT: reserve is the R bit, "hold the next port for me" (RFC 8656 section 18.7)."""

    reserve: bool


class Icmp(NamedTuple):
    """ICMP: type 0..127, code 0..511, and 4 bytes of error data (RFC 8656 section 18.13)."""

    type: int
    code: int
    data: bytes = bytes(4)


class AddressError(NamedTuple):
    """ADDRESS-ERROR-CODE: why one family of a dual allocation failed (RFC 8656 section 18.12)."""

    family: Family
    code: int
    reason: str


class PasswordAlgorithm(NamedTuple):
    """One entry of PASSWORD-ALGORITHMS: IANA number and parameters (RFC 8489 section 14.11)."""

    number: int
    parameters: bytes = b""


def _exactly(size: int, value: bytes, name: str) -> bytes:
    if len(value) != size:
        raise MalformedMessage(f"{name} of {len(value)} bytes, not {size}")
    return value


def _opaque(number: int, name: str, *, size: int | None = None, most: int = 0xFFFF) -> Attribute[bytes]:
    def unpack(value: bytes, _mask: bytes) -> bytes:
        if size is not None:
            return _exactly(size, value, name)
        if len(value) > most:
            raise MalformedMessage(f"{name} of {len(value)} bytes, more than {most}")
        return value

    return Attribute(number, name, lambda value, _mask: value, unpack)


def _text(number: int, name: str, most: int) -> Attribute[str]:
    """UTF-8 text of at most `most` bytes; invalid UTF-8 is malformed."""

    def unpack(value: bytes, _mask: bytes) -> str:
        if len(value) > most:
            raise MalformedMessage(f"{name} of {len(value)} bytes, more than {most}")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise MalformedMessage(f"{name} is not UTF-8") from None

    return Attribute(number, name, lambda value, _mask: value.encode(), unpack)


def _uint(number: int, name: str, size: int) -> Attribute[int]:
    def unpack(value: bytes, _mask: bytes) -> int:
        return int.from_bytes(_exactly(size, value, name), "big")

    return Attribute(number, name, lambda value, _mask: value.to_bytes(size, "big"), unpack)


def _address(number: int, name: str) -> Attribute[Address]:
    return Attribute(number, name, lambda value, _mask: pack_address(value), lambda value, _mask: unpack_address(value))


def _xor_address(number: int, name: str) -> Attribute[Address]:
    return Attribute(number, name, pack_xor_address, unpack_xor_address)


def _flag(number: int, name: str) -> Attribute[bool]:
    def unpack(value: bytes, _mask: bytes) -> bool:
        _exactly(0, value, name)
        return True

    return Attribute(number, name, lambda _value, _mask: b"", unpack)


def _family(number: int, name: str) -> Attribute[int]:
    """A family byte and three reserved ones. An int, not a Family: an unknown one is 440, not malformed."""
    return Attribute(
        number,
        name,
        lambda value, _mask: bytes((value, 0, 0, 0)),
        lambda value, _mask: _exactly(4, value, name)[0],
    )


def _pack_error(value: Error, _mask: bytes) -> bytes:
    return bytes((0, 0, value.code // 100, value.code % 100)) + value.reason.encode()


def _unpack_error(value: bytes, _mask: bytes) -> Error:
    if len(value) < 4:
        raise MalformedMessage(f"ERROR-CODE of {len(value)} bytes")
    if not 3 <= value[2] & 0x07 <= 6 or value[3] > 99:
        raise MalformedMessage(f"error class {value[2] & 0x07} and number {value[3]}")
    return Error((value[2] & 0x07) * 100 + value[3], value[4:].decode(errors="replace"))


def _pack_address_error(value: AddressError, _mask: bytes) -> bytes:
    return bytes((value.family, 0, value.code // 100, value.code % 100)) + value.reason.encode()


def _unpack_address_error(value: bytes, mask: bytes) -> AddressError:
    error = _unpack_error(value, mask)
    try:
        return AddressError(Family(value[0]), error.code, error.reason)
    except ValueError:
        raise MalformedMessage(f"ADDRESS-ERROR-CODE for family {value[0]}") from None


def _pack_numbers(value: tuple[int, ...], _mask: bytes) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in value)


def _unpack_numbers(value: bytes, _mask: bytes) -> tuple[int, ...]:
    if len(value) % 2:
        raise MalformedMessage(f"UNKNOWN-ATTRIBUTES of {len(value)} bytes")
    return tuple(int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2))


def _pack_algorithm(value: PasswordAlgorithm) -> bytes:
    padding = bytes(-len(value.parameters) % 4)
    header = value.number.to_bytes(2, "big") + len(value.parameters).to_bytes(2, "big")
    return header + value.parameters + padding


@lru_cache(maxsize=16)  # a server offers the same ones in every challenge
def _pack_algorithms(value: tuple[PasswordAlgorithm, ...]) -> bytes:
    return b"".join(map(_pack_algorithm, value))


def _unpack_algorithms(value: bytes, _mask: bytes) -> tuple[PasswordAlgorithm, ...]:
    algorithms, at = [], 0
    while at < len(value):
        header = _exactly(4, value[at : at + 4], "PASSWORD-ALGORITHM")
        size = int.from_bytes(header[2:], "big")
        parameters = _exactly(size, value[at + 4 : at + 4 + size], "PASSWORD-ALGORITHM parameters")
        algorithms.append(PasswordAlgorithm(int.from_bytes(header[:2], "big"), parameters))
        at += 4 + size + -size % 4
    return tuple(algorithms)


def _unpack_algorithm(value: bytes, mask: bytes) -> PasswordAlgorithm:
    algorithms = _unpack_algorithms(value, mask)
    if len(algorithms) != 1:
        raise MalformedMessage(f"PASSWORD-ALGORITHM with {len(algorithms)} entries")
    return algorithms[0]


def _pack_channel(value: int, _mask: bytes) -> bytes:
    return value.to_bytes(2, "big") + b"\0\0"


def _pack_icmp(value: Icmp, _mask: bytes) -> bytes:
    return b"\0\0" + (value.type << 9 | value.code).to_bytes(2, "big") + value.data


def _unpack_icmp(value: bytes, _mask: bytes) -> Icmp:
    _exactly(8, value, "ICMP")
    both = int.from_bytes(value[2:4], "big")
    return Icmp(both >> 9, both & 0x1FF, value[4:])


# RFC 8489 section 14; sizes of the text attributes as sections 14.3, 14.9, 14.10 and 14.14 bound them.
MAPPED_ADDRESS = _address(0x0001, "MAPPED-ADDRESS")
USERNAME = _text(0x0006, "USERNAME", 513)
MESSAGE_INTEGRITY = _opaque(0x0008, "MESSAGE-INTEGRITY", size=20)
ERROR_CODE: Attribute[Error] = Attribute(0x0009, "ERROR-CODE", _pack_error, _unpack_error)
UNKNOWN_ATTRIBUTES: Attribute[tuple[int, ...]] = Attribute(0x000A, "UNKNOWN-ATTRIBUTES", _pack_numbers, _unpack_numbers)
REALM = _text(0x0014, "REALM", 763)
NONCE = _opaque(0x0015, "NONCE", most=763)
MESSAGE_INTEGRITY_SHA256 = _opaque(0x001C, "MESSAGE-INTEGRITY-SHA256", most=32)
PASSWORD_ALGORITHM: Attribute[PasswordAlgorithm] = Attribute(
    0x001D, "PASSWORD-ALGORITHM", lambda value, _mask: _pack_algorithm(value), _unpack_algorithm
)
USERHASH = _opaque(0x001E, "USERHASH", size=32)
XOR_MAPPED_ADDRESS = _xor_address(0x0020, "XOR-MAPPED-ADDRESS")
PASSWORD_ALGORITHMS: Attribute[tuple[PasswordAlgorithm, ...]] = Attribute(
    0x8002,
    "PASSWORD-ALGORITHMS",
    lambda value, _mask: _pack_algorithms(value),
    _unpack_algorithms,
)
ALTERNATE_DOMAIN = _text(0x8003, "ALTERNATE-DOMAIN", 255)
SOFTWARE = _text(0x8022, "SOFTWARE", 763)
ALTERNATE_SERVER = _address(0x8023, "ALTERNATE-SERVER")
FINGERPRINT = _uint(0x8028, "FINGERPRINT", 4)

# RFC 8656 section 18
CHANNEL_NUMBER: Attribute[int] = Attribute(
    0x000C,
    "CHANNEL-NUMBER",
    _pack_channel,
    lambda value, _mask: int.from_bytes(_exactly(4, value, "CHANNEL-NUMBER")[:2], "big"),
)
LIFETIME = _uint(0x000D, "LIFETIME", 4)
XOR_PEER_ADDRESS = _xor_address(0x0012, "XOR-PEER-ADDRESS")
DATA = _opaque(0x0013, "DATA")
XOR_RELAYED_ADDRESS = _xor_address(0x0016, "XOR-RELAYED-ADDRESS")
REQUESTED_ADDRESS_FAMILY = _family(0x0017, "REQUESTED-ADDRESS-FAMILY")
EVEN_PORT: Attribute[EvenPort] = Attribute(
    0x0018,
    "EVEN-PORT",
    lambda value, _mask: bytes((value.reserve << 7,)),
    lambda value, _mask: EvenPort(bool(_exactly(1, value, "EVEN-PORT")[0] & 0x80)),
)
REQUESTED_TRANSPORT: Attribute[int] = Attribute(
    0x0019,
    "REQUESTED-TRANSPORT",
    lambda value, _mask: bytes((value, 0, 0, 0)),
    lambda value, _mask: _exactly(4, value, "REQUESTED-TRANSPORT")[0],
)
DONT_FRAGMENT = _flag(0x001A, "DONT-FRAGMENT")
RESERVATION_TOKEN = _opaque(0x0022, "RESERVATION-TOKEN", size=8)
ADDITIONAL_ADDRESS_FAMILY = _family(0x8000, "ADDITIONAL-ADDRESS-FAMILY")
ADDRESS_ERROR_CODE: Attribute[AddressError] = Attribute(
    0x8001, "ADDRESS-ERROR-CODE", _pack_address_error, _unpack_address_error
)
DRAFT_ADDITIONAL_ADDRESS_FAMILY = _family(0x8032, "ADDITIONAL-ADDRESS-FAMILY (draft)")
"""What clients built on coturn 4.6 send in its place: a number from before RFC 8656."""
ICMP: Attribute[Icmp] = Attribute(0x8004, "ICMP", _pack_icmp, _unpack_icmp)

# RFC 5780 section 7, and the RFC 3489 attributes that its clients know instead
CHANGE_REQUEST = _uint(0x0003, "CHANGE-REQUEST", 4)
SOURCE_ADDRESS = _address(0x0004, "SOURCE-ADDRESS")
CHANGED_ADDRESS = _address(0x0005, "CHANGED-ADDRESS")
PADDING = _opaque(0x0026, "PADDING")
RESPONSE_PORT: Attribute[int] = Attribute(
    0x0027,
    "RESPONSE-PORT",
    lambda value, _mask: value.to_bytes(2, "big") + b"\0\0",
    lambda value, _mask: int.from_bytes(_exactly(4, value, "RESPONSE-PORT")[:2], "big"),
)
RESPONSE_ORIGIN = _address(0x802B, "RESPONSE-ORIGIN")
OTHER_ADDRESS = _address(0x802C, "OTHER-ADDRESS")

# draft-ietf-tram-stun-origin-06: the web page that a browser asks for; the number is in the IANA registry
ORIGIN = _text(0x802F, "ORIGIN", 763)

# RFC 8445 section 16.1: in the connectivity checks of ICE agents, which may reach any STUN server
PRIORITY = _uint(0x0024, "PRIORITY", 4)
USE_CANDIDATE = _flag(0x0025, "USE-CANDIDATE")
ICE_CONTROLLED = _uint(0x8029, "ICE-CONTROLLED", 8)
ICE_CONTROLLING = _uint(0x802A, "ICE-CONTROLLING", 8)
