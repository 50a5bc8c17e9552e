"""`turnsvr top`: the sessions of a running server as a live table."""

from __future__ import annotations

import sys

import click

from turnsvr.admin import NoServer
from turnsvr.cli.caller import Where, calls_server
from turnsvr.cli.common import parse_duration

_SHORTEST = 0.5


@click.command()
@click.option(
    "--interval",
    callback=parse_duration,
    default="2s",
    show_default=True,
    metavar="DURATION",
    help="Between two looks, at least half a second.",
)
@calls_server
def top(where: Where, interval: float) -> None:
    """Watch the sessions of the running server, and end them.

    Rates, sorted by a key: r rate, b bytes, u user, a age, and again the other way round. / finds, Enter shows the
    selected session's peers, x ends it after a question, t adds up by user, realm and peer, p pauses, q quits. ? shows
    all keys.

    \b
    Example:
      turnsvr top --interval 1s
    """
    if interval < _SHORTEST:
        raise click.UsageError("--interval is at least half a second")
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("top needs a terminal; turnsvr sessions prints a list")
    try:
        from turnsvr.cli.top import screen
    except ModuleNotFoundError as error:
        raise NoServer(f"the module {error.name} is not there; turnsvr sessions prints a list") from None
    screen.run(where.connect, interval)
