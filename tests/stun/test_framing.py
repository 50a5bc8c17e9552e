"""Streams cut into frames, however they arrive, and ChannelData."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnsvr.stun.attributes import DATA, SOFTWARE
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter, is_channel_data, pack_channel_data, unpack_channel_data
from turnsvr.stun.message import COOKIE_BYTES, Class, Message, Method, is_stun

channel_numbers = st.integers(0x4000, 0x7FFF)
channel_frames = st.builds(pack_channel_data, channel_numbers, st.binary(max_size=50), padded=st.just(True))
stun_frames = st.builds(
    lambda data: Message(Method.SEND, Class.INDICATION, bytes(12)).add(DATA, data).encode(), st.binary(max_size=50)
)
frames = st.lists(channel_frames | stun_frames, max_size=8)


class TestStreamSplitter:
    @given(frames)
    def test_whole(self, expected: list[bytes]) -> None:
        splitter = StreamSplitter()
        assert splitter.feed(b"".join(expected)) == expected
        assert splitter.pending == 0

    @given(frames)
    def test_byte_by_byte(self, expected: list[bytes]) -> None:
        splitter, got = StreamSplitter(), []
        for byte in b"".join(expected):
            got += splitter.feed(bytes((byte,)))
        assert got == expected
        assert splitter.pending == 0

    @given(frames, st.data())
    def test_in_any_pieces(self, expected: list[bytes], data: st.DataObject) -> None:
        stream = b"".join(expected)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
        splitter, got = StreamSplitter(), []
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            got += splitter.feed(stream[start:end])
        assert got == expected

    @given(frames, channel_frames | stun_frames, st.data())
    def test_with_the_beginning_of_another(self, expected: list[bytes], last: bytes, data: st.DataObject) -> None:
        cut = data.draw(st.integers(0, len(last) - 1))
        splitter = StreamSplitter()
        assert splitter.feed(b"".join(expected) + last[:cut]) == expected
        assert splitter.pending == cut
        assert splitter.feed(last[cut:]) == [last]

    @pytest.mark.parametrize(
        "frame", [b"\x40\x00\xff\xff" + bytes(65_536), b"\x00\x16\xff\xfc" + COOKIE_BYTES + bytes(65_544)]
    )
    def test_the_longest_frames(self, frame: bytes) -> None:
        splitter = StreamSplitter()
        assert splitter.feed(frame[:-1]) == []
        assert splitter.pending == len(frame) - 1
        assert splitter.feed(frame[-1:] + b"\x40") == [frame]
        assert splitter.pending == 1

    @pytest.mark.parametrize(
        "stream",
        [
            b"\x80\0\0\0",
            b"\xff\xff\xff\xff",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
            b"GET / HTTP/1.1\r\n\r\n".replace(b"G", b"\x00"),
            b"\x00\x01\x00\x03",
            b"\x00\x01\x00\x00\x21\x12\xa4\x43",
            b"\x00\x01\x00\x00\x20",
        ],
        ids=repr,
    )
    @pytest.mark.parametrize("before", [b"", b"\x40\x00\x00\x04abcd"])
    def test_what_is_no_frame_ends_the_stream(self, stream: bytes, before: bytes) -> None:
        splitter = StreamSplitter()
        if before:
            assert splitter.feed(before + stream) == [before]
        with pytest.raises(MalformedMessage):
            splitter.feed(b"" if before else stream)
        assert splitter.take() == stream
        assert splitter.pending == 0
        with pytest.raises(MalformedMessage):
            _feed_byte_by_byte(StreamSplitter(), before + stream)

    @given(st.lists(st.binary(max_size=100), max_size=10))
    def test_any_bytes(self, pieces: list[bytes]) -> None:
        splitter, got = StreamSplitter(), b""
        try:
            for piece in pieces:
                for frame in splitter.feed(piece):
                    assert is_stun(frame) or is_channel_data(frame)
                    got += frame
                assert splitter.pending < 65_556
        except MalformedMessage:
            return
        assert len(got) + splitter.pending == len(b"".join(pieces))
        assert b"".join(pieces).startswith(got)


class TestChannelData:
    @given(channel_numbers, st.binary(max_size=300), st.booleans())
    def test_round_trip(self, channel: int, data: bytes, padded: bool) -> None:
        frame = pack_channel_data(channel, data, padded=padded)
        assert is_channel_data(frame)
        assert not is_stun(frame)
        assert unpack_channel_data(frame) == (channel, data)
        assert len(frame) == 4 + len(data) + (-len(data) % 4 if padded else 0)

    @pytest.mark.parametrize("frame", [b"", b"\x40\0\0", b"\x40\0\0\1", b"\x40\0\xff\xffabc"])
    def test_too_short(self, frame: bytes) -> None:
        with pytest.raises(MalformedMessage):
            unpack_channel_data(frame)

    def test_what_it_is_told_by(self) -> None:
        assert not is_channel_data(b"\x40\0\0")
        assert not is_channel_data(b"\x3f\0\0\0")
        assert not is_channel_data(b"\x80\0\0\0")
        assert is_channel_data(b"\x7f\xff\0\0")
        assert not is_stun(b"")
        assert not is_stun(b"\x40")
        assert is_stun(Message(Method.BINDING, Class.REQUEST, bytes(12)).add(SOFTWARE, "x").encode())


def _feed_byte_by_byte(splitter: StreamSplitter, stream: bytes) -> None:
    for byte in stream:
        splitter.feed(bytes((byte,)))
