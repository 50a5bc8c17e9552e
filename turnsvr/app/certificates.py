"""A certificate of an ACME authority: ordered, renewed in time, ordered again when that fails."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import NamedTemporaryFile

import structlog

from turnsvr.backoff import Backoff
from turnsvr.config.acmesettings import AcmeSettings
from turnsvr.net.proofs import MAX_REQUEST, REQUEST_SECONDS, Proofs, answer

_HOUR = 3_600.0
_DAY = 86_400.0
_FIRST_RETRY = 300.0
_LAST_RETRY = 6 * _HOUR
"""Seconds until the next order after one that failed; they double. Let's Encrypt takes five failures an hour."""
_SHORT_LIVED = 10 * _DAY
_LOOK = _HOUR
"""Seconds at most between looks at the clock, which may be set."""
_TEMPORARY = timedelta(days=90)
_MAX_REQUESTS = 50
"""Connections at once to the listener for http-01, each for so many seconds at most; further ones are closed."""

_log = structlog.get_logger()


class CannotKeep(Exception):
    """The certificate cannot be kept in its directory; the text says why."""


@dataclass(frozen=True, slots=True)
class HeldCertificate:
    """The certificate in the file. Times in seconds since 1970."""

    not_before: float
    not_after: float
    names: frozenset[str]
    temporary: bool
    """Made by ourselves until there is another."""

    @property
    def lifetime(self) -> float:
        return self.not_after - self.not_before

    @property
    def renew_at(self) -> float:
        """When a third of its life is left, of a short one half."""
        return self.not_after - self.lifetime / (2 if self.lifetime < _SHORT_LIVED else 3)

    @property
    def urgent_at(self) -> float:
        """When a sixth of its life is left, and the operator should look."""
        return self.not_after - self.lifetime / 6


CertificateOrder = Callable[[AcmeSettings, Proofs], None]
"""Puts a certificate into its file; blocks, and raises what has a text for the log."""


class Keeper:
    """Keeps the certificate of some settings current."""

    def __init__(
        self,
        settings: AcmeSettings,
        proofs: Proofs,
        taken: Callable[[], None],
        *,
        order: CertificateOrder,
        http_served: bool = False,
        wall_time: Callable[[], float] = time.time,
        sleep: Callable[[float], asyncio.Future[None]] | None = None,
    ) -> None:
        """taken: called when there is a new certificate in the file. http_served: whether the port for http-01 is."""
        self.settings = settings
        self.failures = 0
        """Orders that gave no certificate, since the start."""
        self.failure: str | None = None
        """Why the last order gave none; None when it did."""
        self._proofs = proofs
        self._taken = taken
        self._order = order
        self._http_served = http_served
        self._wall_time = wall_time
        self._sleep = sleep or _sleep
        self._held = held(settings.certificate)
        self._task: asyncio.Task[None] | None = None

    @property
    def has_certificate(self) -> bool:
        """Whether the one in use is the authority's."""
        return self._held is not None and not self._held.temporary

    @property
    def is_current(self) -> bool:
        """Whether it is the authority's, for these domains, and need not be renewed yet."""
        return self._due_at() > self._wall_time()

    @property
    def problem(self) -> str | None:
        """In words without names of hosts, when clients are about to be without a certificate, or are already."""
        now = self._wall_time()
        if self.failure is None:
            return None
        if self._held is None or self._held.temporary:
            return "there is no certificate that clients would trust"
        if now >= self._held.urgent_at:
            return f"the certificate cannot be renewed, and expires on {_date(self._held.not_after)}"
        return None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._keep())

    def cancel(self) -> None:
        """Order no more; one that is under way is left to itself. Twice is fine."""
        if self._task is not None:
            self._task.cancel()

    async def _keep(self) -> None:
        retries = Backoff(_FIRST_RETRY, _LAST_RETRY)
        while True:
            wait = self._due_at() - self._wall_time()
            if wait > 0:
                await self._sleep(min(wait, _LOOK))
            elif await self._try():
                retries.reset()
            else:
                await self._sleep(retries.pause())

    def _due_at(self) -> float:
        if self._held is None or self._held.temporary or self._held.names != frozenset(self.settings.domains):
            return float("-inf")
        return self._held.renew_at

    async def _try(self) -> bool:
        """Whether there is a new certificate."""
        try:
            async with self._door():
                await _in_thread(lambda: self._order(self.settings, self._proofs))
        except Exception as error:
            self.failures += 1
            self.failure = str(error) or type(error).__name__
            _log.error(
                "no certificate was issued",
                domains=",".join(self.settings.domains),
                reason=self.failure,
                expires=_date(self._held.not_after) if self.has_certificate and self._held else None,
            )
            return False
        self._held = held(self.settings.certificate)
        self.failure = None
        _log.info(
            "certificate issued",
            domains=",".join(self.settings.domains),
            expires=_date(self._held.not_after) if self._held else None,
        )
        self._taken()
        return self.is_current

    @contextlib.asynccontextmanager
    async def _door(self) -> AsyncIterator[None]:
        """A listener for http-01, where no other serves its port."""
        if self.settings.challenge != "http-01" or self._http_served:
            yield
            return
        answers = _Answers(self._proofs)
        try:
            server = await asyncio.start_server(answers.serve, port=self.settings.http_port, limit=MAX_REQUEST)
        except OSError as error:
            raise CannotKeep(f"port {self.settings.http_port} cannot be listened on: {error.strerror}") from None
        try:
            yield
        finally:
            server.close()
            answers.close()


class _Answers:
    """Answers `GET /.well-known/acme-challenge/TOKEN`, and 404 to everything else."""

    def __init__(self, proofs: Proofs) -> None:
        self._proofs = proofs
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        try:
            if len(self._tasks) < _MAX_REQUESTS:
                self._tasks.add(task)
                async with asyncio.timeout(REQUEST_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                    writer.write(answer(self._proofs, head))
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client is gone
        finally:
            self._tasks.discard(task)
            writer.close()

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()


def prepare(settings: AcmeSettings) -> None:
    """Have some certificate in the file, so that TLS can be served until the authority's is there.

    Raises CannotKeep.
    """
    if settings.certificate.exists():
        return
    try:
        settings.certificate.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_private(settings.certificate, _temporary(settings.domains[0]))
    except OSError as error:
        place = error.filename or settings.certificate.parent
        raise CannotKeep(f"tls.acme.directory: {place}: {error.strerror}") from None


def held(file: Path) -> HeldCertificate | None:
    """What is in the file; None when that is no certificate."""
    from cryptography import x509

    try:
        certificate = x509.load_pem_x509_certificates(file.read_bytes())[0]
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return None
    return HeldCertificate(
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
        frozenset(names.get_values_for_type(x509.DNSName)),
        temporary=certificate.issuer == certificate.subject,
    )


def write_private(path: Path, data: bytes) -> None:
    """Put a file in place as a whole, for its owner alone. Raises OSError."""
    with NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            os.replace(file.name, path)
        except OSError:
            os.unlink(file.name)
            raise


def _temporary(name: str) -> bytes:
    """A key and a self-signed certificate, in PEM."""
    from cryptography import x509

    from turnsvr.net.selfsigned import self_signed

    return b"".join(self_signed("not yet issued", [x509.DNSName(name)], _TEMPORARY))


async def _in_thread(work: Callable[[], None]) -> None:
    """Run what blocks in a thread that the process does not wait for when it ends."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def finish(error: Exception | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)

    def run() -> None:
        failed: Exception | None = None
        try:
            work()
        except Exception as error:
            failed = error
        with contextlib.suppress(RuntimeError):  # the loop has ended
            loop.call_soon_threadsafe(finish, failed)

    threading.Thread(target=run, name="turnsvr-acme", daemon=True).start()
    await done


def _sleep(seconds: float) -> asyncio.Future[None]:
    return asyncio.ensure_future(asyncio.sleep(seconds))


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
