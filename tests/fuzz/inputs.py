"""Bytes for the targets, as hypothesis strategies: noise, messages that almost make sense, and mutated real packets."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.fuzz.targets import corpus
from turnsvr.stun import attributes as a
from turnsvr.stun.message import COOKIE_BYTES, Method

_SEEDS = corpus()

_numbers = st.sampled_from(sorted(a.ATTRIBUTES)) | st.integers(0, 0xFFFF)
_values = (
    st.binary(max_size=40)
    | st.sampled_from([0, 1, 2, 4, 8, 20, 32]).flatmap(lambda size: st.binary(min_size=size, max_size=size))
    | st.tuples(st.sampled_from([1, 2]), st.binary(min_size=18, max_size=18)).map(
        lambda pair: bytes((0, pair[0])) + pair[1][: 6 if pair[0] == 1 else 18]
    )
    | st.sampled_from([b"\x11\0\0\0", b"\x40\0\0\0", b"\0\0\0\0", b"\x02\0\0\0", b"\0\x02\0\0\0\x01\0\0"])
)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    """A STUN message of any attributes, whose lengths are right or nearly so."""
    body = b""
    for number, value in draw(st.lists(st.tuples(_numbers, _values), max_size=8)):
        claimed = draw(st.sampled_from([len(value)] * 12 + [len(value) + 1, 0xFFFF, 0]))
        body += number.to_bytes(2, "big") + claimed.to_bytes(2, "big") + value + bytes(-len(value) % 4)
    method = draw(st.sampled_from(list(Method)) | st.integers(0, 0xFFF))
    kind = (method & 0xF80) << 2 | (method & 0x070) << 1 | method & 0x00F
    kind |= draw(st.sampled_from([0, 0, 0, 0x10, 0x100, 0x110]))
    length = draw(st.sampled_from([len(body)] * 12 + [len(body) + 4, 0xFFFF, 2]))
    cookie = draw(st.sampled_from([COOKIE_BYTES] * 6 + [bytes(4)]))
    return (
        kind.to_bytes(2, "big") + length.to_bytes(2, "big") + cookie + draw(st.binary(min_size=12, max_size=12)) + body
    )


@st.composite
def mutations(draw: st.DrawFn) -> bytes:
    """A real packet with bytes changed, cut out, put in or taken from another."""
    data = bytearray(draw(st.sampled_from(_SEEDS)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["change", "cut", "put", "splice"])):
            case "change":
                data[at : at + 1] = draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del data[at : at + draw(st.sampled_from([1, 2, 4, 8]))]
            case "put":
                data[at:at] = draw(st.binary(max_size=8))
            case _:
                data[at:] = draw(st.sampled_from(_SEEDS))[at:]
    if len(data) >= 20 and draw(st.booleans()):
        data[2:4] = (len(data) - 20).to_bytes(2, "big")
    return bytes(data)


ANYTHING = (
    st.binary(max_size=200) | messages() | mutations() | st.lists(messages() | mutations(), max_size=3).map(b"".join)
)
