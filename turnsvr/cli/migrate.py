"""The command that brings another server's configuration along: import-coturn."""

from __future__ import annotations

import json
import os
import secrets
import tempfile
from functools import partial
from pathlib import Path

import click

from turnsvr.cli.common import FILE, fail, operator_errors
from turnsvr.migrate import MAX_BYTES, Conversion, SourceError, Surroundings, convert
from turnsvr.migrate.commandline import CoturnCommand, command_of
from turnsvr.migrate.compose import command_in_compose

_SECRET_BYTES = 32
_DATABASES = ("/var/lib/turn/turndb", "/var/db/turndb", "/usr/local/var/db/turndb")
"""Where builds of coturn keep their SQLite database; the first is Debian's."""


@click.command("import-coturn")
@click.argument("source", nargs=-1, required=True, metavar="TURNSERVER.CONF | -- OPTIONS")
@click.option("-o", "--output", type=FILE, metavar="FILE", help="Settings file to write, for its owner's eyes alone.")
@click.option("--force", is_flag=True, help="Overwrite the file of --output.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
@operator_errors
def import_coturn(source: tuple[str, ...], output: Path | None, force: bool, as_json: bool) -> None:
    """Make a settings file of coturn's configuration, or of its command line behind --, or of a compose file with it.

    The settings go to --output, or else to standard output; - reads standard input. A report tells of every line
    what it became, why it is not needed, or what to do instead, and what changes in behaviour: on standard output,
    or on standard error when the settings go there. The settings hold the secrets of the source, the report none.

    \b
    Examples:
      turnsvr import-coturn /etc/turnserver.conf -o turnsvr.yaml
      turnsvr import-coturn docker-compose.yml -o turnsvr.yaml
      turnsvr import-coturn -o turnsvr.yaml -- --use-auth-secret --realm=example.org
      turnsvr check turnsvr.yaml
      turnsvr run -c turnsvr.yaml
    """
    name = source[0]
    try:
        name, data = _source(source)
        made = convert(data, name, Surroundings(secrets.token_hex(_SECRET_BYTES), _database()))
    except SourceError as error:
        fail(f"{name}: {error}")
    if output is None:
        click.echo(made.text, nl=False)
    else:
        _write(output, made.text, force=force)
    click.echo(_report(made, name, as_json=as_json), nl=False, err=output is None)
    if output is not None and not as_json:
        click.echo(f"\n{output} is written; next: turnsvr check {output}")


def _source(given: tuple[str, ...]) -> tuple[str, bytes]:
    """What it is called, and its lines. Raises SourceError."""
    if len(given) > 1 or (given[0].startswith("-") and given[0] != "-"):
        return _with_its_file("the command line", command_of(given), Path())
    name = "standard input" if given[0] == "-" else given[0]
    with click.open_file(given[0], "rb") as file:
        data = file.read(MAX_BYTES + 1)
    beside = Path(given[0]).parent
    command = command_in_compose(data, partial(_text, beside)) if len(data) <= MAX_BYTES else None
    return (name, data) if command is None else _with_its_file(name, command, beside)


def _with_its_file(name: str, command: CoturnCommand, beside: Path) -> tuple[str, bytes]:
    """The lines of the configuration file that a command names, then its own, which count after them."""
    if not command.file or command.alone:
        return name, command.lines
    lines = _bytes(beside, command.file)
    if not lines:
        raise SourceError(f"coturn's settings are in {command.file}, which cannot be read; import that file")
    return (f"{command.file} with {name}", lines.rstrip(b"\n") + b"\n" + command.lines)


def _bytes(directory: Path, name: str) -> bytes:
    """What is in a file that a command or a compose file names; nothing where it cannot be read."""
    try:
        with (directory / name).open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except OSError:
        return b""


def _text(directory: Path, name: str) -> str:
    return _bytes(directory, name)[:MAX_BYTES].decode(errors="replace")


def _report(made: Conversion, name: str, *, as_json: bool) -> str:
    if as_json:
        return json.dumps(made.report.as_json(name), indent=2) + "\n"
    return made.report.as_text(name)


def _database() -> str:
    return next((path for path in _DATABASES if Path(path).exists()), _DATABASES[0])


def _write(path: Path, text: str, *, force: bool) -> None:
    """Write a file with mode 0600, whole or not at all."""
    if not force and os.path.lexists(path):
        fail(f"turnsvr: {path} exists; --force overwrites it")
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
