"""Answers to an ACME authority that wants a domain name proven while a certificate is ordered (RFC 8555 section 8).

tls-alpn-01 (RFC 8737) is answered on the TLS listeners: a client that offers the protocol acme-tls/1 gets a certificate
that proves the name, and the connection ends with the handshake. http-01 is answered by the web room, or by a listener
of the application. Outside of an order there is nothing to answer, and no connection is looked at.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

ALPN = "acme-tls/1"
_ALPN_ENTRY = bytes((len(ALPN),)) + ALPN.encode()
_LIFETIME = timedelta(days=7)
_ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"
"""The extension with the digest of the key authorization (RFC 8737 section 3)."""
_MAX_HELLO = 16_384 + 5
"""Bytes of a TLS record with its header."""
_HEADER = 5
_HELLO_SECONDS = 10.0
_HELLO_LOOKS = 0.05
"""Seconds to wait for a whole ClientHello, and seconds between looks at it."""


class Proofs:
    """What is to be proven now. Written by the thread that orders, read by the loop."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}

    @property
    def has_tls(self) -> bool:
        """Whether TLS connections may come from an authority."""
        return bool(self._contexts)

    def text(self, token: str) -> str | None:
        """The key authorization of an http-01 token; None for a token that is not known."""
        return self._texts.get(token)

    def prove_by_http(self, token: str, key_authorization: str) -> None:
        self._texts[token] = key_authorization

    def prove_by_tls(self, domain: str, key_authorization: str) -> None:
        self._contexts[domain] = _context(domain, key_authorization)

    def clear(self) -> None:
        """The order has ended."""
        self._texts.clear()
        self._contexts.clear()

    @cached_property
    def context(self) -> ssl.SSLContext:
        """A server context whose certificate is the one that proves the name that the client asks for."""
        context = _new_context()

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
            chosen = self._contexts.get((name or "").lower())
            if chosen is None:
                return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
            connection.context = chosen
            return None

        context.sni_callback = choose
        return context


class Hello:
    """Waits for a whole ClientHello, leaves it in place, and tells whether acme-tls/1 is in it; cancel() ends that."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, connected: socket.socket, judged: Callable[[bool], None]
    ) -> None:
        self._loop = loop
        self._socket = connected
        self._judged = judged
        self._until = loop.time() + _HELLO_SECONDS
        self._next: asyncio.Handle = loop.call_soon(self._look)

    def cancel(self) -> None:
        self._next.cancel()

    def _look(self) -> None:
        try:
            hello = self._socket.recv(_MAX_HELLO, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            hello = b""
        except OSError:
            self._judged(False)
            return
        whole = len(hello) >= _HEADER and len(hello) >= _HEADER + int.from_bytes(hello[3:5], "big")
        if whole or _ALPN_ENTRY in hello or self._loop.time() >= self._until:
            self._judged(_ALPN_ENTRY in hello)
        else:
            self._next = self._loop.call_later(_HELLO_LOOKS, self._look)


class NothingMore(asyncio.Protocol):
    """Ends a connection after its handshake: the authority has seen the certificate."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.close()


def _new_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([ALPN])
    return context


def _context(domain: str, key_authorization: str) -> ssl.SSLContext:
    """The certificate that proves a name (RFC 8737 section 3)."""
    from cryptography import x509

    from turnsvr.net.selfsigned import self_signed

    digest = sha256(key_authorization.encode()).digest()
    identifier = x509.UnrecognizedExtension(x509.ObjectIdentifier(_ACME_IDENTIFIER), b"\x04\x20" + digest)
    key, certificate = self_signed("", [x509.DNSName(domain)], _LIFETIME, (identifier, True))
    context = _new_context()
    with TemporaryDirectory(prefix="turnsvr-") as directory:
        file = Path(directory, "proof.pem")
        file.write_bytes(key + certificate)
        context.load_cert_chain(file)
    return context
