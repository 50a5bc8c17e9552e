"""docs/security.md: the numbers and settings that it names are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from turnsvr import admin, limits
from turnsvr.app import assemble, throttle
from turnsvr.app.handover import link
from turnsvr.config.settings import Settings
from turnsvr.credentials import questions, revoked, static
from turnsvr.net import accepting, clienthello, hello, lookup, proofs, proxied, proxyheader, splice, turns
from turnsvr.relay.offload import table as offload
from turnsvr.relay.offload import ways
from turnsvr.relay.portable import waiting
from turnsvr.stores import status
from turnsvr.stun import integrity
from turnsvr.turn import allocation, policy, state
from turnsvr.turn import waiting as requests
from turnsvr.web import backlog, health, requestturns, serving
from turnsvr.web.connections import DEADLINES, Phase

TEXT = (Path(__file__).parent.parent / "docs/security.md").read_text()
ROWS = {
    cells[1].strip(): " | ".join(map(str.strip, cells[2:]))
    for line in TEXT.splitlines()
    if len(cells := line.split("|")) > 4
}
SETTING = re.compile(r"`((?:limits(?!\.py)|proxy|share|web|peers|realms|relay|admin|usage)\.[a-zA-Z_.]+)`")

KIB, MIB = 1_024, 1_048_576


def row(begins: str) -> str:
    return "\n".join(text for name, text in ROWS.items() if name.startswith(begins))


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (
            "channels that programs",
            f"{offload.MOST_FLOWS // 2:,}, of a session {offload.MOST_CHANNELS}; {ways.HOPS:,} neighbours",
        ),
        ("TLS handshakes", f"{turns._AT_ONCE} steps"),
        ("connections of balancers", f"{proxied.HEADER_SECONDS:g} s and {proxyheader.MAX_HEADER:,} bytes of header"),
        (
            "such a connection",
            f"{splice._HIGH // KIB} KiB wait for each end, {splice.CONNECT_SECONDS:g} s for its server",
        ),
        ("ClientHellos", f"{clienthello.MAX_HELLO // KIB} KiB and {hello.HELLO_SECONDS:g} s for each"),
        ("connections accepted", f"{accepting.BATCH} a listener, {serving._BATCH} of HTTP"),
        ("messages that wait", f"{waiting._LIMIT // MIB} MiB of sessions, {waiting._LIMIT // MIB} MiB of strangers"),
        (
            "what waits of one client",
            f"{waiting._CLIENT_MESSAGES} messages, {waiting._CLIENT_DATAGRAMS} datagrams, "
            f"{waiting._CLIENT_BYTES // KIB} KiB",
        ),
        ("look-ups", f"{lookup._MAX_WAITING:,} | {lookup._MAX_WAITING_OF_ONE} |"),
        ("requests that wait for a credential", f"{requests.MAX_WAITING:,}"),
        ("questions", f"{questions._MAX_WAITING:,}"),
        ("answers over UDP", f"{limits._SLOTS:,} counters"),
        ("verdicts", f"{policy._verdict.cache_info().maxsize:,}"),
        ("waits for an HTTP", f"{DEADLINES[Phase.HEAD]:g} s for TLS or a head, {DEADLINES[Phase.BODY]:g} s for a body"),
        ("HTTP requests", f"{DEADLINES[Phase.TURN]:g} s until they begin | {requestturns.AT_ONCE} begin in one turn"),
        ("readings of `/metrics`", f"{health.MAX_READINGS} | {health.MAX_READINGS_OF_ONE} | 503"),
        ("a request over HTTP", f"{serving._MAX_HEADER_BYTES // KIB} KiB of head"),
        ("what waits for members", f"{backlog._TOGETHER // MIB} MiB"),
        ("what waits for members", f"{backlog._MAX_MESSAGES} messages"),
        ("admin over TCP", f"{admin.CONNECTIONS // 2} connections"),
        ("lines of the log", f"{throttle._LINES_A_SECOND:g} a second of a kind, {throttle._BURST:g} at once"),
        ("allocations that a user makes", f"{state._RATE_SLOTS:,} counters"),
        ("ports reserved", f"{assemble._MAX_RESERVATIONS:,} at most"),
        ("answers kept", f"{allocation._MAX_FINISHED:,}"),
        ("revoked user names", f"{revoked.MAX_REVOKED:,}"),
        ("what is kept of work", f"{static._MAX_KEPT:,} users, {integrity._MAX_KEPT:,} keys, "),
        ("requests for an ACME authority's proofs", f"{proofs._MAX_REQUESTS},"),
        ("events of sessions for Redis", f"{status.MAX_WAITING:,}"),
        ("what one process tells", f"{link._MOST_WAITING:,} messages"),
    ],
)
def test_the_bounds_are_those_of_the_code(table: str, told: str) -> None:
    assert told in row(table)


@pytest.mark.parametrize("name", sorted(set(SETTING.findall(TEXT))))
def test_every_setting_exists(name: str) -> None:
    schema = Settings.model_json_schema()
    place = schema
    for part in name.split("."):
        place = inner_of(place, schema)
        place = place["properties"][part] if "properties" in place else place["additionalProperties"]
    assert place


def inner_of(place: dict, schema: dict) -> dict:  # type: ignore[type-arg]
    """What a reference, or one of several types, stands for."""
    for each in (place, *place.get("anyOf", ()), *place.get("allOf", ())):
        if "$ref" in each:
            found: dict = schema["$defs"][each["$ref"].rpartition("/")[2]]  # type: ignore[type-arg]
            return found
    return next((each for each in (place, *place.get("anyOf", ())) if "additionalProperties" in each), place)
