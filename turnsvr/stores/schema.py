"""coturn's tables: its names, types and keys, so that coturn and turnadmin work with what we make."""

from __future__ import annotations

from typing import Any

from sqlalchemy import CHAR, BigInteger, Column, Integer, MetaData, String, Table

from turnsvr.stores.columns import MAX_CHARACTERS

_REALM = MAX_CHARACTERS["realm"]
_RANGE = MAX_CHARACTERS["peer range"]

metadata = MetaData()


def _table(name: str, *columns: Column[Any]) -> Table:
    # MySQL's usual collations take Alice for alice; a binary one tells them apart.
    return Table(name, metadata, *columns, mysql_charset="utf8mb4", mysql_collate="utf8mb4_bin")


def _key(name: str, width: int, default: str | None = None) -> Column[str]:
    return Column(name, String(width), primary_key=True, server_default=default)


users = _table(
    "turnusers_lt", _key("realm", _REALM, ""), _key("name", MAX_CHARACTERS["user name"]), Column("hmackey", CHAR(128))
)
secrets = _table("turn_secret", _key("realm", _REALM, ""), _key("value", MAX_CHARACTERS["secret"]))
allowed = _table("allowed_peer_ip", _key("realm", _REALM, ""), _key("ip_range", _RANGE))
denied = _table("denied_peer_ip", _key("realm", _REALM, ""), _key("ip_range", _RANGE))
origins = _table("turn_origin_to_realm", _key("origin", MAX_CHARACTERS["origin"]), Column("realm", String(_REALM)))
options = _table("turn_realm_option", _key("realm", _REALM, ""), _key("opt", 32), Column("value", String(128)))

oauth_keys = _table(
    "oauth_key",
    _key("kid", MAX_CHARACTERS["key id"]),
    Column("ikm_key", String(256)),
    Column("timestamp", BigInteger, server_default="0"),
    Column("lifetime", Integer, server_default="0"),
    Column("as_rs_alg", String(64), server_default=""),
    Column("realm", String(_REALM)),
)
# What turnadmin asks for besides; the server does not.
_table("admin_user", _key("name", 32), Column("realm", String(_REALM)), Column("password", String(127)))
