"""Commands on what the server's database says of realms: realm."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

import click
import yaml

from turnsvr.cli.common import fail
from turnsvr.cli.storeaccess import StoreAccess, on_store
from turnsvr.cli.text import printable
from turnsvr.config import units
from turnsvr.config.ranges import AddressRange
from turnsvr.config.units import BadValue
from turnsvr.stores.api import EVERY_REALM, RealmOption, RealmTable, Store, Tables

_NO_LIMIT = "none"
_LIMITS: tuple[RealmOption, ...] = ("max-bps", "total-quota", "user-quota")
_every_option = click.option("--every-realm", is_flag=True, help="For all realms, in place of one.")
_remove_option = click.option("--remove", is_flag=True, help="Take it back.")


@click.group()
def realm() -> None:
    """Show and change limits, origins and peers of realms.

    They are the database's; the server takes changes over within the time of credentials.store.poll. Exit status 1
    when there is nothing to change, 3 when the database does not answer.

    \b
    Examples:
      turnsvr realm list
      turnsvr realm set --realm example.org --user-quota 4 --max-bps 4Mbit/s
      turnsvr realm origin https://app.example.org --realm example.org
      turnsvr realm allow 10.1.0.0/16 --realm example.org
    """


@realm.command("list")
@click.option("--json", "as_json", is_flag=True, help="The list as JSON.")
@on_store
def list_realms(place: StoreAccess, as_json: bool) -> None:
    """Show every realm's limits, origins and peers, and how many secrets it has.

    \b
    Example:
      turnsvr realm list --json
    """
    tables = place.run(lambda store: store.tables())
    for mistake in tables.mistakes:
        click.echo(f"turnsvr: left out: {mistake}", err=True)
    listed = {name: entry for name, entry in _listed(tables).items() if place.only_realm in (None, name)}
    if as_json:
        click.echo(json.dumps(listed, indent=2))
    elif listed:
        click.echo(yaml.safe_dump(listed, sort_keys=False, allow_unicode=True), nl=False)


@realm.command("set")
@click.option("--max-bps", metavar="RATE", help="What one allocation relays each way, as 4Mbit/s or 500kB/s.")
@click.option("--total-quota", metavar="N", help="Allocations of the realm at once.")
@click.option("--user-quota", metavar="N", help="Allocations of one of its users at once.")
@on_store
def set_limits(place: StoreAccess, max_bps: str | None, total_quota: str | None, user_quota: str | None) -> None:
    """Set limits of a realm; 0 is without limit, none leaves it to the settings.

    \b
    Example:
      turnsvr realm set --realm example.org --total-quota 1000 --user-quota none
    """
    name = place.realm
    given = {
        option: _limit(option, text)
        for option, text in zip(_LIMITS, (max_bps, total_quota, user_quota), strict=True)
        if text is not None
    }
    if not given:
        raise click.UsageError("name a limit: --max-bps, --total-quota or --user-quota")

    async def change(store: Store) -> None:
        for option, value in given.items():
            await store.set_option(name, option, value)

    place.change(change)
    click.echo(f"changed limits of realm {printable(name)}")


@realm.command("origin")
@click.argument("origin")
@_remove_option
@on_store
def set_origin(place: StoreAccess, origin: str, remove: bool) -> None:
    """Have clients whose requests say ORIGIN use a realm.

    \b
    Example:
      turnsvr realm origin https://app.example.org --realm example.org
    """
    name = None if remove else place.realm
    if not place.change(lambda store: store.set_origin(origin, name)):
        fail("turnsvr: there is no such origin" if remove else "turnsvr: that origin chooses that realm already")
    click.echo("removed the origin" if name is None else f"the origin chooses realm {printable(name)}")


@realm.command("allow")
@click.argument("ranges", nargs=-1, required=True, metavar="RANGE...")
@_every_option
@_remove_option
@on_store
def allow(place: StoreAccess, ranges: tuple[str, ...], every_realm: bool, remove: bool) -> None:
    """Let the users of a realm reach peers: an address, 10.1.0.0/16 or 10.1.0.1-10.1.0.9.

    \b
    Example:
      turnsvr realm allow 10.1.0.0/16 --realm example.org
    """
    _change_ranges(place, "allowed", ranges, every_realm, present=not remove)


@realm.command("deny")
@click.argument("ranges", nargs=-1, required=True, metavar="RANGE...")
@_every_option
@_remove_option
@on_store
def deny(place: StoreAccess, ranges: tuple[str, ...], every_realm: bool, remove: bool) -> None:
    """Keep the users of a realm from peers: an address, 198.51.100.0/24 or 10.1.0.1-10.1.0.9.

    \b
    Example:
      turnsvr realm deny 203.0.113.7 --every-realm
    """
    _change_ranges(place, "denied", ranges, every_realm, present=not remove)


def _change_ranges(
    place: StoreAccess, kind: Literal["allowed", "denied"], texts: Sequence[str], every: bool, *, present: bool
) -> None:
    name = EVERY_REALM if every else place.realm
    spellings = [_spellings(text) for text in texts]

    async def change(store: Store) -> bool:
        changed = False
        for each in spellings:
            for text in each[:1] if present else each:
                changed |= await store.set_range(name, kind, text, present)
        return changed

    if not place.change(change):
        fail(f"turnsvr: these peers are {kind} already" if present else f"turnsvr: no such peers are {kind}")
    where = "every realm" if every else f"realm {printable(name)}"
    click.echo(f"{kind} peers of {where} changed")


def _spellings(text: str) -> tuple[str, ...]:
    """How a range may stand in a database, first as coturn understands it: an address, or first-last."""
    try:
        found = AddressRange.parse(text)
    except BadValue as error:
        raise click.UsageError(f"RANGE {error.problem}; {error.hint}") from None
    plain = str(found.first) if found.first == found.last else f"{found.first}-{found.last}"
    return tuple(dict.fromkeys((plain, str(found), text)))


def _limit(option: RealmOption, text: str) -> int | None:
    if text == _NO_LIMIT:
        return None
    if text.isascii() and text.isdigit() and len(text) < 16 and (option != "max-bps" or int(text) == 0):
        return int(text)
    if option != "max-bps":
        raise click.UsageError(f"--{option} is a number, or {_NO_LIMIT}")
    try:
        return units.parse_bandwidth(text)
    except BadValue as error:
        raise click.UsageError(f"--{option} {error.problem}; {error.hint}") from None


def _listed(tables: Tables) -> dict[str, dict[str, Any]]:
    """What there is to show, by realm; the one of every realm is `*`."""
    names = sorted({*tables.realms, *tables.origins.values()})
    return {name or "*": _entry(tables.realms.get(name, RealmTable()), _origins(tables, name)) for name in names}


def _origins(tables: Tables, realm: str) -> list[str]:
    return [origin for origin, chosen in tables.origins.items() if chosen == realm]


def _entry(table: RealmTable, origins: list[str]) -> dict[str, Any]:
    limits = {
        "max-bps": None if table.max_bps is None else units.format_bandwidth(table.max_bps),
        "total-quota": table.total_quota,
        "user-quota": table.user_quota,
    }
    entry: dict[str, Any] = {
        "secrets": len(table.secrets),
        **limits,
        "origins": origins,
        "allowed": [str(each) for each in table.allowed],
        "denied": [str(each) for each in table.denied],
    }
    return {key: value for key, value in entry.items() if value is not None and value != []}
