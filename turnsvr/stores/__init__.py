"""Databases of users, secrets, realms and peer ranges: coturn's tables in SQL, coturn's keys in Redis.

What a database needs is imported when it is opened, and only then.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from turnsvr.config.locations import StoreDialect, StoreUrl
from turnsvr.stores.api import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MissingDriver", "open_store"]

_NEEDED: Mapping[StoreDialect, tuple[str, tuple[str, ...]]] = {
    "sqlite": ("", ()),
    "postgresql": ("postgresql", ("asyncpg",)),
    "mysql": ("mysql", ("aiomysql",)),
    "redis": ("redis", ("redis",)),
    "rediss": ("redis", ("redis",)),
}
"""Extra of our distribution, and modules that it brings; what SQLite needs is always there."""


class MissingDriver(Exception):
    """What this kind of database needs is not installed; the text says how to install it."""


def open_store(url: StoreUrl, timeout: float) -> Store:
    """A store that has not connected yet; timeout in seconds is how long it may take for one answer.

    Raises MissingDriver, and BadValue for options of the URL that mean nothing.
    """
    extra, modules = _NEEDED[url.dialect]
    for module in modules:
        try:
            importlib.import_module(module)
        except ModuleNotFoundError as error:
            raise MissingDriver(
                f"{url.dialect} needs the package {error.name}, which is not installed: pip install 'turnsvr[{extra}]'"
            ) from None
    if extra == "redis":
        from turnsvr.stores.redis import RedisStore

        return RedisStore(url, timeout)
    from turnsvr.stores.sql import SqlStore

    return SqlStore(url, timeout)
