"""The web section of the settings: its notations, and every mistake with its line."""

from __future__ import annotations

import subprocess
import sys

import pytest
from pydantic import ValidationError

from turnsvr import config, web
from turnsvr.config.advice import advise
from turnsvr.config.websettings import WebListen, WebSettings, for_trying_out, parse_origin
from turnsvr.web.context import WebContext

BASE = "credentials: {secret: x}\n"


def make(**values: object) -> WebSettings:
    return WebSettings.model_validate(values)


def test_off_unless_configured() -> None:
    assert config.loads(BASE, "t").web is None


def test_an_empty_section_serves_on_loopback_and_gives_nothing_away() -> None:
    settings = config.loads(f"{BASE}web: {{}}\n", "t").web
    assert settings is not None
    assert [str(each) for each in settings.listeners()] == ["http://127.0.0.1:8080"]
    assert not settings.public
    assert not settings.keys
    assert not settings.trusted_proxies


def test_for_trying_out_everything_is_on_and_reachable() -> None:
    settings = for_trying_out(tls=True)
    assert {str(each) for each in settings.listeners()} == {
        "http://[::]:8080",
        "http://0.0.0.0:8080",
        "https://[::]:8443",
        "https://0.0.0.0:8443",
    }
    assert settings.public
    assert settings.public_ttl == 600
    assert all(each.scheme == "http" for each in for_trying_out(tls=False).listeners())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://127.0.0.1", WebListen("http", "127.0.0.1", 8080)),
        ("https://[::1]", WebListen("https", "::1", 8443)),
        ("HTTP://*:80", WebListen("http", "*", 80)),
        ("https://10.0.0.5:443/", WebListen("https", "10.0.0.5", 443)),
    ],
)
def test_listening_addresses(text: str, expected: WebListen) -> None:
    assert WebListen.parse(text) == expected
    assert WebListen.parse(str(expected)) == expected


@pytest.mark.parametrize("text", ["8080", "http://", "ftp://*", "http://*:99999", "http://a.example", "http://*/path"])
def test_no_listening_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not|has a port"):
        WebListen.parse(text)


@pytest.mark.parametrize(
    ("text", "origin"),
    [
        ("https://app.example.org", "https://app.example.org"),
        ("https://App.Example.org:443/", "https://app.example.org"),
        ("http://localhost:3000", "http://localhost:3000"),
        ("http://[::1]:80", "http://[::1]"),
    ],
)
def test_origins_are_written_as_browsers_do(text: str, origin: str) -> None:
    assert parse_origin(text) == origin


@pytest.mark.parametrize("text", ["*", "app.example.org", "https://a.example/path", "https://u@a.example", "null", 7])
def test_no_origin(text: object) -> None:
    with pytest.raises(ValueError, match="origin"):
        parse_origin(text)


@pytest.mark.parametrize(
    "key",
    [
        {"name": "a"},
        {"name": "a", "key": "north of the wall", "key_hash": "0" * 64},
        {"name": "a", "key": "short"},
        {"name": "a", "key_hash": "0" * 63},
        {"name": "has space", "key": "north of the wall"},
        {"name": "colon:", "key": "north of the wall"},
        {"name": "a", "key": "north of the wall", "ttl": "1s"},
        {"name": "a", "key": "north of the wall", "quota": 0},
    ],
)
def test_no_key(key: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make(keys=[key])


def test_two_keys_of_one_name() -> None:
    with pytest.raises(ValidationError, match=r"two keys of one name"):
        make(keys=[{"name": "a", "key": "north of the wall"}, {"name": "a", "key": "south of the wall"}])


def test_a_mistake_is_told_with_its_line_and_without_the_key() -> None:
    text = f"{BASE}web:\n  keys:\n    - name: shop\n      key: a rather secret key\n      orgins: [https://a.example]\n"
    with pytest.raises(config.ConfigError) as caught:
        config.loads(text, "t.yaml")
    assert str(caught.value) == 't.yaml:6: web.keys[0].orgins: unknown setting; did you mean "origins"?'


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (
            "credentials: {users: {alice: wonderland}}\nweb: {public: true}\n",
            "t.yaml:2: web: gives out time-limited credentials, which need a shared secret; add credentials.secret",
        ),
        (
            f"{BASE}web:\n  listen: ['https://*:8443']\n",
            "t.yaml:3: web.listen[0]: needs a certificate; add web.tls or tls: {certificate: …, key: …}",
        ),
        (
            f"{BASE}listen: ['tcp://*:8080']\nweb:\n  listen: ['http://0.0.0.0:8080']\n",
            "t.yaml:4: web.listen[0]: takes the port of tcp://0.0.0.0:8080; keep one of them",
        ),
    ],
)
def test_contradictions(text: str, mistake: str) -> None:
    with pytest.raises(config.ConfigError) as caught:
        config.loads(text, "t.yaml")
    assert str(caught.value) == mistake


@pytest.mark.parametrize(
    ("web", "advice"),
    [
        ("{}", "note: web.keys: names no caller"),
        ("{public: true, listen: 'http://*:80'}", "warning: web.public: lets everyone relay"),
        ("{public: true, trusted_proxies: 127.0.0.1}", "warning: web.public: lets everyone relay"),
        ("{public: true}", None),
        ("{keys: [{name: a, key: north-of-the-wall}], listen: 'http://*:80'}", "warning: web.listen: takes API keys"),
        ("{keys: [{name: a, key: north-of-the-wall}]}", None),
    ],
)
def test_advice(web: str, advice: str | None) -> None:
    settings = config.loads(f"credentials: {{secret: {'north-of-the-walls'}}}\nweb: {web}\n", "t.yaml")
    found = [str(each) for each in advise(settings, 0.0) if each.setting.startswith("web")]
    assert len(found) == (advice is not None)
    assert all(advice is not None and each.startswith(advice) for each in found)


def test_keys_are_never_printed() -> None:
    settings = make(keys=[{"name": "a", "key": "a rather secret key"}])
    assert "rather secret" not in repr(settings)
    assert "rather secret" not in settings.model_dump_json()


def test_importing_the_settings_needs_none_of_the_optional_packages() -> None:
    program = (
        "import sys, turnsvr.config.settings, turnsvr.cli, turnsvr.web;"
        "sys.exit(any(name in sys.modules for name in ('starlette', 'uvicorn', 'socketio', 'prometheus_client')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("turnsvr.web.", "socketio"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "socketio", None)
    with pytest.raises(web.MissingPackages, match=r"socketio is not installed; pip install 'turnsvr\[web\]'"):
        web.serve(WebSettings(), None, lambda: 1)  # type: ignore[arg-type]


def test_context_is_a_protocol_without_an_implementation() -> None:
    assert getattr(WebContext, "_is_protocol", False)
