"""TLS for clients: the contexts that new connections take, and their certificate read again without dropping any."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from turnsvr.relay.api import TlsContext
from turnsvr.relay.compiled import tls as pump_tls

_log = structlog.get_logger()

ALPN_PROTOCOLS = ("stun.turn", "stun.nat-discovery")
"""RFC 7443 section 3. A client that offers none, or others, is served all the same."""


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """PEM files of certificate chain and private key, and what clients may negotiate."""

    certificate: Path
    key: Path
    minimum_version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_2
    ciphers: str | None = None


class CertificateError(Exception):
    """A certificate that cannot be used; the text names the file and never what is in it."""


def make_context(files: TlsFiles, protocols: Sequence[str] = ALPN_PROTOCOLS) -> ssl.SSLContext:
    """A server context; raises CertificateError."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = files.minimum_version
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(list(protocols))
    if files.ciphers is not None:
        try:
            context.set_ciphers(files.ciphers)
        except ssl.SSLError:
            raise CertificateError("tls.ciphers names no cipher that OpenSSL knows") from None
    for path in (files.certificate, files.key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise CertificateError(f"cannot read {path}: {error.strerror}") from None
    try:
        # With an empty pass phrase OpenSSL refuses an encrypted key instead of asking the terminal.
        context.load_cert_chain(files.certificate, files.key, password="")
    except (ssl.SSLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or "no PEM certificate with its unencrypted key"
        raise CertificateError(f"{files.certificate} with {files.key}: {reason}") from None
    return context


def make_pump_context(
    files: TlsFiles, context: ssl.SSLContext, protocols: Sequence[str] = ALPN_PROTOCOLS
) -> TlsContext | None:
    """The same for connections that the pump serves; None, and a word in the log, where it can serve none."""
    try:
        return pump_tls.make_context(context, files.certificate, files.key, protocols)
    except ValueError as error:
        _log.warning("TLS is not served by the pump", certificate=str(files.certificate), reason=str(error))
        return None


def make_datagram_context(files: TlsFiles, context: ssl.SSLContext) -> TlsContext:
    """The same for DTLS. Raises CertificateError."""
    try:
        return pump_tls.make_datagram_context(context, files.certificate, files.key, ALPN_PROTOCOLS)
    except ValueError as error:
        raise CertificateError(f"DTLS cannot be served: {error}") from None


class TlsContexts:
    """The contexts for new connections, made anew when their files change; where that fails, the old ones stay."""

    current: ssl.SSLContext
    """What asyncio serves TLS with."""
    pump: TlsContext | None
    """What the pump serves TLS with; None where it cannot, or is not to."""
    shared: ssl.SSLContext
    """As current, where HTTP is served as well."""
    shared_pump: TlsContext | None
    """As pump, where HTTP is served as well."""

    datagrams: TlsContext | None
    """What the pump serves DTLS with; None where it is not to."""

    def __init__(
        self,
        files: TlsFiles,
        *,
        watch: bool = True,
        for_pump: bool = True,
        for_datagrams: bool = False,
        http: Sequence[str] = (),
    ) -> None:
        """watch: whether the files stay and may change; for_pump: whether it serves them, for_datagrams: as DTLS too.

        http: protocols of ALPN that are spoken where HTTP is served as well. Raises CertificateError.
        """
        self._for_pump = for_pump
        self._for_datagrams = for_datagrams
        self._http = tuple(http)
        self.made: Callable[[], None] = lambda: None
        """Called when there are other contexts."""
        self._stamp = _stat(files)
        self._files = files if watch else None
        self._make(files)

    def reload(self, files: TlsFiles, http: Sequence[str] = ()) -> None:
        """Take these files, or the same again; raises CertificateError and then keeps the contexts."""
        stamp, before = _stat(files), self._http
        self._http = tuple(http)
        try:
            self._make(files)
        except CertificateError:
            self._http = before
            raise
        self._files, self._stamp = files, stamp

    def reload_if_changed(self) -> bool:
        """Whether the files had changed and are in use now; raises CertificateError once for each change."""
        if self._files is None:
            return False
        stamp = _stat(self._files)
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        self._make(self._files)
        return True

    def _make(self, files: TlsFiles) -> None:
        context = make_context(files)
        datagrams = make_datagram_context(files, context) if self._for_datagrams else None
        pump = make_pump_context(files, context) if self._for_pump else None
        shared, shared_pump = context, pump
        if self._http:
            protocols = (*ALPN_PROTOCOLS, *self._http)
            shared = make_context(files, protocols)
            shared_pump = make_pump_context(files, shared, protocols) if self._for_pump else None
        self.current, self.pump = context, pump
        self.shared, self.shared_pump = shared, shared_pump
        self.datagrams = datagrams
        self.made()


def _stat(files: TlsFiles) -> tuple[object, ...]:
    """What differs once a file was replaced or written."""
    stamp: list[object] = []
    for path in (files.certificate, files.key):
        try:
            found = path.stat()
        except OSError:
            stamp.append(None)
        else:
            stamp.append((found.st_mtime_ns, found.st_size, found.st_ino))
    return tuple(stamp)
