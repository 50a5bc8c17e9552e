"""Where other services are: databases and web services, by URL, without ever showing a password."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, cast, get_args
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from pydantic import SecretStr

from turnsvr.config.units import BadValue

StoreDialect = Literal["sqlite", "postgresql", "mysql", "redis", "rediss"]

_OTHER_NAMES = {"postgres": "postgresql", "mariadb": "mysql", "sqlite3": "sqlite"}
_MASK = "**********"


@dataclass(frozen=True, slots=True)
class StoreUrl:
    """Where a database is. Its text has a mask in the password's place.

    database is a file's path for sqlite, as written. options are the query's, in order.
    """

    dialect: StoreDialect
    database: str
    host: str = ""
    port: int | None = None
    user: str = ""
    password: SecretStr | None = field(default=None, repr=False)
    options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, value: object) -> StoreUrl:
        """From `sqlite:/path`, `postgresql://user:password@host:port/database`, `mysql://…`, `redis://…/0`.

        Raises BadValue.
        """
        if isinstance(value, cls):
            return value
        if isinstance(value, SecretStr):
            value = value.get_secret_value()
        bad = BadValue(
            "is no address of a database",
            "write sqlite:/path, postgresql://user:password@host/database, mysql://… or redis://…",
        )
        if not isinstance(value, str):
            raise bad
        try:
            parts = urlsplit(value.strip())
            port = parts.port
        except ValueError:
            raise bad from None
        dialect = _OTHER_NAMES.get(parts.scheme, parts.scheme)
        if dialect not in get_args(StoreDialect):
            raise bad
        if dialect == "sqlite":
            return _sqlite(parts.netloc, unquote(parts.path), bad)
        database = unquote(parts.path.lstrip("/"))
        if not parts.hostname or (not database and dialect in ("postgresql", "mysql")):
            raise bad
        return cls(
            cast(StoreDialect, dialect),
            database,
            parts.hostname,
            port,
            unquote(parts.username or ""),
            SecretStr(unquote(parts.password)) if parts.password else None,
            tuple(parse_qsl(parts.query)),
        )

    def __str__(self) -> str:
        if self.dialect == "sqlite":
            return f"sqlite:{self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        password = f":{_MASK}" if self.password else ""
        user = f"{self.user}{password}@" if self.user or password else ""
        return f"{self.dialect}://{user}{host}{f':{self.port}' if self.port else ''}/{self.database}"


def _sqlite(netloc: str, path: str, bad: BadValue) -> StoreUrl:
    """`sqlite:/path`, `sqlite:path`, and SQLAlchemy's `sqlite:///path`, `sqlite:////path`."""
    if path.startswith("//"):
        path = path[1:]
    if netloc or not path.strip("/"):
        raise bad
    return StoreUrl("sqlite", path)


def parse_http_url(value: object) -> str:
    """An http:// or https:// address with a host, without user, password and fragment; raises BadValue."""
    bad = BadValue("is no web address", "write https://app.example.org/path, without user and password")
    parts = split_http_url(value, bad)
    if "@" in parts.netloc or parts.fragment:
        raise bad
    return parts.geturl()


def split_http_url(value: object, bad: BadValue) -> SplitResult:
    """The parts of an http:// or https:// address with a host, whose port is one; else raises `bad`."""
    if not isinstance(value, str):
        raise bad
    try:
        parts = urlsplit(value.strip())
        _ = parts.port
    except ValueError:
        raise bad from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise bad
    return parts


def shown_url(url: str) -> str:
    """The address without its query, which may hold a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
