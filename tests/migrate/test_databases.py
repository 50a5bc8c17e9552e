"""coturn's connection strings, read back by the settings' own reader of URLs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from turnsvr.config.locations import StoreUrl
from turnsvr.config.units import BadValue
from turnsvr.migrate import databases
from turnsvr.migrate.databases import Database


@pytest.mark.parametrize(
    ("read", "text", "url"),
    [
        (databases.sqlite, "/var/lib/turn/turndb", "sqlite:/var/lib/turn/turndb"),
        (databases.sqlite, "turndb", "sqlite:turndb"),
        (databases.sqlite, "/a b/c#d?e%", "sqlite:/a%20b/c%23d%3Fe%25"),
        (
            databases.postgresql,
            "host=db.example.org dbname=turn user=turn password=hush connect_timeout=30",
            "postgresql://turn:hush@db.example.org/turn",
        ),
        (databases.postgresql, "host = db port = 5433 dbname = turn", "postgresql://db:5433/turn"),
        (databases.postgresql, "user=turn", "postgresql://turn@localhost/turn"),
        (databases.postgresql, "host=/run/postgresql dbname=t", "postgresql://localhost/t?socket=/run/postgresql"),
        (
            databases.postgresql,
            r"dbname=t user=u password='a \'b\' \\c'",
            "postgresql://u:a%20%27b%27%20%5Cc@localhost/t",
        ),
        (databases.postgresql, "hostaddr=fd00::5 dbname=t", "postgresql://[fd00::5]/t"),
        (databases.postgresql, "dbname=t sslmode=allow", "postgresql://localhost/t?sslmode=prefer"),
        (
            databases.postgresql,
            "dbname=t sslmode=verify-full sslrootcert=/ca.pem",
            "postgresql://localhost/t?sslmode=verify-full&sslrootcert=/ca.pem",
        ),
        (databases.postgresql, "dbname=t sslmode=prefer sslrootcert=/ca.pem", "postgresql://localhost/t"),
        (
            databases.postgresql,
            "postgresql://u:p%40w@db:5433/turn?connect_timeout=5",
            "postgresql://u:p%40w@db:5433/turn",
        ),
        (databases.postgresql, "postgres:///turn?host=/run/pg", "postgresql://localhost/turn?socket=/run/pg"),
        (
            databases.mysql,
            "host=db dbname=turn user=turn password=a@b:c/d port=3307 connect_timeout=5 read_timeout=5",
            "mysql://turn:a%40b%3Ac%2Fd@db:3307/turn",
        ),
        (databases.mysql, "host=db dbname=turn ca=/ca.pem", "mysql://db/turn?sslmode=verify-ca&sslrootcert=/ca.pem"),
        (databases.mysql, "dbname=turn unix_socket=/run/mysqld.sock", "mysql://localhost/turn?socket=/run/mysqld.sock"),
        (
            databases.redis,
            "ip=10.0.0.9 dbname=2 password=hush port=6380 connect_timeout=30",
            "redis://:hush@10.0.0.9:6380/2",
        ),
        (databases.redis, "", "redis://localhost/0"),
        (databases.redis, "host=fd00::9", "redis://[fd00::9]/0"),
        (databases.redis, "redis://:hush@db:6379/1", "redis://:hush@db:6379/1"),
        (databases.redis, "rediss://db", "rediss://db/0"),
    ],
)
def test_the_url(read: Callable[[str], Database], text: str, url: str) -> None:
    assert read(text).url == url
    StoreUrl.parse(url)


@pytest.mark.parametrize(
    "password", ["simple", "a b", "p@ss:w/o?r#d%", "quote'd \\ back", "back\\slash", "ü€😀", "=", "%41"]
)
def test_a_password_arrives_as_it_was(password: str) -> None:
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    parsed = [StoreUrl.parse(databases.postgresql(f"host=db dbname=turn user=turn password='{quoted}'").url)]
    if " " not in password:
        parsed.append(StoreUrl.parse(databases.mysql(f"host=db dbname=turn password={password} user=turn").url))
    for each in parsed:
        assert each.password is not None
        assert each.password.get_secret_value() == password


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (databases.sqlite, ""),
        (databases.sqlite, "/"),
        (databases.sqlite, "/a\0b"),
        (databases.postgresql, "host=db"),
        (databases.postgresql, "host=db dbname='open"),
        (databases.postgresql, "not a connection string"),
        (databases.postgresql, "postgresql://[/turn"),
        (databases.mysql, "host=db"),
        (databases.mysql, "dbname=turn port=many"),
        (databases.redis, "redis://db:port/0"),
    ],
)
def test_what_is_no_database(read: Callable[[str], Database], text: str) -> None:
    with pytest.raises(BadValue) as caught:
        read(text)
    assert caught.value.hint


def test_what_is_left_out_is_told_without_pieces_of_a_password() -> None:
    text = "host=db dbname=turn password=two words=hush connect_timeout=5 sslmode=disable"
    assert databases.postgresql(text).ignored == ("an unknown option", "connect_timeout")


def test_a_url_does_not_show() -> None:
    assert "hush" not in repr(databases.redis("password=hush"))
