"""What an operator is told of a database that fails: our own words, since drivers' texts repeat names and values."""

from __future__ import annotations

import os
import sqlite3
import ssl
from collections.abc import Iterator
from typing import Literal

_LOGIN = "refuses this user name or password"
_NO_DATABASE = "has no such database"
_NO_TABLE = "lacks tables; turnsvr user add makes them"
_FORBIDDEN = "does not permit this to its user"
_TOO_MANY = "has too many connections"
_NOT_YET = "is starting or stopping"
_UNREACHABLE = "cannot be reached"
_ENDED = "ended the connection"
_NO_TLS = "has no TLS"
_UNTRUSTED = "has no certificate that is trusted"

_REASONS: dict[str | int, str] = {
    # SQLSTATE, as PostgreSQL has it
    "28000": _LOGIN,
    "28P01": _LOGIN,
    "3D000": _NO_DATABASE,
    "42P01": _NO_TABLE,
    "42501": _FORBIDDEN,
    "53300": _TOO_MANY,
    "57P01": _NOT_YET,
    "57P02": _NOT_YET,
    "57P03": _NOT_YET,
    # numbers of MySQL and its clients
    1040: _TOO_MANY,
    1044: _FORBIDDEN,
    1045: _LOGIN,
    1049: _NO_DATABASE,
    1053: _NOT_YET,
    1142: _FORBIDDEN,
    1143: _FORBIDDEN,
    1146: _NO_TABLE,
    1203: _TOO_MANY,
    1698: _LOGIN,
    2002: _UNREACHABLE,
    2003: _UNREACHABLE,
    2006: _ENDED,
    2013: _ENDED,
}
_EXISTS = "already exists"
_TEXT_CLASS = "22"
"""SQLSTATE's class of data that a column or its character set cannot hold."""
_MYSQL_TEXTS = {1264, 1265, 1267, 1270, 1271, 1300, 1366, 1406, 3854, 3988}
_DUPLICATES = {"23505", "42710", "42P07", 1050, 1062}
"""A row, or a table, that is there already."""


class NoTls(ConnectionError):
    """A server without TLS, where that is asked for."""


Nature = Literal["text", "duplicate", "failure"]


def nature(error: BaseException) -> Nature:
    """Whether a text did not suit the database, a key was there already, or the database failed."""
    for each in _causes(error):
        code = _code(each)
        if code in _DUPLICATES:
            return "duplicate"
        if isinstance(code, str) and code.startswith(_TEXT_CLASS):
            return "text"
        if isinstance(each, sqlite3.IntegrityError) or (isinstance(each, sqlite3.Error) and _EXISTS in str(each)):
            return "duplicate"
        if code in _MYSQL_TEXTS or isinstance(each, UnicodeError):
            return "text"
    return "failure"


def reason(error: BaseException) -> str:
    """Why there was no answer; none of it repeats a name, a value or a password."""
    causes = tuple(_causes(error))
    codes: list[str | int] = []
    for each in causes:
        if isinstance(each, (ssl.SSLError, NoTls)):
            return of_tls(each)
    for each in causes:
        if isinstance(each, sqlite3.Error):
            # SQLite's texts name tables and columns, never values.
            return _NO_TABLE if "no such table" in str(each) else str(each)
        code = _code(each)
        if code in _REASONS:
            return _REASONS[code]
        if code is not None:
            codes.append(code)
        elif isinstance(each, OSError):
            return of_system(each)
        elif isinstance(each, EOFError):
            return _ENDED
    return f"error {codes[-1]}" if codes else type(error).__name__


def of_tls(error: ssl.SSLError | NoTls) -> str:
    return _UNTRUSTED if isinstance(error, ssl.SSLCertVerificationError) else _NO_TLS


def of_system(error: OSError) -> str:
    """As the system calls it; host names that are not known have numbers of their own."""
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else _UNREACHABLE


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came from, at most a few."""
    each: BaseException | None = error
    for _ in range(8):
        if each is None:
            return
        yield each
        each = getattr(each, "orig", None) or each.__cause__


def _code(error: BaseException) -> str | int | None:
    """Number of PyMySQL's errors, SQLSTATE of asyncpg's."""
    if any(each.__module__.startswith("pymysql") for each in type(error).__mro__):
        return error.args[0] if error.args and isinstance(error.args[0], int) else None
    sqlstate = getattr(error, "sqlstate", None)
    return sqlstate if isinstance(sqlstate, str) else None
