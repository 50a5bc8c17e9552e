"""The certificate that TLS clients are shown: read from its files, read again when they change, kept by ACME."""

from __future__ import annotations

import time
from importlib import import_module

import structlog

from turnsvr.app import assemble
from turnsvr.app.certificates import CannotKeep, Keeper, prepare
from turnsvr.app.errors import StartError
from turnsvr.app.extras import not_installed
from turnsvr.config import hostfacts
from turnsvr.config.settings import Settings, TlsSettings
from turnsvr.net.proofs import Proofs
from turnsvr.net.tls import CertificateError, TlsContexts

_EXPIRY_SECONDS = 60.0
"""How long the certificate's end is remembered before its file is read again."""

_log = structlog.get_logger()


class ServingTls:
    """TLS of one server."""

    def __init__(self) -> None:
        self.proofs = Proofs()
        """What an ACME authority may ask for now."""
        self.contexts: TlsContexts | None = None
        """None without TLS."""
        self.keeper: Keeper | None = None
        """Has the certificate issued and renewed, where the settings say so."""
        self._settings: TlsSettings | None = None
        self._expires: float | None = None
        self._read_at = float("-inf")

    def open(self, settings: Settings, improvised: TlsContexts | None) -> None:
        """Read the certificate; improvised is taken where the settings have none. Raises StartError."""
        if refusal := assemble.refuses_dtls(settings):
            raise StartError(": ".join(refusal))
        self.contexts, self._settings = improvised, settings.tls
        if settings.tls is not None:
            try:
                _prepare_certificate(settings.tls)
                datagrams = any(address.transport == "dtls" for address in settings.listeners())
                http = assemble.http_protocols(settings.share)
                files = assemble.tls_files(settings.tls)
                self.contexts = TlsContexts(files, for_datagrams=datagrams, http=http)
            except CertificateError as error:
                raise StartError(f"tls: {error}") from None
        if self.contexts is None:
            for address in settings.listeners():
                if address.needs_certificate:
                    raise StartError(f"{address}: needs a certificate; add tls: {{certificate: …, key: …}}")

    def reload(self, settings: Settings) -> None:
        """Read the certificate of other settings; with none the present one stays. Raises StartError."""
        tls = settings.tls
        if tls is None or self.contexts is None:
            return
        try:
            _prepare_certificate(tls)
            self.contexts.reload(assemble.tls_files(tls), assemble.http_protocols(settings.share))
        except CertificateError as error:
            raise StartError(str(error)) from None
        self._settings = tls

    def expires(self) -> float | None:
        """When the certificate in the file ends, in seconds since 1970; None without a file or when unknown."""
        now = time.monotonic()
        if self._settings is not None and now >= self._read_at + _EXPIRY_SECONDS:
            facts = hostfacts.read_certificate(self._settings)
            self._expires = None if facts.problem else facts.not_after
            self._read_at = now
        return self._expires

    def check(self) -> None:
        """Take the certificate files into use if they have changed."""
        try:
            if self.contexts is not None and self.contexts.reload_if_changed():
                _log.info("certificate reloaded")
        except CertificateError as error:
            _log.error("certificate not reloaded", reason=str(error))

    def keep(self, settings: Settings) -> None:
        """From now on have an authority issue the certificate, where the settings name one."""
        self.stop()
        tls = settings.tls
        if tls is None or tls.acme is None or self.contexts is None:
            return
        from turnsvr.app import acmeorder

        served = _serves_http(settings, tls.acme.http_port)
        self.keeper = Keeper(tls.acme, self.proofs, self.check, order=acmeorder.order, http_served=served)
        self.keeper.start()

    def stop(self) -> None:
        """Have nothing issued any more."""
        if self.keeper is not None:
            self.keeper.cancel()
            self.keeper = None


def _serves_http(settings: Settings, port: int) -> bool:
    """Whether HTTP is served on a port, by the room web or on a shared listener."""
    web = settings.web
    own = web is not None and any((each.scheme, each.port) == ("http", port) for each in web.listen)
    doors = assemble.doors(settings)
    return own or any(door.takes_plain_http and listener.address.port == port for listener, door in doors.items())


def _prepare_certificate(tls: TlsSettings) -> None:
    """Have some certificate where an authority is to issue one. Raises CertificateError."""
    if tls.acme is None:
        return
    try:
        import_module("acme")
        prepare(tls.acme)
    except ModuleNotFoundError as error:
        raise CertificateError(not_installed(error, "acme", "acme")) from None
    except CannotKeep as error:
        raise CertificateError(str(error)) from None
