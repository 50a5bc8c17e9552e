"""TLS connections whose records the load generator's core writes by itself: OpenSSL's library, called directly.

Certificates are not verified: the load generator measures, it carries nothing secret beyond the credentials it was
given for that.
"""

from __future__ import annotations

import ctypes
import socket
from functools import cache

from turnsvr.client.libssl import TlsError, library

_ERROR_WANT_READ = 2
_ERROR_WANT_WRITE = 3
_CTRL_SET_MTU = 17
_CTRL_MODE = 33
_OP_NO_QUERY_MTU = 0x1000
_MTU = 1_200
_MODE_PARTIAL_WRITE = 1
_MODE_MOVING_BUFFER = 2
_READ = 32_768


@cache
def _context(*, datagrams: bool = False) -> int:
    called = library()
    context = called.SSL_CTX_new(called.DTLS_client_method() if datagrams else called.TLS_client_method())
    if not context:
        raise TlsError("OpenSSL makes no context")
    if datagrams:
        called.SSL_CTX_set_options(context, _OP_NO_QUERY_MTU)
    return int(context)


def functions() -> tuple[int, int, int]:
    """Addresses of SSL_write, SSL_read and SSL_get_error."""
    called = library()
    named = (called.SSL_write, called.SSL_read, called.SSL_get_error)
    return tuple(ctypes.cast(function, ctypes.c_void_p).value or 0 for function in named)  # type: ignore[return-value]


def connect_tls(connection: socket.socket, *, datagrams: bool = False) -> int:
    """Shake hands over a blocking socket, over UDP with DTLS; answers the address of the SSL object. Raises TlsError.

    Nothing that a datagram socket loses is sent again.
    """
    called = library()
    tls = called.SSL_new(_context(datagrams=datagrams))
    if datagrams:
        called.SSL_ctrl(tls, _CTRL_SET_MTU, _MTU, None)
    called.SSL_set_fd(tls, connection.fileno())
    called.SSL_ctrl(tls, _CTRL_MODE, _MODE_PARTIAL_WRITE | _MODE_MOVING_BUFFER, None)
    if called.SSL_connect(tls) != 1:
        called.SSL_free(tls)
        raise TlsError("the TLS handshake failed")
    return int(tls)


def write_tls(tls: int, data: bytes) -> int:
    """Bytes taken, 0 when the connection is full; raises ConnectionResetError when it is gone."""
    called = library()
    done = called.SSL_write(tls, data, len(data))
    if done <= 0:
        _check(tls, done)
    return max(0, int(done))


def read_tls(tls: int) -> bytes:
    """What there is to read, empty when nothing; raises ConnectionResetError when the connection is gone."""
    buffer = ctypes.create_string_buffer(_READ)
    done = library().SSL_read(tls, buffer, _READ)
    if done <= 0:
        _check(tls, done)
    return buffer.raw[: max(0, done)]


def close_tls(tls: int) -> None:
    """Say goodbye and free the SSL object; the socket stays the caller's."""
    called = library()
    called.SSL_shutdown(tls)
    called.SSL_free(tls)


def _check(tls: int, done: int) -> None:
    if library().SSL_get_error(tls, done) not in (_ERROR_WANT_READ, _ERROR_WANT_WRITE):
        raise ConnectionResetError("the TLS connection is gone")
