"""The files that an operator installs say what the models say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from turnsvr import config
from turnsvr.config import wording
from turnsvr.config.document import Location, read
from turnsvr.config.settings import CredentialSettings, RedirectSettings, Settings
from turnsvr.config.websettings import WebKeySettings

CONF = Path(__file__).parents[2] / "conf"
ENVIRON = {
    "TURN_SECRET": "a secret of the test that is long enough",
    "USAGE_SECRET": "another secret of the test that is long enough",
    "TURN_OAUTH_KEY": "ZcN4nSKx2rQ9vHn3uT8b1fQx7mW0kLp5yE6aJdR2sVg=",
}
OFF = re.compile(r"^( *)#(?! |$)", re.MULTILINE)
FILES = re.compile(r"^  (?:certificate|key): .*/turn\.example\.org/.*\n", re.MULTILINE)

# Examples stand where the default is nothing at all.
EXAMPLES = {
    "tls",
    "tls.certificate",
    "tls.key",
    "tls.ciphers",
    "tls.acme",
    "tls.acme.domains",
    "tls.acme.email",
    "tls.acme.ca",
    "proxy",
    "proxy.trusted",
    "share",
    "share.http",
    "share.pass_through",
    "relay.addresses",
    "relay.external",
    "credentials.users",
    "credentials.secrets",
    "credentials.store",
    "credentials.store.url",
    "credentials.hook",
    "credentials.hook.url",
    "credentials.hook.secret",
    "credentials.hook.ca",
    "credentials.tokens",
    "credentials.tokens.keys",
    "credentials.tokens.issuer",
    "credentials.tokens.audience",
    "credentials.oauth",
    "credentials.oauth.keys",
    "credentials.oauth.keys.key",
    "credentials.oauth.keys.not_before",
    "credentials.oauth.keys.realm",
    "realms",
    "realms.origins",
    "realms.listen",
    "realms.credentials.secrets",
    "realms.limits.allocations",
    "realms.limits.allocations_per_user",
    "realms.limits.bandwidth_per_allocation",
    "admin.listen",
    "admin.token",
    "status",
    "status.redis",
    "usage",
    "usage.file",
    "usage.url",
    "usage.secret",
    "usage.ca",
    "usage.spool",
    "limits.bandwidth_per_allocation",
    "limits.staying",
    "log.file",
    "redirect",
    "redirect.to",
    "redirect.domain",
    "nat_discovery",
    "nat_discovery.primary",
    "nat_discovery.alternate",
    "web",
    "web.tls",
    "web.tls.certificate",
    "web.tls.key",
    "web.host",
    "web.proxy",
    "web.proxy.trusted",
    "web.keys",
    *(f"web.keys.{name}" for name in WebKeySettings.model_fields),
}


def as_shipped() -> str:
    return (CONF / "turnsvr.yaml").read_text()


def with_everything_on() -> str:
    return OFF.sub(r"\1", as_shipped())


def loadable() -> str:
    """The same without the two files that stand in the place of tls.acme."""
    return FILES.sub("", with_everything_on())


def leaves(model: type[BaseModel], prefix: str = "") -> dict[str, object]:
    """Dotted name and default of every setting, sections and their settings alike."""
    found: dict[str, object] = {}
    for name, field in model.model_fields.items():
        found[prefix + name] = field.get_default(call_default_factory=True)
        section = wording.section_of(field.annotation)
        if section is not None:
            found |= leaves(section, f"{prefix}{name}.")
    return found


def value_at(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = next(iter(value.values())) if isinstance(value, dict) else value
        value = getattr(value, part)
    return value


def stated(text: str) -> set[str]:
    document = read(text, CONF, ENVIRON)
    assert not document.problems
    names = {location_name(location) for location in document.lines}
    return {re.sub(r"\bcredentials\.secret$", "credentials.secrets", name) for name in names}


def location_name(location: Location) -> str:
    """Items of a list go by the list's name, settings of a realm by `realms`, and those of a key in the same way."""
    if location[:1] == ("realms",):
        location = ("realms", *location[2:])
    if location[:3] == ("credentials", "oauth", "keys"):
        location = (*location[:3], *location[4:])
    return ".".join(part for part in location if isinstance(part, str))


def test_every_setting_is_stated() -> None:
    assert leaves(Settings).keys() <= stated(with_everything_on())


def test_every_stated_default_is_the_models() -> None:
    settings = config.loads(loadable(), "turnsvr.yaml", directory=CONF, environ=ENVIRON)
    for name, default in leaves(Settings).items():
        if name in EXAMPLES or name == "listen":
            continue
        value = value_at(settings, name)
        assert isinstance(value, BaseModel) or value == default, name


def test_as_shipped_it_is_the_default_and_a_secret() -> None:
    settings = config.loads(as_shipped(), "turnsvr.yaml", directory=CONF, environ=ENVIRON)
    secrets = CredentialSettings(secrets=(ENVIRON["TURN_SECRET"],))  # type: ignore[arg-type]
    assert settings.listeners() == Settings().listeners()
    assert settings.model_copy(update={"listen": None}) == Settings(credentials=secrets)


def test_only_what_has_no_default_is_off() -> None:
    off = stated(with_everything_on()) - stated(as_shipped())
    optional = ("tls", "proxy", "share", "redirect", "nat_discovery", "web", "realms", "status", "usage")
    beyond = ("store", "hook", "tokens", "oauth")
    sections = (*(f"{name}." for name in optional), *(f"credentials.{name}." for name in beyond))
    known = {name for name in leaves(Settings) if name in EXAMPLES or name.startswith(sections)}
    below = {
        name
        for name in off
        if name.startswith(("relay.addresses.", "redirect.to.", "credentials.users.", "share.pass_through."))
    }
    assert off - below == known - {"credentials.secrets"}


def test_every_setting_has_a_comment_before_it() -> None:
    lines = as_shipped().splitlines()
    names = {name.rpartition(".")[2] for name in leaves(Settings)} | {"secret"}
    for number, line in enumerate(lines):
        match = re.match(r" *#?([a-z_0-9]+):", line)
        if match and match[1] in names and line.startswith(" ") and number:
            before = lines[number - 1].strip()
            assert before.startswith("#") or before.split(":")[0] in names, f"line {number + 1}: {line}"


def test_lines_fit_a_terminal() -> None:
    for file in CONF.glob("*.yaml"):
        assert max(map(len, file.read_text().splitlines())) <= 120, file


@pytest.mark.parametrize("name", ["turnsvr.yaml", "stun-only.yaml", "webrtc.yaml"])
@pytest.mark.parametrize("everything", [False, True])
def test_each_file_is_valid(name: str, everything: bool) -> None:
    text = (CONF / name).read_text()
    if everything:
        text = loadable() if name == "turnsvr.yaml" else OFF.sub(r"\1", text)
    settings = config.loads(text, name, directory=CONF, environ=ENVIRON)
    assert settings.listeners()


def test_three_lines_are_enough() -> None:
    settings = config.loads("realm: example.org\ncredentials:\n  secret: x\n", "three.yaml")
    assert settings.realm == "example.org"
    assert settings.credentials.secrets[0].get_secret_value() == "x"


def test_the_file_says_the_same_to_a_yaml_1_2_editor() -> None:
    """Quoted where YAML itself would take a text for something else, so that the schema's types hold there."""

    class Tagged(yaml.SafeLoader):
        pass

    Tagged.add_constructor("!env", lambda loader, node: "text")
    values = yaml.load(with_everything_on(), Tagged)
    assert values["tls"]["minimum_version"] == "1.2"
    assert values["pump"]["gso"] is True
    assert values["limits"]["lifetime"] == "1h"


def test_redirect_example_has_default_port() -> None:
    settings = config.loads(loadable(), "turnsvr.yaml", directory=CONF, environ=ENVIRON)
    assert isinstance(settings.redirect, RedirectSettings)
    assert [endpoint.port for endpoint in settings.redirect.to] == [3478, 3478]
