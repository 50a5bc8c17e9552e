"""Commands that are clients of a server: probe, nat, bench."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turnsvr import config
from turnsvr.cli import listeners
from turnsvr.cli.common import FILE, config_option, login, operator_errors, parse_duration, secret_file_option

if TYPE_CHECKING:
    from turnsvr.client.probe import Served


@click.command()
@click.argument("url")
@config_option
@secret_file_option
@click.option("--user", metavar="NAME", help="User name, with its password; time-limited ones are for this user.")
@click.option("--password-file", type=FILE, metavar="FILE", help="File that holds the user's password; - for stdin.")
@click.option("--insecure", is_flag=True, help="Accept any TLS certificate.")
@click.option(
    "--timeout", callback=parse_duration, default="5s", show_default=True, metavar="DURATION", help="For each step."
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@operator_errors
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

    Binding, Allocate, permission, channel and an echo through the relay, with round-trip times; then whether others
    reach a relayed address, for which the server has to allow this host as a peer. A turn: URL needs credentials: a
    shared secret (from --config, --secret-file or the environment variable TURN_SECRET), or --user with a password
    (from --config, --password-file or TURN_PASSWORD). With --config what that file serves is tried, and nothing else.
    Exit status 0 when all that can be tried from here works, 1 when something does not.

    \b
    Examples:
      turnsvr probe -c turnsvr.yaml turn:turn.example.org
      turnsvr probe --user alice --password-file alice.txt --json 'turns:turn.example.org:443'
      turnsvr probe stun:stun.example.org
    """
    if timeout <= 0:
        raise click.UsageError("--timeout is longer than nothing")
    from turnsvr.client import probe as client

    identity: tuple[str | None, str | None] = (None, None)
    served: list[Served] = []
    relaying = url.lower().startswith("turn")
    if config_file is not None:
        if secret_file is not None:
            raise click.UsageError("take the secret either from --config or from --secret-file")
        served = listeners.served(config.load(config_file), user, password_file, relaying=relaying)
    elif relaying:
        identity = login(None, secret_file, user, password_file)
    sys.exit(client.run(url, *identity, served=served, insecure=insecure, timeout=timeout, json=as_json))


@click.command()
@click.argument("servers", nargs=-1, metavar="[stun:HOST[:PORT]]...")
@click.option(
    "--lifetime",
    callback=lambda ctx, param, value: parse_duration(ctx, param, value) if value else None,
    metavar="DURATION",
    help="Find out how long an idle mapping lives, up to this; it takes a few times as long.",
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@operator_errors
def nat(servers: tuple[str, ...], lifetime: float | None, as_json: bool) -> None:
    """Find out what kind of NAT this machine is behind.

    A server with two addresses (nat_discovery in the settings, RFC 5780) tells all; of most public servers two
    are needed, and they tell the mapping alone. Without a server two public ones are asked. Exit status 0 when a
    server was reached.

    \b
    Examples:
      turnsvr nat stun:stun.example.org
      turnsvr nat --lifetime 10m --json stun:stun.example.org
      turnsvr nat stun:one.example.org stun:two.example.net
    """
    from turnsvr.client import nat as client

    sys.exit(client.run(servers, options=client.NatOptions(longest_lifetime=lifetime), json=as_json))


@click.command()
@click.argument("url")
@config_option
@secret_file_option
@click.option("--user", metavar="NAME", help="User name, with its password; time-limited ones are for this user.")
@click.option("--password-file", type=FILE, metavar="FILE", help="File that holds the user's password; - for stdin.")
@click.option(
    "--direction", type=click.Choice(["up", "down"]), default="up", show_default=True, help="Client to peer, or back."
)
@click.option("--flows", default=16, show_default=True, metavar="N", help="Allocations at once.")
@click.option("--size", default=1000, show_default=True, metavar="BYTES", help="Payload of a packet.")
@click.option(
    "--shape",
    type=click.Choice(["singles", "bursts", "trains"]),
    default="singles",
    show_default=True,
    help="Packets alone, eight in one go, or sixteen as one UDP_SEGMENT train.",
)
@click.option(
    "--wrap",
    type=click.Choice(["channel", "indication"]),
    default="channel",
    show_default=True,
    help="What carries them.",
)
@click.option("--rate", type=float, metavar="N", help="Packets a second; else the most that arrives is searched for.")
@click.option(
    "--seconds", callback=parse_duration, default="1s", show_default=True, metavar="DURATION", help="Of each run."
)
@click.option("--json", "as_json", is_flag=True, help="The result as JSON.")
@operator_errors
def bench(
    url: str,
    config_file: Path | None,
    secret_file: Path | None,
    user: str | None,
    password_file: Path | None,
    direction: str,
    flows: int,
    size: int,
    shape: str,
    wrap: str,
    rate: float | None,
    seconds: float,
    as_json: bool,
) -> None:
    """Load a TURN server and count what arrives.

    Delivered packets, loss and latency. The peers are sockets of this machine, so the server must allow its
    address as a peer. Load only a server of your own. Credentials as for `turnsvr probe`. Exit status 1 when
    nothing arrived.

    \b
    Example:
      turnsvr bench -c turnsvr.yaml --flows 16 --size 160 turn:127.0.0.1
    """
    identity = login(config.load(config_file) if config_file else None, secret_file, user, password_file)
    from turnsvr.client import load
    from turnsvr.client.load_values import Direction, Shape, Wrap

    sys.exit(
        load.run(
            url,
            *identity,
            direction=Direction(direction),
            flows=flows,
            size=size,
            shape=Shape(shape),
            wrap=Wrap(wrap),
            rate=rate,
            seconds=seconds,
            json=as_json,
        )
    )
