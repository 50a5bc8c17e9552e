"""OpenSSL, called directly: for what Python's ssl module has no words for, DTLS and records without a copy."""

from __future__ import annotations

import ctypes
import ctypes.util
from functools import cache
from typing import Any

_POINTER, _INTEGER, _LONG, _TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_char_p
_UNSIGNED = ctypes.c_ulong

_FUNCTIONS: tuple[tuple[str, Any, list[Any]], ...] = (
    ("TLS_client_method", _POINTER, []),
    ("DTLS_client_method", _POINTER, []),
    ("SSL_CTX_new", _POINTER, [_POINTER]),
    ("SSL_CTX_free", None, [_POINTER]),
    ("SSL_CTX_ctrl", _LONG, [_POINTER, _INTEGER, _LONG, _POINTER]),
    ("SSL_CTX_set_options", ctypes.c_uint64, [_POINTER, ctypes.c_uint64]),
    ("SSL_CTX_set_verify", None, [_POINTER, _INTEGER, _POINTER]),
    ("SSL_CTX_set_default_verify_paths", _INTEGER, [_POINTER]),
    ("SSL_CTX_load_verify_locations", _INTEGER, [_POINTER, _TEXT, _TEXT]),
    ("SSL_CTX_set_alpn_protos", _INTEGER, [_POINTER, _TEXT, ctypes.c_uint]),
    ("SSL_new", _POINTER, [_POINTER]),
    ("SSL_free", None, [_POINTER]),
    ("SSL_set_fd", _INTEGER, [_POINTER, _INTEGER]),
    ("SSL_set_bio", None, [_POINTER, _POINTER, _POINTER]),
    ("SSL_set1_host", _INTEGER, [_POINTER, _TEXT]),
    ("SSL_get0_param", _POINTER, [_POINTER]),
    ("SSL_ctrl", _LONG, [_POINTER, _INTEGER, _LONG, _POINTER]),
    ("SSL_connect", _INTEGER, [_POINTER]),
    ("SSL_write", _INTEGER, [_POINTER, _TEXT, _INTEGER]),
    ("SSL_read", _INTEGER, [_POINTER, _TEXT, _INTEGER]),
    ("SSL_state_string_long", _TEXT, [_POINTER]),
    ("SSL_get_error", _INTEGER, [_POINTER, _INTEGER]),
    ("SSL_get_shutdown", _INTEGER, [_POINTER]),
    ("SSL_get_version", _TEXT, [_POINTER]),
    ("SSL_get_verify_result", _LONG, [_POINTER]),
    ("SSL_shutdown", _INTEGER, [_POINTER]),
    ("X509_VERIFY_PARAM_set1_ip_asc", _INTEGER, [_POINTER, _TEXT]),
    ("X509_verify_cert_error_string", _TEXT, [_LONG]),
    ("BIO_s_mem", _POINTER, []),
    ("BIO_new", _POINTER, [_POINTER]),
    ("BIO_new_dgram", _POINTER, [_INTEGER, _INTEGER]),
    ("BIO_ctrl", _LONG, [_POINTER, _INTEGER, _LONG, _POINTER]),
    ("BIO_read", _INTEGER, [_POINTER, _TEXT, _INTEGER]),
    ("BIO_write", _INTEGER, [_POINTER, _TEXT, _INTEGER]),
    ("ERR_peek_error", _UNSIGNED, []),
    ("ERR_reason_error_string", _TEXT, [_UNSIGNED]),
    ("ERR_clear_error", None, []),
)


class TlsError(OSError):
    """The library is missing, or a handshake failed."""


@cache
def library() -> ctypes.CDLL:
    """libssl, with the types of what we call. Raises TlsError where it is not installed."""
    for name in ("libssl.so.3", ctypes.util.find_library("ssl") or "libssl.so"):
        try:
            found = ctypes.CDLL(name)
            for name_of, result, arguments in _FUNCTIONS:
                function = getattr(found, name_of)
                function.restype, function.argtypes = result, arguments
        except (OSError, AttributeError):
            continue
        return found
    raise TlsError("this needs OpenSSL's libssl 3, which is not installed")


def last_error() -> str:
    """What OpenSSL complained of first, which is forgotten with all else."""
    called = library()
    number = called.ERR_peek_error()
    reason: bytes | None = called.ERR_reason_error_string(number) if number else None
    called.ERR_clear_error()
    return (reason or b"").decode("ascii", "replace")
