"""What `turnsvr init` writes and says. Pure: questions, files and the clock are init.py's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from turnsvr import config
from turnsvr.credentials import ice

if TYPE_CHECKING:
    from turnsvr.config.settings import Settings

CREDENTIALS = Path("/run/credentials/turnsvr.service")
"""Where systemd hands the service what its unit loads."""

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})+")
_PLAIN = re.compile(r"[A-Za-z/][\w./-]*|[0-9]+(?:\.[0-9]+){3}", re.ASCII)
_IN_UNIT = re.compile(r"[\w./:@+-]+", re.ASCII)


class Impossible(Exception):
    """An answer that cannot be; one line says which and what would be right."""


@dataclass(frozen=True)
class Answers:
    """What init has been told."""

    domain: str
    address: str | None
    """Public address, where it is not this host's own: one of each family, with a comma between them; auto; a name."""
    certificate: Path | None
    key: Path | None
    acme: str | None
    """Mail address, where Let's Encrypt is to issue the certificate."""
    directory: Path
    """Of settings and secret."""
    program: Path
    unit: Path | None
    """Where the unit goes; None where no service manager runs the server."""
    packaged: bool = False
    """Whether a package brings the unit, so that what goes there only adds to it."""

    @property
    def settings(self) -> Path:
        return self.directory / "turnsvr.yaml"

    @property
    def secret(self) -> Path:
        return self.directory / "secret"


def settings_text(answers: Answers) -> str:
    """The settings file. Raises Impossible."""
    if not _NAME.fullmatch(answers.domain) or len(answers.domain) > 253:
        raise Impossible(f"{answers.domain!a} is no domain name; write one as turn.example.org")
    text = _settings(answers, f"!file {_scalar(str(_seen(answers, 'secret', answers.secret)))}")
    read_back(answers)
    return text


def read_back(answers: Answers) -> Settings:
    """What the settings mean, before their secret is there. Raises Impossible."""
    try:
        stand_in = sha256(answers.domain.encode()).hexdigest()
        return config.loads(_settings(answers, stand_in), "settings", environ={})
    except config.ConfigError as error:
        mistake = error.mistakes[0]
        raise Impossible(f"{mistake.setting}: {mistake.problem}; {mistake.hint}") from None


def unit_text(answers: Answers, template: str) -> str:
    """The unit that comes with the program, for these places; or what is to be added to a package's unit.

    Raises Impossible.
    """
    loaded = {"secret": answers.secret, "certificate": answers.certificate, "key": answers.key}
    for each in (answers.program, answers.settings, *filter(None, loaded.values())):
        if not each.is_absolute() or not _IN_UNIT.fullmatch(str(each)):
            raise Impossible(f"{str(each)!a} cannot stand in a unit; name a path of letters, digits and ./:@+-")
    if answers.packaged:
        lines = [f"LoadCredential={name}:{path}" for name, path in loaded.items() if path and name != "secret"]
        return "\n".join(("# Written by turnsvr init; it adds to the unit of the package.", "[Service]", *lines, ""))
    text = re.sub(
        r"^ExecStart=.*$", f"ExecStart={answers.program} run -c {answers.settings}", template, flags=re.MULTILINE
    )
    for name, path in loaded.items():
        if path is not None:
            text = re.sub(rf"^#?LoadCredential={name}:.*$", f"LoadCredential={name}:{path}", text, flags=re.MULTILINE)
    return text


def advice(answers: Answers, username: str, password: str) -> Iterator[str]:
    """Lines: what to open, what the app needs, what to do next. The pair is good for an hour."""
    settings = read_back(answers)
    listeners = settings.listeners()
    ports = dict.fromkeys((each.port, "udp" if each.is_datagram else "tcp") for each in listeners)
    relay = settings.relay.ports
    yield "Open in the firewall, for all addresses:"
    yield f"  {', '.join(f'{port}/{protocol}' for port, protocol in ports)}, and for relayed packets {relay}/udp"
    yield f"  with ufw: {'; '.join(f'ufw allow {port}/{protocol}' for port, protocol in ports)}; " + (
        f"ufw allow {relay.low}:{relay.high}/udp"
    )
    yield ""
    yield f"Put into the app: the secret in {answers.secret}, with which it makes time-limited credentials, and"
    yield f"  {', '.join((*ice.stun_urls(answers.domain, listeners), *ice.turn_urls(answers.domain, listeners)))}"
    yield ""
    yield "To try it out in a browser for an hour: new RTCPeerConnection("
    yield json.dumps(ice.ice_servers(answers.domain, listeners, username, password), indent=2) + ")"
    yield ""
    yield f"The same from a shell: turnsvr credentials --secret-file {answers.secret} --host {answers.domain}"
    yield ""
    yield "Next:"
    if answers.unit is None:
        yield f"  turnsvr check {answers.settings}"
        yield f"  turnsvr run -c {answers.settings}"
    else:
        yield "  systemctl daemon-reload && systemctl enable turnsvr && systemctl restart turnsvr && turnsvr status"
    yield f"  turnsvr probe -c {answers.settings} turn:{answers.domain}"
    yield f"  and on a machine elsewhere, with the secret: turnsvr probe --secret-file FILE turn:{answers.domain}"


def _settings(answers: Answers, secret: str) -> str:
    lines = [
        f"# Settings of turnsvr for {answers.domain}; every other setting has a safe default: conf/turnsvr.yaml.",
        f"realm: {_scalar(answers.domain)}",
        "credentials:",
        f"  secret: {secret}",
    ]
    if answers.address:
        lines += ["relay:", f"  external: {_scalar(answers.address)}"]
    if answers.acme is not None:
        lines += [
            "# TLS on 443, where Let's Encrypt looks for the proof, and where firewalls let clients through.",
            "listen: [udp://*, tcp://*, tls://*:443]",
            "tls:",
            f"  acme: {{domains: {_scalar(answers.domain)}, email: {_scalar(answers.acme)}{_kept(answers)}}}",
        ]
    if answers.certificate is not None and answers.key is not None:
        lines += [
            "tls:",
            f"  certificate: {_scalar(str(_seen(answers, 'certificate', answers.certificate)))}",
            f"  key: {_scalar(str(_seen(answers, 'key', answers.key)))}",
        ]
    return "\n".join(lines) + "\n"


def _seen(answers: Answers, name: str, path: Path) -> Path:
    """Where the server finds a file: under the unit its user may not read the file itself."""
    return path if answers.unit is None else CREDENTIALS / name


def _kept(answers: Answers) -> str:
    """Where account and certificate are kept when there is no systemd that gives a directory for them."""
    return f", directory: {_scalar(str(answers.directory / 'acme'))}" if answers.unit is None else ""


def _scalar(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
