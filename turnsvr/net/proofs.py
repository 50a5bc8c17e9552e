"""Answers to an ACME authority that wants a domain name proven while a certificate is ordered (RFC 8555 section 8).

tls-alpn-01 (RFC 8737) is answered on the TLS listeners: a client that offers the protocol acme-tls/1 gets a certificate
that proves the name, and the connection ends with the handshake. http-01 is answered by the web room, or by a listener
of the application. Outside of an order there is nothing to answer, and no connection is looked at.
"""

from __future__ import annotations

import asyncio
import ssl
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from turnsvr.net.clienthello import ClientHello

ALPN = "acme-tls/1"
_LIFETIME = timedelta(days=7)
PATH = "/.well-known/acme-challenge/"
CHALLENGE = b"GET " + PATH.encode()
"""How a request for a proof begins (RFC 8555 section 8.3)."""
MAX_REQUEST = 8_192
REQUEST_SECONDS = 5.0
_MAX_REQUESTS = 50
"""At once, each for so many seconds at most."""
_ACME_IDENTIFIER = "1.3.6.1.5.5.7.1.31"
"""The extension with the digest of the key authorization (RFC 8737 section 3)."""


class Proofs:
    """What is to be proven now. Written by the thread that orders, read by the loop."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._contexts: dict[str, ssl.SSLContext] = {}
        self.answering: set[asyncio.Transport] = set()
        """Connections that wait for a proof over HTTP on a shared listener."""

    @property
    def has_tls(self) -> bool:
        """Whether TLS connections may come from an authority."""
        return bool(self._contexts)

    @property
    def has_http(self) -> bool:
        """Whether requests for proofs may come over HTTP."""
        return bool(self._texts)

    @property
    def has_room(self) -> bool:
        """Whether one more connection may wait."""
        return len(self.answering) < _MAX_REQUESTS

    def are_for(self, hello: ClientHello) -> bool:
        """Whether a TLS client is an authority that comes for one."""
        return self.has_tls and ALPN.encode() in hello.protocols

    def proves(self, name: str) -> bool:
        """Whether there is one of this name for a TLS client."""
        return name in self._contexts

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


class HttpProof(asyncio.Protocol):
    """Answers one request for a proof, and 404 to everything else."""

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs
        self._head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._proofs.answering.add(self._transport)
        self._timer = asyncio.get_running_loop().call_later(REQUEST_SECONDS, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._head += data
        if b"\r\n\r\n" in self._head:
            self._transport.write(answer(self._proofs, self._head))
            self._transport.close()
        elif len(self._head) > MAX_REQUEST:
            self._transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._timer.cancel()
        self._proofs.answering.discard(self._transport)


def answer(proofs: Proofs, head: bytes) -> bytes:
    """To a request with this head: the proof that it asks for, or 404."""
    words = head.split(b"\r\n", 1)[0].split(b" ")
    path = words[1].decode("ascii", "replace") if len(words) == 3 and words[0] == b"GET" else ""
    text = proofs.text(path.removeprefix(PATH)) if path.startswith(PATH) else None
    status, body = (b"404 Not Found", b"") if text is None else (b"200 OK", text.encode())
    fields = b"Content-Type: application/octet-stream\r\nConnection: close\r\nContent-Length: %d" % len(body)
    return b"HTTP/1.1 " + status + b"\r\n" + fields + b"\r\n\r\n" + body


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
