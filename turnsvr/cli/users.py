"""Commands on the users and secrets of the server's database: user, secret."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shlex
from collections.abc import Mapping
from pathlib import Path

import click

from turnsvr.cli.common import FILE, fail, secret_file_option
from turnsvr.cli.storeaccess import StoreAccess, checked, new_text, on_store
from turnsvr.cli.text import printable
from turnsvr.config import fields
from turnsvr.stores import hexkeys
from turnsvr.stores.api import Store, Tables

_SECRET_BYTES = 32
_SHOWN_DIGITS = 16
_LEAST_DIGITS = 8
"""Hexadecimal digits of a secret's SHA-256 that are shown, and that name it."""

_password_file_option = click.option(
    "--password-file", type=FILE, metavar="FILE", help="File that holds the password; - for standard input."
)
_json_option = click.option("--json", "as_json", is_flag=True, help="The list as JSON.")


@click.group()
def user() -> None:
    """Add, list and remove users of the database.

    Passwords are asked for on the terminal, or read from --password-file or standard input. The database keeps
    their MD5 and SHA-256 keys, never themselves. Exit status 1 when there is nothing to change, 3 when the database
    does not answer.

    \b
    Examples:
      turnsvr user add alice --realm example.org
      turnsvr user add alice -c /etc/turnsvr/turnsvr.yaml --password-file alice.txt
      turnsvr user list --store postgresql://turn@db.example.org/turn
    """


@user.command("add")
@click.argument("name")
@_password_file_option
@on_store
def add_user(place: StoreAccess, name: str, password_file: Path | None) -> None:
    """Add the user NAME.

    \b
    Example:
      turnsvr user add alice --realm example.org
    """
    realm, name = place.realm, checked(fields.Username, name, "NAME")
    keys = hexkeys.of_password(realm, name, new_text(password_file, "password"))

    async def add(store: Store) -> bool:
        return await store.user(realm, name) is None and await store.set_user(realm, name, keys)

    if not place.change(add):
        fail(f"turnsvr: user {_of(name, realm)} exists; change the password with: turnsvr user password")
    click.echo(f"added user {_of(name, realm)}")


@user.command("password")
@click.argument("name")
@_password_file_option
@on_store
def change_password(place: StoreAccess, name: str, password_file: Path | None) -> None:
    """Change the password of the user NAME.

    \b
    Example:
      turnsvr user password alice -c /etc/turnsvr/turnsvr.yaml
    """
    realm = place.realm
    keys = hexkeys.of_password(realm, name, new_text(password_file, "password"))

    async def change(store: Store) -> bool:
        known = await store.user(realm, name) is not None
        if known:
            await store.set_user(realm, name, keys)
        return known

    if not place.run(change):
        _fail_unknown(name, realm)
    click.echo(f"changed the password of user {_of(name, realm)}")


@user.command("remove")
@click.argument("name")
@on_store
def remove_user(place: StoreAccess, name: str) -> None:
    """Remove the user NAME. Sessions that the user holds live on until they are ended.

    \b
    Example:
      turnsvr user remove alice --realm example.org && turnsvr kick --user alice
    """
    realm = place.realm
    if not place.run(lambda store: store.remove_user(realm, name)):
        _fail_unknown(name, realm)
    click.echo(f"removed user {_of(name, realm)}")
    click.echo(f"sessions live on until they are ended: turnsvr kick --user {shlex.quote(printable(name))}", err=True)


@user.command("list")
@_json_option
@on_store
def list_users(place: StoreAccess, as_json: bool) -> None:
    """List users and their realms; of one realm with --realm.

    \b
    Example:
      turnsvr user list --realm example.org
    """
    users = place.run(lambda store: store.users(place.only_realm))
    if as_json:
        click.echo(json.dumps([{"realm": realm, "name": name} for realm, name in users], indent=2))
        return
    for realm, name in users:
        click.echo(f"{printable(realm)}\t{printable(name)}")


@click.group(invoke_without_command=True)
@click.pass_context
def secret(context: click.Context) -> None:
    """Print a new shared secret, or manage those of the database.

    Alone it prints 32 random bytes in hexadecimal, for the settings file. Its commands add, list and remove the
    shared secrets of the database. Exit status 1 when there is nothing to change, 3 when the database does not
    answer.

    \b
    Examples:
      turnsvr secret > /etc/turnsvr/secret      # and in the file: secret: !file secret
      turnsvr secret add --new --realm example.org
      turnsvr secret list -c /etc/turnsvr/turnsvr.yaml
    """
    if context.invoked_subcommand is None:
        click.echo(secrets.token_hex(_SECRET_BYTES))


@secret.command("add")
@click.option("--new", is_flag=True, help="Make a secret and print it.")
@secret_file_option
@on_store
def add_secret(place: StoreAccess, new: bool, secret_file: Path | None) -> None:
    """Add a shared secret: a new one, or one from a file or standard input.

    \b
    Examples:
      turnsvr secret add --new --realm example.org
      turnsvr secret add --realm example.org --secret-file /run/secrets/turn
    """
    if new and secret_file is not None:
        raise click.UsageError("take either --new or --secret-file")
    realm = place.realm
    value = secrets.token_hex(_SECRET_BYTES) if new else new_text(secret_file, "secret")
    if not place.change(lambda store: store.add_secret(realm, value)):
        fail(f"turnsvr: realm {printable(realm)} has that secret already")
    click.echo(value if new else f"added secret {fingerprint(value)} of realm {printable(realm)}")


@secret.command("list")
@click.option("--show", is_flag=True, help="The secrets themselves, too.")
@_json_option
@on_store
def list_secrets(place: StoreAccess, show: bool, as_json: bool) -> None:
    """List realms and fingerprints of their secrets, the first digits of SHA-256.

    \b
    Example:
      turnsvr secret list --realm example.org
    """
    entries = [
        {"realm": realm, "fingerprint": fingerprint(value)} | ({"secret": value} if show else {})
        for realm, values in _secrets(place.run(lambda store: store.tables()), place.only_realm).items()
        for value in values
    ]
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        click.echo("\t".join(printable(text) for text in entry.values()))


@secret.command("remove")
@click.argument("fingerprint", required=False, metavar="[FINGERPRINT]")
@secret_file_option
@on_store
def remove_secret(place: StoreAccess, fingerprint: str | None, secret_file: Path | None) -> None:
    """Remove a shared secret, named by FINGERPRINT or read from a file or standard input.

    \b
    Example:
      turnsvr secret remove 3f6c1a0b9d2e4f58 --realm example.org
    """
    if fingerprint and secret_file is not None:
        raise click.UsageError("take either FINGERPRINT or --secret-file")
    realm = place.realm
    value = _named(place, realm, fingerprint) if fingerprint else new_text(secret_file, "secret", unwanted=True)
    if not place.run(lambda store: store.remove_secret(realm, value)):
        fail(f"turnsvr: realm {printable(realm)} has no such secret")
    click.echo(f"removed a secret of realm {printable(realm)}")


def fingerprint(value: str) -> str:
    """What names a secret in lists."""
    return _digest(value)[:_SHOWN_DIGITS]


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()


def _named(place: StoreAccess, realm: str, digits: str) -> str:
    """The one secret of the realm whose fingerprint begins so."""
    if not re.fullmatch(f"[0-9a-fA-F]{{{_LEAST_DIGITS},64}}", digits):
        raise click.UsageError(
            f"FINGERPRINT has at least {_LEAST_DIGITS} hexadecimal digits; turnsvr secret list shows it"
        )
    values = _secrets(place.run(lambda store: store.tables()), realm).get(realm, ())
    found = [value for value in values if _digest(value).startswith(digits.lower())]
    if len(found) != 1:
        fail(f"turnsvr: realm {printable(realm)} has {'several such secrets' if found else 'no such secret'}")
    return found[0]


def _secrets(tables: Tables, only_realm: str | None) -> Mapping[str, tuple[str, ...]]:
    return {name: realm.secrets for name, realm in tables.realms.items() if only_realm is None or name == only_realm}


def _fail_unknown(name: str, realm: str) -> None:
    fail(f"turnsvr: there is no user {_of(name, realm)}")


def _of(name: str, realm: str) -> str:
    return f"{printable(name)} of realm {printable(realm)}"
