"""One table of attributes: number, name, and how a value goes to bytes and back.

Numbers from RFC 8489 section 18.3, RFC 8656 section 18, RFC 5780 section 7, RFC 7635 section 12, RFC 8016
section 4. Every unpack() raises MalformedMessage, and nothing else, on bytes it cannot read.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import lru_cache
from typing import Any, Final, Generic, NamedTuple, TypeVar

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


class Attribute(ABC, Generic[T]):
    """An attribute type. pack and unpack take the 16-byte XOR mask (cookie and transaction id) as well."""

    __slots__ = ("name", "number")

    def __init__(self, number: int, name: str) -> None:
        self.number: Final = number
        self.name: Final = name
        ATTRIBUTES[number] = self

    @abstractmethod
    def pack(self, value: T, mask: bytes) -> bytes: ...

    @abstractmethod
    def unpack(self, value: bytes, mask: bytes) -> T: ...

    @property
    def comprehension_required(self) -> bool:
        return self.number < 0x8000

    def __repr__(self) -> str:
        return self.name


ATTRIBUTES: Final[dict[int, Attribute[Any]]] = {}
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


def _at_most(size: int, value: bytes, name: str) -> bytes:
    if len(value) > size:
        raise MalformedMessage(f"{name} of {len(value)} bytes, more than {size}")
    return value


class _Opaque(Attribute[bytes]):
    """At most so many bytes."""

    def __init__(self, number: int, name: str, most: int = 0xFFFF) -> None:
        super().__init__(number, name)
        self._most: Final = most

    def pack(self, value: bytes, mask: bytes) -> bytes:
        return value

    def unpack(self, value: bytes, mask: bytes) -> bytes:
        return _at_most(self._most, value, self.name)


class _Fixed(Attribute[bytes]):
    """Exactly so many bytes."""

    def __init__(self, number: int, name: str, size: int) -> None:
        super().__init__(number, name)
        self._size: Final = size

    def pack(self, value: bytes, mask: bytes) -> bytes:
        return value

    def unpack(self, value: bytes, mask: bytes) -> bytes:
        return _exactly(self._size, value, self.name)


class _Text(Attribute[str]):
    """UTF-8 text of at most so many bytes; invalid UTF-8 is malformed."""

    def __init__(self, number: int, name: str, most: int) -> None:
        super().__init__(number, name)
        self._most: Final = most

    def pack(self, value: str, mask: bytes) -> bytes:
        return value.encode()

    def unpack(self, value: bytes, mask: bytes) -> str:
        try:
            return _at_most(self._most, value, self.name).decode()
        except UnicodeDecodeError:
            raise MalformedMessage(f"{self.name} is not UTF-8") from None


class _Uint(Attribute[int]):
    """A number of so many bytes, and what is reserved after it."""

    def __init__(self, number: int, name: str, size: int, *, reserved: int = 0) -> None:
        super().__init__(number, name)
        self._size: Final = size
        self._reserved: Final = bytes(reserved)

    def pack(self, value: int, mask: bytes) -> bytes:
        return value.to_bytes(self._size, "big") + self._reserved

    def unpack(self, value: bytes, mask: bytes) -> int:
        _exactly(self._size + len(self._reserved), value, self.name)
        return int.from_bytes(value[: self._size], "big")


class _Address(Attribute[Address]):
    def pack(self, value: Address, mask: bytes) -> bytes:
        return pack_address(value)

    def unpack(self, value: bytes, mask: bytes) -> Address:
        return unpack_address(value)


class _XorAddress(Attribute[Address]):
    def pack(self, value: Address, mask: bytes) -> bytes:
        return pack_xor_address(value, mask)

    def unpack(self, value: bytes, mask: bytes) -> Address:
        return unpack_xor_address(value, mask)


class _Flag(Attribute[bool]):
    """Says something by being there."""

    def pack(self, value: bool, mask: bytes) -> bytes:
        return b""

    def unpack(self, value: bytes, mask: bytes) -> bool:
        _exactly(0, value, self.name)
        return True


class _ErrorCode(Attribute[Error]):
    def pack(self, value: Error, mask: bytes) -> bytes:
        return bytes((0, 0, value.code // 100, value.code % 100)) + value.reason.encode()

    def unpack(self, value: bytes, mask: bytes) -> Error:
        return _unpack_error(value)


class _AddressErrorCode(Attribute[AddressError]):
    def pack(self, value: AddressError, mask: bytes) -> bytes:
        return bytes((value.family, 0, value.code // 100, value.code % 100)) + value.reason.encode()

    def unpack(self, value: bytes, mask: bytes) -> AddressError:
        error = _unpack_error(value)
        try:
            return AddressError(Family(value[0]), error.code, error.reason)
        except ValueError:
            raise MalformedMessage(f"ADDRESS-ERROR-CODE for family {value[0]}") from None


def _unpack_error(value: bytes) -> Error:
    if len(value) < 4:
        raise MalformedMessage(f"ERROR-CODE of {len(value)} bytes")
    if not 3 <= value[2] & 0x07 <= 6 or value[3] > 99:
        raise MalformedMessage(f"error class {value[2] & 0x07} and number {value[3]}")
    return Error((value[2] & 0x07) * 100 + value[3], value[4:].decode(errors="replace"))


class _Numbers(Attribute[tuple[int, ...]]):
    """Attribute numbers."""

    def pack(self, value: tuple[int, ...], mask: bytes) -> bytes:
        return b"".join([number.to_bytes(2, "big") for number in value])

    def unpack(self, value: bytes, mask: bytes) -> tuple[int, ...]:
        if len(value) % 2:
            raise MalformedMessage(f"{self.name} of {len(value)} bytes")
        return tuple([int.from_bytes(value[at : at + 2], "big") for at in range(0, len(value), 2)])


class _Algorithms(Attribute[tuple[PasswordAlgorithm, ...]]):
    def pack(self, value: tuple[PasswordAlgorithm, ...], mask: bytes) -> bytes:
        return _pack_algorithms(value)

    def unpack(self, value: bytes, mask: bytes) -> tuple[PasswordAlgorithm, ...]:
        return _unpack_algorithms(value)


class _Algorithm(Attribute[PasswordAlgorithm]):
    def pack(self, value: PasswordAlgorithm, mask: bytes) -> bytes:
        return _pack_algorithm(value)

    def unpack(self, value: bytes, mask: bytes) -> PasswordAlgorithm:
        algorithms = _unpack_algorithms(value)
        if len(algorithms) != 1:
            raise MalformedMessage(f"{self.name} with {len(algorithms)} entries")
        return algorithms[0]


def _pack_algorithm(value: PasswordAlgorithm) -> bytes:
    padding = bytes(-len(value.parameters) % 4)
    header = value.number.to_bytes(2, "big") + len(value.parameters).to_bytes(2, "big")
    return header + value.parameters + padding


@lru_cache(maxsize=16)  # a server offers the same ones in every challenge
def _pack_algorithms(value: tuple[PasswordAlgorithm, ...]) -> bytes:
    return b"".join(map(_pack_algorithm, value))


def _unpack_algorithms(value: bytes) -> tuple[PasswordAlgorithm, ...]:
    algorithms, at = [], 0
    while at < len(value):
        header = _exactly(4, value[at : at + 4], "PASSWORD-ALGORITHM")
        size = int.from_bytes(header[2:], "big")
        parameters = _exactly(size, value[at + 4 : at + 4 + size], "PASSWORD-ALGORITHM parameters")
        algorithms.append(PasswordAlgorithm(int.from_bytes(header[:2], "big"), parameters))
        at += 4 + size + -size % 4
    return tuple(algorithms)


class _EvenPort(Attribute[EvenPort]):
    def pack(self, value: EvenPort, mask: bytes) -> bytes:
        return bytes((value.reserve << 7,))

    def unpack(self, value: bytes, mask: bytes) -> EvenPort:
        return EvenPort(bool(_exactly(1, value, self.name)[0] & 0x80))


class _Icmp(Attribute[Icmp]):
    def pack(self, value: Icmp, mask: bytes) -> bytes:
        return b"\0\0" + (value.type << 9 | value.code).to_bytes(2, "big") + value.data

    def unpack(self, value: bytes, mask: bytes) -> Icmp:
        _exactly(8, value, self.name)
        both = int.from_bytes(value[2:4], "big")
        return Icmp(both >> 9, both & 0x1FF, value[4:])


# RFC 8489 section 14; sizes of the text attributes as sections 14.3, 14.9, 14.10 and 14.14 bound them.
MAPPED_ADDRESS: Final = _Address(0x0001, "MAPPED-ADDRESS")
USERNAME: Final = _Text(0x0006, "USERNAME", 513)
MESSAGE_INTEGRITY: Final = _Fixed(0x0008, "MESSAGE-INTEGRITY", 20)
ERROR_CODE: Final = _ErrorCode(0x0009, "ERROR-CODE")
UNKNOWN_ATTRIBUTES: Final = _Numbers(0x000A, "UNKNOWN-ATTRIBUTES")
REALM: Final = _Text(0x0014, "REALM", 763)
NONCE: Final = _Opaque(0x0015, "NONCE", 763)
MESSAGE_INTEGRITY_SHA256: Final = _Opaque(0x001C, "MESSAGE-INTEGRITY-SHA256", 32)
PASSWORD_ALGORITHM: Final = _Algorithm(0x001D, "PASSWORD-ALGORITHM")
USERHASH: Final = _Fixed(0x001E, "USERHASH", 32)
XOR_MAPPED_ADDRESS: Final = _XorAddress(0x0020, "XOR-MAPPED-ADDRESS")
PASSWORD_ALGORITHMS: Final = _Algorithms(0x8002, "PASSWORD-ALGORITHMS")
ALTERNATE_DOMAIN: Final = _Text(0x8003, "ALTERNATE-DOMAIN", 255)
SOFTWARE: Final = _Text(0x8022, "SOFTWARE", 763)
ALTERNATE_SERVER: Final = _Address(0x8023, "ALTERNATE-SERVER")
FINGERPRINT: Final = _Uint(0x8028, "FINGERPRINT", 4)

# RFC 8656 section 18
CHANNEL_NUMBER: Final = _Uint(0x000C, "CHANNEL-NUMBER", 2, reserved=2)
LIFETIME: Final = _Uint(0x000D, "LIFETIME", 4)
XOR_PEER_ADDRESS: Final = _XorAddress(0x0012, "XOR-PEER-ADDRESS")
DATA: Final = _Opaque(0x0013, "DATA")
XOR_RELAYED_ADDRESS: Final = _XorAddress(0x0016, "XOR-RELAYED-ADDRESS")
REQUESTED_ADDRESS_FAMILY: Final = _Uint(0x0017, "REQUESTED-ADDRESS-FAMILY", 1, reserved=3)
"""An int, as ADDITIONAL_ADDRESS_FAMILY is, not a Family: an unknown one is 440, not malformed."""
EVEN_PORT: Final = _EvenPort(0x0018, "EVEN-PORT")
REQUESTED_TRANSPORT: Final = _Uint(0x0019, "REQUESTED-TRANSPORT", 1, reserved=3)
DONT_FRAGMENT: Final = _Flag(0x001A, "DONT-FRAGMENT")
RESERVATION_TOKEN: Final = _Fixed(0x0022, "RESERVATION-TOKEN", 8)
ADDITIONAL_ADDRESS_FAMILY: Final = _Uint(0x8000, "ADDITIONAL-ADDRESS-FAMILY", 1, reserved=3)
ADDRESS_ERROR_CODE: Final = _AddressErrorCode(0x8001, "ADDRESS-ERROR-CODE")
DRAFT_ADDITIONAL_ADDRESS_FAMILY: Final = _Uint(0x8032, "ADDITIONAL-ADDRESS-FAMILY (draft)", 1, reserved=3)
"""What clients built on coturn 4.6 send in its place: a number from before RFC 8656."""
ICMP: Final = _Icmp(0x8004, "ICMP")

# RFC 6062 section 6.2
CONNECTION_ID: Final = _Uint(0x002A, "CONNECTION-ID", 4)

# RFC 5780 section 7, and the RFC 3489 attributes that its clients know instead
CHANGE_REQUEST: Final = _Uint(0x0003, "CHANGE-REQUEST", 4)
SOURCE_ADDRESS: Final = _Address(0x0004, "SOURCE-ADDRESS")
CHANGED_ADDRESS: Final = _Address(0x0005, "CHANGED-ADDRESS")
PADDING: Final = _Opaque(0x0026, "PADDING")
RESPONSE_PORT: Final = _Uint(0x0027, "RESPONSE-PORT", 2, reserved=2)
RESPONSE_ORIGIN: Final = _Address(0x802B, "RESPONSE-ORIGIN")
OTHER_ADDRESS: Final = _Address(0x802C, "OTHER-ADDRESS")

# RFC 7635 section 6; tokens of coturn's are no larger
ACCESS_TOKEN: Final = _Opaque(0x001B, "ACCESS-TOKEN", 1024)
THIRD_PARTY_AUTHORIZATION: Final = _Text(0x802E, "THIRD-PARTY-AUTHORIZATION", 763)

# RFC 8016 section 3.3
MOBILITY_TICKET: Final = _Opaque(0x8030, "MOBILITY-TICKET")

# draft-ietf-tram-stun-origin-06: the web page that a browser asks for; the number is in the IANA registry
ORIGIN: Final = _Text(0x802F, "ORIGIN", 763)

# RFC 8445 section 16.1: in the connectivity checks of ICE agents, which may reach any STUN server
PRIORITY: Final = _Uint(0x0024, "PRIORITY", 4)
USE_CANDIDATE: Final = _Flag(0x0025, "USE-CANDIDATE")
ICE_CONTROLLED: Final = _Uint(0x8029, "ICE-CONTROLLED", 8)
ICE_CONTROLLING: Final = _Uint(0x802A, "ICE-CONTROLLING", 8)
