"""The server as a process: signals, the service manager, the watchdog, the exit status."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import structlog

from turnsvr import __version__, compiled_modules, config, relay
from turnsvr.admin.context import CannotReload, CannotUpgrade, Reloaded
from turnsvr.app import log
from turnsvr.app.application import Application
from turnsvr.app.descriptors import raise_limit, share_out
from turnsvr.app.errors import StartError
from turnsvr.app.handover.found import find
from turnsvr.app.handover.taker import Taker
from turnsvr.app.lastresort import LastResort
from turnsvr.app.logfile import LogFile
from turnsvr.app.notify import ServiceManager, inherited
from turnsvr.config.settings import Settings
from turnsvr.net import hosts

_WILDCARDS = ("0.0.0.0", "::")

_log = structlog.get_logger()


def run(
    settings: Settings, *, path: Path | None = None, arguments: Sequence[str] = (), take_over: str | None = None
) -> int:
    """Serve until told to end; path is where SIGHUP finds the settings again.

    arguments: of `turnsvr run`, for a process that succeeds this one. take_over: the admin socket of the server that
    this process succeeds, or `fd:` and the number of a socket to it.

    Returns the exit status: 0, or 1 when the server cannot start.
    """
    try:
        file = _log_file(settings)
    except StartError as error:
        print(f"turnsvr: {error}", file=sys.stderr)
        return 1
    log.write_to(file)
    log.configure(settings.log.format, settings.log.level)
    wanted = share_out(settings, None, threads=settings.pump.thread_count(hosts.usable_cores())).total
    files = raise_limit(2 * wanted if settings.survive == "crash" else wanted)  # it bounds what is under way as well
    last_resort = LastResort()
    try:
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            service = Service(settings, path, files, file, last_resort, arguments)
            return runner.run(service.run(take_over))
    except KeyboardInterrupt:  # where a loop has no signal handlers
        return 0
    finally:
        last_resort.cancel()


class Service:
    """One run of the server."""

    def __init__(
        self,
        settings: Settings,
        path: Path | None,
        files: int | None,
        log_file: LogFile | None,
        last_resort: LastResort,
        arguments: Sequence[str] = (),
    ) -> None:
        """files: how many the process may have open, None for any number. arguments: as run() above has them.

        last_resort: what ends the process where the end takes too long.
        """
        self._last_resort = last_resort
        self._path = path
        self._log_file = log_file
        self._manager = ServiceManager()
        self._settings = settings
        self._files = files
        self._arguments = arguments
        self._application = self._make()
        self._renewing: asyncio.Task[None] | None = None
        self._is_successor = False
        self._is_restarting = False

    def _make(self) -> Application:
        application = Application(self._settings, files=self._files)
        application.reread = self._reread
        application.tell = self._manager.status
        application.succeeded = self._manager.succeeded_by
        application.is_followed = self._manager.is_there and os.getpid() != 1
        application.succession.arguments = self._arguments
        application.succession.reopen_files = self._reopen_files
        return application

    async def run(self, take_over: str | None = None) -> int:
        """take_over: as run() above has it."""
        self._is_successor = take_over is not None
        try:
            await self._start(take_over)
        except StartError as error:
            print(f"turnsvr: {error}", file=sys.stderr)
            return 1
        application = self._application
        self._handle_signals()
        self._announce()
        watchdog = asyncio.create_task(self._feed_watchdog())
        try:
            await application.finished.wait()
        finally:
            watchdog.cancel()
            await application.succession.settle()
            if self._is_restarting and application.settings.survive != "none":
                await application.leave(self._manager)
            self._last_resort.begin()
            if not application.succession.has_left:  # else it is another process that the manager looks after
                self._manager.stopping("ending sessions")
            await application.stop()
            _log.info("stopped")
            self._last_resort.status = 0
            if self._is_restarting:
                self._last_resort.end()
        return self._status()

    def _status(self) -> int:
        """1 where nobody serves any more: a service manager that has not heard of the successor yet starts anew."""
        return 1 if self._application.succession.has_lost_successor else 0

    async def _start(self, take_over: str | None) -> None:
        """Serve, in the place of another process or with what one has left. Raises StartError."""
        stored, names = find(inherited())
        if stored is not None and (take_over is not None or self._settings.survive == "none"):
            stored.discard()
        if take_over is not None:
            taker = await _taker(take_over)
            try:
                await self._application.start(taker)
            except StartError:
                taker.close()
                raise
        elif stored is None or self._settings.survive == "none":
            await self._application.start()
        else:
            try:
                await self._application.start(stored)
            except StartError as error:
                _log.error("started anew", reason=str(error))
                stored.discard()
                self._application = self._make()
                await self._application.start()
        for name in names:
            self._manager.forget(name)
        if self._application.settings.survive == "crash" and self._manager.is_there:
            await self._application.keep_journal(self._manager)

    def _handle_signals(self) -> None:
        handlers: dict[str, Callable[[], None]] = {
            "SIGTERM": self._application.finished.set,
            "SIGINT": self._application.finished.set,
            "SIGHUP": self._reload,
            "SIGURG": self._restart,  # the unit sends it before SIGTERM, and no other program does
            "SIGUSR1": self._application.drain,
            "SIGUSR2": self._application.rooms.tls.check,  # what hooks of ACME clients send to coturn
        }
        loop = asyncio.get_running_loop()
        for name, handler in handlers.items():
            with contextlib.suppress(AttributeError, NotImplementedError):  # Windows has fewer
                loop.add_signal_handler(getattr(signal, name), handler)

    def _restart(self) -> None:
        """Note that the service manager will start a process again after the end that is about to come."""
        self._is_restarting = self._manager.is_there

    def _announce(self) -> None:
        application, rooms = self._application, self._application.rooms
        kind = application.settings.pump.kind
        _log.info(
            "serving",
            version=__version__,
            pump=relay.describe() if kind == "auto" else application.pump.name,
            rules=compiled_modules.describe(),
            **({"tls": "pump" if rooms.streams.pump_context is not None else "asyncio"} if rooms.tls.contexts else {}),
            listen=",".join(map(str, application.listening)),
            relay=",".join(rooms.addresses.relaying) or "none",
            files=rooms.open_files.describe(),
            **({"admin": ",".join(application.admin.listening)} if application.admin is not None else {}),
        )
        self._warn_of_few_files()
        self._invite()
        self._manager.ready(application.activity, is_successor=self._is_successor)

    def _warn_of_few_files(self) -> None:
        """Say what the open files are too few for."""
        rooms = self._application.rooms
        if reduced := rooms.open_files.reduced(rooms.settings):
            told = (f"{setting} is {room}, not {wanted}" for setting, room, wanted in reduced)
            hint = f"have the system allow {rooms.share_out(None).total} open files (LimitNOFILE, ulimit -n)"
            _log.warning("fewer open files than the settings ask for", reduced="; ".join(told), hint=hint)

    def _invite(self) -> None:
        application, first_run = self._application, self._application.rooms.first_run
        if first_run is not None:
            print(first_run.invitation(self._host_for_clients(), application.listening), flush=True)
        if application.web is not None and application.settings.web is not None and application.settings.web.public:
            host = self._host_for_clients()
            urls = dict.fromkeys(str(replace(each, host=host)) for each in application.web.listening)
            print("Test page, which lets everyone relay who can open it:", *urls, sep="\n  ", flush=True)

    def _host_for_clients(self) -> str:
        """The address by which clients most likely reach this server."""
        rooms = self._application.rooms
        concrete = [each.host for each in rooms.listening if each.host not in _WILDCARDS]
        return next(iter(concrete or rooms.addresses.relaying), "127.0.0.1")

    def _reload(self) -> None:
        try:
            reloaded = self._reread()
        except CannotReload:
            _log.info("no settings file to read again")
            self._invite()
            return
        if reloaded.restart:
            self._renewing = asyncio.create_task(self._renew(reloaded))

    async def _renew(self, reloaded: Reloaded) -> None:
        """Take what only a restart changes, by a hand-over."""
        names = ",".join(reloaded.restart)
        try:
            if await self._application.renew() is None:
                _log.warning("settings that need a restart", settings=names, hint="turnsvr upgrade")
        except CannotUpgrade as error:
            _log.error("settings that need a restart", settings=names, reason=str(error))

    def _reread(self) -> Reloaded:
        """Take the settings file as it is now; raises CannotReload where there is none."""
        self._manager.reloading()
        try:
            if self._path is None:
                raise CannotReload
            return self._reload_file(self._path)
        finally:
            self._manager.ready(self._application.activity)

    def _reload_file(self, path: Path) -> Reloaded:
        self._reopen_files()
        file = self._log_file
        try:
            settings = config.load(path)
            file = self._log_file_for(settings)
            unchanged = self._application.reload(settings)
        except config.ConfigError as error:
            return _refused(path, map(str, error.mistakes))
        except StartError as error:
            if file is not None and file is not self._log_file:
                file.close()
            return _refused(path, [str(error)])
        self._log_to(file)
        self._application.log_level.apply(settings.log)
        _log.info("settings reloaded", file=str(path))
        return Reloaded(str(path), restart=tuple(unchanged))

    def _reopen_files(self) -> None:
        """Open log files anew, even if the settings are refused: the old ones may be renamed and soon compressed.

        Those of processes before this one as well, which nobody else tells.
        """
        self._application.rooms.elsewhere.reopen_files()
        if self._application.rooms.accounting is not None:
            self._application.rooms.accounting.reopen()
        if self._log_file is None:
            return
        try:
            self._log_file.reopen()
        except OSError as error:
            _log.error("log file not opened again", file=str(self._log_file.path), reason=error.strerror)

    def _log_file_for(self, settings: Settings) -> LogFile | None:
        """The file that these settings name, which may be the one in use; raises StartError."""
        if self._log_file is not None and self._log_file.path == settings.log.file:
            return self._log_file
        return _log_file(settings)

    def _log_to(self, file: LogFile | None) -> None:
        old, self._log_file = self._log_file, file
        log.write_to(file)
        if old is not None and old is not file:
            old.close()

    async def _feed_watchdog(self) -> None:
        """Tell the service manager three times a period that this loop turns and the pump takes packets."""
        period = self._manager.watchdog
        while period is not None and not self._application.succession.has_left:
            if await self._application.rooms.is_alive():
                self._manager.alive()
            else:
                _log.error("the pump takes no packets")
            await asyncio.sleep(period / 3)


async def _taker(take_over: str) -> Taker:
    """Raises StartError."""
    kind, _, number = take_over.partition(":")
    if kind == "fd" and number.isdecimal():
        return await Taker.on(int(number))
    return await Taker.at(take_over)


def _log_file(settings: Settings) -> LogFile | None:
    """The log file, opened; None for standard error. Raises StartError."""
    if settings.log.file is None:
        return None
    try:
        return LogFile(settings.log.file)
    except OSError as error:
        raise StartError(f"log.file: cannot write {settings.log.file}: {error.strerror}") from None


def _refused(path: Path, mistakes: Iterable[str]) -> Reloaded:
    """Log each mistake."""
    refused = Reloaded(str(path), tuple(mistakes))
    for mistake in refused.mistakes:
        _log.error("settings not reloaded", mistake=mistake)
    return refused
