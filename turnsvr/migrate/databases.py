"""coturn's connection strings as the URLs of `credentials.store` and `status.redis`.

Each function raises BadValue; no text repeats a value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode, urlsplit

from turnsvr.config.units import BadValue

_PAIR = re.compile(r"\s*(\w+)\s*=\s*(?:'((?:[^'\\]|\\.)*)'|((?:[^\s\\]|\\.)*))", re.ASCII | re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_PORT = re.compile(r"[0-9]{1,5}")
_BAD = BadValue("is no connection string", "write credentials.store as postgresql://user:password@host/database")

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
    "secret": "password",
}
_TIMEOUTS = {"connect_timeout", "read_timeout", "timeout"}


def sqlite_url(path: str) -> str:
    if not path.strip("/"):
        raise BadValue("names no file", "write credentials.store: sqlite:/var/lib/turn/turndb")
    return f"sqlite:{quote(path)}"


def postgresql_url(text: str) -> str:
    if text.startswith(("postgresql://", "postgres://")):
        return _as_it_is(text)
    values = _pairs(text)
    return _url("postgresql", values, values.pop("dbname", "") or values.get("user", ""))


def mysql_url(text: str) -> str:
    if text.startswith(("mysql://", "mariadb://")):
        return _as_it_is(text)
    values = _pairs(text)
    return _url("mysql", values, values.pop("dbname", ""))


def redis_url(text: str) -> str:
    if text.startswith(("redis://", "rediss://")):
        return _as_it_is(text)
    values = _pairs(text)
    return _url("redis", values, values.pop("dbname", "") or "0")


def _as_it_is(text: str) -> str:
    try:
        if urlsplit(text).hostname:
            return text
    except ValueError:
        pass
    raise BadValue("names no host", "write scheme://user:password@host/database")


def _pairs(text: str) -> dict[str, str]:
    """Names and values of `host=… dbname='…'`, names in one spelling; of one said twice the last counts."""
    values: dict[str, str] = {}
    at = 0
    while text[at:].strip():
        match = _PAIR.match(text, at)
        if match is None:
            raise _BAD
        value = match[2] if match[2] is not None else match[3]
        values[_SAME.get(match[1].lower(), match[1].lower())] = _ESCAPED.sub(r"\1", value)
        at = match.end()
    return values


def _url(scheme: str, values: Mapping[str, str], database: str) -> str:
    rest = {name: value for name, value in values.items() if name not in _TIMEOUTS}
    host, port = rest.pop("host", "") or "localhost", rest.pop("port", "")
    user, password = rest.pop("user", ""), rest.pop("password", "")
    rest.pop("dbname", None)
    if port and not _PORT.fullmatch(port):
        raise BadValue("has a port that is no number", _BAD.hint)
    if host.startswith("/"):
        raise BadValue("names a Unix socket", "name a host that listens on TCP, such as localhost")
    if not database:
        raise BadValue("names no database", _BAD.hint)
    login = quote(user, safe="") + (f":{quote(password, safe='')}" if password else "")
    place = f"[{host}]" if ":" in host else quote(host, safe="")
    query = f"?{urlencode(rest)}" if rest else ""
    return (
        f"{scheme}://{login}{'@' if login else ''}{place}{f':{port}' if port else ''}/{quote(database, safe='')}{query}"
    )
