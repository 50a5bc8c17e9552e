"""coturn's connection strings as the URLs of `credentials.store` and `status.redis`.

Each function raises BadValue; no text repeats a value.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from turnsvr.config.units import BadValue

_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|(?!')((?:[^\s\\]|\\.)*))", re.ASCII | re.DOTALL)
"""libpq's grammar, with quotes and backslashes."""
_PLAIN_PAIR = re.compile(r"\s*(\w+)()=(\S*)", re.ASCII)
"""coturn's own, for MySQL and Redis."""
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")
_WRITE = "write it as postgresql://user:password@host/database, mysql://… or redis://host/0"

_SAME = {
    "hostaddr": "host",
    "hostname": "host",
    "ip": "host",
    "addr": "host",
    "database": "dbname",
    "db": "dbname",
    "username": "user",
    "usr": "user",
    "login": "user",
    "passwd": "password",
    "pwd": "password",
    "pass": "password",
    "unix_socket": "socket",
}
"""coturn's other names of what a connection string says."""

_TLS_OF_MYSQL = {"ca": "sslrootcert", "cert": "sslcert", "key": "sslkey"}
_TLS_OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey")
_CERTAIN_MODES = ("require", "verify-ca", "verify-full")
_LEFT_OUT = ("connect_timeout", "read_timeout", "timeout", "application_name", "capath", "cipher", *_TLS_OPTIONS)
"""Names that are told when the URL leaves them out; others may be pieces of a password."""


@dataclass(frozen=True, slots=True)
class Database:
    """Where a database is; ignored are names that the connection string says and the URL does not."""

    url: str = field(repr=False)
    ignored: tuple[str, ...] = ()


def sqlite(path: str) -> Database:
    if not path.strip("/") or not path.isprintable():
        raise BadValue("names no file", "write credentials.store as sqlite:/var/lib/turn/turndb")
    return Database(f"sqlite:{quote(path)}")


def postgresql(text: str) -> Database:
    values = _values(text, _PAIR, "postgresql", "postgres")
    if values.get("sslmode") == "allow":
        values["sslmode"] = "prefer"
    return _database("postgresql", values, values.get("user", ""))


def mysql(text: str) -> Database:
    values = _values(text, _PLAIN_PAIR, "mysql", "mariadb")
    for ours, theirs in _TLS_OF_MYSQL.items():
        if ours in values:
            values[theirs] = values.pop(ours)
            values["sslmode"] = "verify-ca" if "sslrootcert" in values else "require"
    return _database("mysql", values, "")


def redis(text: str) -> Database:
    scheme = "rediss" if text.startswith("rediss:") else "redis"
    return _database(scheme, _values(text, _PLAIN_PAIR, "redis", "rediss"), "0")


def _values(text: str, pair: re.Pattern[str], *schemes: str) -> dict[str, str]:
    """What a connection string or a URL says, names in one spelling; of one said twice the last counts."""
    if text.startswith(tuple(f"{scheme}://" for scheme in schemes)):
        return _values_of_url(text)
    values: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = pair.match(text, at)
        if match is None:
            raise BadValue("is no connection string", _WRITE)
        value = match[2] or match[3] or ""
        name = match[1].lower()
        values[_SAME.get(name, name)] = _ESCAPED.sub(r"\1", value) if pair is _PAIR else value
        at = match.end()
    return values


def _values_of_url(text: str) -> dict[str, str]:
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadValue("is no URL of a database", _WRITE) from None
    values = {_SAME.get(name, name): value for name, value in parse_qsl(parts.query)}
    said = {
        "host": parts.hostname,
        "port": str(port) if port else None,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")),
    }
    return values | {name: value for name, value in said.items() if value}


def _database(scheme: str, values: dict[str, str], default: str) -> Database:
    rest = dict(values)
    host, port = rest.pop("host", "") or "localhost", rest.pop("port", "")
    user, password = rest.pop("user", ""), rest.pop("password", "")
    name = rest.pop("dbname", "") or default
    if port and not _PORT.fullmatch(port):
        raise BadValue("has a port that is no number", _WRITE)
    if not name:
        raise BadValue("names no database", _WRITE)
    options = {"socket": rest.pop("socket")} if "socket" in rest else {}
    if host.startswith("/"):
        host, options["socket"] = "localhost", host
    if rest.get("sslmode", "verify-full") in _CERTAIN_MODES or set(_TLS_OPTIONS) & set(rest) == {"sslmode"}:
        options |= {each: rest.pop(each) for each in _TLS_OPTIONS if each in rest}
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    address = f"{login}{'@' if login else ''}{place}{f':{port}' if port else ''}"
    query = f"?{urlencode(options, safe='/')}" if options else ""
    return Database(f"{scheme}://{address}/{quote(name, safe='')}{query}", tuple(map(_shown, rest)))


def _shown(name: str) -> str:
    return name if name in _LEFT_OUT else "an unknown option"
