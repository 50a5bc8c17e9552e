"""ChannelData, and where one frame ends and the next begins on a stream (RFC 8656 section 12)."""

from __future__ import annotations

from typing import Final

from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.message import COOKIE_BYTES, HEADER_SIZE

CHANNEL_HEADER_SIZE: Final = 4
CHANNEL_FIRST: Final = 0x4000
CHANNEL_LAST: Final = 0x4FFF
CHANNEL_LAST_5766: Final = 0x7FFF
"""RFC 5766 clients bind up to here; RFC 8656 reserves what is above CHANNEL_LAST."""


def is_channel_data(data: bytes) -> bool:
    """Whether the first two bits say ChannelData, of the wider range."""
    return len(data) >= CHANNEL_HEADER_SIZE and 0x40 <= data[0] <= 0x7F


def pack_channel_data(channel: int, data: bytes, *, padded: bool) -> bytes:
    """A ChannelData message; padded to four bytes for a stream (RFC 8656 section 12.5)."""
    size = len(data)
    header = channel.to_bytes(2, "big") + size.to_bytes(2, "big")
    return header + data + bytes(-size % 4) if padded else header + data


def unpack_channel_data(frame: bytes) -> tuple[int, bytes]:
    """Channel number and data; bytes after the claimed length are padding. Raises MalformedMessage."""
    if len(frame) < CHANNEL_HEADER_SIZE:
        raise MalformedMessage(f"{len(frame)} bytes are too short for ChannelData")
    size = int.from_bytes(frame[2:4], "big")
    if CHANNEL_HEADER_SIZE + size > len(frame):
        raise MalformedMessage(f"ChannelData claims {size} bytes and has {len(frame) - CHANNEL_HEADER_SIZE}")
    return int.from_bytes(frame[:2], "big"), frame[CHANNEL_HEADER_SIZE : CHANNEL_HEADER_SIZE + size]


class StreamSplitter:
    """Cuts a byte stream into frames: STUN messages and padded ChannelData.

    Keeps at most one unfinished frame between calls, 65,555 bytes; what is behind a broken one, until the next call.
    """

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that data completes, whole, in order.

        Raises MalformedMessage when what comes next is no frame: the stream has lost its place and must be closed.
        Frames before the broken one are given first; the next call raises then.
        """
        if self._rest:
            data = self._rest + data
        frames: list[bytes] = []
        at, size = 0, len(data)
        while size - at >= CHANNEL_HEADER_SIZE:
            try:
                end = at + _frame_size(data, at)
            except MalformedMessage:
                self._rest = data[at:]
                if frames:
                    return frames
                raise
            if end > size:
                break
            frames.append(data[at:end])
            at = end
        self._rest = data[at:]
        return frames

    def take(self) -> bytes:
        """What was fed and is in no frame that was given; it is fed no more."""
        rest, self._rest = self._rest, b""
        return rest

    @property
    def rest(self) -> bytes:
        """The unfinished frame, as far as it has come."""
        return self._rest

    @property
    def pending(self) -> int:
        """Bytes that are kept."""
        return len(self._rest)


def _frame_size(data: bytes, at: int) -> int:
    first = data[at]
    length = int.from_bytes(data[at + 2 : at + 4], "big")
    if 0x40 <= first <= 0x7F:
        return CHANNEL_HEADER_SIZE + length + -length % 4
    if first > 0x7F:
        raise MalformedMessage(f"a frame cannot begin with {first:#04x}")
    if length % 4:
        raise MalformedMessage(f"STUN length {length} is not a multiple of four")
    cookie = data[at + 4 : at + 8]
    if cookie != COOKIE_BYTES[: len(cookie)]:
        raise MalformedMessage("no magic cookie")
    return HEADER_SIZE + length
