"""A store is opened with what is installed, and says what is not."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import sys
import turnsvr.stores.api, turnsvr.cli
from turnsvr.config.locations import StoreUrl
from turnsvr.stores import MissingDriver, open_store

drivers = {"sqlalchemy", "aiosqlite", "asyncpg", "aiomysql", "redis"}
assert not drivers & sys.modules.keys(), "loaded without need"
missing = sys.argv[2]
sys.modules[missing] = None
try:
    open_store(StoreUrl.parse(sys.argv[1]), 1.0)
except MissingDriver as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("postgresql://db/turn", "asyncpg", "postgresql"),
        ("mysql://db/turn", "aiomysql", "mysql"),
        ("redis://db", "redis", "redis"),
        ("rediss://db", "redis", "redis"),
    ],
)
def test_a_package_that_is_missing_is_named(url: str, module: str, extra: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, url, module], capture_output=True, text=True, check=False, timeout=60
    )
    assert result.returncode == 0, result.stderr
    dialect = url.partition(":")[0]
    assert result.stdout == (
        f"{dialect} needs the package {module}, which is not installed: pip install 'turnsvr[{extra}]'\n"
    )
