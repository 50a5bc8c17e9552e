"""The types of settings: how each is read from text, written back and described to editors.

Validators raise BadValue; none repeats a value in its text, since it may have come from a secret.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    PlainValidator,
    SecretStr,
    StringConstraints,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from turnsvr.config import units
from turnsvr.config.locations import StoreUrl, parse_http_url, shown_url
from turnsvr.config.placeholders import is_placeholder
from turnsvr.config.ranges import (
    LISTEN_PATTERN,
    PORT_RANGE_PATTERN,
    AddressRange,
    ListenAddress,
    PeerRange,
    PortRange,
    ServerAddress,
    StunServer,
    parse_host,
    parse_unicast_host,
)
from turnsvr.config.sealingkeys import MAX_KEY_ID, format_time, parse_time
from turnsvr.config.units import BadValue

ANY_OF_FAMILY = {4: "0.0.0.0", 6: "::"}
"""The key of RelaySettings.external that stands for every relay address of a family."""

DIRECTORY = "directory"
"""Key of the validation context that holds the settings file's directory."""

_MAX_USERNAME_BYTES = 508
_MAX_REALM_CHARACTERS = 127
_MAX_ORIGIN_CHARACTERS = 700
_MAX_THREADS = 1_024


class Section(BaseModel):
    """A section of the settings: frozen, without unknown keys; one that is named and left empty has its defaults.

    What a field means stands under it; descriptions.py reads that where it is shown. Validators are built on first
    use, so defaults that are sections come from a factory: nothing is built by importing this.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _empty_is_default(cls, value: object) -> object:
        return {} if value is None else value


def family_of(address: str) -> Literal[4, 6]:
    return 6 if ":" in address else 4


def _split(value: object) -> object:
    """A text in place of a list counts as its items, so that one environment variable can hold several."""
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _one_or_more(value: object) -> object:
    return (value,) if isinstance(value, (str, SecretStr)) else value


def _check_unique(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(addresses)) != len(addresses):
        raise BadValue("names one address twice", "name each address once")
    return addresses


def _check_one_a_family(addresses: tuple[str, ...]) -> tuple[str, ...]:
    if len({family_of(address) for address in addresses}) != len(addresses):
        raise BadValue("names two addresses of one family", "write at most one IPv4 and one IPv6 address")
    return addresses


def _check_realm(realm: str) -> str:
    if not 0 < len(realm) <= _MAX_REALM_CHARACTERS or not realm.isprintable() or set(realm) & set('"\\'):
        raise BadValue(
            "is no realm",
            f"write a name such as example.org, at most {_MAX_REALM_CHARACTERS} characters, no quotes",
        )
    return realm


def _check_server_name(name: str) -> str:
    return _check_realm(name) if name else name


def _check_username(name: str) -> str:
    if not 0 < len(name.encode()) <= _MAX_USERNAME_BYTES or not name.isprintable():
        raise BadValue("is no user name", f"write 1 to {_MAX_USERNAME_BYTES} bytes without control characters")
    return name


def _check_separator(separator: str) -> str:
    if len(separator) != 1 or separator.isalnum() or not separator.isprintable() or separator.isspace():
        raise BadValue("is no separator", "write one character that is no letter, digit or space, such as : - or .")
    return separator


def check_secret(secret: SecretStr) -> SecretStr:
    """The same; raises BadValue for none at all, and for what stands in its place in examples and templates."""
    text = secret.get_secret_value()
    if not text:
        raise BadValue("is empty", "make one with: turnsvr secret")
    if is_placeholder(text):
        raise BadValue("is a placeholder, which others know, too", "make one with: turnsvr secret")
    return secret


def _check_password(password: SecretStr) -> SecretStr:
    text = password.get_secret_value()
    if not text:
        raise BadValue("is empty", "write a password, or 0x and a hex key")
    if units.parse_hex_key(text) is None and is_placeholder(text):
        raise BadValue("is a placeholder, which others know, too", "write a password, or 0x and a hex key")
    return password


def _beside_file(path: Path, info: ValidationInfo) -> Path:
    """A relative path counts from the settings file, when there is one."""
    directory = (info.context or {}).get(DIRECTORY)
    return directory / path if isinstance(directory, Path) else path


def _parse_threads(value: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= len(str(_MAX_THREADS)):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MAX_THREADS:
        raise BadValue("is no number of threads", f"write auto (one a core) or a number from 1 to {_MAX_THREADS}")
    return value


def _parse_external(value: object) -> object:
    """One address, or one a family, as the mapping that it stands for; a mapping stays as it is."""
    addresses = _split(value)
    if not isinstance(addresses, (list, tuple)):
        return value
    external = _check_one_a_family(tuple(parse_unicast_host(address) for address in addresses))
    return {ANY_OF_FAMILY[family_of(address)]: address for address in external}


def _check_external(external: dict[str, str]) -> dict[str, str]:
    for relay, advertised in external.items():
        if family_of(relay) != family_of(advertised):
            raise BadValue("joins an IPv4 and an IPv6 address", "relay and external address are of one family")
    if len(set(external.values())) != len(external):
        raise BadValue("gives one address to two relay addresses", "give each an external address of its own")
    return external


def _check_key_id(kid: str) -> str:
    if not 0 < len(kid) <= MAX_KEY_ID or not kid.isprintable():
        raise BadValue("is no name of a key", f"write 1 to {MAX_KEY_ID} characters without control characters")
    return kid


def _listing(item: dict[str, Any], *others: dict[str, Any]) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": [item, {"type": "array", "items": item}, *others]})


def _quantity(pattern: str, unit: str, *examples: str) -> WithJsonSchema:
    text = {"type": "string", "pattern": pattern, "examples": list(examples)}
    return WithJsonSchema({"anyOf": [text, {"type": "number", "minimum": 0, "description": unit}]})


def _text(pattern: str, *examples: str) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


_IP: dict[str, Any] = {"anyOf": [{"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}]}
_FOUND: dict[str, Any] = {"type": "string", "examples": ["auto", "turn.example.org"]}
_STUN_SERVER = {"type": "string", "examples": ["stun:stun.example.org", "stun:192.0.2.1:3479"]}
_IP_BY_IP: dict[str, Any] = {"type": "object", "additionalProperties": _IP}
_LISTEN = {"type": "string", "pattern": LISTEN_PATTERN, "examples": ["udp://0.0.0.0:3478", "tls://[::]:5349"]}
_RANGE = {"type": "string", "examples": ["10.1.0.0/16", "10.1.0.1-10.1.0.9", "2001:db8::7"]}
_PEER_RANGE = {"type": "string", "examples": ["10.1.0.0/16", "10.1.0.5:10000-20000", "[2001:db8::5]:4000"]}
_ENDPOINT = {"type": "string", "examples": ["203.0.113.7:3478", "[2001:db8::7]:3478"]}
_STORES = ["sqlite:/var/lib/turnsvr/turnsvr.sqlite", "postgresql://turnsvr:password@localhost/turnsvr"]
_SECRET: dict[str, Any] = {"type": "string", "minLength": 1, "writeOnly": True}

_AsText = PlainSerializer(str, return_type=str, when_used="json")
Secret = Annotated[SecretStr, AfterValidator(check_secret), WithJsonSchema(_SECRET)]

_ORIGIN = {"type": "string", "minLength": 1, "examples": ["https://app.example.org"]}

Realm = Annotated[str, AfterValidator(_check_realm)]
ServerName = Annotated[str, AfterValidator(_check_server_name)]
Username = Annotated[str, AfterValidator(_check_username)]
KeyId = Annotated[str, AfterValidator(_check_key_id)]
Time = Annotated[
    float,
    BeforeValidator(parse_time),
    PlainSerializer(format_time, return_type=str, when_used="json"),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["2026-01-31"]}, {"type": "number", "minimum": 0}]}),
]
Separator = Annotated[str, AfterValidator(_check_separator)]
Password = Annotated[SecretStr, AfterValidator(_check_password), WithJsonSchema(_SECRET)]
Secrets = Annotated[tuple[Secret, ...], BeforeValidator(_one_or_more), _listing(_SECRET)]
StoreLocation = Annotated[
    StoreUrl, PlainValidator(StoreUrl.parse), _AsText, WithJsonSchema({"type": "string", "examples": _STORES})
]
HttpUrl = Annotated[
    str,
    PlainValidator(parse_http_url),
    PlainSerializer(shown_url, when_used="json"),
    WithJsonSchema({"type": "string", "pattern": "^https?://"}),
]
OriginTexts = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=_MAX_ORIGIN_CHARACTERS)], ...],
    BeforeValidator(_split),
    _listing(_ORIGIN),
]
FilePath = Annotated[Path, AfterValidator(_beside_file)]
IpText = Annotated[str, PlainValidator(parse_unicast_host), WithJsonSchema(_IP)]
IpTexts = Annotated[tuple[IpText, ...], BeforeValidator(_split), AfterValidator(_check_unique), _listing(_IP)]
OneAFamily = Annotated[tuple[IpText, ...], BeforeValidator(_split), AfterValidator(_check_one_a_family), _listing(_IP)]
External = Annotated[
    dict[Annotated[str, PlainValidator(parse_host)], IpText],
    BeforeValidator(_parse_external),
    AfterValidator(_check_external),
    _listing(_IP, _IP_BY_IP, _FOUND),
]
StunServers = Annotated[
    tuple[Annotated[StunServer, PlainValidator(StunServer.parse), _AsText], ...],
    BeforeValidator(_split),
    _listing(_STUN_SERVER),
]
PortSpan = Annotated[PortRange, PlainValidator(PortRange.parse), _AsText, _text(PORT_RANGE_PATTERN, "49152-65535")]
Ranges = Annotated[
    tuple[Annotated[AddressRange, PlainValidator(AddressRange.parse), _AsText], ...],
    BeforeValidator(_split),
    _listing(_RANGE),
]
PeerRanges = Annotated[
    tuple[Annotated[PeerRange, PlainValidator(PeerRange.parse), _AsText], ...],
    BeforeValidator(_split),
    _listing(_PEER_RANGE),
]
ListenAddresses = Annotated[
    tuple[Annotated[ListenAddress, PlainValidator(ListenAddress.parse), _AsText], ...],
    BeforeValidator(_split),
    _listing(_LISTEN),
]
Endpoints = Annotated[
    tuple[Annotated[ServerAddress, PlainValidator(ServerAddress.parse), _AsText], ...],
    BeforeValidator(_split),
    _listing(_ENDPOINT),
]
Threads = Annotated[
    int | Literal["auto"],
    PlainValidator(_parse_threads),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1, "maximum": _MAX_THREADS}]}),
]
Seconds = Annotated[
    float,
    BeforeValidator(units.parse_duration),
    PlainSerializer(units.format_duration, return_type=str, when_used="json"),
    _quantity(units.DURATION_PATTERN, "seconds", "30s", "10m", "1h30m"),
]
Bytes = Annotated[
    int,
    BeforeValidator(units.parse_size),
    PlainSerializer(units.format_size, return_type=str, when_used="json"),
    _quantity(units.SIZE_PATTERN, "bytes", "256 KiB"),
]
BytesPerSecond = Annotated[
    int,
    BeforeValidator(units.parse_bandwidth),
    PlainSerializer(units.format_bandwidth, return_type=str, when_used="json"),
    _text(units.BANDWIDTH_PATTERN, "4 Mbit/s", "500 kB/s"),
]
PerSecond = Annotated[
    float,
    BeforeValidator(units.parse_rate),
    PlainSerializer(units.format_rate, return_type=str, when_used="json"),
    _quantity(units.RATE_PATTERN, "per second", "100/s", "600/min"),
]
