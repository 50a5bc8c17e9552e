"""The programs in the kernel, and their tables. They are gone when the descriptors are closed, or the process ends."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from errno import EINVAL, EPERM
from pathlib import Path
from typing import Final, Literal

from turnsvr.relay.offload import elf, layout, system

ProgramKind = Literal["xdp", "tc"]

_ROOM: Final = Path(__file__).parent
_MISSING: Final = _ROOM / "programs_missing.txt"
_TYPES: Final[Mapping[ProgramKind, tuple[int, int]]] = {
    "xdp": (system.PROGRAM_XDP, system.ATTACH_XDP),
    "tc": (system.PROGRAM_TC, system.ATTACH_TCX_INGRESS),
}


class Absent(Exception):
    """The programs cannot be loaded; the text says why."""


def object_of(kind: ProgramKind) -> Path:
    """Where a build puts what clang made of bpf/KIND.bpf.c."""
    return _ROOM / f"{kind}.bpf.o"


def missing() -> str:
    """Why no build has made them, in a few words; "" where they are there."""
    if all(object_of(kind).exists() for kind in _TYPES):
        return ""
    return _MISSING.read_text().strip() if _MISSING.exists() else "it was not built on install"


class Programs:
    """Both programs over one set of tables."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        """sizes: entries of the tables that have no size of their own. Raises Absent."""
        if reason := missing():
            raise Absent(reason)
        self._descriptors: list[int] = []
        self._links: dict[int, int] = {}
        self.tables: dict[str, int] = {}
        """Descriptors by name."""
        self.programs: dict[ProgramKind, int] = {}
        self.refused: dict[ProgramKind, str] = {}
        """Why the kernel did not take one of the programs; it has the other then."""
        try:
            self.cpus: Final = system.possible_cpus()
            self._load(sizes)
        except BaseException as error:
            self.close()
            if isinstance(error, OSError):
                raise Absent(_explained(error)) from None
            if isinstance(error, ValueError):
                raise Absent(str(error)) from None
            raise

    def attach(self, kind: ProgramKind, interface: int) -> None:
        """Have an interface's packets pass by a program, until detach() or the end of the process. Raises OSError."""
        flags = system.XDP_DRIVER_MODE if kind == "xdp" else 0
        self._links[interface] = system.attach(self.programs[kind], interface, _TYPES[kind][1], flags)

    def detach(self, interface: int | None = None) -> None:
        """From one interface, or from every one. Not being attached is fine."""
        for each in list(self._links) if interface is None else [interface]:
            link = self._links.pop(each, None)
            if link is not None:
                os.close(link)

    def update(self, table: str, key: bytes | int, value: bytes) -> None:
        """Raises OSError: E2BIG where the table is full."""
        system.update(self.tables[table], _key(key), value)

    def delete(self, table: str, key: bytes) -> bool:
        """Whether it was there."""
        return system.delete(self.tables[table], key)

    def lookup(self, table: str, key: bytes | int) -> bytes | None:
        """The value; of a table per CPU the values of all, each rounded up to eight bytes."""
        size = layout.SIZES[table][1]
        if table in ("traffic", "reasons"):
            size = (size + 7 & ~7) * self.cpus
        return system.lookup(self.tables[table], _key(key), size)

    def close(self) -> None:
        """Closing twice is fine."""
        self.detach()
        for descriptor in self._descriptors:
            with suppress(OSError):
                os.close(descriptor)
        self._descriptors.clear()

    def _load(self, sizes: Mapping[str, int]) -> None:
        for kind, (program_type, attach_type) in _TYPES.items():
            found = elf.read(object_of(kind).read_bytes(), kind)
            for name, spec in found.tables.items():
                if (spec.key_size, spec.value_size) != layout.SIZES.get(name):
                    raise ValueError(f"the programs were built from other sources: {name}")
                if name not in self.tables:
                    entries = spec.entries or sizes[name]
                    self.tables[name] = self._own(
                        system.create_map(spec.kind, spec.key_size, spec.value_size, entries, spec.flags, name)
                    )
            code = found.linked(self.tables)
            try:
                self.programs[kind] = self._own(system.load_program(program_type, code, f"turnsvr_{kind}", attach_type))
            except OSError as error:
                if error.errno == EPERM:
                    raise
                self.refused[kind] = "it needs TCX (Linux 6.6)" if error.errno == EINVAL else _explained(error)
        if not self.programs:
            raise Absent("; ".join(f"{kind}: {reason}" for kind, reason in self.refused.items()))

    def _own(self, descriptor: int) -> int:
        self._descriptors.append(descriptor)
        return descriptor


def _key(key: bytes | int) -> bytes:
    return layout.NUMBER.pack(key) if isinstance(key, int) else key


def _explained(error: OSError) -> str:
    if error.errno == EPERM:
        return "it needs CAP_BPF and CAP_NET_ADMIN"
    return error.strerror or str(error)
