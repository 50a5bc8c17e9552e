"""The `turnsvr` command: each command reads its arguments, calls one room and prints."""

from __future__ import annotations

import json
import os
import platform
import secrets
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click
import yaml

from turnsvr import __version__, config, hostfacts, units
from turnsvr.advice import Advice, advise
from turnsvr.credentials import ice, shared_secret
from turnsvr.settings import Settings, json_schema
from turnsvr.websettings import for_trying_out

_SECRET_BYTES = 32
_SECRET_VARIABLE = "TURN_SECRET"
_PASSWORD_VARIABLE = "TURN_PASSWORD"
_MAX_SECRET_CHARACTERS = 65_536
_PROBE_USER = "probe"
_PROBE_TTL = 600

_P = ParamSpec("_P")
_R = TypeVar("_R")


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> float:
    try:
        return units.parse_duration(value)
    except units.BadValue as error:
        raise click.BadParameter(f"{error.problem}; {error.hint}", ctx, param) from None


_FILE = click.Path(path_type=Path)
_config_option = click.option("-c", "--config", "config_file", type=_FILE, metavar="FILE", help="Settings file.")
_secret_file_option = click.option(
    "--secret-file", type=_FILE, metavar="FILE", help="File that holds the shared secret; - for standard input."
)


def _fail(text: str) -> NoReturn:
    click.echo(text, err=True)
    sys.exit(1)


def _operator_errors(command: Callable[_P, _R]) -> Callable[_P, _R]:
    """What an operator can put right ends with its text and exit status 1, without a traceback."""

    @wraps(command)
    def run(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return command(*args, **kwargs)
        except config.ConfigError as error:
            _fail(str(error))
        except OSError as error:
            _fail(f"turnsvr: {error}")

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """STUN and TURN server.

    \b
    First steps:
      turnsvr run                       serve now, with a secret made for the run
      turnsvr secret                    make a secret for your turnsvr.yaml:
                                          realm: example.org
                                          credentials: {secret: <the secret>}
      turnsvr check turnsvr.yaml        what the file means, and what is wrong with it
      turnsvr run -c turnsvr.yaml       serve from it
      turnsvr probe -c turnsvr.yaml turn:turn.example.org
    """


@main.command()
@_config_option
@click.option(
    "--web", "with_web", is_flag=True, help="Serve the test page on ports 8080 and 8443, to all who can reach them."
)
@_operator_errors
def run(config_file: Path | None, with_web: bool) -> None:
    """Serve until SIGTERM.

    Without a file: UDP and TCP on port 3478 and TLS on 5349 of every address, with a certificate and a shared
    secret made for this run, and an iceServers list to paste into a browser. SIGHUP reads the file again,
    SIGUSR1 lets sessions end and takes no new ones.

    With --web, unless the file has a section web: the test page on http port 8080 and, where there is TLS, https
    port 8443 of every address; it gives credentials for ten minutes to everyone who can open it.

    \b
    Example:
      turnsvr run -c /etc/turnsvr/turnsvr.yaml
    """
    settings = config.load(config_file) if config_file else Settings()
    if with_web and settings.web is None:
        tls = config_file is None or settings.tls is not None
        settings = settings.model_copy(update={"web": for_trying_out(tls=tls)})
    from turnsvr import app

    sys.exit(app.run(settings, path=config_file))


@main.command()
@click.argument("file", type=_FILE)
@click.option("--strict", is_flag=True, help="Warnings are failures, too.")
@_operator_errors
def check(file: Path, strict: bool) -> None:
    """Validate a settings FILE and show what it means.

    The settings in effect go to standard output with their secrets masked; mistakes, and warnings of
    what is unsafe or cannot work, to standard error. Exit status 1 on a mistake, with --strict on a warning as well.

    \b
    Example:
      turnsvr check --strict /etc/turnsvr/turnsvr.yaml
    """
    settings = config.load(file)
    click.echo(_effective(settings), nl=False)
    advice = _advice(settings, file)
    for item in advice:
        click.echo(f"{file}: {item}", err=True)
    if strict and any(item.severity == "warning" for item in advice):
        sys.exit(1)


def _effective(settings: Settings) -> str:
    values = settings.model_dump(mode="json")
    values["listen"] = [str(address) for address in settings.listeners()]
    return str(yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=100))


def _advice(settings: Settings, file: Path) -> list[Advice]:
    return advise(
        settings,
        time.time(),
        host_addresses=hostfacts.addresses_here(hostfacts.addresses_in(settings)),
        lowest_port=hostfacts.lowest_port(),
        certificate=hostfacts.read_certificate(settings.tls) if settings.tls else None,
        file_is_public=hostfacts.is_public(file),
    )


@main.command()
def schema() -> None:
    """Print the settings file's JSON Schema, for editors.

    \b
    Example:
      turnsvr schema > turnsvr.schema.json
    and then as the first line of turnsvr.yaml:
      # yaml-language-server: $schema=turnsvr.schema.json
    """
    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
def secret() -> None:
    """Print a new shared secret.

    It is 32 random bytes in hexadecimal.

    \b
    Example:
      turnsvr secret > /etc/turnsvr/secret      # and in the file: secret: !file secret
    """
    click.echo(secrets.token_hex(_SECRET_BYTES))


@main.command()
@_config_option
@_secret_file_option
@click.option("--user", default="", metavar="NAME", help="User that limits count by; may be left out.")
@click.option(
    "--ttl", callback=_duration, default="1h", show_default=True, metavar="DURATION", help="How long they last."
)
@click.option("--host", metavar="NAME", help="Name or address by which clients reach the server.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["ice-servers", "text", "pair"]),
    help="RTCConfiguration, lines for people, or user name and password on a line each.  "
    "[default: ice-servers with --host, else text]",
)
@click.option("--json", "as_json", is_flag=True, help="Text and pair as JSON, too.")
@_operator_errors
def credentials(
    config_file: Path | None,
    secret_file: Path | None,
    user: str,
    ttl: float,
    host: str | None,
    form: str | None,
    as_json: bool,
) -> None:
    """Make time-limited credentials from the shared secret.

    The secret comes from the settings file, from --secret-file or from the environment variable TURN_SECRET.
    URLs follow the file's listeners, else the usual ports.

    \b
    Examples:
      turnsvr credentials -c turnsvr.yaml --user alice --ttl 1h --host turn.example.org
      turnsvr credentials --secret-file /run/secrets/turn --format pair
    """
    settings = config.load(config_file) if config_file else None
    form = form or ("ice-servers" if host else "text")
    if form == "ice-servers" and not host:
        raise click.UsageError("ice-servers needs --host, the name by which clients reach the server")
    now = time.time()
    username, password = _time_limited(_secret(settings, secret_file), user, ttl, now)
    listeners = (settings or Settings()).listeners()
    if form == "ice-servers":
        click.echo(json.dumps(ice.ice_servers(host or "", listeners, username, password), indent=2))
        return
    values: dict[str, object] = {"username": username, "password": password}
    if form == "text":
        values |= {"ttl": int(ttl), "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now + ttl))}
        if host:
            values["urls"] = ice.stun_urls(host, listeners) + ice.turn_urls(host, listeners)
    click.echo(json.dumps(values, indent=2) if as_json else _lines(values, labelled=form == "text"))


def _time_limited(shared: str, user: str, ttl: float, now: float) -> tuple[str, str]:
    try:
        return shared_secret.make(shared, user, ttl, now)
    except ValueError as error:
        _fail(f"turnsvr: {error}")


def _lines(values: dict[str, object], *, labelled: bool) -> str:
    if not labelled:
        return "\n".join(map(str, values.values()))
    return "\n".join(
        f"{name + ':':<10} {part}"
        for name, value in values.items()
        for part in (value if isinstance(value, list) else [value])
    )


def _secret(settings: Settings | None, secret_file: Path | None) -> str:
    """The shared secret from where the operator says it is; never from the command line."""
    if settings is not None and secret_file is not None:
        raise click.UsageError("take the secret either from --config or from --secret-file")
    if settings is not None:
        if not settings.credentials.secrets:
            _fail("turnsvr: the settings file has no shared secret under credentials")
        return settings.credentials.secrets[0].get_secret_value()
    if secret_file is not None:
        return _read_secret(secret_file)
    if value := os.environ.get(_SECRET_VARIABLE):
        return value
    raise click.UsageError(f"name the secret's place: --config, --secret-file or the variable {_SECRET_VARIABLE}")


def _read_secret(path: Path) -> str:
    with click.open_file(str(path), encoding="utf-8", errors="replace") as file:
        return str(file.read(_MAX_SECRET_CHARACTERS)).strip()


@main.command()
@click.argument("url")
@_config_option
@_secret_file_option
@click.option("--user", metavar="NAME", help="User name, with its password; time-limited ones are for this user.")
@click.option("--password-file", type=_FILE, metavar="FILE", help="File that holds the user's password; - for stdin.")
@click.option("--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option(
    "--timeout", callback=_duration, default="5s", show_default=True, metavar="DURATION", help="For each step."
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@_operator_errors
def probe(
    url: str,
    config_file: Path | None,
    secret_file: Path | None,
    user: str | None,
    password_file: Path | None,
    insecure: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Try a server as a client does, over UDP, TCP and TLS.

    Binding, Allocate, permission, channel and an echo through the relay, with round-trip times. A turn: URL needs
    credentials: a shared secret (from --config, --secret-file or the environment variable TURN_SECRET), or --user
    with a password (from --config, --password-file or TURN_PASSWORD). Exit status 0 when all works, 1 when
    something does not.

    \b
    Examples:
      turnsvr probe -c turnsvr.yaml turn:turn.example.org
      turnsvr probe --user alice --password-file alice.txt --json 'turns:turn.example.org:443'
      turnsvr probe stun:stun.example.org
    """
    if timeout <= 0:
        raise click.UsageError("--timeout is longer than nothing")
    login: tuple[str | None, str | None] = (None, None)
    if url.lower().startswith("turn"):
        login = _login(config.load(config_file) if config_file else None, secret_file, user, password_file)
    from turnsvr.client import probe as client

    sys.exit(client.run(url, *login, insecure=insecure, timeout=timeout, json=as_json))


def _login(
    settings: Settings | None, secret_file: Path | None, user: str | None, password_file: Path | None
) -> tuple[str, str]:
    """User name and password: those of a static user, else time-limited ones."""
    password = _read_secret(password_file) if password_file else os.environ.get(_PASSWORD_VARIABLE)
    if user and not password and settings is not None and user in settings.credentials.users:
        password = settings.credentials.users[user].get_secret_value()
        if units.parse_hex_key(password):
            _fail(f"turnsvr: the file has a key for {user}, not the password; give that with --password-file")
    if password:
        if not user:
            raise click.UsageError("a password needs its --user")
        return user, password
    return _time_limited(_secret(settings, secret_file), user or _PROBE_USER, _PROBE_TTL, time.time())


@main.command()
def version() -> None:
    """Print versions, and which pump relays and why.

    \b
    Example:
      turnsvr version
    """
    from turnsvr import relay

    click.echo(f"turnsvr {__version__}")
    click.echo(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    click.echo(f"pump {relay.describe()}")
