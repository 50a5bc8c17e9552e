"""STUN messages: bytes in, values out, and back (RFC 8489 sections 5 and 6).

Parsing checks the frame and walks the attributes; a value is unpacked when it is asked for, so that a
flood of nonsense costs little. What bounds the attributes of a message is its length, which has 16 bits: 16,383 of
them, or 5,461 IPv4 peers. How many peers one request may name is for the rules to say, and for them to answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Final, TypeVar

from turnsvr.stun import integrity
from turnsvr.stun.attributes import (
    ATTRIBUTES,
    FINGERPRINT,
    MESSAGE_INTEGRITY,
    MESSAGE_INTEGRITY_SHA256,
    Attribute,
)
from turnsvr.stun.errors import MalformedMessage

T = TypeVar("T")

HEADER_SIZE: Final = 20
MAGIC_COOKIE: Final = 0x2112A442
COOKIE_BYTES: Final = MAGIC_COOKIE.to_bytes(4, "big")

_KNOWN: Final = frozenset(ATTRIBUTES)
_INTEGRITY: Final = MESSAGE_INTEGRITY.number
_INTEGRITY_SHA256: Final = MESSAGE_INTEGRITY_SHA256.number
_FINGERPRINT: Final = FINGERPRINT.number


class Class(IntEnum):
    """Message class: the two bits of RFC 8489 section 5, in place."""

    REQUEST = 0x0000
    INDICATION = 0x0010
    SUCCESS = 0x0100
    ERROR = 0x0110


_CLASSES: Final = {int(each): each for each in Class}


class Method(IntEnum):
    """Methods (RFC 8489 section 18.2, RFC 8656 section 17, RFC 6062 section 6.1)."""

    BINDING = 0x001
    ALLOCATE = 0x003
    REFRESH = 0x004
    SEND = 0x006
    DATA = 0x007
    CREATE_PERMISSION = 0x008
    CHANNEL_BIND = 0x009
    CONNECT = 0x00A
    CONNECTION_BIND = 0x00B
    CONNECTION_ATTEMPT = 0x00C


def is_stun(data: bytes) -> bool:
    """Whether the first two bits say STUN (RFC 8489 section 5)."""
    return len(data) > 0 and data[0] < 0x40


class Message:
    """A STUN message.

    method is a Method or the number of an unknown one; transaction_id has 12 bytes, or 16 in the manner of
    RFC 3489, where the first four are not the magic cookie. mask is what addresses are XORed with: magic cookie and
    transaction id, 16 bytes. Attributes keep their order; where one is repeated, get() answers the first
    (RFC 8489 section 14).
    """

    __slots__ = (
        "_attributes",
        "_first",
        "_integrity_at",
        "_raw",
        "_sha256_at",
        "mask",
        "message_class",
        "method",
        "transaction_id",
    )

    def __init__(self, method: int, message_class: Class, transaction_id: bytes) -> None:
        self.method = method
        self.message_class = message_class
        self.transaction_id = transaction_id
        self.mask = transaction_id if len(transaction_id) == 16 else COOKIE_BYTES + transaction_id
        self._attributes: list[tuple[int, bytes]] = []
        self._first: dict[int, bytes] = {}
        self._raw = b""
        self._integrity_at = 0
        self._sha256_at = 0

    @classmethod
    def parse(cls, data: bytes, *, classic: bool = False) -> Message:
        """The message in data, which holds it exactly; raises MalformedMessage.

        classic admits RFC 3489 messages, without the magic cookie. A FINGERPRINT that is there is checked.
        Attributes that follow an integrity attribute are dropped, except MESSAGE-INTEGRITY-SHA256 and
        FINGERPRINT (RFC 8489 sections 14.5 to 14.7).
        """
        size = len(data)
        if size < HEADER_SIZE:
            raise MalformedMessage(f"{size} bytes are too short for a STUN header")
        message_type, length = data[0] << 8 | data[1], data[2] << 8 | data[3]
        if message_type & 0xC000:
            raise MalformedMessage("the first two bits are not zero")
        if length % 4 or length + HEADER_SIZE != size:
            raise MalformedMessage(f"length {length} in a message of {size} bytes")
        if data[4:8] == COOKIE_BYTES:
            transaction_id = data[8:20]
        elif classic:
            transaction_id = data[4:20]
        else:
            raise MalformedMessage("no magic cookie")
        method = message_type & 0x000F | (message_type & 0x00E0) >> 1 | (message_type & 0x3E00) >> 2
        message = cls(method, _CLASSES[message_type & 0x0110], transaction_id)
        message._raw = data
        message._walk()
        return message

    def _walk(self) -> None:
        data, at, size = self._raw, HEADER_SIZE, len(self._raw)
        attributes, first = self._attributes, self._first
        protected = False
        while at < size:
            number = data[at] << 8 | data[at + 1]
            end = at + 4 + (data[at + 2] << 8 | data[at + 3])
            if end > size:
                raise MalformedMessage(f"attribute {number:#06x} runs past the end")
            if protected or number in (_INTEGRITY, _INTEGRITY_SHA256, _FINGERPRINT):
                if number == _FINGERPRINT:
                    self._check_fingerprint(at, end)
                    break
                if self._sha256_at or (protected and number != _INTEGRITY_SHA256):
                    at = end + -end % 4
                    continue
                protected = True
                if number == _INTEGRITY:
                    self._integrity_at = at
                else:
                    self._sha256_at = at
            value = data[at + 4 : end]
            attributes.append((number, value))
            if number not in first:
                first[number] = value
            at = end + -end % 4

    def _check_fingerprint(self, at: int, end: int) -> None:
        if end - at != 8 or end != len(self._raw):
            raise MalformedMessage("FINGERPRINT is not the last attribute")
        value = self._raw[at + 4 : end]
        if int.from_bytes(value, "big") != integrity.fingerprint(self._raw[:at]):
            raise MalformedMessage("wrong FINGERPRINT")
        self._append(_FINGERPRINT, value)

    def _append(self, number: int, value: bytes) -> None:
        self._attributes.append((number, value))
        self._first.setdefault(number, value)

    @property
    def is_classic(self) -> bool:
        """Whether it came without the magic cookie (RFC 3489)."""
        return len(self.transaction_id) == 16

    def get(self, attribute: Attribute[T]) -> T | None:
        """Value of the first such attribute, or None; raises MalformedMessage."""
        value = self._first.get(attribute.number)
        return attribute.unpack(value, self.mask) if value is not None else None

    def all(self, attribute: Attribute[T]) -> Iterator[T]:
        """Values of every such attribute, in order; raises MalformedMessage."""
        mask = self.mask
        return (attribute.unpack(value, mask) for number, value in self._attributes if number == attribute.number)

    def __contains__(self, attribute: Attribute[T]) -> bool:
        return attribute.number in self._first

    def numbers(self) -> list[int]:
        """Numbers of the attributes, in order."""
        return [number for number, _ in self._attributes]

    def unknown_required(self) -> tuple[int, ...]:
        """Comprehension-required attributes that are not known here, each once, for 420's UNKNOWN-ATTRIBUTES."""
        if _KNOWN.issuperset(self._first):
            return ()
        return tuple([number for number in self._first if number not in _KNOWN and number < 0x8000])

    def add(self, attribute: Attribute[T], value: T) -> Message:
        """Append an attribute; returns the message, so that calls chain."""
        self._append(attribute.number, attribute.pack(value, self.mask))
        return self

    def reply(self, message_class: Class) -> Message:
        """An empty response to this request."""
        return Message(self.method, message_class, self.transaction_id)

    def integrity_ok(self, key: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY is there and right for key; constant time (RFC 8489 section 14.5)."""
        if not self._integrity_at:
            return False
        return integrity.check_sha1(key, self._raw, self._integrity_at)

    def integrity_sha256_ok(self, key: bytes) -> bool:
        """Whether MESSAGE-INTEGRITY-SHA256 is there and right for key; constant time (section 14.6)."""
        if not self._sha256_at:
            return False
        return integrity.check_sha256(key, self._raw, self._sha256_at)

    def encode(self, *, key: bytes | None = None, sha256_key: bytes | None = None, fingerprint: bool = False) -> bytes:
        """The bytes; with MESSAGE-INTEGRITY under key, -SHA256 under sha256_key, FINGERPRINT, in that order.

        Padding is zeros (RFC 8489 section 14).
        """
        parts: list[bytes] = []
        for number, value in self._attributes:
            size = len(value)
            parts += _type_and_length(number, size), value, _PADDING[size % 4]
        body = b"".join(parts)
        method, message_class = self.method, self.message_class
        message_type = (method & 0xF80) << 2 | (method & 0x070) << 1 | method & 0x00F | message_class
        data = _type_and_length(message_type, len(body)) + self.mask + body
        if key is not None:
            data = integrity.append_sha1(key, data)
        if sha256_key is not None:
            data = integrity.append_sha256(sha256_key, data)
        if fingerprint:
            data = integrity.append_fingerprint(data)
        return data

    def __repr__(self) -> str:
        method = Method(self.method).name if self.method in _METHODS else f"{self.method:#05x}"
        names = ", ".join(ATTRIBUTES[n].name if n in ATTRIBUTES else f"{n:#06x}" for n in self.numbers())
        return f"<{method} {self.message_class.name} {self.transaction_id.hex()} [{names}]>"


def _type_and_length(number: int, size: int) -> bytes:
    """What a message begins with, and each attribute."""
    return (number << 16 | size).to_bytes(4, "big")


_PADDING: Final = (b"", bytes(3), bytes(2), bytes(1))
"""By the size of a value modulo four."""

_METHODS: Final = frozenset(Method)
