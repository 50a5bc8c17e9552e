"""Environment variables make the settings that they say, write no secret, and each mistake is named by its variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from turnsvr import config
from turnsvr.config import environment
from turnsvr.config.settings import Settings

SECRET = {"TURNSVR_SECRET": "a secret of a container, long enough"}


def settings_of(environ: dict[str, str]) -> Settings:
    text = environment.settings_text(environ)
    assert not [value for name, value in environ.items() if name == "TURNSVR_SECRET" and value in text]
    return config.loads(text, "made", environ=environ)


def test_all_of_them(tmp_path: Path) -> None:
    settings = settings_of(
        SECRET
        | {
            "TURNSVR_REALM": "turn.example.org",
            "TURNSVR_EXTERNAL": "203.0.113.7,2001:db8::7",
            "TURNSVR_LISTEN_PORT": "3480",
            "TURNSVR_TLS_PORT": "443",
            "TURNSVR_RELAY_PORTS": "50000-50099",
            "TURNSVR_CERTIFICATE": str(tmp_path / "c.pem"),
            "TURNSVR_KEY": str(tmp_path / "k.pem"),
            "TURNSVR_WEB": "http://*:8080",
            "TURNSVR_LOG_LEVEL": "debug",
            "TURNSVR_LOG_FORMAT": "json",
        }
    )
    assert settings.realm == "turn.example.org"
    assert settings.credentials.secrets[0].get_secret_value() == SECRET["TURNSVR_SECRET"]
    assert settings.relay.external == {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}
    assert str(settings.relay.ports) == "50000-50099"
    assert {(each.transport, each.port) for each in settings.listeners()} == {
        ("udp", 3480),
        ("tcp", 3480),
        ("tls", 443),
    }
    assert settings.tls is not None
    assert settings.tls.key == tmp_path / "k.pem"
    assert settings.web is not None
    assert (settings.web.listen[0].port, settings.log.level, settings.log.format) == (8080, "debug", "json")


def test_a_secret_out_of_a_file_and_all_else_by_default(tmp_path: Path) -> None:
    file = tmp_path / 'a "secret"'
    file.write_text("from the vault, long enough\n")
    settings = settings_of({"TURNSVR_SECRET_FILE": str(file), "TURNSVR_EXTERNAL": ""})
    assert settings.credentials.secrets[0].get_secret_value() == "from the vault, long enough"
    assert {(each.transport, each.port) for each in settings.listeners()} == {("udp", 3478), ("tcp", 3478)}
    assert settings.relay == Settings().relay


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({}, "TURNSVR_SECRET: is missing; give it, or TURNSVR_SECRET_FILE"),
        ({"TURNSVR_SECRET": ""}, "TURNSVR_SECRET: is missing"),
        (SECRET | {"TURNSVR_SECRET_FILE": "/x"}, "TURNSVR_SECRET: is given, and TURNSVR_SECRET_FILE too"),
        (SECRET | {"TURNSVR_LOG_LEVLE": "x"}, "TURNSVR_LOG_LEVLE: no such variable; did you mean TURNSVR_LOG_LEVEL?"),
        (SECRET | {"TURNSVR_REALM_FILE": "x"}, "TURNSVR_REALM_FILE: no such variable"),
        (SECRET | {"TURNSVR_LISTEN_PORT": "0"}, "TURNSVR_LISTEN_PORT: is no port"),
        (SECRET | {"TURNSVR_TLS_PORT": "65536"}, "TURNSVR_TLS_PORT: is no port"),
        (SECRET | {"TURNSVR_TLS_PORT": "https"}, "TURNSVR_TLS_PORT: is no port"),
        (SECRET | {"TURNSVR_KEY": "/k"}, "TURNSVR_CERTIFICATE: and TURNSVR_KEY belong together"),
    ],
)
def test_mistakes_name_the_variable(environ: dict[str, str], said: str) -> None:
    with pytest.raises(config.ConfigError) as mistaken:
        environment.settings_text(environ)
    assert said in str(mistaken.value)
    assert SECRET["TURNSVR_SECRET"] not in str(mistaken.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("TURNSVR_REALM", "a\nb: c"), ("TURNSVR_EXTERNAL", "nowhere at all"), ("TURNSVR_RELAY_PORTS", "5-1")],
)
def test_values_that_mean_nothing_are_mistakes_of_their_setting(name: str, value: str) -> None:
    environ = SECRET | {name: value}
    with pytest.raises(config.ConfigError):
        config.loads(environment.settings_text(environ), "made", environ=environ)


@pytest.mark.parametrize("secret", ["CHANGE_ME", "${TURN_SECRET}", "{{ secret }}"])
def test_placeholders_are_refused_here_too(secret: str) -> None:
    environ = {"TURNSVR_SECRET": secret}
    with pytest.raises(config.ConfigError, match="placeholder"):
        config.loads(environment.settings_text(environ), "made", environ=environ)


def test_what_kubernetes_tells_of_a_service_with_our_name_is_no_mistake() -> None:
    told = {
        "TURNSVR_PORT": "udp://10.0.0.1:3478",
        "TURNSVR_PORT_3478_UDP": "udp://10.0.0.1:3478",
        "TURNSVR_PORT_3478_UDP_ADDR": "10.0.0.1",
        "TURNSVR_SERVICE_HOST": "10.0.0.1",
        "TURNSVR_SERVICE_PORT": "3478",
    }
    assert settings_of(SECRET | told) == settings_of(SECRET)
