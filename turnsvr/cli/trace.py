"""`turnsvr trace`: what one client asks and is answered, as it happens, in words or as a capture for Wireshark."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Generator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from turnsvr.admin import NoServer, RefusedByServer
from turnsvr.cli.caller import Where, calls_server
from turnsvr.cli.common import parse_duration
from turnsvr.cli.text import printable
from turnsvr.cli.tracetext import Lines

if TYPE_CHECKING:
    from turnsvr.admin.client import AdminClient
    from turnsvr.cli.capture import Capture

_STDOUT = "-"


@click.command()
@click.option("--user", metavar="NAME", help="This user: by user name, or NAME of EXPIRY:NAME.")
@click.option("--session", type=click.IntRange(min=1), metavar="ID", help="The session of this ID.")
@click.option("--client", metavar="ADDRESS", help="The client at this IP address, with or without port.")
@click.option(
    "--for",
    "seconds",
    callback=parse_duration,
    default="10m",
    show_default=True,
    metavar="DURATION",
    help="How long, an hour at the most.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.option(
    "--pcap",
    "capture",
    type=click.Path(dir_okay=False, writable=True, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Write a capture for Wireshark as well; - writes it to standard output.",
)
@click.option("--data", is_flag=True, help="With --pcap: what is relayed too, and not the messages alone.")
@calls_server
def trace(
    where: Where,
    user: str | None,
    session: int | None,
    client: str | None,
    seconds: float,
    as_json: bool,
    capture: Path | None,
    data: bool,
) -> None:
    """Show what one client asks and is answered, as it happens.

    Messages are decoded; passwords, tokens and what could be tried out against them are not shown, and are zeros in a
    capture. What comes over TLS or DTLS is shown as it was inside. It ends with Ctrl-C, with the session, or in time.

    Not seen: what a client of --user says over UDP before it says who it is, where it has no session yet; sessions that
    an older process of the server still serves.

    \b
    Examples:
      turnsvr trace --user alice
      turnsvr trace --client 192.0.2.7 --json | jq .method
      turnsvr trace --session 17 --pcap call.pcapng --data
      turnsvr trace --session 17 --pcap - | wireshark -k -i -
    """
    if (user is not None) + (session is not None) + (client is not None) != 1:
        raise click.UsageError("name one client: with --user, --session or --client")
    if data and capture is None:
        raise click.UsageError("--data goes with --pcap")
    if as_json and str(capture) == _STDOUT:
        raise click.UsageError("standard output takes one of --json and --pcap -")
    wanted = {"user": user, "session": session, "client": client, "seconds": seconds, "data": data}
    with where.connect() as server, ExitStack() as stack:
        written = None if capture is None else _open(capture, stack)
        shown = _printer(as_json, quiet=str(capture) == _STDOUT)
        pages = stack.enter_context(closing(_pages(server, wanted, raw=capture is not None)))
        with suppress(KeyboardInterrupt):
            for page in pages:
                for event in page["events"]:
                    shown(event)
                    if written is not None:
                        written.add(event | {"bytes": base64.b64decode(event["bytes"])})
                if page["left_out"]:
                    click.echo(f"turnsvr: {page['left_out']} left out here: too many at once", err=True)
                if page["ended"]:
                    click.echo(f"turnsvr: {printable(page['ended'])}", err=True)
                sys.stdout.flush()


def _pages(server: AdminClient, wanted: dict[str, Any], *, raw: bool) -> Generator[dict[str, Any]]:
    """What comes, until the trace ends; closing it ends the trace."""
    number = server.begin_trace(**wanted)
    ended = False
    try:
        while not ended:
            page = server.read_trace(number, wait=1, raw=raw)
            ended = bool(page["ended"])
            yield page
    finally:
        if not ended:
            with suppress(NoServer, RefusedByServer):
                server.end_trace(number)


def _printer(as_json: bool, *, quiet: bool) -> Any:
    """What shows an event."""
    if quiet:
        return lambda event: None
    if as_json:
        return lambda event: click.echo(json.dumps({key: value for key, value in event.items() if key != "bytes"}))
    lines = Lines()
    return lambda event: click.echo("\n".join(lines.of(event)))


def _open(path: Path, stack: ExitStack) -> Capture:
    """A capture that is written there; other users of this machine may not read the file."""
    from turnsvr.cli.capture import Capture

    target: BinaryIO
    if str(path) == _STDOUT:
        target = sys.stdout.buffer
    else:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        target = stack.enter_context(os.fdopen(descriptor, "wb"))
    return Capture(target)
