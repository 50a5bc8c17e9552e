"""The `turnsvr` command: each command reads its arguments, calls one room and prints.

A command's module is imported when the command is called, so that none waits for what others need.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import import_module

import click
from click.shell_completion import CompletionItem

from turnsvr import __version__

_COMMANDS: Mapping[str, tuple[str, str]] = {
    "bench": ("clients.bench", "Load a TURN server and count what arrives."),
    "check": ("serve.check", "Validate a settings FILE and show what it means."),
    "credentials": ("keys.credentials", "Make time-limited credentials from the shared secret."),
    "drain": ("control.drain", "Take no new sessions, and end with the last."),
    "import-coturn": ("migrate.import_coturn", "Make a settings file of coturn's configuration."),
    "init": ("init.init", "Set a server up: settings, a secret, the unit."),
    "kick": ("control.kick", "End sessions by their IDs, or all of a user."),
    "log-level": ("control.log_level", "Have the running server log more, or less."),
    "nat": ("clients.nat", "Find out what kind of NAT this machine is behind."),
    "oauth-key": ("oauthkeys.oauth_key", "Add, list and remove keys of access tokens (RFC 7635)."),
    "probe": ("clients.probe", "Try a server as a client does, over UDP, TCP and TLS."),
    "realm": ("realms.realm", "Show and change limits, origins and peers of realms."),
    "reload": ("control.reload", "Have the server read its settings again."),
    "run": ("serve.run", "Serve until SIGTERM."),
    "schema": ("serve.schema", "Print the settings file's JSON Schema, for editors."),
    "secret": ("users.secret", "Print a new shared secret, or manage those of the database."),
    "sessions": ("control.sessions", "List the sessions of the running server."),
    "status": ("control.status", "Show how the running server is."),
    "top": ("top.top", "Watch the sessions of the running server, and end them."),
    "trace": ("trace.trace", "Show what one client asks and is answered, as it happens."),
    "upgrade": ("control.upgrade", "Start the program anew, and have it go on with the sessions."),
    "user": ("users.user", "Add, list and remove users of the database."),
    "version": ("serve.version", "Print versions, and what runs compiled and why."),
}
"""Where each command is, and the first line of its help."""


class _Imported(Mapping[str, click.Command]):
    """The commands by name, imported when they are looked up."""

    def __getitem__(self, name: str) -> click.Command:
        module, _, function = _COMMANDS[name][0].partition(".")
        command = getattr(import_module(f"{__name__}.{module}"), function)
        assert isinstance(command, click.Command)
        return command

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)

    def __contains__(self, name: object) -> bool:
        return name in _COMMANDS


class _Group(click.Group):
    """Tells what its commands do without importing them."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in sorted(_COMMANDS.items())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        named = [
            CompletionItem(name, help=text)
            for name, (_, text) in sorted(_COMMANDS.items())
            if name.startswith(incomplete)
        ]
        return [*named, *click.Command.shell_complete(self, ctx, incomplete)]


@click.group(
    cls=_Group,
    commands=_Imported(),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, message="%(prog)s %(version)s")
def main() -> None:
    """STUN and TURN server.

    \b
    First steps:
      turnsvr run                       serve now, with a secret made for the run
      turnsvr init                      write settings, a secret and the unit of a service
      turnsvr secret                    make a secret for your turnsvr.yaml:
                                          realm: example.org
                                          credentials: {secret: <the secret>}
      turnsvr check turnsvr.yaml        what the file means, and what is wrong with it
      turnsvr run -c turnsvr.yaml       serve from it
      turnsvr probe -c turnsvr.yaml turn:turn.example.org
      turnsvr top                       watch its sessions, and end them
    """
