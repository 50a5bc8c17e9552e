"""TLS connections whose records the load generator's core writes by itself: OpenSSL's library, called directly.

Certificates are not verified: the load generator measures, it carries nothing secret beyond the credentials it was
given for that.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import socket
from functools import cache

_ERROR_WANT_READ = 2
_ERROR_WANT_WRITE = 3
_CTRL_MODE = 33
_MODE_PARTIAL_WRITE = 1
_MODE_MOVING_BUFFER = 2
_READ = 32_768


class TlsError(OSError):
    """The library is missing, or the handshake failed."""


@cache
def _library() -> ctypes.CDLL:
    for name in ("libssl.so.3", ctypes.util.find_library("ssl") or "libssl.so"):
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        pointer, integer, long = ctypes.c_void_p, ctypes.c_int, ctypes.c_long
        for function, result, arguments in (
            ("TLS_client_method", pointer, []),
            ("SSL_CTX_new", pointer, [pointer]),
            ("SSL_new", pointer, [pointer]),
            ("SSL_set_fd", integer, [pointer, integer]),
            ("SSL_ctrl", long, [pointer, integer, long, pointer]),
            ("SSL_connect", integer, [pointer]),
            ("SSL_write", integer, [pointer, ctypes.c_char_p, integer]),
            ("SSL_read", integer, [pointer, ctypes.c_char_p, integer]),
            ("SSL_get_error", integer, [pointer, integer]),
            ("SSL_shutdown", integer, [pointer]),
            ("SSL_free", None, [pointer]),
        ):
            found = getattr(library, function)
            found.restype, found.argtypes = result, arguments
        return library
    raise TlsError("load over TLS needs OpenSSL's libssl, which is not installed")


@cache
def _context() -> int:
    library = _library()
    context = library.SSL_CTX_new(library.TLS_client_method())
    if not context:
        raise TlsError("OpenSSL makes no context")
    return int(context)


def functions() -> tuple[int, int, int]:
    """Addresses of SSL_write, SSL_read and SSL_get_error."""
    library = _library()
    named = (library.SSL_write, library.SSL_read, library.SSL_get_error)
    return tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in named)  # type: ignore[return-value]


def connect_tls(connection: socket.socket) -> int:
    """Shake hands over a blocking socket; answers the address of the SSL object. Raises TlsError."""
    library = _library()
    tls = library.SSL_new(_context())
    library.SSL_set_fd(tls, connection.fileno())
    library.SSL_ctrl(tls, _CTRL_MODE, _MODE_PARTIAL_WRITE | _MODE_MOVING_BUFFER, None)
    if library.SSL_connect(tls) != 1:
        library.SSL_free(tls)
        raise TlsError("the TLS handshake failed")
    return int(tls)


def write_tls(tls: int, data: bytes) -> int:
    """Bytes taken, 0 when the connection is full; raises ConnectionResetError when it is gone."""
    library = _library()
    done = library.SSL_write(tls, data, len(data))
    if done <= 0:
        _check(tls, done)
    return max(0, int(done))


def read_tls(tls: int) -> bytes:
    """What there is to read, empty when nothing; raises ConnectionResetError when the connection is gone."""
    buffer = ctypes.create_string_buffer(_READ)
    done = _library().SSL_read(tls, buffer, _READ)
    if done <= 0:
        _check(tls, done)
    return buffer.raw[: max(0, done)]


def close_tls(tls: int) -> None:
    """Say goodbye and free the SSL object; the socket stays the caller's."""
    library = _library()
    library.SSL_shutdown(tls)
    library.SSL_free(tls)


def _check(tls: int, done: int) -> None:
    if _library().SSL_get_error(tls, done) not in (_ERROR_WANT_READ, _ERROR_WANT_WRITE):
        raise ConnectionResetError("the TLS connection is gone")
