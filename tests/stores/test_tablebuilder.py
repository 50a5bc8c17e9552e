"""Tables out of rows: what means nothing is left out, told, and never more than is bearable."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnsvr.stores.api import RealmTable, UserKeys
from turnsvr.stores.hexkeys import of_password, read, write
from turnsvr.stores.tablebuilder import TableBuilder, quoted


def test_rows_in_any_order() -> None:
    rows = TableBuilder()
    rows.option("b", "user-quota", " 4 ")
    rows.origin("https://b", "b")
    rows.secret("a", "north")
    rows.option("b", "max-bps", "0")
    rows.option("b", "colour", "blue")
    rows.secret("a", "south")
    tables = rows.tables()
    assert list(tables.realms) == ["a", "b"]
    assert tables.realms["a"] == RealmTable(secrets=("north", "south"))
    assert tables.realms["b"] == RealmTable(max_bps=0, user_quota=4)
    assert tables.mistakes == ()


def test_numbers_are_plain() -> None:
    rows = TableBuilder()
    for text in ("", "-1", "1.5", "1e9", "٤", "0x10", "9" * 19, "4 5", "%n"):
        rows.option("a", "user-quota", text)
    assert rows.tables().realms == {}
    assert len(rows.tables().mistakes) == 9


def test_realms_have_a_bound() -> None:
    rows = TableBuilder(max_realms=2)
    for realm in ("a", "b", "c", "a"):
        rows.secret(realm, "north")
    tables = rows.tables()
    assert list(tables.realms) == ["a", "b"]
    assert tables.mistakes == ("more than 2 realms; the further ones are left out",)


def test_mistakes_have_a_bound() -> None:
    rows = TableBuilder()
    for number in range(1_000):
        rows.option(f"realm {number}", "user-quota", "many")
    mistakes = rows.tables().mistakes
    assert len(mistakes) == 21
    assert mistakes[-1] == "980 more entries that mean nothing"


@given(st.text())
def test_a_strangers_text_is_shown_on_one_line(text: str) -> None:
    line = quoted(text)
    assert line.isascii()
    assert line.isprintable()
    assert len(line) < 800


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_keys_are_read_as_they_are_written(realm: str, name: str, password: str) -> None:
    try:
        both = of_password(realm, name, password)
    except UnicodeEncodeError:
        return
    for keys in (both, UserKeys(md5=both.md5), UserKeys(sha256=both.sha256)):
        text = write(keys)
        assert read(text) == read(text.upper()) == read(f"{text:<128}") == keys
    assert both.md5 is not None
    assert write(both)[:32] == both.md5.hex()
