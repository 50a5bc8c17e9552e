"""What several commands share: options, what ends a command, and where secrets and passwords come from.

Never from the command line, where every user of the machine can read them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

import click

from turnsvr import config
from turnsvr.config import units

if TYPE_CHECKING:
    from turnsvr.config.settings import KnownUsers, Settings

_SECRET_VARIABLE = "TURN_SECRET"
_PASSWORD_VARIABLE = "TURN_PASSWORD"
_MAX_SECRET_CHARACTERS = 65_536
_CLIENT_USER = "probe"
_CLIENT_USERS = 4
"""Allocations that a command holds at once."""
_CLIENT_TTL = 600
"""Seconds that a command's own time-limited credentials last."""

_P = ParamSpec("_P")
_R = TypeVar("_R")


def parse_duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return units.parse_duration(value)
    except units.BadValue as error:
        raise click.BadParameter(f"{error.problem}; {error.hint}", ctx, param) from None


FILE = click.Path(path_type=Path)
config_option = click.option("-c", "--config", "config_file", type=FILE, metavar="FILE", help="Settings file.")
secret_file_option = click.option(
    "--secret-file", type=FILE, metavar="FILE", help="File that holds the shared secret; - for standard input."
)


def fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(1)


def operator_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """What an operator can put right ends with its text and exit status 1, without a traceback."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except config.ConfigError as error:
            fail("\n".join((str(error), *_coturn_hint(error))))
        except OSError as error:
            fail(f"turnsvr: {error}")

    return run


def _coturn_hint(error: config.ConfigError) -> list[str]:
    """What to do about a turnserver.conf, or about its keys in a settings file; nothing for other mistakes."""
    from turnsvr import migrate

    file = error.mistakes[0].file
    unknown = [each.setting for each in error.mistakes if each.problem == config.UNKNOWN]
    if keys := [name for name in unknown if migrate.is_coturn_key(name)]:
        return [f"{', '.join(keys)}: coturn's; turnsvr import-coturn makes settings of a turnserver.conf"]
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(migrate.MAX_BYTES)
    except OSError:
        return []
    if not migrate.is_turnserver_conf(data):
        return []
    return [f"{file} looks like coturn's turnserver.conf: turnsvr import-coturn {file} -o turnsvr.yaml"]


def time_limited(shared: str, user: str, ttl: float, now: float, settings: Settings | None = None) -> tuple[str, str]:
    """User name and password, the name as the settings write such names."""
    from turnsvr.credentials import names_of, shared_secret

    try:
        return shared_secret.make(shared, user, ttl, now, names_of(settings) if settings is not None else None)
    except ValueError as error:
        fail(f"turnsvr: {error}")


def shared_secret_of(settings: Settings | None, secret_file: Path | None) -> str:
    """The shared secret from where the operator says it is; never from the command line."""
    if settings is not None and secret_file is not None:
        raise click.UsageError("take the secret either from --config or from --secret-file")
    if settings is not None:
        if not settings.credentials.secrets:
            fail("turnsvr: the settings file has no shared secret under credentials")
        return settings.credentials.secrets[0].get_secret_value()
    if secret_file is not None:
        return read_secret(secret_file)
    if value := os.environ.get(_SECRET_VARIABLE):
        return value
    raise click.UsageError(f"name the secret's place: --config, --secret-file or the variable {_SECRET_VARIABLE}")


def read_secret(path: Path) -> str:
    with click.open_file(str(path), encoding="utf-8", errors="replace") as file:
        return str(file.read(_MAX_SECRET_CHARACTERS)).strip()


def login(
    settings: Settings | None, secret_file: Path | None, user: str | None, password_file: Path | None
) -> tuple[str, str]:
    """User name and password: those of a static user, else time-limited ones."""
    if (named := _named_user(user, password_file, settings.credentials if settings else None)) is not None:
        return named
    secret = shared_secret_of(settings, secret_file)
    return time_limited(secret, user or _CLIENT_USER, _CLIENT_TTL, time.time(), settings)


def logins_of_realm(
    settings: Settings, known: KnownUsers, user: str | None, password_file: Path | None
) -> list[tuple[str, str]]:
    """User names and passwords with which clients may relay in a realm of the settings, one for each allocation.

    Time-limited ones are each of a user of its own, so that one user's limit does not stop a command that wants a few.
    Empty where the settings alone give none.
    """
    if (named := _named_user(user, password_file, known)) is not None:
        return [named]
    if known.secrets:
        secret = known.secrets[0].get_secret_value()
        names = [user] if user else [f"{_CLIENT_USER}-{number}" for number in range(_CLIENT_USERS)]
        return [time_limited(secret, name, _CLIENT_TTL, time.time(), settings) for name in names]
    passwords = {name: value.get_secret_value() for name, value in known.users.items()}
    return [(name, password) for name, password in passwords.items() if not units.parse_hex_key(password)]


def _named_user(user: str | None, password_file: Path | None, known: KnownUsers | None) -> tuple[str, str] | None:
    """The user that the command line names with a password, or that the settings have one for."""
    password = read_secret(password_file) if password_file else os.environ.get(_PASSWORD_VARIABLE)
    if user and not password and known is not None and user in known.users:
        password = known.users[user].get_secret_value()
        if units.parse_hex_key(password):
            fail(f"turnsvr: the file has a key for {user}, not the password; give that with --password-file")
    if not password:
        return None
    if not user:
        raise click.UsageError("a password needs its --user")
    return user, password
