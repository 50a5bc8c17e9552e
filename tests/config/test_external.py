"""`relay.external`: addresses, `auto`, a name; what is none of these."""

from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from turnsvr import config
from turnsvr.config.ranges import StunServer, could_be_public
from turnsvr.config.settings import RelaySettings, Settings
from turnsvr.config.units import BadValue

CREDENTIALS = "credentials: {secret: long enough for a test}\n"


def relay(text: str) -> RelaySettings:
    return config.loads(f"{CREDENTIALS}relay: {text}\n", "turnsvr.yaml").relay


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("auto", "auto"),
        ("AUTO", "auto"),
        ("turn.example.org", "turn.example.org"),
        ("Turn.Example.Org.", "turn.example.org"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("_turn.example.org", "_turn.example.org"),
        ("203.0.113.7", None),
        ("'2001:db8::7'", None),
        ("[203.0.113.7, '2001:db8::7']", None),
        ("{10.0.0.5: 203.0.113.7}", None),
        ("{}", None),
    ],
)
def test_what_finds_the_external_address(text: str, source: str | None) -> None:
    settings = relay(f"{{external: {text}}}")
    assert settings.external_source == source
    if source is not None:
        assert settings.external == {}
        assert settings.external_for("10.0.0.5") is None


@pytest.mark.parametrize(
    "text", ["203.0.113.300", "203.0.113", "localhost", "automatic", "a..b", "-a.example", "[auto]"]
)
def test_what_is_neither_address_nor_name(text: str) -> None:
    with pytest.raises(config.ConfigError, match=r"relay\.external"):
        relay(f"{{external: {text}}}")


def test_what_is_shown_is_what_was_written() -> None:
    for text in ("auto", "turn.example.org"):
        settings = Settings.model_validate(
            {"credentials": {"secret": "long enough for a test"}, "relay": {"external": text}}
        )
        shown = settings.model_dump(mode="json")
        assert shown["relay"]["external"] == text
        again = config.loads(
            yaml.safe_dump({"relay": shown["relay"], "credentials": {"secret": "long enough"}}), "again.yaml"
        )
        assert again.relay == settings.relay
        assert again.relay != RelaySettings()


def test_a_name_stands_for_one_relay_address_of_a_family() -> None:
    assert relay("{addresses: [10.0.0.5, 'fd00::5'], external: turn.example.org}").external_source
    assert relay("{addresses: [10.0.0.5, 10.0.0.6], external: auto}").external_source == "auto"
    with pytest.raises(config.ConfigError, match="one name for several relay addresses"):
        relay("{addresses: [10.0.0.5, 10.0.0.6], external: turn.example.org}")


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("stun:stun.example.org", StunServer("stun.example.org", 3478)),
        ("stun.example.org:19302", StunServer("stun.example.org", 19302)),
        ("stun:203.0.113.7:3479", StunServer("203.0.113.7", 3479)),
        ("stun:[2001:db8::7]", StunServer("2001:db8::7", 3478)),
    ],
)
def test_stun_servers(text: str, server: StunServer) -> None:
    assert StunServer.parse(text) == server
    assert StunServer.parse(str(server)) == server


@pytest.mark.parametrize(
    "text", ["", "turn:example.org", "stun:a b", "stun:example.org:0", "stun:example.org:99999", 5]
)
def test_what_is_no_stun_server(text: object) -> None:
    with pytest.raises(BadValue):
        StunServer.parse(text)


def test_stun_servers_are_few() -> None:
    with pytest.raises(ValidationError):
        RelaySettings.model_validate({"external_stun": [f"stun:s{number}.example.org" for number in range(9)]})


@pytest.mark.parametrize(
    ("host", "public"),
    [
        ("8.8.8.8", True),
        ("203.0.113.7", True),
        ("2001:db8::7", True),
        ("2600::1", True),
        ("10.0.0.5", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.1.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("fd00::1", False),
        ("fe80::1%eth0", False),
        ("::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
    ],
)
def test_what_could_be_public(host: str, public: bool) -> None:
    assert could_be_public(host) is public
