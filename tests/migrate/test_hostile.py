"""Whatever the bytes are: settings that are valid and a report without gaps, or one clear error."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.migrate.conftest import SURROUNDINGS
from turnsvr import config
from turnsvr.migrate import SourceError, convert
from turnsvr.migrate.keys import KEYS
from turnsvr.migrate.source import read

_VALUES = st.one_of(
    st.sampled_from(
        [
            *("", "no", "yes", "0", "1", "-1", "443", "3478", "3479", "5349", "9641", "65536", "99999999999999999999"),
            *(
                "0.0.0.0",
                "::",
                "10.0.0.5",
                "10.0.0.6",
                "fd00::5",
                "203.0.113.7/10.0.0.5",
                "203.0.113.7",
                "fe80::1%eth0",
            ),
            *("2001:db8::7/fd00::5", "10.0.0.0-10.0.0.9", "10.0.0.9-10.0.0.0", "0.0.0.0-255.255.255.255", "::1-::2"),
            *(
                "10.0.0.5:3480",
                "[fd00::5]:3480",
                "alice:wonderland",
                "alice:0x00",
                "alice:",
                ":x",
                "/a",
                "DEFAULT",
                "NULL",
            ),
            *(
                "host=db dbname=turn user=u password='p w' port=5",
                "postgresql://u:p@db/turn",
                "host='",
                "a # b",
                "debug",
            ),
        ]
    ),
    st.text(max_size=20),
)
_LINES = st.one_of(
    st.builds(
        lambda key, between, value: f"{key}{between}{value}".encode(errors="replace"),
        st.sampled_from(sorted(KEYS)),
        st.sampled_from(["=", " ", "\t", ' = "']),
        _VALUES,
    ),
    st.binary(max_size=40),
)


def _examine(data: bytes) -> None:
    try:
        made = convert(data, "turnserver.conf", SURROUNDINGS)
    except SourceError:
        return
    assert [each.line for each in made.report.verdicts] == [option.line for option in read(data)]
    assert all(each.text for each in made.report.verdicts)
    config.loads(made.text, "turnsvr.yaml", environ={})
    for line in (made.report.as_text("turnserver.conf") + str(made.report.as_json("x"))).splitlines():
        assert line.isprintable()


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    _examine(data)


@given(st.lists(_LINES, max_size=30))
def test_any_lines(lines: list[bytes]) -> None:
    _examine(b"\n".join(lines))


@given(st.lists(st.sampled_from(sorted(KEYS)), max_size=20), st.data())
def test_any_combination_of_keys(keys: list[str], data: st.DataObject) -> None:
    _examine("\n".join(f"{key}={data.draw(_VALUES)}" for key in keys).encode(errors="replace"))
