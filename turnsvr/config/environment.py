"""Settings out of environment variables, as containers have them: which there are, and the settings file they make.

The file that is made names the variables (`!env`) and holds none of their values, so that no secret is written.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from turnsvr.config import ConfigError, Mistake

PREFIX = "TURNSVR_"
_SOURCE = "environment"
_MAX_PORT = 65_535


@dataclass(frozen=True, slots=True)
class Variable:
    """One variable, and the setting that it gives."""

    name: str
    setting: str
    meaning: str
    secret: bool = False
    """Whether NAME_FILE may name a file that holds it."""


VARIABLES = (
    Variable("TURNSVR_REALM", "realm", "Domain name of the server."),
    Variable("TURNSVR_SECRET", "credentials.secret", "Shared secret; needed. `turnsvr secret` makes one.", secret=True),
    Variable("TURNSVR_EXTERNAL", "relay.external", "Public address, one a family; `auto`; or a name."),
    Variable("TURNSVR_LISTEN_PORT", "listen", "Port of UDP and TCP, 3478 unless it is said."),
    Variable("TURNSVR_TLS_PORT", "listen", "Port of TLS where there is a certificate, 5349 unless it is said."),
    Variable("TURNSVR_RELAY_PORTS", "relay.ports", "Ports of relayed addresses, 49152-65535 unless they are said."),
    Variable("TURNSVR_CERTIFICATE", "tls.certificate", "PEM file with the certificate and its chain."),
    Variable("TURNSVR_KEY", "tls.key", "PEM file with the certificate's private key."),
    Variable("TURNSVR_WEB", "web.listen", "Where health and metrics are served, as http://*:8080; nowhere by default."),
    Variable("TURNSVR_LOG_LEVEL", "log.level", "debug, info, warning or error."),
    Variable("TURNSVR_LOG_FORMAT", "log.format", "text or json."),
)
"""In the order of the document about containers."""

_LISTEN_PORT, _TLS_PORT = "TURNSVR_LISTEN_PORT", "TURNSVR_TLS_PORT"
_FILE = "_FILE"
_NAMES = {each.name: each for each in VARIABLES} | {f"{each.name}{_FILE}": each for each in VARIABLES if each.secret}
_NOT_SETTINGS = {"TURNSVR_RULES"}
_OF_KUBERNETES = re.compile(r"TURNSVR_(?:SERVICE_.*|PORT|PORT_.*)")
"""What Kubernetes tells every container of a Service that is called turnsvr."""


def settings_text(environ: Mapping[str, str]) -> str:
    """The settings file of these variables, of which an empty one counts as absent. Raises ConfigError."""
    given = {name: value for name, value in environ.items() if name.startswith(PREFIX) and value}
    if mistakes := [Mistake(_SOURCE, None, *mistake) for mistake in _mistakes(given)]:
        raise ConfigError(mistakes)
    by_section: dict[str, list[str]] = {}
    for name in _NAMES:
        if name in given and name not in (_LISTEN_PORT, _TLS_PORT):
            section, _, setting = _NAMES[name].setting.partition(".")
            value = f"!file {_quoted(given[name])}" if name.endswith(_FILE) else f"!env {name}"
            by_section.setdefault(section, []).append(f"{setting}: {value}" if setting else value)
    lines = [f"{section}: {{{', '.join(parts)}}}" for section, parts in by_section.items() if section != "realm"]
    realm = [f"realm: {each}" for each in by_section.get("realm", ())]
    head = "# Made of environment variables by: turnsvr run --environment"
    return "\n".join((head, *realm, f"listen: [{', '.join(_listen(given))}]", *lines, ""))


def _listen(given: Mapping[str, str]) -> Iterator[str]:
    for transport, name, usual in (("udp", _LISTEN_PORT, 3478), ("tcp", _LISTEN_PORT, 3478), ("tls", _TLS_PORT, 5349)):
        if transport != "tls" or "TURNSVR_CERTIFICATE" in given:
            yield f'"{transport}://*:{int(given.get(name, usual))}"'


def _mistakes(given: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Variable, problem and hint."""
    for name in given:
        if name not in _NAMES and name not in _NOT_SETTINGS and not _OF_KUBERNETES.fullmatch(name):
            close = difflib.get_close_matches(name, _NAMES, 1)
            yield name, "no such variable", f"did you mean {close[0]}?" if close else f"there are {', '.join(_NAMES)}"
    for name in (_LISTEN_PORT, _TLS_PORT):
        if not re.fullmatch("[0-9]{1,5}", given.get(name, "1")) or not 0 < int(given.get(name, "1")) <= _MAX_PORT:
            yield name, "is no port", f"write a number from 1 to {_MAX_PORT}"
    for each in VARIABLES:
        if each.secret and each.name in given and f"{each.name}{_FILE}" in given:
            yield each.name, f"is given, and {each.name}{_FILE} too", "give one of both"
        if each.setting == "credentials.secret" and not {each.name, f"{each.name}{_FILE}"} & given.keys():
            yield each.name, "is missing", f"give it, or {each.name}{_FILE}, the output of: turnsvr secret"
    if ("TURNSVR_CERTIFICATE" in given) != ("TURNSVR_KEY" in given):
        yield "TURNSVR_CERTIFICATE", "and TURNSVR_KEY belong together", "give both, or neither"


def _quoted(text: str) -> str:
    return (
        '"'
        + "".join(each if each.isprintable() and each not in '"\\' else f"\\U{ord(each):08x}" for each in text)
        + '"'
    )
