"""The object that clang made of the programs: their instructions, and where these name a table (elf(5)).

What it holds is made by our own build; a file that is damaged raises ValueError, and is not to be trusted otherwise.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from struct import Struct
from typing import Final

_MAGIC: Final = b"\x7fELF\x02"
_BPF: Final = 247
_SYMBOLS: Final = 2
_RELOCATIONS: Final = 9
_SYMBOL: Final = Struct("=IBBHQQ")
_RELOCATION: Final = Struct("=QQ")
_SECTION: Final = Struct("=IIQQQQIIQQ")
_TABLE: Final = Struct("=5I")
_LOAD_TABLE: Final = 0x18
"""BPF_LD | BPF_IMM | BPF_DW, two instructions long, with the table's descriptor as its number."""
_IS_DESCRIPTOR: Final = 1
"""BPF_PSEUDO_MAP_FD."""


@dataclass(frozen=True, slots=True)
class TableSpec:
    """A table that the programs share; 0 entries: as many as the loader says."""

    kind: int
    key_size: int
    value_size: int
    entries: int
    flags: int


@dataclass(frozen=True, slots=True)
class Object:
    """One program and its tables by name."""

    code: bytes
    tables: Mapping[str, TableSpec]
    uses: tuple[tuple[int, str], ...]
    """Where in the code each table's descriptor goes, in bytes."""

    def linked(self, descriptors: Mapping[str, int]) -> bytes:
        """The code, with these tables."""
        code = bytearray(self.code)
        for at, name in self.uses:
            code[at + 1] = code[at + 1] & 0x0F | _IS_DESCRIPTOR << 4
            struct.pack_into("=i", code, at + 4, descriptors[name])
        return bytes(code)


def read(data: bytes, section: str) -> Object:
    """The program of that section. Raises ValueError."""
    try:
        return _read(data, section)
    except (struct.error, IndexError, KeyError, UnicodeDecodeError) as error:
        raise ValueError(f"no object of the programs: {error!r}") from None


def _read(data: bytes, section: str) -> Object:
    if not data.startswith(_MAGIC) or struct.unpack_from("=H", data, 18)[0] != _BPF:
        raise ValueError("no object of BPF in this machine's byte order")
    (start,) = struct.unpack_from("=Q", data, 40)
    size, count, names_at = struct.unpack_from("=HHH", data, 58)
    headers = [_SECTION.unpack_from(data, start + size * number) for number in range(count)]
    contents = [data[at : at + length] for _, _, _, _, at, length, *_ in headers]
    names = [_text(contents[names_at], header[0]) for header in headers]
    symbols = _symbols(headers, contents)
    program, tables_at = names.index(section), names.index("tables")
    tables = {
        name: TableSpec(*_TABLE.unpack_from(contents[tables_at], value))
        for name, place, value in symbols
        if place == tables_at
    }
    uses = []
    for header, content in zip(headers, contents, strict=True):
        if header[1] == _RELOCATIONS and header[7] == program:
            for at, info in _RELOCATION.iter_unpack(content):
                name, place, _ = symbols[info >> 32]
                if place != tables_at or contents[program][at] != _LOAD_TABLE:
                    raise ValueError(f"{name}: neither a table nor within the program")
                uses.append((at, name))
    return Object(contents[program], tables, tuple(uses))


def _symbols(headers: list[tuple[int, ...]], contents: list[bytes]) -> list[tuple[str, int, int]]:
    """Name, section and value of each."""
    for header, content in zip(headers, contents, strict=True):
        if header[1] == _SYMBOLS:
            texts = contents[header[6]]
            return [(_text(texts, name), place, value) for name, _, _, place, value, _ in _SYMBOL.iter_unpack(content)]
    raise ValueError("no symbols")


def _text(texts: bytes, at: int) -> str:
    return texts[at : texts.index(b"\0", at)].decode()
