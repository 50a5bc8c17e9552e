"""The bpf system call, as far as the programs need it (bpf(2), linux/bpf.h)."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from struct import Struct
from typing import Final

_CALL_NUMBERS: Final = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "loongarch64": 280, "ppc64le": 361, "s390x": 351}

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_DELETE, _PROG_LOAD = 0, 1, 2, 3, 5
_PROG_TEST_RUN: Final = 10
_MAP_LOOKUP_BATCH: Final = 24
_PROG_QUERY: Final = 16
_LINK_CREATE: Final = 28

PROGRAM_TC: Final = 3
"""BPF_PROG_TYPE_SCHED_CLS."""
PROGRAM_XDP: Final = 6
ATTACH_XDP: Final = 37
ATTACH_TCX_INGRESS: Final = 46
XDP_DRIVER_MODE: Final = 4
"""XDP_FLAGS_DRV_MODE: the driver's own, or not at all."""
LIVE_FRAMES: Final = 2
"""BPF_F_TEST_XDP_LIVE_FRAMES: what a test run makes leaves as the program says."""

_ELEMENT: Final = Struct("=I4xQQQ")
_LOG_SIZE: Final = 1 << 20


class BpfError(OSError):
    """The kernel refused; strerror has what its verifier said, where it said anything."""


def _syscall() -> ctypes.CDLL | None:
    return ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


_libc: Final = _syscall()
_number: Final = _CALL_NUMBERS.get(platform.machine(), 0)


def _bpf(command: int, attributes: bytes | ctypes.Array[ctypes.c_char]) -> int:
    """Raises BpfError."""
    if _libc is None or not _number:
        raise BpfError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    room = ctypes.create_string_buffer(attributes, len(attributes)) if isinstance(attributes, bytes) else attributes
    result = int(_libc.syscall(_number, command, room, len(room)))
    if result < 0:
        number = ctypes.get_errno()
        raise BpfError(number, os.strerror(number))
    return result


def possible_cpus() -> int:
    """For how many processors a table per CPU has values. Raises OSError."""
    with open("/sys/devices/system/cpu/possible", encoding="ascii") as file:
        last = file.read().strip().rpartition(",")[2].rpartition("-")[2]
    return int(last) + 1


def create_map(kind: int, key_size: int, value_size: int, entries: int, flags: int, name: str) -> int:
    """Returns a descriptor. Raises BpfError."""
    attributes = Struct("=7I16s").pack(kind, key_size, value_size, entries, flags, 0, 0, name.encode()[:15])
    return _bpf(_MAP_CREATE, attributes)


def update(descriptor: int, key: bytes, value: bytes) -> None:
    """Set an element. Raises BpfError: E2BIG where there is no room."""
    key_room, value_room = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(value, len(value))
    _bpf(_MAP_UPDATE, _ELEMENT.pack(descriptor, ctypes.addressof(key_room), ctypes.addressof(value_room), 0))


def lookup(descriptor: int, key: bytes, size: int) -> bytes | None:
    """An element's value, of so many bytes; None where there is none. Raises BpfError."""
    key_room, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(size)
    try:
        _bpf(_MAP_LOOKUP, _ELEMENT.pack(descriptor, ctypes.addressof(key_room), ctypes.addressof(value), 0))
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    return value.raw


def delete(descriptor: int, key: bytes) -> bool:
    """Whether there was such an element. Raises BpfError."""
    key_room = ctypes.create_string_buffer(key, len(key))
    try:
        _bpf(_MAP_DELETE, _ELEMENT.pack(descriptor, ctypes.addressof(key_room), 0, 0))
    except BpfError as error:
        if error.errno == errno.ENOENT:
            return False
        raise
    return True


def load_program(kind: int, code: bytes, name: str, attach_type: int) -> int:
    """Returns a descriptor. Raises BpfError, with the verifier's words."""
    try:
        return _load(kind, code, name, attach_type, None)
    except BpfError as error:
        if error.errno == errno.EPERM:
            raise
        log = ctypes.create_string_buffer(_LOG_SIZE)
        try:
            return _load(kind, code, name, attach_type, log)
        except BpfError as again:
            said = log.value.decode(errors="replace").strip()
            raise BpfError(again.errno, f"{os.strerror(again.errno or 0)}: {said[-2000:]}") from None


def _load(kind: int, code: bytes, name: str, attach_type: int, log: ctypes.Array[ctypes.c_char] | None) -> int:
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Dual BSD/GPL")
    return _bpf(
        _PROG_LOAD,
        Struct("=IIQQIIQII16sII").pack(
            kind,
            len(code) // 8,
            ctypes.addressof(instructions),
            ctypes.addressof(licence),
            0 if log is None else 1,
            0 if log is None else len(log),
            0 if log is None else ctypes.addressof(log),
            0,
            0,
            name.encode()[:15],
            0,
            attach_type,
        ),
    )


def attach(program: int, interface: int, attach_type: int, flags: int = 0) -> int:
    """A link that holds the program at an interface until its descriptor is closed. Raises BpfError."""
    return _bpf(_LINK_CREATE, Struct("=IIII16x").pack(program, interface, attach_type, flags))


def attached(interface: int, attach_type: int) -> int:
    """How many programs an interface has at TCX. Raises BpfError."""
    room = ctypes.create_string_buffer(Struct("=IIIIQI4xQQQQ").pack(interface, attach_type, 0, 0, 0, 0, 0, 0, 0, 0), 72)
    _bpf(_PROG_QUERY, room)
    return int(Struct("=I").unpack_from(room.raw, 24)[0])


def run(
    program: int, frame: bytes, *, context: bytes = b"", repeat: int = 1, flags: int = 0, batch: int = 0
) -> tuple[int, bytes, int]:
    """Run a program on a frame, `repeat` times. Raises BpfError, with EINTR where a signal ends it.

    Returns its verdict, the frame as it left it, and nanoseconds a run.

    context: what the program is to see as its struct xdp_md or __sk_buff. With LIVE_FRAMES the frames really leave, in
    batches of so many (0: 64), and none is returned.
    """
    given, left = ctypes.create_string_buffer(frame, len(frame)), ctypes.create_string_buffer(len(frame) + 512)
    told = ctypes.create_string_buffer(context, len(context))
    room = ctypes.create_string_buffer(
        Struct("=IIIIQQIIIIQQIII4x").pack(
            program,
            0,
            len(frame),
            0 if flags else len(left),
            ctypes.addressof(given),
            0 if flags else ctypes.addressof(left),
            repeat,
            0,
            len(context),
            0,
            ctypes.addressof(told) if context else 0,
            0,
            flags,
            0,
            batch,
        )
    )
    _bpf(_PROG_TEST_RUN, room)
    _, verdict, _, size, _, _, _, duration = Struct("=IIIIQQII").unpack_from(room.raw)
    return verdict, left.raw[:size], duration
