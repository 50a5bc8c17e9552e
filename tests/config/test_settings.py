"""The models: defaults, forms of each setting, and the JSON Schema that describes them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from turnsvr.config import wording
from turnsvr.config.descriptions import description
from turnsvr.config.ranges import ListenAddress
from turnsvr.config.schema import json_schema
from turnsvr.config.settings import RelaySettings, Settings


def make(**values: object) -> Settings:
    return Settings.model_validate(values)


def sections(model: type[BaseModel] = Settings) -> list[type[BaseModel]]:
    found = [model]
    for field in model.model_fields.values():
        section = wording.section_of(field.annotation)
        found += sections(section) if section else []
    return found


def test_no_settings_at_all_serve_udp_and_tcp_everywhere() -> None:
    settings = Settings()
    assert {(a.transport, a.host, a.port) for a in settings.listeners()} == {
        (transport, host, 3478) for transport in ("udp", "tcp") for host in ("0.0.0.0", "::")
    }
    assert not settings.credentials.users
    assert not settings.credentials.secrets


def test_tls_adds_its_listener() -> None:
    settings = make(tls={"certificate": "a", "key": "b"})
    assert {(a.host, a.port) for a in settings.listeners() if a.transport == "tls"} == {("0.0.0.0", 5349), ("::", 5349)}


def test_named_listeners_replace_the_default() -> None:
    assert make(listen=["udp://127.0.0.1:0"]).listeners() == (ListenAddress("udp", "127.0.0.1", 0),)


def test_discovery_listens_on_each_of_its_addresses_and_elsewhere_as_before() -> None:
    discovery = {"primary": "192.0.2.1", "alternate": "192.0.2.2"}
    listeners = make(nat_discovery=discovery).listeners()
    assert {(each.host, each.port) for each in listeners if each.transport == "udp"} == {
        ("192.0.2.1", 3478),
        ("192.0.2.1", 3479),
        ("192.0.2.2", 3478),
        ("192.0.2.2", 3479),
        ("::", 3478),
    }


@pytest.mark.parametrize("section", sections())
def test_every_setting_has_a_meaning(section: type[BaseModel]) -> None:
    assert section.__doc__
    for name in section.model_fields:
        assert description(section, name).endswith("."), f"{section.__name__}.{name}"


@pytest.mark.parametrize("section", sections())
def test_models_are_frozen_and_closed(section: type[BaseModel]) -> None:
    assert section.model_config["frozen"]
    assert section.model_config["extra"] == "forbid"
    assert section.model_config["hide_input_in_errors"]


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().limits.allocations = 5


@pytest.mark.parametrize(
    ("written", "external"),
    [
        ("203.0.113.7", {"0.0.0.0": "203.0.113.7"}),
        ("203.0.113.7, 2001:db8::7", {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}),
        (["203.0.113.7", "2001:DB8::7"], {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}),
        ({"10.0.0.5": "203.0.113.7"}, {"10.0.0.5": "203.0.113.7"}),
        ({}, {}),
    ],
)
def test_forms_of_external(written: object, external: dict[str, str]) -> None:
    assert RelaySettings.model_validate({"external": written}).external == external


def test_external_for_an_address() -> None:
    relay = RelaySettings.model_validate({"external": {"10.0.0.5": "203.0.113.7", "2001:db8:0::5": "2001:db8:f::7"}})
    assert relay.external_for("10.0.0.5") == "203.0.113.7"
    assert relay.external_for("10.0.0.6") is None
    assert relay.external_for("2001:db8::5") == "2001:db8:f::7"
    anywhere = RelaySettings.model_validate({"external": "203.0.113.7"})
    assert anywhere.external_for("10.9.9.9") == "203.0.113.7"
    assert anywhere.external_for("2001:db8::5") is None


@pytest.mark.parametrize(
    "external",
    [
        ["203.0.113.7", "203.0.113.8"],
        {"10.0.0.5": "2001:db8::7"},
        {"10.0.0.5": "0.0.0.0"},
        {"x": "203.0.113.7"},
        "x",
        "224.0.0.1",
        7,
        [None],
    ],
)
def test_no_external(external: object) -> None:
    with pytest.raises(ValidationError):
        RelaySettings.model_validate({"external": external})


def test_one_secret_or_several() -> None:
    assert [s.get_secret_value() for s in make(credentials={"secret": "a"}).credentials.secrets] == ["a"]
    assert [s.get_secret_value() for s in make(credentials={"secrets": "a, b"}).credentials.secrets] == ["a, b"]
    assert [s.get_secret_value() for s in make(credentials={"secrets": ["a", "b"]}).credentials.secrets] == ["a", "b"]


def test_lists_may_be_one_text() -> None:
    settings = make(listen="udp://*, tcp://*", peers={"allow": "10.0.0.0/8,10.9.9.9"}, relay={"addresses": "10.0.0.5"})
    assert settings.listen is not None
    assert [str(address) for address in settings.listen] == ["udp://*:3478", "tcp://*:3478"]
    assert [str(found) for found in settings.peers.allow] == ["10.0.0.0/8", "10.9.9.9"]
    assert settings.relay.addresses == ("10.0.0.5",)


def test_threads() -> None:
    assert make().pump.thread_count(8) == 8
    assert make().pump.thread_count(0) == 1
    assert make(pump={"threads": "2"}).pump.thread_count(8) == 2
    for threads in (0, "0", -1, True, "x", 1025, "99999", 1.5, None):
        with pytest.raises(ValidationError):
            make(pump={"threads": threads})


def test_channels() -> None:
    assert make().stun.last_channel == 0x7FFF
    assert make(stun={"channels": "0x4000-0x4FFF"}).stun.last_channel == 0x4FFF


@pytest.mark.parametrize(
    "discovery",
    [
        {},
        {"primary": []},
        {"primary": ["203.0.113.7", "203.0.113.8"]},
        {"primary": "203.0.113.7", "alternate": "2001:db8::7"},
        {"primary": "203.0.113.7", "alternate": "203.0.113.7"},
        {"primary": "203.0.113.7", "port": 3479},
        {"primary": "0.0.0.0"},
    ],
)
def test_no_nat_discovery(discovery: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        make(nat_discovery=discovery)


def test_nat_discovery_of_both_families() -> None:
    discovery = make(
        nat_discovery={"primary": ["203.0.113.7", "2001:db8::7"], "alternate": ["203.0.113.8", "2001:db8::8"]}
    ).nat_discovery
    assert discovery is not None
    assert (discovery.port, discovery.alternate_port) == (3478, 3479)


def test_secrets_are_masked_in_every_form() -> None:
    settings = make(credentials={"secret": "hush-hush", "users": {"alice": "wonderland"}})
    for text in (repr(settings), str(settings), settings.model_dump_json(), str(settings.model_dump(mode="json"))):
        assert "hush-hush" not in text
        assert "wonderland" not in text


def test_a_failed_validation_hides_its_input() -> None:
    with pytest.raises(ValidationError) as caught:
        make(credentials={"secret": {"hush-hush": 1}, "users": {"alice": ["wonderland"]}})
    assert "hush-hush" not in str(caught.value)
    assert "wonderland" not in str(caught.value)


def test_what_is_written_reads_back_to_the_same_settings() -> None:
    settings = make(
        realm="example.org",
        listen=["udp://*", "tls://[2001:db8::1]:443"],
        tls={"certificate": "/c", "key": "/k", "minimum_version": "1.3"},
        relay={"addresses": ["10.0.0.5"], "external": "203.0.113.7", "ports": "50000-50999"},
        peers={"allow": ["10.1.0.0/16", "10.2.0.1-10.2.0.6"], "deny": ["198.51.100.7"]},
        limits={"bandwidth_per_allocation": "4 Mbit/s", "lifetime": "1h30m", "answers_per_address": "0"},
        redirect={"to": ["[2001:db8::9]:3479"], "when": "always"},
        pump={"threads": 3, "gso": "off"},
    )
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def test_the_schema_is_closed_and_states_defaults_as_the_file_does() -> None:
    schema = json.loads(json.dumps(json_schema()))
    assert schema["additionalProperties"] is False
    limits = schema["$defs"]["LimitSettings"]["properties"]
    assert limits["lifetime"]["default"] == "1h"
    assert limits["stream_buffer"]["default"] == "256 KiB"
    assert schema["$defs"]["RelaySettings"]["properties"]["ports"]["default"] == "49152-65535"
    assert {"secret", "secrets"} <= schema["$defs"]["CredentialSettings"]["properties"].keys()


def test_the_schema_describes_the_forms_of_texts() -> None:
    definitions = json_schema()["$defs"]
    assert texts(definitions["LimitSettings"]["properties"]["lifetime"])
    assert texts(definitions["RelaySettings"]["properties"]["ports"])
    assert texts(definitions["LimitSettings"]["properties"]["bandwidth_per_allocation"])
    assert texts(json_schema()["properties"]["listen"])


def texts(schema: dict[str, Any]) -> bool:
    return any(form.get("type") == "string" for form in schema.get("anyOf", [schema]))


def test_everything_in_the_schema_is_described() -> None:
    schema = json_schema()
    for definition in (schema, *schema["$defs"].values()):
        for name, setting in definition["properties"].items():
            assert setting.get("description"), name
