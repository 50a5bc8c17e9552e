"""Every endpoint over HTTP, and what it gives tried out at the relay."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from structlog.testing import capture_logs

from tests.conftest import PATIENCE, address_of
from tests.web.conftest import KEY, OTHER_KEY, Site, StartWeb
from turnsvr.app.sessionlog import SessionLog
from turnsvr.client.credentials import Login
from turnsvr.client.link import DatagramLink
from turnsvr.client.probe import probe
from turnsvr.client.probe_report import render
from turnsvr.client.transaction import ClientError
from turnsvr.client.turn import TurnClient

BEARER = {"Authorization": f"Bearer {KEY}"}
BASIC = httpx.BasicAuth("anybody", KEY)
PREFIX = "/v1/turn/keys/shop/credentials"


class Given:
    """What an answer comes down to, in whatever dialect."""

    def __init__(self, username: str, password: str, urls: list[str]) -> None:
        self.username = username
        self.password = password
        self.turn = [url for url in urls if url.startswith("turn")]
        self.stun = [url for url in urls if url.startswith("stun")]


def from_servers(servers: list[Mapping[str, Any]], *, key: str = "urls") -> Given:
    relay = next(server for server in servers if "credential" in server)
    each = (server[key] for server in servers)
    urls = [url for found in each for url in ([found] if isinstance(found, str) else found)]
    return Given(relay["username"], relay["credential"], urls)


async def native(site: Site) -> Given:
    body = (await site.get("/ice-servers", headers=BEARER)).json()
    assert body["ttl"] == 7200
    return from_servers(body["iceServers"])


async def uberti(site: Site) -> Given:
    body = (await site.get("/", params={"service": "turn", "username": "mbzrxpgjys", "key": KEY})).json()
    assert body.keys() == {"username", "password", "ttl", "uris"}
    assert body["username"].endswith(":shop:mbzrxpgjys")
    return Given(body["username"], body["password"], body["uris"])


async def twilio(site: Site) -> Given:
    answer = await site.post("/2010-04-01/Accounts/AC123/Tokens.json", auth=BASIC, data={"Ttl": "600"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["account_sid"] == "AC123"
    assert body["ttl"] == "600"
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000", body["date_created"])
    assert body["date_created"] == body["date_updated"]
    assert all(server["url"] == server["urls"] for server in body["ice_servers"])
    given = from_servers(body["ice_servers"])
    assert (given.username, given.password) == (body["username"], body["password"])
    return given


async def cloudflare(site: Site) -> Given:
    wanted = {"ttl": 86_400, "customIdentifier": "alice"}
    answer = await site.post(f"{PREFIX}/generate-ice-servers", headers=BEARER, json=wanted)
    assert answer.status_code == 201
    stun, relay = answer.json()["iceServers"]
    assert stun.keys() == {"urls"}
    assert relay["username"].endswith(":shop:alice")
    return from_servers([stun, relay])


async def cloudflare_single(site: Site) -> Given:
    answer = await site.post(f"{PREFIX}/generate", headers=BEARER, json={"ttl": 60})
    assert answer.status_code == 201
    return from_servers([answer.json()["iceServers"]])


async def metered(site: Site) -> Given:
    body = (await site.get("/api/v1/turn/credentials", params={"apiKey": KEY})).json()
    assert all(isinstance(server["urls"], str) for server in body)
    return from_servers(body)


async def xirsys(site: Site) -> Given:
    answer = await site.client.put("/_turn/my/channel", auth=BASIC, json={"format": "urls", "expire": 60})
    body = answer.json()
    assert body["s"] == "ok"
    return from_servers([body["v"]["iceServers"]])


async def xirsys_plain(site: Site) -> Given:
    body = (await site.client.put("/_turn/channel", auth=BASIC)).json()
    return from_servers(body["v"]["iceServers"], key="url")


async def aws(site: Site) -> Given:
    wanted = {"ChannelARN": "arn:aws:kinesisvideo:x", "ClientId": "viewer", "Service": "TURN", "Username": "alice"}
    (server,) = (await site.post("/v1/get-ice-server-config", headers=BEARER, json=wanted)).json()["IceServerList"]
    assert server.keys() == {"Username", "Password", "Ttl", "Uris"}
    assert server["Username"].endswith(":shop:alice")
    return Given(server["Username"], server["Password"], server["Uris"])


async def matrix(site: Site) -> Given:
    body = (await site.get("/_matrix/client/v3/voip/turnServer", headers=BEARER)).json()
    assert body.keys() == {"username", "password", "uris", "ttl"}
    return Given(body["username"], body["password"], body["uris"])


def from_link(header: str) -> Given:
    """As RFC 9725 section 4.6 has it."""
    servers = re.findall(
        r'<([^>]+)>; rel="ice-server"(?:; username="([^"]+)"; credential="([^"]+)"; credential-type="password")?',
        header,
    )
    assert header.count("ice-server") == len(servers)
    relays = [server for server in servers if server[1]]
    assert len({server[1:] for server in relays}) == 1
    return Given(relays[0][1], relays[0][2], [url for url, *_ in servers])


async def link(site: Site) -> Given:
    answer = await site.get("/ice-servers/link", headers=BEARER)
    assert (answer.status_code, answer.content) == (204, b"")
    return from_link(answer.headers["link"])


async def whip(site: Site) -> Given:
    answer = await site.client.options("/whip/room/1", headers={**BEARER, "Origin": "https://shop.example.org"})
    assert answer.status_code == 204
    assert answer.headers["accept-post"] == "application/sdp"
    assert "Link" in answer.headers["access-control-expose-headers"]
    return from_link(answer.headers["link"])


async def whep(site: Site) -> Given:
    answer = await site.client.options("/whep/room", headers=BEARER)
    return from_link(answer.headers["link"])


DIALECTS = [
    link,
    whip,
    whep,
    native,
    uberti,
    twilio,
    cloudflare,
    cloudflare_single,
    metered,
    xirsys,
    xirsys_plain,
    aws,
    matrix,
]


@pytest.mark.parametrize("ask", DIALECTS)
async def test_every_dialect_gives_credentials_that_relay_over_every_leg(site: Site, ask: Any) -> None:
    given = await ask(site)
    assert [url.partition(":")[0] for url in given.turn] == ["turn", "turn", "turns"]
    assert [url.rpartition("=")[2] for url in given.turn] == ["udp", "tcp", "tcp"]
    for url in given.turn[:1] if ask is not native else given.turn:
        report = await probe(url, given.username, given.password, insecure=True, timeout=PATIENCE)
        assert report.ok, render(report)


REFUSALS: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
    ("GET", "/ice-servers", {}, {"error": "an API key is needed"}),
    ("GET", "/ice-servers", {"headers": {"Authorization": "Bearer x"}}, {"error": "the API key is not known"}),
    ("GET", "/?service=turn&key=x", {}, {"error": "the API key is not known"}),
    ("GET", "/api/v1/turn/credentials?apiKey=x", {}, {"error": "the API key is not known"}),
    (
        "POST",
        "/2010-04-01/Accounts/AC1/Tokens.json",
        {"auth": ("AC1", "x")},
        {"code": 20003, "message": "the API key is not known", "more_info": "", "status": 401},
    ),
    (
        "POST",
        f"{PREFIX}/generate-ice-servers",
        {},
        {"success": False, "errors": [{"code": 401, "message": "an API key is needed"}], "result": None},
    ),
    ("OPTIONS", "/whip/x", {}, {"error": "an API key is needed"}),
    ("GET", "/ice-servers/link", {"headers": {"Authorization": "Bearer x"}}, {"error": "the API key is not known"}),
    ("PUT", "/_turn/c", {"auth": ("i", "x")}, {"s": "error", "v": "the API key is not known"}),
    ("POST", "/v1/get-ice-server-config", {}, {"Message": "an API key is needed"}),
    (
        "GET",
        "/_matrix/client/v3/voip/turnServer",
        {},
        {"errcode": "M_UNKNOWN_TOKEN", "error": "an API key is needed"},
    ),
]


@pytest.mark.parametrize(("method", "path", "options", "body"), REFUSALS)
async def test_each_dialect_refuses_in_its_own_words(
    site: Site, method: str, path: str, options: dict[str, Any], body: dict[str, Any]
) -> None:
    answer = await site.client.request(method, path, **options)
    assert answer.status_code == 401
    assert answer.json() == body
    assert answer.headers["cache-control"] == "no-store"
    scheme = "Basic" if path.startswith(("/2010", "/_turn")) else "Bearer"  # Basic has browsers open a dialogue
    assert answer.headers["www-authenticate"] == f'{scheme} realm="turnsvr"'


@pytest.mark.parametrize(
    "options",
    [{"headers": BEARER}, {"auth": BASIC}, {"params": {"key": KEY}}],
)
async def test_a_key_may_stand_in_three_places(site: Site, options: dict[str, Any]) -> None:
    assert (await site.get("/ice-servers", **options)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "content"),
    [
        ("GET", "/ice-servers?ttl=0", b""),
        ("GET", "/ice-servers?ttl=soon", b""),
        ("GET", "/ice-servers?ttl=nan", b""),
        ("GET", "/ice-servers?user=" + "x" * 200, b""),
        ("GET", "/?service=stun", b""),
        ("POST", f"{PREFIX}/generate-ice-servers", b"{"),
        ("POST", f"{PREFIX}/generate-ice-servers", b"[]"),
        ("POST", f"{PREFIX}/generate-ice-servers", b"[" * 50_000),
        ("POST", f"{PREFIX}/generate-ice-servers", b'{"ttl": true}'),
        ("POST", f"{PREFIX}/generate-ice-servers", b'{"ttl": NaN}'),
        ("POST", f"{PREFIX}/generate-ice-servers", b'{"customIdentifier": "\\u0000"}'),
        ("POST", "/v1/get-ice-server-config", b'{"Service": "STUN"}'),
        ("POST", "/v1/get-ice-server-config", b"\xff\xfe"),
    ],
)
async def test_nonsense_is_one_clear_error(site: Site, method: str, path: str, content: bytes) -> None:
    answer = await site.client.request(method, path, headers=BEARER, content=content)
    assert answer.status_code == 400
    assert answer.json()


async def test_large_bodies_are_not_taken(site: Site) -> None:
    answer = await site.post(f"{PREFIX}/generate", headers=BEARER, content=b" " * 70_000)
    assert answer.status_code == 413


async def test_relay_only_is_told(start_web: StartWeb) -> None:
    site = await start_web(relay_only=True)
    assert (await site.get("/ice-servers", headers=BEARER)).json()["iceTransportPolicy"] == "relay"


async def test_the_public_host_name_stands_in_urls(start_web: StartWeb) -> None:
    site = await start_web(host="turn.example.org")
    body = (await site.get("/ice-servers", headers=BEARER)).json()
    port = address_of(site.application, "udp").port
    assert body["iceServers"][0]["urls"] == [f"stun:turn.example.org:{port}"]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("turn.example.org:8080", "turn.example.org"), ("[::1]:80", "[::1]"), ("10.0.0.5", "10.0.0.5")],
)
async def test_without_one_it_is_how_the_caller_calls_it(site: Site, host: str, expected: str) -> None:
    body = (await site.get("/ice-servers", headers=BEARER | {"Host": host})).json()
    assert body["iceServers"][0]["urls"][0].startswith(f"stun:{expected}:")


@pytest.mark.parametrize("host", ["a b", "a/b", "x:y:z", "[::zz]", 'a"b'])
async def test_a_host_that_is_none_is_refused(site: Site, host: str) -> None:
    assert (await site.get("/ice-servers", headers=BEARER | {"Host": host})).status_code == 400


# Callers


async def test_public_credentials_are_short_lived(start_web: StartWeb) -> None:
    site = await start_web(public=True, public_ttl="5m")
    body = (await site.get("/ice-servers", params={"ttl": 86_400})).json()
    assert body["ttl"] == 300
    assert ":public:" in body["iceServers"][1]["username"]
    assert (await site.get("/ice-servers", headers={"Authorization": "Bearer wrong"})).status_code == 401


async def test_strangers_are_slowed_down_by_address(start_web: StartWeb) -> None:
    site = await start_web(public=True, requests_per_address="2/min", requests_per_key=0)
    assert (await site.get("/ice-servers")).status_code == 200
    answer = await site.get("/ice-servers")
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert (await site.get("/ice-servers", headers=BEARER)).status_code == 200


async def test_guessing_keys_is_slowed_down(start_web: StartWeb) -> None:
    site = await start_web(requests_per_address="2/min")
    statuses = [(await site.get("/ice-servers", params={"key": f"guess {n}"})).status_code for n in range(3)]
    assert statuses == [401, 429, 429]


async def test_pages_elsewhere_may_call_from_configured_origins_alone(start_web: StartWeb) -> None:
    site = await start_web(origins="https://app.example.org")
    allowed = {"Origin": "https://app.example.org", "Authorization": f"Bearer {OTHER_KEY}"}
    answer = await site.get("/ice-servers", headers=allowed)
    assert answer.headers["access-control-allow-origin"] == "https://app.example.org"
    stranger = await site.get("/ice-servers", headers=allowed | {"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in stranger.headers
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}
    for origin, status in (("https://shop.example.org", 200), ("https://evil.example", 400)):
        preflight = await site.client.options(f"{PREFIX}/generate", headers=asked | {"Origin": origin})
        assert preflight.status_code == status
        assert preflight.headers.get("access-control-allow-origin") == (origin if status == 200 else None)


async def test_a_key_serves_its_own_pages_alone(site: Site) -> None:
    ours = await site.get("/ice-servers", headers=BEARER | {"Origin": "https://shop.example.org"})
    assert ours.status_code == 200
    theirs = await site.get("/ice-servers", headers=BEARER | {"Origin": "https://other.example.org"})
    assert theirs.status_code == 403


# Revocation


@asynccontextmanager
async def allocated(site: Site, given: Given) -> AsyncIterator[TurnClient]:
    """A client that holds an allocation of these credentials."""
    link = await DatagramLink.open(address_of(site.application, "udp"))
    try:
        client = TurnClient(link, Login(given.username, given.password))
        await client.allocate()
        yield client
    finally:
        await link.close()


@pytest.mark.parametrize("way", ["cloudflare", "native"])
async def test_a_revoked_user_name_ends_and_is_refused(site: Site, way: str) -> None:
    given, other = await native(site), await native(site)
    async with allocated(site, given), allocated(site, other) as bystander:
        assert len(site.application.server) == 2
        if way == "cloudflare":
            answer = await site.post(f"{PREFIX}/{quote(given.username, safe='')}/revoke", headers=BEARER)
        else:
            answer = await site.client.delete(f"/ice-servers/{given.username}", headers=BEARER)
        assert answer.status_code == 204
        assert len(site.application.server) == 1
        with pytest.raises(ClientError, match="401"):
            async with allocated(site, given):
                pass
        assert len(site.application.server) == 1
        await bystander.refresh()


async def test_nobody_revokes_what_another_key_was_given(site: Site) -> None:
    given = await native(site)
    answer = await site.post(f"{PREFIX}/{given.username}/revoke", headers={"Authorization": f"Bearer {OTHER_KEY}"})
    assert answer.status_code == 404
    async with allocated(site, given):
        pass


async def test_the_audit_tag_reaches_the_session_log(start_web: StartWeb) -> None:
    site = await start_web(sinks=(SessionLog(),))
    body = (await site.get("/ice-servers", params={"key": OTHER_KEY, "user": "bob"})).json()
    with capture_logs() as lines:
        async with allocated(site, from_servers(body["iceServers"])):
            pass
    (started,) = (line for line in lines if line["event"] == "session started")
    assert started["user"].endswith(":elsewhere:bob")


# Health


async def test_health_and_readiness(site: Site) -> None:
    assert (await site.get("/healthz")).json() == {"status": "ok"}
    assert (await site.get("/readyz")).status_code == 200
    async with allocated(site, await native(site)):
        site.application.drain()
        assert (await site.get("/readyz")).status_code == 503
        assert (await site.get("/readyz")).json() == {"status": "draining"}
        assert (await site.get("/healthz")).status_code == 200
        assert (await site.get("/ice-servers", headers=BEARER)).status_code == 503


async def test_metrics_count_and_name_no_user(site: Site) -> None:
    given = await cloudflare(site)
    await site.get("/ice-servers", params={"key": "wrong, and secret as well"})
    async with allocated(site, given):
        text = (await site.get("/metrics")).text
    assert "turnsvr_allocations 1.0" in text
    assert 'turnsvr_sessions_started_total{transport="udp"} 1.0' in text
    assert 'turnsvr_ice_requests_total{dialect="cloudflare",outcome="ok"} 1.0' in text
    assert 'turnsvr_ice_requests_total{dialect="native",outcome="unauthorized"} 1.0' in text
    assert 'turnsvr_dropped_packets_total{reason="no_permission"}' in text
    assert "turnsvr_certificate_expiry_timestamp_seconds" in text
    for private in (given.username, given.password, "alice", "shop", KEY, "secret as well", "127.0.0.1"):
        assert private not in text


async def test_the_labels_of_metrics_are_bounded(site: Site) -> None:
    for number in range(20):
        await site.get("/ice-servers", params={"key": f"key {number}", "user": f"user{number}"})
        await site.get(f"/nothing/{number}")
        await site.post(f"/v1/turn/keys/{number}/credentials/generate")
    lines = [
        line for line in (await site.get("/metrics")).text.splitlines() if line.startswith("turnsvr_ice_requests_t")
    ]
    assert len(lines) == 2


async def test_metrics_are_for_named_addresses(start_web: StartWeb) -> None:
    assert (await (await start_web(metrics="10.0.0.0/8")).get("/metrics")).status_code == 403
    assert (await (await start_web(metrics=[])).get("/metrics")).status_code == 403
    site = await start_web()
    assert (await site.get("/metrics", headers={"X-Forwarded-For": "192.0.2.1"})).status_code == 403


@pytest.mark.parametrize("ttl", ["0", "-1", "nan", "x", "", "0.5"])
async def test_what_is_no_lifetime_is_refused_by_name(site: Site, ttl: str) -> None:
    answer = await site.get("/ice-servers", params={"ttl": ttl, "key": KEY})
    assert (answer.status_code, answer.json()) == (400, {"error": "not valid: ttl"})


async def test_credentials_are_given_to_no_head_and_405_names_the_methods(site: Site) -> None:
    for path, allowed in (("/ice-servers", "GET"), ("/api/v1/turn/credentials", "GET"), ("/_turn/x", "PUT")):
        answer = await site.client.head(path, headers={"Authorization": f"Bearer {KEY}"})
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


# Proxies


async def test_forwarded_headers_count_from_trusted_proxies_alone(start_web: StartWeb) -> None:
    rates = {"public": True, "requests_per_address": "1/min"}
    stranger, trusting = await start_web(**rates), await start_web(trusted_proxies="127.0.0.1", **rates)
    headers = [{"X-Forwarded-For": f"203.0.113.{n}", "X-Forwarded-Host": "turn.example.org"} for n in range(3)]
    assert [(await stranger.get("/ice-servers", headers=each)).status_code for each in headers] == [200, 429, 429]
    answers = [await trusting.get("/ice-servers", headers=each) for each in headers]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert answers[0].json()["iceServers"][0]["urls"][0].startswith("stun:turn.example.org:")


# The page


async def test_the_page_and_what_it_needs_come_from_here(site: Site) -> None:
    page = await site.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "script-src 'self'" in page.headers["content-security-policy"]
    assert not re.findall(r"(?:src|href)=\"(?!/|#)", page.text)
    waiting = set(re.findall(r"/static/[a-z.]+", page.text))
    seen: set[str] = set()
    while waiting:
        path = waiting.pop()
        seen.add(path)
        answer = await site.get(path)
        assert answer.status_code == 200, path
        assert not re.search(r"https?://(?!\$|www\.w3\.org)", answer.text.replace("`https://${", "")), path
        waiting |= {f"/static/{name}" for name in re.findall(r'from "\./([a-z.]+)"', answer.text)} - seen
    assert {"/static/main.js", "/static/signalling.js", "/static/style.css"} <= seen
    again = await site.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304


async def test_the_page_can_be_switched_off(start_web: StartWeb) -> None:
    site = await start_web(page=False)
    assert (await site.get("/")).status_code == 404
    assert (await site.get("/page.json")).status_code == 404
    assert (await site.get("/ice-servers", headers=BEARER)).status_code == 200


@pytest.mark.parametrize("path", ["/static/../server.py", "/static/%2e%2e/server.py", "/static/nothing.js", "/nothing"])
async def test_nothing_else_is_served(site: Site, path: str) -> None:
    assert (await site.get(path)).status_code == 404


async def test_many_callers_at_once(site: Site) -> None:
    answers = await asyncio.gather(*(site.get("/ice-servers", headers=BEARER) for _ in range(50)))
    names = {answer.json()["iceServers"][1]["username"] for answer in answers}
    assert len(names) == 50


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/static/main.js", "/page.json"])
async def test_head_answers_as_get_does(site: Site, path: str) -> None:
    got, head = await site.get(path), await site.client.head(path)
    assert head.status_code == got.status_code == 200
    assert head.content == b""
    assert head.headers["content-type"] == got.headers["content-type"]


async def test_head_issues_no_credentials(start_web: StartWeb) -> None:
    site = await start_web(public=True)
    for path in ("/?service=turn&username=a", "/ice-servers"):
        assert (await site.client.head(path)).status_code == 405


@pytest.mark.parametrize("right", [KEY, None])
async def test_wrong_keys_are_counted_before_they_are_looked_up(start_web: StartWeb, right: str | None) -> None:
    """Who has offered too many cannot find out that the next one is right."""
    site = await start_web(requests_per_address="3/h", public=True)
    wrong = {"Authorization": "Bearer a guess, long enough"}
    assert [(await site.get("/ice-servers", headers=wrong)).status_code for _ in range(2)] == [401, 429]
    headers = {"Authorization": f"Bearer {right}"} if right else {}
    assert (await site.get("/ice-servers", headers=headers)).status_code == 429
