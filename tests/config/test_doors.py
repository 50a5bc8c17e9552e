"""Balancers in front and servers behind, as the settings file says them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from turnsvr import config
from turnsvr.app import assemble
from turnsvr.config.advice import advise
from turnsvr.config.doorsettings import Backend, ShareSettings
from turnsvr.config.settings import Settings
from turnsvr.net.arrival import HTTP_PROTOCOLS
from turnsvr.net.doors import Door, StreamListener
from turnsvr.stun.address import Address

BASE = """
credentials: {secret: "kept for the tests of the doors"}
listen: ["udp://*:3478", "tcp://*:80", "tls://*:443"]
tls: {certificate: a.pem, key: a.key}
"""


def problems(text: str) -> list[str]:
    try:
        config.loads(BASE + text, "t.yaml", directory=Path(), environ={})
    except config.ConfigError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("tcp://127.0.0.1:8080", Backend("127.0.0.1", 8080)),
        ("TCP://[::1]:8080", Backend("::1", 8080)),
        ("proxy+tcp://10.0.0.7:443", Backend("10.0.0.7", 443, header=True)),
        ("unix:/run/app.sock", Backend("", 0, "/run/app.sock")),
        ("proxy+unix:/run/app.sock", Backend("", 0, "/run/app.sock", header=True)),
    ],
)
def test_servers_behind(text: str, wanted: Backend) -> None:
    made = Backend.parse(text)
    assert made == wanted
    assert Backend.parse(str(made)) == made
    assert ShareSettings.model_validate(text).http == wanted
    share = ShareSettings.model_validate({"pass_through": {"Shop.Example.org.": text}})
    assert share.pass_through == {"shop.example.org": wanted}
    assert ShareSettings.model_validate(share.model_dump(mode="json")) == share


@pytest.mark.parametrize(
    "text",
    [
        "127.0.0.1:80",
        "http://127.0.0.1:80",
        "tcp://127.0.0.1",
        "tcp://shop.example:80",
        "tcp://1.2.3.4:0",
        "unix:app",
        7,
    ],
)
def test_what_is_no_server_behind(text: Any) -> None:
    with pytest.raises(ValueError, match=r"server to pass|IP address|port"):
        ShareSettings.model_validate({"http": text})


@pytest.mark.parametrize("name", ["", "*", "*.", "a..b", "-a.example", "a b", "*.*.example", "shop.example.org:443"])
def test_what_is_no_name(name: str) -> None:
    with pytest.raises(ValueError, match="no name"):
        ShareSettings.model_validate({"pass_through": {name: "tcp://127.0.0.1:1"}})


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("proxy: {trusted: []}", "proxy.trusted"),
        ("proxy: {}", "proxy.trusted"),
        ("proxy: {trusted: 10.0.0.1, listen: 'udp://*:3478'}", "is a UDP listener"),
        ("proxy: {trusted: 10.0.0.1, listen: 'tcp://*:81'}", "is not among the listeners"),
        ("proxy: {trusted: 10.0.0.1, listen: 'tcp://10.0.0.5:80'}", "is not among the listeners"),
        ("proxy: {trusted: 10.0.0.1, listen: 'tcp://*:0'}", "has no port"),
        ("web: {proxy: {trusted: 10.0.0.1, listen: 'http://*:81'}}", "is not among web.listen"),
        ("share: web", "is web, which is off"),
        ("share: {}", "shares ports with no server"),
        ("share: {http: web, http2: true}\nweb: {}", "has no server behind it"),
        ("share: {http: web, listen: 'udp://*:3478'}\nweb: {}", "is a UDP listener"),
        ("share: 'tcp://127.0.0.1'", "no server to pass connections to"),
        ("share: 'tcp://127.0.0.1:80'", "share.http: is a listener that shares"),
        ("share: 'proxy+tcp://[::1]:443'", "share.http: is a listener that shares"),
        (
            "share: {pass_through: {a.example: 'tcp://127.9.9.9:443'}}",
            "share.pass_through.a.example: is a listener that",
        ),
    ],
)
def test_mistakes(text: str, problem: str) -> None:
    assert problem in "\n".join(problems(text))


@pytest.mark.parametrize(
    "text",
    [
        "proxy: {trusted: 10.0.0.1}",
        "proxy: {trusted: [10.0.0.0/8, '2001:db8::/32'], listen: 'tcp://*:443'}",
        "share: web\nweb: {}",
        "share: {http: 'proxy+tcp://127.0.0.1:80', http2: true, listen: ['tls://*:443']}",
        "share: {http: 'tcp://127.0.0.1:8080', pass_through: {a.example: 'tcp://10.0.0.7:443', b.example: 'unix:/b'}}",
        "web: {listen: ['http://127.0.0.1:8080', 'https://*:8443'], proxy: {trusted: 10.0.0.1, listen: 'https://*:8443'}}",
    ],
)
def test_what_is_right(text: str) -> None:
    assert problems(text) == []


def test_a_server_behind_may_have_the_port_of_a_listener_at_another_address() -> None:
    base = BASE.replace("tls://*:443", "tls://10.0.0.5:443")

    def passed_to(host: str) -> str:
        return base + f"share: {{pass_through: {{a.example: 'tcp://{host}:443'}}}}"

    config.loads(passed_to("127.0.0.1"), "t.yaml", directory=Path(), environ={})
    with pytest.raises(config.ConfigError, match=r"a\.example: is a listener that shares"):
        config.loads(passed_to("10.0.0.5"), "t.yaml", directory=Path(), environ={})


def doors(**sections: Any) -> dict[tuple[str, str, int], Door]:
    settings = Settings.model_validate({"listen": ["udp://*:3478", "tcp://*:80", "tls://10.0.0.5:443"]} | sections)
    return {(each.transport, *each.address): door for each, door in assemble.doors(settings).items()}


def test_where_each_holds() -> None:
    assert doors() == {}
    both = doors(proxy={"trusted": "10.0.0.1", "listen": "tls://10.0.0.5:443"}, share={"http": "tcp://127.0.0.1:1"})
    assert set(both) == {("tcp", "::", 80), ("tcp", "0.0.0.0", 80), ("tls", "10.0.0.5", 443)}
    assert [door.balancers is None for door in both.values()].count(False) == 1
    assert both["tls", "10.0.0.5", 443].balancers is not None
    assert both["tcp", "::", 80].takes_plain_http
    assert not both["tls", "10.0.0.5", 443].takes_plain_http
    assert all(door.shares_tls for door in both.values())
    # A listener is named by its port: it tells TCP from TLS itself.
    assert set(doors(proxy={"trusted": "10.0.0.1", "listen": "tcp://10.0.0.5:443"})) == {("tls", "10.0.0.5", 443)}


def test_protocols_for_http() -> None:
    assert assemble.http_protocols(None) == ()
    made = {
        http2: ShareSettings.model_validate({"http": "tcp://127.0.0.1:1", "http2": http2}) for http2 in (False, True)
    }
    assert assemble.http_protocols(made[False]) == ("http/1.1",)
    assert assemble.http_protocols(made[True]) == ("h2", "http/1.1")
    assert set(HTTP_PROTOCOLS) == {"h2", "http/1.1"}


def test_the_wildcard_of_a_name_is_below_it() -> None:
    share = ShareSettings.model_validate(
        {"pass_through": {"*.example.org": "tcp://127.0.0.1:1", "a.example.org": "tcp://127.0.0.1:2"}}
    )
    door = assemble.doors(Settings(share=share))[StreamListener("tcp", Address("::", 3478))]
    found = {
        name: door.server_of(name) for name in ("a.example.org", "b.example.org", "x.y.example.org", "example.org", "")
    }
    ports = {name: each.place.port if each and isinstance(each.place, Address) else 0 for name, each in found.items()}
    assert ports == {"a.example.org": 2, "b.example.org": 1, "x.y.example.org": 1, "example.org": 0, "": 0}


def advice(**sections: Any) -> list[str]:
    usual: dict[str, Any] = {"credentials": {"secret": "kept for the tests of the doors"}}
    return [str(each) for each in advise(Settings.model_validate(usual | sections), 0.0)]


@pytest.mark.parametrize(
    ("http", "listen", "is_web"),
    [
        ("tcp://127.0.0.1:8080", "http://127.0.0.1:8080", True),
        ("tcp://127.0.0.1:8080", "http://*:8080", True),
        ("tcp://10.0.0.5:8080", "http://10.0.0.5:8080", True),
        ("tcp://127.0.0.1:8080", "http://127.0.0.1:8081", False),
        ("tcp://127.0.0.1:8080", "http://10.0.0.5:8080", False),
        ("proxy+tcp://127.0.0.1:8080", "http://127.0.0.1:8080", False),
        ("unix:/run/app.sock", "http://127.0.0.1:8080", False),
        ("web", "http://127.0.0.1:8080", False),
    ],
)
def test_advice_on_web_by_way_of_a_connection(http: str, listen: str, is_web: bool) -> None:
    """Clients would all be this host, which may read /metrics."""
    found = [each for each in advice(share=http, web={"listen": listen}) if "is web itself" in each]
    assert len(found) == is_web


def test_advice() -> None:
    everybody = advice(proxy={"trusted": ["10.0.0.0/8", "0.0.0.0/0", "::/0"]})
    assert [each.split()[1] for each in everybody if "pass for any client" in each] == [
        "proxy.trusted[1]:",
        "proxy.trusted[2]:",
    ]
    web = {"keys": [{"name": "shop", "key": "a key of the shop, long enough"}]}
    assert any("API keys over http:// on tcp://[::]:3478" in each for each in advice(share="web", web=web))
    tls = {"certificate": "a.pem", "key": "a.key"}
    on_tls = advice(share={"http": "web", "listen": "tls://*:5349"}, web=web, tls=tls)
    assert not any("API keys over http://" in each for each in on_tls)
    assert any("inside TLS alone" in each for each in advice(share={"http": "tcp://127.0.0.1:1", "http2": True}))
