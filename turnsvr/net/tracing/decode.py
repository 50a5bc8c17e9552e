"""A message in words, and a copy of it that holds no secret. Both take whatever a stranger may send."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final, Literal, NamedTuple

from turnsvr.credentials.shown import shown
from turnsvr.stun import attributes as a
from turnsvr.stun.address import Address
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import is_channel_data
from turnsvr.stun.integrity import fingerprint
from turnsvr.stun.message import HEADER_SIZE, Class, Method, is_stun

_MAX_TEXT: Final = 200
"""Characters of a value that are shown."""
_MAX_OPAQUE: Final = 16
"""Bytes of a value without a form that are shown, in hexadecimal digits."""

_PASSWORD: Final = 0x0007
"""PASSWORD of RFC 3489, which no client should send any more."""
_SECRET: Final = {
    _PASSWORD,
    a.MESSAGE_INTEGRITY.number,
    a.MESSAGE_INTEGRITY_SHA256.number,
    a.ACCESS_TOKEN.number,
    a.MOBILITY_TICKET.number,
    a.RESERVATION_TOKEN.number,
}
"""Values that prove who a user is, or help to guess a password: zeros take their place."""

MessageKind = Literal["request", "indication", "success", "error", ""]

_METHODS: Final = {each.value: each.name.title().replace("_", "") for each in Method}
_KINDS: Final[dict[Class, MessageKind]] = {
    Class.REQUEST: "request",
    Class.INDICATION: "indication",
    Class.SUCCESS: "success",
    Class.ERROR: "error",
}
_PROTOCOLS: Final = {6: "TCP", 17: "UDP"}
_FAMILIES: Final = {1: "IPv4", 2: "IPv6"}
_ALGORITHMS: Final = {1: "MD5", 2: "SHA-256"}


class Decoded(NamedTuple):
    """A message for people. kind: request, indication, success, error; empty where the bytes are no STUN message."""

    method: str
    kind: MessageKind
    transaction: str
    """In hexadecimal digits."""
    attributes: tuple[tuple[str, str], ...]
    """Names and values, as they come."""
    problem: str
    """What is wrong with its form; empty for nothing."""


class _Field(NamedTuple):
    number: int
    begin: int
    end: int


def decode(data: bytes) -> Decoded:
    """Never raises. Values that are secret are named, and not shown, whether or not masked() has been here before."""
    if is_channel_data(data):
        number, length = int.from_bytes(data[:2], "big"), int.from_bytes(data[2:4], "big")
        return Decoded("ChannelData", "", "", (("CHANNEL-NUMBER", f"{number:#06x}"), ("LENGTH", f"{length} bytes")), "")
    if not is_stun(data) or len(data) < HEADER_SIZE:
        return Decoded("no STUN", "", "", (), f"{len(data)} bytes that are no message")
    kind = int.from_bytes(data[:2], "big")
    method = kind & 0x000F | (kind & 0x00E0) >> 1 | (kind & 0x3E00) >> 2
    fields = list(_fields(data))
    attributes = tuple((_name(each.number), _text(data, each)) for each in fields)
    name = _METHODS.get(method, f"{method:#05x}")
    return Decoded(name, _KINDS[Class(kind & 0x0110)], data[8:20].hex(), attributes, _problem(data, fields))


def masked(data: bytes, *, keeps_data: bool = False) -> bytes:
    """A copy of the same length without secrets, nor application data unless they are kept; FINGERPRINT is right."""
    if is_channel_data(data):
        return data if keeps_data else data[:4] + bytes(len(data) - 4)
    if not is_stun(data) or len(data) < HEADER_SIZE:
        return data[:1] + bytes(max(0, len(data) - 1))
    copy = bytearray(data)
    for each in _fields(data):
        value = data[each.begin : each.end]
        if each.number in _SECRET or (each.number == a.DATA.number and not keeps_data):
            copy[each.begin : each.end] = bytes(len(value))
        elif each.number == a.USERNAME.number and shown(text := value.decode(errors="replace")) != text:
            copy[each.begin : each.end] = b"*" * len(value)
        elif each.number == a.FINGERPRINT.number and len(value) == 4 and each.end == len(data):
            copy[each.begin : each.end] = fingerprint(bytes(copy[: each.begin - 4])).to_bytes(4, "big")
    return bytes(copy)


def values(data: bytes, attribute: a.Attribute[Any]) -> Iterator[Any]:
    """The values of every such attribute that can be read."""
    for each in _fields(data) if is_stun(data) else ():
        if each.number == attribute.number:
            try:
                yield attribute.unpack(data[each.begin : each.end], data[4:20])
            except MalformedMessage:
                continue


def has(data: bytes, *attributes: a.Attribute[Any]) -> bool:
    """Whether any of these is there."""
    wanted = {each.number for each in attributes}
    return is_stun(data) and any(each.number in wanted for each in _fields(data))


def _fields(data: bytes) -> Iterator[_Field]:
    """Those that are there whole."""
    at = HEADER_SIZE
    while at + 4 <= len(data):
        size = int.from_bytes(data[at + 2 : at + 4], "big")
        if at + 4 + size > len(data):
            return
        yield _Field(int.from_bytes(data[at : at + 2], "big"), at + 4, at + 4 + size)
        at += 4 + size + -size % 4


def _problem(data: bytes, fields: list[_Field]) -> str:
    length = int.from_bytes(data[2:4], "big")
    end = fields[-1].end if fields else HEADER_SIZE
    if length % 4 or length + HEADER_SIZE != len(data):
        return f"length {length} in a message of {len(data)} bytes"
    if end + -end % 4 != len(data):
        return "an attribute runs past the end"
    return ""


def _name(number: int) -> str:
    known = a.ATTRIBUTES.get(number)
    return known.name if known is not None else f"{number:#06x}"


def _text(data: bytes, field: _Field) -> str:
    value = data[field.begin : field.end]
    if field.number in (a.MESSAGE_INTEGRITY.number, a.MESSAGE_INTEGRITY_SHA256.number):
        return "present"
    if field.number in _SECRET:
        return f"{len(value)} bytes, not shown" if value else "empty"
    if field.number == a.DATA.number:
        return f"{len(value)} bytes"
    known = a.ATTRIBUTES.get(field.number)
    if known is None:
        return _opaque(value)
    try:
        return _FORMS.get(field.number, _plain)(known.unpack(value, data[4:20]))[:_MAX_TEXT]
    except MalformedMessage as error:
        return f"malformed: {error}"


def _plain(value: Any) -> str:
    match value:
        case a.Error():
            return f"{value.code} {value.reason}"
        case a.AddressError():
            return f"{value.family.name} {value.code} {value.reason}"
        case a.Icmp():
            return f"type {value.type}, code {value.code}, {value.data.hex()}"
        case a.EvenPort():
            return "and the next one" if value.reserve else "yes"
        case a.PasswordAlgorithm():
            return _ALGORITHMS.get(value.number, str(value.number))
        case Address():
            return str(value)
        case bytes():
            return _opaque(value)
        case tuple():
            return ", ".join(map(_plain, value))
        case None | True:
            return "yes"
    return str(value)


def _opaque(value: bytes) -> str:
    digits = value[:_MAX_OPAQUE].hex()
    return f"{digits}… ({len(value)} bytes)" if len(value) > _MAX_OPAQUE else digits or "empty"


def _nonce(value: bytes) -> str:
    return value.decode() if value.isascii() else _opaque(value)


_FORMS: Final[dict[int, Callable[[Any], str]]] = {
    a.USERNAME.number: shown,
    a.NONCE.number: _nonce,
    a.LIFETIME.number: lambda seconds: f"{seconds} s",
    a.CHANNEL_NUMBER.number: lambda number: f"{number:#06x}",
    a.REQUESTED_TRANSPORT.number: lambda number: _PROTOCOLS.get(number, str(number)),
    a.REQUESTED_ADDRESS_FAMILY.number: lambda number: _FAMILIES.get(number, str(number)),
    a.ADDITIONAL_ADDRESS_FAMILY.number: lambda number: _FAMILIES.get(number, str(number)),
    a.DRAFT_ADDITIONAL_ADDRESS_FAMILY.number: lambda number: _FAMILIES.get(number, str(number)),
    a.UNKNOWN_ATTRIBUTES.number: lambda numbers: ", ".join(map(_name, numbers)),
    a.FINGERPRINT.number: lambda number: "present",
    a.CONNECTION_ID.number: lambda number: f"{number:#010x}",
}
