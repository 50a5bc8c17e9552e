"""A client's end of DTLS 1.2 without a socket and a clock: datagrams and expired timers go in, datagrams come out.

OpenSSL does it all (libssl.py). Its own clock is the system's; what it says of a timer is for the caller to wait for.
"""

from __future__ import annotations

import ctypes
import ipaddress
from collections.abc import Iterator, Sequence

from turnsvr.client.libssl import TlsError, last_error, library

MTU = 1_200
"""Bytes that a datagram of the handshake may have."""

_MAX_RECORD = 16_384
_RECORD_HEADER = 13
_SIZE_AT = 11

_CTRL_SET_MTU = 17
_CTRL_SET_TLSEXT_HOSTNAME = 55
_CTRL_SET_MIN_PROTO_VERSION = 123
_DTLS_CTRL_GET_TIMEOUT = 73
_DTLS_CTRL_HANDLE_TIMEOUT = 74
_BIO_C_SET_BUF_MEM_EOF_RETURN = 130
_OP_NO_QUERY_MTU = 0x1000
_DTLS1_2 = 0xFEFD
_VERIFY_PEER = 1
_RECEIVED_SHUTDOWN = 2


class DtlsContext:
    """What connections are made with. It trusts the certificates that Python's default context trusts."""

    def __init__(self, *, insecure: bool = False, ca_file: str | None = None, protocols: Sequence[str] = ()) -> None:
        """insecure accepts any certificate. protocols: of ALPN. Raises TlsError."""
        called = library()
        self.insecure = insecure
        self.pointer = called.SSL_CTX_new(called.DTLS_client_method())
        if not self.pointer:
            raise TlsError(last_error() or "OpenSSL makes no context")
        called.SSL_CTX_set_options(self.pointer, _OP_NO_QUERY_MTU)
        called.SSL_CTX_ctrl(self.pointer, _CTRL_SET_MIN_PROTO_VERSION, _DTLS1_2, None)
        names = b"".join(bytes((len(each),)) + each.encode() for each in protocols)
        if names:
            called.SSL_CTX_set_alpn_protos(self.pointer, names, len(names))
        if insecure:
            return
        called.SSL_CTX_set_verify(self.pointer, _VERIFY_PEER, None)
        if ca_file is None:
            called.SSL_CTX_set_default_verify_paths(self.pointer)
        elif called.SSL_CTX_load_verify_locations(self.pointer, ca_file.encode(), None) != 1:
            raise TlsError(f"{ca_file}: {last_error()}")

    def __del__(self) -> None:
        if getattr(self, "pointer", None):
            library().SSL_CTX_free(self.pointer)


class DtlsEnd:
    """One association."""

    def __init__(self, context: DtlsContext, server_name: str) -> None:
        """server_name: a host name or an IP address, which the certificate has to be for. Raises TlsError."""
        called = library()
        self._context = context
        self._ssl = called.SSL_new(context.pointer)
        self._incoming, self._outgoing = called.BIO_new(called.BIO_s_mem()), called.BIO_new(called.BIO_s_mem())
        called.BIO_ctrl(self._incoming, _BIO_C_SET_BUF_MEM_EOF_RETURN, -1, None)
        called.SSL_set_bio(self._ssl, self._incoming, self._outgoing)
        called.SSL_ctrl(self._ssl, _CTRL_SET_MTU, MTU, None)
        self._expect(server_name)
        self._buffer = ctypes.create_string_buffer(_MAX_RECORD)
        self.is_shaken = False
        """Whether hands are shaken."""
        self.is_over = False
        """Whether the server has ended it."""

    def _expect(self, server_name: str) -> None:
        called = library()
        try:
            ipaddress.ip_address(server_name)
        except ValueError:
            called.SSL_ctrl(self._ssl, _CTRL_SET_TLSEXT_HOSTNAME, 0, server_name.encode())
            if not self._context.insecure:
                called.SSL_set1_host(self._ssl, server_name.encode())
        else:
            if not self._context.insecure:
                called.X509_VERIFY_PARAM_set1_ip_asc(called.SSL_get0_param(self._ssl), server_name.encode())

    def __del__(self) -> None:
        if getattr(self, "_ssl", None):
            library().SSL_free(self._ssl)

    @property
    def version(self) -> str:
        """Such as "DTLSv1.2"."""
        name: bytes = library().SSL_get_version(self._ssl)
        return name.decode()

    def begin(self) -> list[bytes]:
        """The datagrams of the first flight."""
        self._shake_hands()
        return self._to_send()

    def receive(self, datagram: bytes) -> tuple[list[bytes], list[bytes]]:
        """What the server says in this datagram, message by message, and datagrams to send.

        Raises TlsError when the handshake has failed; pending() has what is still to be sent then.
        """
        called = library()
        called.BIO_write(self._incoming, datagram, len(datagram))
        said = []
        if not self.is_shaken:
            self._shake_hands()
        while self.is_shaken and not self.is_over:
            got = called.SSL_read(self._ssl, self._buffer, _MAX_RECORD)
            if got <= 0:
                self.is_over = self._has_failed()
                called.ERR_clear_error()
                break
            said.append(self._buffer.raw[:got])
        return said, self._to_send()

    def seal(self, message: bytes) -> list[bytes]:
        """The datagram of one message, of 1 to 16,384 bytes. Raises TlsError."""
        if library().SSL_write(self._ssl, message, len(message)) != len(message):
            raise TlsError(last_error() or "no record can be sent")
        return self._to_send()

    def pending(self) -> list[bytes]:
        """Datagrams that are yet to be sent, as an alert is that tells of a failure."""
        return self._to_send()

    def close(self) -> list[bytes]:
        """The datagram of close_notify."""
        library().SSL_shutdown(self._ssl)
        library().ERR_clear_error()
        return self._to_send()

    def timeout(self) -> float | None:
        """Seconds after which handle_timeout() is to be called, None for never."""
        left = (ctypes.c_long * 2)()
        if library().SSL_ctrl(self._ssl, _DTLS_CTRL_GET_TIMEOUT, 0, left) != 1:
            return None
        return left[0] + left[1] / 1e6

    def handle_timeout(self) -> list[bytes]:
        """The last flight again, where OpenSSL has waited long enough. Raises TlsError when it has given up."""
        if library().SSL_ctrl(self._ssl, _DTLS_CTRL_HANDLE_TIMEOUT, 0, None) < 0:
            raise TlsError(last_error() or "the server does not answer")
        return self._to_send()

    def _shake_hands(self) -> None:
        called = library()
        if called.SSL_connect(self._ssl) == 1:
            self.is_shaken = True
        elif self._has_failed():
            verdict = 0 if self._context.insecure else called.SSL_get_verify_result(self._ssl)
            reason = called.X509_verify_cert_error_string(verdict).decode() if verdict else ""
            raise TlsError(reason or last_error() or "the DTLS handshake failed")
        called.ERR_clear_error()

    def _has_failed(self) -> bool:
        """Errors in OpenSSL's queue may be of records that it threw away, so that its state is what counts."""
        called = library()
        is_told = called.SSL_get_shutdown(self._ssl) & _RECEIVED_SHUTDOWN
        return bool(is_told) or called.SSL_state_string_long(self._ssl) == b"error"

    def _to_send(self) -> list[bytes]:
        called = library()
        written = bytearray()
        while (got := called.BIO_read(self._outgoing, self._buffer, _MAX_RECORD)) > 0:
            written += self._buffer.raw[:got]
        return list(_datagrams(bytes(written)))


def _datagrams(records: bytes) -> Iterator[bytes]:
    """Records, together as far as the MTU allows."""
    start = at = 0
    while at < len(records):
        end = at + _RECORD_HEADER + int.from_bytes(records[at + _SIZE_AT : at + _RECORD_HEADER], "big")
        if at > start and end - start > MTU:
            yield records[start:at]
            start = at
        at = end
    if at > start:
        yield records[start:at]
