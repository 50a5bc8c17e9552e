"""What only a restart changes: told by name, kept as it was, and said in the schema; all from the field's mark."""

from __future__ import annotations

from typing import Any

import pytest

from turnsvr.config.restart import changed, kept
from turnsvr.config.schema import json_schema
from turnsvr.config.settings import Settings

WEB = {"listen": "http://127.0.0.1:1", "ttl": "1h"}


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ({}, {"realm": "a"}, []),
        ({}, {"listen": ["udp://127.0.0.1:1"]}, ["listen"]),
        ({}, {"listen": ["udp://*", "tcp://*"]}, []),
        ({}, {"pump": {"kind": "portable", "threads": 2, "gso": False}}, ["pump.kind", "pump.threads"]),
        ({}, {"web": WEB}, ["web"]),
        ({"web": WEB}, {}, ["web"]),
        ({"web": WEB}, {"web": WEB | {"ttl": "2h"}}, []),
        ({"web": WEB}, {"web": WEB | {"listen": "http://127.0.0.1:2", "ttl": "2h"}}, ["web.listen"]),
        ({"web": WEB}, {"web": WEB | {"signalling": None}}, ["web.signalling"]),
        ({}, {"admin": {"socket": "off"}}, ["admin.socket"]),
        ({}, {"tls": {"certificate": "/a", "key": "/b"}}, ["listen", "tls"]),
        (
            {"tls": {"certificate": "/a", "key": "/b"}},
            {"tls": {"certificate": "/c", "key": "/d"}},
            [],
        ),
    ],
)
def test_what_differs_is_told_and_kept(old: dict[str, Any], new: dict[str, Any], names: list[str]) -> None:
    before, after = Settings.model_validate(old), Settings.model_validate(new)
    assert list(changed(before, after)) == names
    within = kept(before, after)
    assert list(changed(before, within)) == []
    assert within.realm == after.realm
    assert within.pump.gso == after.pump.gso
    if "tls" not in names and after.tls is not None:
        assert within.tls == after.tls
    if "web" not in names and after.web is not None and within.web is not None:
        assert within.web.ttl == after.web.ttl


def test_the_schema_says_it() -> None:
    schema = json_schema()
    described = [schema["properties"]["listen"], schema["$defs"]["PumpSettings"]["properties"]["kind"]]
    assert all("Only a restart changes it." in each["description"] for each in described)
    assert "restart" not in schema["properties"]["realm"]["description"]
