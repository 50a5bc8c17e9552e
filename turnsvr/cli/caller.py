"""What commands over the admin interface share: where the server is, its token, what ends a command and how."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from turnsvr import config
from turnsvr.admin import NoServer, RefusedByServer
from turnsvr.admin.places import places
from turnsvr.cli.common import FILE, config_option, read_secret

if TYPE_CHECKING:
    from turnsvr.admin.client import AdminClient

NOT_DONE = 1
"""Exit status: the server answered, and not as hoped."""
NO_SERVER = 2
"""Exit status: no server could be asked; click's own for a command line that means nothing."""

_TOKEN_VARIABLE = "TURN_ADMIN_TOKEN"
_POLL = 0.1
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class Where:
    """What the command line says about where the server is."""

    config_file: Path | None
    socket: Path | None
    url: str | None
    token_file: Path | None

    def connect(self) -> AdminClient:
        """A client of the server; raises NoServer, ConfigError and OSError."""
        from turnsvr.admin import client

        if self.url is not None:
            return client.AdminClient.at_url(self.url, self._token(None))
        if self.socket is not None:
            return client.find([self.socket])
        if self.config_file is None:
            return client.find(places())
        admin = config.load(self.config_file).admin
        if isinstance(admin.socket, Path):
            return client.find([admin.socket])
        if admin.socket == "auto":
            return client.find(places())
        if not admin.listen:
            raise NoServer(f"{self.config_file}: admin has neither socket nor listen")
        listen = admin.listen[0].expand()[-1]
        url = str(replace(listen, host=_ANYWHERE.get(listen.host, listen.host)))
        return client.AdminClient.at_url(url, self._token(admin.token.get_secret_value() if admin.token else None))

    def status(self, wait: float) -> dict[str, Any]:
        """The server's status once it is ready, or as it is after so many seconds; raises what connect() does."""
        deadline = time.monotonic() + wait
        while True:
            try:
                with self.connect() as server:
                    status = server.status()
                if status["ready"] or time.monotonic() >= deadline:
                    return status
            except NoServer:
                if time.monotonic() >= deadline:
                    raise
            time.sleep(_POLL)

    def _token(self, known: str | None) -> str:
        if self.token_file is not None:
            return read_secret(self.token_file)
        token = os.environ.get(_TOKEN_VARIABLE) or known
        if not token:
            raise NoServer(f"a token is needed: name its file with --token-file, or set {_TOKEN_VARIABLE}")
        return token


def calls_server(command: Callable[..., int | None]) -> Callable[..., None]:
    """A command whose first argument is Where: adds its options, and ends with the exit status that it returns.

    What keeps the command from asking is one line, and exit status 2; what the server refuses one line, and 1.
    """

    @config_option
    @click.option("--socket", type=FILE, metavar="PATH", help="Admin socket; else looked for where servers put it.")
    @click.option("--url", metavar="URL", help="Admin interface over HTTP, as https://turn.example.org:5766.")
    @click.option(
        "--token-file",
        type=FILE,
        metavar="FILE",
        help=f"File with the token that --url asks for; else the variable {_TOKEN_VARIABLE}.",
    )
    @wraps(command)
    def run(
        config_file: Path | None, socket: Path | None, url: str | None, token_file: Path | None, **arguments: Any
    ) -> None:
        if sum(each is not None for each in (config_file, socket, url)) > 1:
            raise click.UsageError("name the server once: with --config, --socket or --url")
        sys.exit(_ended(lambda: command(Where(config_file, socket, url, token_file), **arguments)))

    return run


def _ended(command: Callable[[], int | None]) -> int:
    """Exit status, with a line for what went wrong."""
    try:
        return command() or 0
    except RefusedByServer as error:
        click.echo(f"turnsvr: {error}", err=True)
        return NOT_DONE
    except config.ConfigError as error:
        click.echo(str(error), err=True)
    except (NoServer, OSError) as error:
        click.echo(f"turnsvr: {error}", err=True)
    return NO_SERVER
