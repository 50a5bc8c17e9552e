"""The `turnsvr` command: each command reads its arguments, calls one room and prints."""

from __future__ import annotations

import click

from turnsvr import __version__
from turnsvr.cli import clients, keys, migrate, realms, serve, steer, stores, top


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
      turnsvr top                       watch its sessions, and end them
    """


for _command in (
    serve.run,
    serve.check,
    serve.schema,
    serve.version,
    keys.credentials,
    stores.secret,
    stores.user,
    realms.realm,
    clients.probe,
    clients.nat,
    clients.bench,
    migrate.import_coturn,
    steer.sessions,
    top.top,
    steer.kick,
    steer.status,
    steer.drain,
    steer.reload,
    steer.log_level,
):
    main.add_command(_command)
