"""The command oauth-key: keys of access tokens (RFC 7635) in the server's database, coturn's table oauth_key."""

from __future__ import annotations

import json
import secrets
import time
from base64 import b64encode
from pathlib import Path
from typing import Any, Literal

import click
from pydantic import TypeAdapter

from turnsvr.cli.common import FILE, fail
from turnsvr.cli.storeaccess import StoreAccess, checked, new_text, on_store
from turnsvr.cli.text import printable
from turnsvr.config import fields, sealingkeys
from turnsvr.config.units import BadValue
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.stores.api import Store


@click.group("oauth-key")
def oauth_key() -> None:
    """Add, list and remove keys of access tokens (RFC 7635) in the database.

    An authorization server seals tokens with such a key; the server takes them where its settings have
    credentials.oauth. Exit status 1 when there is nothing to change, 3 when the database does not answer.

    \b
    Examples:
      turnsvr oauth-key add north --new
      turnsvr oauth-key list -c /etc/turnsvr/turnsvr.yaml
    """


@oauth_key.command("add")
@click.argument("kid")
@click.option("--new", is_flag=True, help="Make a key and print it, in base64.")
@click.option("--key-file", type=FILE, metavar="FILE", help="File that holds the key in base64; - for standard input.")
@click.option(
    "--algorithm",
    type=click.Choice(list(sealingkeys.KEY_SIZES)),
    default=sealingkeys.DEFAULT_ALGORITHM,
    show_default=True,
    help="How tokens are sealed.",
)
@click.option("--not-before", metavar="TIME", help="When its tokens are taken from; at once when absent.")
@click.option("--lifetime", metavar="DURATION", help="For how long from then, as 90d; for ever when absent.")
@on_store
def add_key(
    place: StoreAccess,
    kid: str,
    new: bool,
    key_file: Path | None,
    algorithm: Literal["A256GCM", "A128GCM"],
    not_before: str | None,
    lifetime: str | None,
) -> None:
    """Add the key KID, which clients send as user name. With --realm its bearers go by that realm's rules.

    \b
    Examples:
      turnsvr oauth-key add north --new --lifetime 90d
      turnsvr oauth-key add south --not-before 2026-06-01 --key-file south.key
    """
    if new and key_file is not None:
        raise click.UsageError("take either --new or --key-file")
    kid = checked(fields.KeyId, kid, "KID")
    realm = None if place.only_realm is None else place.realm
    seconds = 0.0 if lifetime is None else _number(fields.Seconds, lifetime, "--lifetime")
    begins = _number(fields.Time, not_before, "--not-before") if not_before else time.time() if seconds else 0.0
    key = AccessTokenKey(kid, _key(new, key_file, algorithm), float(int(begins)), float(int(seconds)), realm)

    async def add(store: Store) -> bool:
        return kid not in (await store.tables(keys=True)).keys and await store.set_key(key)

    if not place.change(add):
        fail(f"turnsvr: there is a key {printable(kid)}; remove it first, or give the new one another name")
    click.echo(b64encode(key.key).decode() if new else f"added key {printable(kid)}")


@oauth_key.command("list")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
@on_store
def list_keys(place: StoreAccess, as_json: bool) -> None:
    """List the names of keys, how they seal, when they are in force, and their realms.

    \b
    Example:
      turnsvr oauth-key list
    """
    keys = place.run(lambda store: store.tables(keys=True)).keys.values()
    entries = [_entry(key) for key in keys if place.only_realm is None or key.realm == place.only_realm]
    if as_json:
        click.echo(json.dumps(entries, indent=2))
        return
    for entry in entries:
        click.echo("\t".join(printable(text or "-") for text in entry.values()))


@oauth_key.command("remove")
@click.argument("kid")
@on_store
def remove_key(place: StoreAccess, kid: str) -> None:
    """Remove the key KID. Sessions of its tokens live on until the tokens end.

    \b
    Example:
      turnsvr oauth-key remove north
    """
    if not place.run(lambda store: store.remove_key(kid)):
        fail(f"turnsvr: there is no key {printable(kid)}")
    click.echo(f"removed key {printable(kid)}")


def _key(new: bool, key_file: Path | None, algorithm: str) -> bytes:
    if new:
        return secrets.token_bytes(sealingkeys.KEY_SIZES[algorithm])
    text = new_text(key_file, "key")
    if sealingkeys.is_example(text):
        fail("turnsvr: the key is one of coturn's examples, with which others make tokens")
    try:
        return sealingkeys.read_key(text, algorithm)
    except BadValue as error:
        fail(f"turnsvr: the key {error.problem}; {error.hint}")


def _number(kind: Any, text: str, name: str) -> float:
    checked(kind, text, name)
    value: float = TypeAdapter(kind).validate_python(text)
    return value


def _entry(key: AccessTokenKey) -> dict[str, str | None]:
    ends = key.not_before + key.lifetime if key.lifetime else None
    return {
        "kid": key.kid,
        "algorithm": key.algorithm,
        "not_before": sealingkeys.format_time(key.not_before) if key.not_before else None,
        "ends": None if ends is None else sealingkeys.format_time(ends),
        "realm": key.realm,
    }
