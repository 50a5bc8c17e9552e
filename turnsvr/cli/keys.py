"""The command that makes time-limited credentials: credentials."""

from __future__ import annotations

import json
import time
from pathlib import Path

import click

from turnsvr import config
from turnsvr.cli.common import (
    config_option,
    operator_errors,
    parse_duration,
    secret_file_option,
    shared_secret_of,
    time_limited,
)
from turnsvr.config.settings import Settings
from turnsvr.credentials import ice


@click.command()
@config_option
@secret_file_option
@click.option("--user", default="", metavar="NAME", help="User that limits count by; may be left out.")
@click.option(
    "--ttl", callback=parse_duration, default="1h", show_default=True, metavar="DURATION", help="How long they last."
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
@operator_errors
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
    username, password = time_limited(shared_secret_of(settings, secret_file), user, ttl, now, settings)
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


def _lines(values: dict[str, object], *, labelled: bool) -> str:
    if not labelled:
        return "\n".join(map(str, values.values()))
    return "\n".join(
        f"{name + ':':<10} {part}"
        for name, value in values.items()
        for part in (value if isinstance(value, list) else [value])
    )
