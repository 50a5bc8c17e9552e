"""Commands that watch and control a running server: sessions, kick, drain, reload, status, log-level."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from turnsvr.admin import NoServer, RefusedByServer
from turnsvr.cli import statustext
from turnsvr.cli.caller import NOT_DONE, Where, calls_server
from turnsvr.cli.common import parse_duration
from turnsvr.cli.sessiontable import table
from turnsvr.cli.text import printable

if TYPE_CHECKING:
    from turnsvr.admin.client import AdminClient

_POLL = 0.2


@click.command()
@click.option("--user", metavar="NAME", help="Of this user: by user name, or NAME of EXPIRY:NAME.")
@click.option("--realm", metavar="REALM", help="Of this realm.")
@click.option("--client", metavar="ADDRESS", help="Of the client at this IP address, with or without port.")
@click.option("--peer", metavar="ADDRESS", help="That may reach this peer.")
@click.option(
    "--sort",
    type=click.Choice(["id", "user", "age", "rate", "bytes"]),
    default="id",
    show_default=True,
    help="Order: fastest, largest and oldest first.",
)
@click.option("--json", "as_json", is_flag=True, help="All that is known of each, as JSON.")
@calls_server
def sessions(
    where: Where,
    user: str | None,
    realm: str | None,
    client: str | None,
    peer: str | None,
    sort: str,
    as_json: bool,
) -> None:
    """List the sessions of the running server.

    The server is found by itself when it runs on this machine. UP is from the client to its peers. Written to a
    terminal the table is as wide as that; written to a file or another program it is complete.

    \b
    Examples:
      turnsvr sessions
      turnsvr sessions --user alice --sort rate
      turnsvr sessions --json | jq '.sessions[].client'
    """
    order = f"-{sort}" if sort in ("age", "rate", "bytes") else sort
    query = {"user": user, "realm": realm, "client": client, "peer": peer, "sort": order}
    with where.connect() as server:
        found = list(server.every_session(**query, detail="true" if as_json else None))
    if as_json:
        click.echo(json.dumps({"sessions": found, "total": len(found)}, indent=2))
        return
    for line in table(found, shutil.get_terminal_size().columns if sys.stdout.isatty() else None):
        click.echo(line)


@click.command()
@click.argument("session", nargs=-1, type=click.IntRange(min=1), metavar="[ID]...")
@click.option("--user", metavar="NAME", help="All of this user: by user name, or NAME of EXPIRY:NAME.")
@click.option("--realm", metavar="REALM", help="Of the user's sessions those of this realm alone.")
@click.option("--revoke", is_flag=True, help="Refuse the time-limited user names of those sessions until they expire.")
@calls_server
def kick(where: Where, session: tuple[int, ...], user: str | None, realm: str | None, revoke: bool) -> int:
    """End sessions by their IDs, or all of a user.

    A client whose session has ended may come back unless its user name is refused: with --revoke until it expires, or
    by taking the user off the settings or the database.

    \b
    Examples:
      turnsvr kick 17 18
      turnsvr kick --user alice --revoke
    """
    if bool(session) == bool(user):
        raise click.UsageError("name sessions by their IDs, or a user with --user")
    if user is None and (realm or revoke):
        raise click.UsageError("--realm and --revoke go with --user")
    with where.connect() as server:
        return _end(server, session) if user is None else _end_user(server, user, realm, revoke)


def _end_user(server: AdminClient, user: str, realm: str | None, revoke: bool) -> int:
    answer = server.end_user(user, realm=realm, revoke=revoke)
    names = f", refused {_plural(answer['revoked'], 'user name')} until expiry" if revoke else ""
    click.echo(f"ended {_plural(answer['ended'], 'session')} of {printable(user)}{names}")
    if kept := answer.get("not_revoked"):
        click.echo(
            f"not revoked, since not time-limited: {', '.join(map(printable, kept))}; users who have the password may "
            "come back until the user is taken off the settings (credentials.users), off the database "
            "(turnsvr user remove) or off the service that lets it in"
        )
    return 0 if answer["ended"] or answer["revoked"] else NOT_DONE


def _end(server: AdminClient, sessions: Iterable[int]) -> int:
    """All of those that there are."""
    status = 0
    for number in sessions:
        try:
            server.end(number)
        except RefusedByServer as error:
            click.echo(f"turnsvr: {error}", err=True)
            status = NOT_DONE
        else:
            click.echo(f"ended session {number}")
    return status


@click.command()
@click.option("--wait", is_flag=True, help="Until the last session has ended, and the server with it.")
@click.option("--undo", is_flag=True, help="Take new sessions again.")
@calls_server
def drain(where: Where, wait: bool, undo: bool) -> None:
    """Take no new sessions, and end with the last.

    The server lives on while sessions do, and refuses new ones with 508.

    \b
    Examples:
      turnsvr drain --wait && systemctl restart turnsvr
      turnsvr drain --undo
    """
    if wait and undo:
        raise click.UsageError("take --wait or --undo")
    with where.connect() as server:
        if undo:
            click.echo(f"taking new sessions again; {_plural(server.resume()['sessions'], 'session')} now")
            return
        click.echo(f"draining; {_plural(server.drain()['sessions'], 'session')} to end")
        if wait:
            _wait_until_gone(server)
            click.echo("ended")


def _wait_until_gone(server: AdminClient) -> None:
    while True:
        time.sleep(_POLL)
        try:
            if not server.status()["draining"]:
                raise click.ClickException("another command has the server take new sessions again")
        except NoServer:
            return


@click.command()
@calls_server
def reload(where: Where) -> int:
    """Have the server read its settings again.

    No session ends, but those of a realm that is gone. Exit status 1, and no change at all, when there is a mistake in
    them.

    \b
    Examples:
      turnsvr reload
      turnsvr check /etc/turnsvr/turnsvr.yaml && turnsvr reload
    """
    try:
        with where.connect() as server:
            answer = server.reload()
    except RefusedByServer as error:
        for mistake in error.answer.get("mistakes", []):
            click.echo(mistake, err=True)
        raise
    click.echo(f"reloaded {answer['file']}")
    if answer["taken"]:
        click.echo(f"process {answer['successor']['pid']} serves now, and has taken {', '.join(answer['taken'])}")
    if answer["restart"]:
        click.echo(f"what needs a restart has stayed as it was: {', '.join(answer['restart'])}")
        click.echo(answer["reason"] or "turnsvr upgrade takes it, and cuts no call")
    return 0


@click.command()
@click.option(
    "--exec",
    "program",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="PATH",
    help="The turnsvr to start, such as that of a new virtual environment.",
)
@calls_server
def upgrade(where: Where, program: Path | None) -> None:
    """Start the program anew, and have it go on with the sessions.

    The server starts it with its own arguments and hands over; packets wait meanwhile, for some milliseconds. Sessions
    of TLS and DTLS clients stay in the old process, which ends with the last. Where the new program cannot go on
    the old one serves as before, and the exit status is 1.

    \b
    Examples:
      turnsvr upgrade
      turnsvr upgrade --exec /opt/turnsvr-2/bin/turnsvr
    """
    with where.connect() as server:
        answer = server.upgrade(None if program is None else str(program.absolute()))
    moved, staying = _plural(answer["sessions"], "session"), answer["staying"]
    click.echo(f"turnsvr {answer['version']} serves as process {answer['pid']}: {moved} moved")
    click.echo(f"no packet was read for {answer['seconds'] * 1000:.1f} ms; packets waited meanwhile")
    if staying:
        click.echo(f"{_plural(staying, 'session')} that cannot move stay in the old process, which ends with the last")


@click.command()
@click.option(
    "--wait",
    callback=parse_duration,
    default="0s",
    metavar="DURATION",
    help="Wait until the server is ready, at most so long.",
)
@click.option("--json", "as_json", is_flag=True, help="All of it as JSON.")
@calls_server
def status(where: Where, wait: float, as_json: bool) -> int:
    """Show how the running server is.

    Exit status 0 when it is ready, 1 when it drains or something is wrong, 2 when no server answers or it does not
    let this user in.

    \b
    Examples:
      turnsvr status
      turnsvr status --wait 30s && echo serving
      turnsvr status --json | jq .sessions.now
    """
    answer = where.status(wait)
    click.echo(json.dumps(answer, indent=2) if as_json else "\n".join(statustext.lines(answer)))
    return 0 if answer["ready"] else NOT_DONE


@click.command("log-level")
@click.argument("level", type=click.Choice(["debug", "info", "warning", "error"]))
@click.option(
    "--for",
    "seconds",
    callback=lambda ctx, param, value: parse_duration(ctx, param, value) if value else None,
    metavar="DURATION",
    help="How long; without it until the next reload.",
)
@calls_server
def log_level(where: Where, level: str, seconds: float | None) -> None:
    """Have the running server log more, or less.

    \b
    Example:
      turnsvr log-level debug --for 10m
    """
    with where.connect() as server:
        answer = server.set_log_level(level, seconds)
    until = "until the next reload" if seconds is None else f"for {answer['remaining']:.0f} s"
    click.echo(f"logging from {answer['level']} up {until}")


def _plural(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
