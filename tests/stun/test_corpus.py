"""Packets that browsers and other implementations sent, and seeds of other projects' fuzzers."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path
from typing import NamedTuple

import pytest

from turnsvr.stun.attributes import ATTRIBUTES, XOR_MAPPED_ADDRESS
from turnsvr.stun.errors import MalformedMessage
from turnsvr.stun.framing import StreamSplitter, is_channel_data, unpack_channel_data
from turnsvr.stun.message import Class, Message, Method, is_stun

CORPUS = Path(__file__).parents[1] / "fuzz" / "corpus"


class Seed(NamedTuple):
    source: str
    name: str
    size: int
    sha1: str
    kind: str

    @property
    def data(self) -> bytes:
        return (CORPUS / self.source / f"{self.name}.bin").read_bytes()


def _seeds() -> list[Seed]:
    with (CORPUS / "INDEX.tsv").open(newline="") as index:
        rows = csv.reader(index, delimiter="\t")
        return [Seed(source, name, int(size), sha1, kind) for source, name, size, sha1, kind in rows]


SEEDS = _seeds()
each = pytest.mark.parametrize("seed", SEEDS, ids=lambda seed: f"{seed.source}/{seed.name}")


def test_the_index_names_every_file() -> None:
    assert sorted(CORPUS / seed.source / f"{seed.name}.bin" for seed in SEEDS) == sorted(CORPUS.rglob("*.bin"))


@each
def test_the_file_is_what_the_index_says(seed: Seed) -> None:
    assert len(seed.data) == seed.size
    assert hashlib.sha1(seed.data).hexdigest() == seed.sha1


@each
def test_it_is_read_or_malformed(seed: Seed) -> None:
    data = seed.data
    try:
        message = Message.parse(data, classic=True)
    except MalformedMessage:
        return
    for attribute in ATTRIBUTES.values():
        try:
            list(message.all(attribute))
        except MalformedMessage:
            continue


@each
def test_its_first_byte_tells_its_kind(seed: Seed) -> None:
    assert is_channel_data(seed.data) is (seed.kind == "channel")
    assert is_stun(seed.data) is (seed.kind != "channel")
    if seed.kind == "channel":
        with pytest.raises(MalformedMessage):
            unpack_channel_data(seed.data)


@each
def test_as_a_stream(seed: Seed) -> None:
    try:
        frames = StreamSplitter().feed(seed.data)
    except MalformedMessage:
        return
    assert seed.data.startswith(b"".join(frames))


@pytest.mark.parametrize(
    "seed", [s for s in SEEDS if s.source in ("aioice", "pion-frombrowsers")], ids=lambda s: s.name
)
def test_what_real_programs_sent_is_understood(seed: Seed) -> None:
    message = Message.parse(seed.data)
    assert message.method == Method.BINDING
    assert message.unknown_required() == ()
    if message.message_class is Class.SUCCESS:
        assert message.get(XOR_MAPPED_ADDRESS)
