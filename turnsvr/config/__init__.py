"""The settings file: YAML to Settings, with file and line of every mistake.

All mistakes are reported together. None repeats a value that may be secret. The models are imported when a file is
read: commands that read none import this room for its errors and units, and start without them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from turnsvr import origin

if TYPE_CHECKING:
    from pydantic import ValidationError

    from turnsvr.config.document import Location, Problem, YamlDocument
    from turnsvr.config.ranges import ListenAddress
    from turnsvr.config.settings import RelaySettings, Settings

UNKNOWN = "unknown setting"
"""The problem of a name that no setting has."""

_MAX_FILE_BYTES = 4 * 1_048_576


@dataclass(frozen=True)
class Mistake:
    """One thing to correct. Line counts from 1, None when the file as a whole is meant; hint may be empty."""

    file: str
    line: int | None
    setting: str
    problem: str
    hint: str

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        text = ": ".join(part for part in (place, self.setting, self.problem) if part)
        return f"{text}; {self.hint}" if self.hint else text


class ConfigError(Exception):
    """A settings file with mistakes, in the order of their lines; the text has one a line."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: mistake.line or 0)
        super().__init__("\n".join(map(str, self.mistakes)))


def load(path: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a file; raises ConfigError, also when the file cannot be read."""
    name = str(path)
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([Mistake(name, None, "", f"cannot be read: {error.strerror}", "")]) from None
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigError([Mistake(name, None, "", f"is larger than {_MAX_FILE_BYTES} bytes", "")])
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError([Mistake(name, line, "", "is no UTF-8 text", "save the file as UTF-8")]) from None
    return loads(text, name, directory=path.parent, environ=environ)


def loads(text: str, name: str, *, directory: Path = Path(), environ: Mapping[str, str] = os.environ) -> Settings:
    """The settings in a text that is called name in errors; relative paths count from directory.

    Raises ConfigError.
    """
    from pydantic import ValidationError

    from turnsvr.config import document, fields, wording
    from turnsvr.config.settings import Settings

    content = document.read(text, directory, environ)
    problems = list(content.problems)
    settings: Settings | None = None
    if content.value is not None or not problems:
        try:
            settings = Settings.model_validate(content.value, context={fields.DIRECTORY: directory})
        except ValidationError as error:
            problems += _model_problems(error, content)
    if settings is not None and not problems:
        problems += _contradictions(settings, content)
    if settings is None or problems:
        raise ConfigError(
            [Mistake(name, p.line, wording.setting_name(p.location), p.problem, p.hint) for p in problems]
        )
    return settings


def _model_problems(error: ValidationError, content: YamlDocument) -> Iterator[Problem]:
    """What the models refuse, without what follows from a value that the document already complains of."""
    from turnsvr.config import wording
    from turnsvr.config.document import Problem

    spoiled = [problem.location for problem in content.problems]
    for detail in error.errors(include_url=False, include_input=False):
        location = wording.location_of(detail)
        if not any(_nested(location, other) for other in spoiled):
            problem, hint = wording.explain(detail, location)
            yield Problem(location, content.line_of(location), problem, hint)


def _nested(one: Location, other: Location) -> bool:
    size = min(len(one), len(other))
    return one[:size] == other[:size]


def _contradictions(settings: Settings, content: YamlDocument) -> Iterator[Problem]:
    """What each setting allows and together makes no sense."""
    from turnsvr.config import doorchecks
    from turnsvr.config.document import Problem

    def problem(text: str, hint: str, *location: str | int) -> Problem:
        return Problem(location, content.line_of(location), text, hint)

    if settings.has_no_user:
        yield problem(
            "are missing, so no client could relay",
            'add "credentials: {secret: …}" with the output of: turnsvr secret; or "stun_only: true"',
            "credentials",
        )
    for index, text, hint in _listen_contradictions(settings):
        yield problem(text, hint, "listen", index)
    for key, text, hint in _external_contradictions(settings.relay):
        yield problem(text, hint, "relay", "external", *key)
    for where, text, hint in _realm_contradictions(settings):
        yield problem(text, hint, "realms", *where)
    for where, text, hint in _web_contradictions(settings):
        yield problem(text, hint, "web", *where)
    for location, text, hint in doorchecks.contradictions(settings):
        yield problem(text, hint, *location)


def _listen_contradictions(settings: Settings) -> Iterator[tuple[int, str, str]]:
    seen: dict[tuple[_Socket, bool], ListenAddress] = {}
    for index, address in enumerate(settings.listen or ()):
        if address.needs_certificate and settings.tls is None:
            yield index, "needs a certificate", 'add "tls: {certificate: …, key: …}"'
        for concrete in address.expand():
            # UDP and DTLS may both be named of one port, for clients are told of both; TLS stands for TCP as well.
            other = seen.setdefault((_socket(concrete), address.transport == "dtls"), address)
            if other is address or concrete.port == 0:
                continue
            if other.transport == address.transport:
                yield index, f"listens where {other} already does", "keep one of them"
            else:
                yield (
                    index,
                    f"takes the port of {other}",
                    "keep one of them: a listener tells TLS from TCP itself",
                )
            break


def _external_contradictions(relay: RelaySettings) -> Iterator[tuple[tuple[str, ...], str, str]]:
    from turnsvr.config import fields
    from turnsvr.config.ranges import AUTO

    if relay.addresses is None:
        return
    families = list(map(fields.family_of, relay.addresses))
    if relay.external_source not in (None, AUTO) and len(set(families)) < len(families):
        yield (
            (),
            "is one name for several relay addresses of a family",
            "write relay address: external address, or auto",
        )
    for address in relay.external:
        family = fields.family_of(address)
        relays = [other for other in relay.addresses if fields.family_of(other) == family]
        if address == fields.ANY_OF_FAMILY[family]:
            if len(relays) != 1:
                count = "several relay addresses" if relays else "no relay address"
                yield (), f"fits {count} of its family", "write relay address: external address"
        elif address not in relays:
            yield (address,), "is not among relay.addresses", "add it there or correct it"
        elif relay.external[address] in relays and relay.external_for(relay.external[address]) is None:
            yield (
                (address,),
                "gives out another of relay.addresses",
                "give each an external address of its own",
            )


def _realm_contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    listeners = set(map(_socket, (*settings.listeners(), *settings.named_listeners())))
    by_origin: dict[str, str] = {}
    by_socket: dict[_Socket, str] = {}
    for name, realm in settings.realms.items():
        if name == settings.realm:
            hint = "rename it, or write its credentials, peers and limits outside of realms"
            yield (name,), "has the name of the default realm", hint
        for index, text in enumerate(realm.origins):
            first = by_origin.setdefault(origin.normal(text), name)
            if first != name:
                yield (name, "origins", index), f"chooses the realm {first} already", "keep it in one realm"
        for index, address in enumerate(realm.listen):
            sockets = [_socket(concrete) for concrete in address.expand()]
            others = [by_socket.setdefault(each, name) for each in sockets]
            other = next((other for other in others if other != name), None)
            if address.port == 0:
                yield (name, "listen", index), "has no port, so that it chooses nothing", "write the port"
            elif not listeners.issuperset(sockets):
                yield (name, "listen", index), "is not among the listeners", f'add "{address}" to listen'
            elif other is not None:
                yield (name, "listen", index), f"chooses the realm {other} already", "keep it in one realm"


_Socket = tuple[bool, str, int]
"""What one listener has for itself: whether it is a UDP socket, host, port."""


def _socket(address: ListenAddress) -> _Socket:
    return address.is_datagram, address.host, address.port


def _web_contradictions(settings: Settings) -> Iterator[tuple[tuple[str | int, ...], str, str]]:
    web = settings.web
    if web is None:
        return
    if (web.keys or web.public) and settings.credentials.users and not settings.credentials.secrets:
        yield (), "gives out time-limited credentials, which need a shared secret", "add credentials.secret"
    taken = {(each.host, each.port): each for each in settings.listeners() if not each.is_datagram}
    for index, address in enumerate(web.listen):
        if address.scheme == "https" and web.tls is None and settings.tls is None:
            yield ("listen", index), "needs a certificate", "add web.tls or tls: {certificate: …, key: …}"
        other = next((taken[key] for each in address.expand() if (key := (each.host, each.port)) in taken), None)
        if other is not None and address.port:
            yield ("listen", index), f"takes the port of {other}", "keep one of them"
