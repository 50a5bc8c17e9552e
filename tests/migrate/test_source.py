"""The grammar of a turnserver.conf, as coturn reads it."""

from __future__ import annotations

import pytest

from turnsvr.migrate.source import MAX_BYTES, Option, SourceError, read


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (b"realm=example.org", "realm", "example.org"),
        (b"realm example.org", "realm", "example.org"),
        (b"realm\texample.org", "realm", "example.org"),
        (b"realm = example.org", "realm", "example.org"),
        (b"  \t realm=example.org \t ", "realm", "example.org"),
        (b"realm=example.org\r", "realm", "example.org"),
        (b'realm="example.org"', "realm", "example.org"),
        (b'realm="example.org', "realm", "example.org"),
        (b'pidfile="a b" ', "pidfile", "a b"),
        (b"static-auth-secret='quoted'", "static-auth-secret", "'quoted'"),
        (b"static-auth-secret==begins with =", "static-auth-secret", "begins with ="),
        (b"static-auth-secret=a=b==", "static-auth-secret", "a=b=="),
        (b"static-auth-secret=a#b", "static-auth-secret", "a#b"),
        (b"static-auth-secret=a # b", "static-auth-secret", "a # b"),
        (b"lt-cred-mech", "lt-cred-mech", ""),
        (b"lt-cred-mech=", "lt-cred-mech", ""),
        (b"server-name:example.org", "server-name:example.org", ""),
        (b"--verbose", "--verbose", ""),
        (b"=", "", ""),
        (b'realm="', "realm", ""),
    ],
)
def test_key_and_value(line: bytes, key: str, value: str) -> None:
    assert read(line) == (Option(1, key, value),)


def test_comments_and_empty_lines_set_nothing_and_count() -> None:
    data = b"# one\n\n   # two\r\n\t\nrealm=x\n#realm=y\nverbose"
    assert [(option.line, option.key) for option in read(data)] == [(5, "realm"), (7, "verbose")]


def test_a_byte_order_mark_is_not_part_of_the_first_key() -> None:
    assert read(b"\xef\xbb\xbfrealm=x")[0].key == "realm"


@pytest.mark.parametrize("mark", [b"\xff\xfe", b"\xfe\xff"])
def test_utf16_is_told(mark: bytes) -> None:
    with pytest.raises(SourceError, match="UTF-16"):
        read(mark + b"r\0e\0")


def test_a_file_that_is_too_large_is_told() -> None:
    with pytest.raises(SourceError, match="larger"):
        read(b"#" * (MAX_BYTES + 1))
    assert read(b"#" * MAX_BYTES) == ()


def test_latin1_is_read_and_marked() -> None:
    utf8, latin1 = read("user=jörg:x\n".encode() + "user=jörg:x\n".encode("latin-1"))
    assert (utf8.value, utf8.exact) == ("jörg:x", True)
    assert (latin1.value, latin1.exact) == ("jörg:x", False)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"user-quota=12 # streams", "12"),
        (b"user-quota=12\t#streams", "12"),
        (b"lt-cred-mech # only once", ""),
        (b"realm=a#b", "a#b"),
        (b'cipher-list="A:B" # all', "A:B"),
        (b"realm=#x", ""),
    ],
)
def test_a_comment_behind_a_value(line: bytes, text: str) -> None:
    option = read(line)[0]
    assert option.text == text
    assert option.commented == (text != option.value)


@pytest.mark.parametrize(
    ("value", "number"),
    [("12", 12), ("12 # x", 12), ("12kbit", 12), ("-1", -1), ("", None), ("none", None), ("0", 0), ("00012", 12)],
)
def test_a_number_is_what_a_value_begins_with(value: str, number: int | None) -> None:
    assert Option(1, "x", value).number == number


@pytest.mark.parametrize(
    ("value", "switch"),
    [
        ("", True),
        ("1", True),
        ("yes", True),
        ("True", True),
        ("on", True),
        ("ON", True),
        ("0", False),
        ("no", False),
        ("False", False),
        ("off", False),
        ("# a comment", True),
        ("no # a comment", False),
        ("maybe", None),
        ("one", None),
    ],
)
def test_a_switch(value: str, switch: bool | None) -> None:
    assert Option(1, "x", value).switch is switch


def test_what_looks_like_no_key_is_not_shown() -> None:
    assert Option(1, "no-cli").shown_key == "no-cli"
    assert Option(1, "c2VjcmV0+/").shown_key == "?"
    assert Option(1, "\x1b[31m").shown_key == "?"
    assert Option(1, "a" * 41).shown_key == "?"


def test_a_value_does_not_show() -> None:
    assert "hush" not in repr(read(b"static-auth-secret=hush"))
