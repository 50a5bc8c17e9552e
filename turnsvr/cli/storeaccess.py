"""Which database and realm the commands user, secret and realm work on, and how they end.

A URL with a password is not taken from the command line, where every user of the machine can read it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import quote

import click
from pydantic import TypeAdapter, ValidationError

from turnsvr import config
from turnsvr.cli.common import config_option, fail, operator_errors, read_secret
from turnsvr.config import fields
from turnsvr.config.locations import StoreUrl
from turnsvr.config.placeholders import is_placeholder
from turnsvr.config.units import BadValue
from turnsvr.credentials.api import Unavailable
from turnsvr.stores import MissingDriver, open_store
from turnsvr.stores.api import NotStorable, Store

SYSTEM_FILE = Path("/var/lib/turnsvr/turnsvr.sqlite")
"""The embedded database of a server that is installed."""

UNAVAILABLE = 3
"""Exit status when the database does not answer, so that a script may try again."""

_STORE_VARIABLE = "TURN_STORE"
_TIMEOUT = 10.0
"""Seconds for one answer, unless the settings say otherwise."""

_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class StoreAccess:
    """What a command works on."""

    url: StoreUrl
    timeout: float
    """Seconds for one answer."""
    only_realm: str | None
    """The realm of --realm, to which lists are narrowed down."""
    default_realm: str | None = None
    """That of the settings."""
    embedded: Path | None = None
    """The settings file, when no database was named."""

    @property
    def realm(self) -> str:
        """The realm to change: that of --realm, else that of the settings."""
        realm = self.only_realm if self.only_realm is not None else self.default_realm
        if realm is None:
            raise click.UsageError("name the realm: --realm NAME, or --config with the settings of the server")
        return checked(fields.Realm, realm, "--realm")

    def run(self, work: Callable[[Store], Awaitable[_T]]) -> _T:
        """The result of the work on the database; ends the command where it fails. Names the database if need be."""
        if self.embedded is not None:
            click.echo(f"turnsvr: in {self.embedded}", err=True)
        return self._run(work)

    def change(self, work: Callable[[Store], Awaitable[_T]]) -> _T:
        """As run, with the database made where it is missing; names it where the command line did not."""
        if self.embedded is not None:
            self.embedded.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        result = self._run(work, prepare=True)
        if self.embedded is not None:
            url = json.dumps(f"sqlite:{quote(str(self.embedded))}")
            click.echo(f"turnsvr: kept in {self.embedded}; the server reads it with these settings:", err=True)
            click.echo(f"credentials: {{store: {url}}}", err=True)
        return result

    def _run(self, work: Callable[[Store], Awaitable[_T]], *, prepare: bool = False) -> _T:
        import asyncio

        async def opened() -> _T:
            store = open_store(self.url, self.timeout)
            try:
                if prepare:
                    await store.prepare()
                return await work(store)
            finally:
                await store.close()

        try:
            return asyncio.run(opened())
        except Unavailable as error:
            click.echo(f"turnsvr: {error}", err=True)
            sys.exit(UNAVAILABLE)
        except BadValue as error:
            fail(f"turnsvr: {self.url} {error.problem}; {error.hint}")
        except (MissingDriver, NotStorable) as error:
            fail(f"turnsvr: {error}")


def on_store(command: Callable[Concatenate[StoreAccess, _P], None]) -> Callable[..., None]:
    """Gives a command the place that --config, --store and --realm name."""

    @config_option
    @click.option(
        "--store",
        metavar="URL",
        help=f"Database, as sqlite:/path or postgresql://user@host/name; one with a password stands in the settings "
        f"or in the variable {_STORE_VARIABLE}.",
    )
    @click.option("--realm", metavar="NAME", help="Realm, in place of that of the settings.")
    @operator_errors
    @wraps(command)
    def run(
        config_file: Path | None, store: str | None, realm: str | None, *args: _P.args, **kwargs: _P.kwargs
    ) -> None:
        command(find(config_file, store, realm, os.environ), *args, **kwargs)

    return run


def find(config_file: Path | None, store: str | None, realm: str | None, environ: Mapping[str, str]) -> StoreAccess:
    """The database that is named, by --store, the settings or the environment, else the embedded one."""
    settings = config.load(config_file) if config_file else None
    default = settings.realm if settings else None
    if store is not None:
        url = _parse("--store", store)
        if url.password is not None:
            raise click.UsageError(
                "--store has a password, which every user of this machine could read; "
                f"put the URL into the variable {_STORE_VARIABLE} or into the settings (credentials.store)"
            )
        return StoreAccess(url, _TIMEOUT, realm, default)
    if settings is not None and settings.credentials.store is not None:
        return StoreAccess(settings.credentials.store.url, settings.credentials.store.timeout, realm, default)
    if variable := environ.get(_STORE_VARIABLE):
        return StoreAccess(_parse(_STORE_VARIABLE, variable), _TIMEOUT, realm, default)
    file = _embedded(environ)
    return StoreAccess(StoreUrl("sqlite", str(file)), _TIMEOUT, realm, default, file)


def checked(kind: Any, value: str, name: str) -> str:
    """A value that the settings would take, too; name is that of the option or argument."""
    try:
        return str(TypeAdapter(kind).validate_python(value))
    except ValidationError as error:
        bad = error.errors()[0].get("ctx", {}).get("error")
        raise click.UsageError(f"{name} {bad.problem}; {bad.hint}" if isinstance(bad, BadValue) else str(bad)) from None


def _parse(name: str, text: str) -> StoreUrl:
    try:
        return StoreUrl.parse(text)
    except BadValue as error:
        raise click.UsageError(f"{name} {error.problem}; {error.hint}") from None


def _embedded(environ: Mapping[str, str]) -> Path:
    """The system's file where it can be written, else one of this user's own."""
    if os.access(SYSTEM_FILE if SYSTEM_FILE.exists() else SYSTEM_FILE.parent, os.W_OK):
        return SYSTEM_FILE
    data = environ.get("XDG_DATA_HOME")
    return (Path(data) if data else Path.home() / ".local" / "share") / "turnsvr" / SYSTEM_FILE.name


def new_text(file: Path | None, what: str, *, unwanted: bool = False) -> str:
    """A password or secret: from a file, `-` for standard input, or asked for twice on a terminal.

    unwanted: it is to be removed, and may be what no new one may be.
    """
    if file is None and sys.stdin.isatty():
        text = str(click.prompt(what.capitalize(), hide_input=True, confirmation_prompt=True, err=True))
    else:
        text = read_secret(file or Path("-"))
    if not text:
        fail(f"turnsvr: the {what} is empty")
    if not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        fail(f"turnsvr: the {what} is more than one line of UTF-8 text")
    if not unwanted and is_placeholder(text):
        fail(f"turnsvr: the {what} is a placeholder, which others know, too")
    return text
