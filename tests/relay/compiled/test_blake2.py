"""BLAKE2s under a key as hashlib has it."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

blake2s = pytest.importorskip("turnsvr.relay.compiled._pump", reason="the compiled pump was not built").blake2s


@given(
    data=st.binary(min_size=1, max_size=64),
    key=st.binary(min_size=1, max_size=32),
    person=st.binary(max_size=8),
    size=st.integers(1, 32),
)
def test_the_same_as_the_library_has(data: bytes, key: bytes, person: bytes, size: int) -> None:
    expected = hashlib.blake2s(data, key=key, person=person, digest_size=size).digest()
    assert blake2s(data, key=key, person=person, digest_size=size) == expected


@pytest.mark.parametrize(
    ("data", "key", "person", "size"),
    [
        (b"", b"k", b"", 32),
        (bytes(65), b"k", b"", 32),
        (b"d", b"", b"", 32),
        (b"d", bytes(33), b"", 32),
        (b"d", b"k", bytes(9), 32),
        (b"d", b"k", b"", 0),
        (b"d", b"k", b"", 33),
    ],
)
def test_sizes_that_it_has_not(data: bytes, key: bytes, person: bytes, size: int) -> None:
    with pytest.raises(ValueError, match="BLAKE2s"):
        blake2s(data, key=key, person=person, digest_size=size)
