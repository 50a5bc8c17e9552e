"""The command that sets a server up: init."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import click

from turnsvr.cli.common import FILE, fail, operator_errors
from turnsvr.cli.initial import Answers, Impossible, advice, settings_text, unit_text
from turnsvr.shipped import samples, shipped

_SECRET_BYTES = 32
_UNIT = Path("/etc/systemd/system/turnsvr.service")
_PACKAGED = (Path("/usr/lib/systemd/system/turnsvr.service"), Path("/lib/systemd/system/turnsvr.service"))
_ADDED = Path("/etc/systemd/system/turnsvr.service.d/init.conf")
"""Where a package's unit is, and what is read in addition to it."""
_PRISTINE = Path("/usr/share/turnsvr/turnsvr.yaml")
"""The settings file as a package brings it."""
_TRIAL = 3_600
"""Seconds that the credentials to try it out with last."""
_HIDDEN = (Path("/home"), Path("/root"), Path("/run/user"))
"""What the unit hides from the service (ProtectHome=)."""


@click.command()
@click.option("--domain", metavar="NAME", help="Domain name of the server; its realm, too.")
@click.option(
    "--address",
    metavar="ADDRESS",
    help="Public address, where NAT of a cloud or router stands before it; auto finds it, a name is looked up.",
)
@click.option("--certificate", type=FILE, metavar="FILE", help="PEM file with the certificate and its chain.")
@click.option("--key", type=FILE, metavar="FILE", help="PEM file with the certificate's private key.")
@click.option(
    "--acme",
    metavar="EMAIL",
    help="Have Let's Encrypt issue the certificate, whose terms of service are agreed to; it may write to EMAIL.",
)
@click.option(
    "--directory",
    type=FILE,
    default="/etc/turnsvr",
    show_default=True,
    metavar="DIRECTORY",
    help="Where settings and secret go.",
)
@click.option("--unit", type=FILE, metavar="FILE", help=f"Where systemd's unit goes.  [default: {_UNIT}]")
@click.option("--no-unit", is_flag=True, help="Without a unit: something else starts the server.")
@click.option("--samples", "samples_to", type=FILE, metavar="DIRECTORY", help="Put the files of conf/ there as well.")
@click.option("--force", is_flag=True, help="Overwrite settings and unit; a secret that is there stays in any case.")
@operator_errors
def init(
    domain: str | None,
    address: str | None,
    certificate: Path | None,
    key: Path | None,
    acme: str | None,
    directory: Path,
    unit: Path | None,
    no_unit: bool,
    samples_to: Path | None,
    force: bool,
) -> None:
    """Set a server up: settings, a secret, the unit.

    What no option says is asked for on a terminal; elsewhere only --domain is needed. Tells what to open in the
    firewall and what to put into the app. With a unit systemd hands the server secret and certificate, which its user
    need not be able to read. --samples adds sample settings and the files for fail2ban, logrotate, Prometheus and
    Grafana.

    \b
    Examples:
      turnsvr init
      turnsvr init --domain turn.example.org --address auto --acme admin@example.org
      turnsvr init --domain turn.example.org --no-unit --directory ~/turn
    """
    if no_unit and unit is not None:
        raise click.UsageError("take either --unit or --no-unit")
    if domain is None or sys.stdin.isatty():
        domain, address, certificate, key, acme = _ask(domain, address, certificate, key, acme)
    if (certificate is None) != (key is None):
        raise click.UsageError("a certificate needs its key: name both, or neither")
    if certificate is not None and acme is not None:
        raise click.UsageError("take either --certificate or --acme")
    program, directory = Path(sys.executable).with_name("turnsvr"), directory.absolute()
    packaged = unit is None and not no_unit and _is_packaged(program, directory / "turnsvr.yaml")
    answers = Answers(
        domain=domain,
        address=address,
        certificate=certificate and certificate.absolute(),
        key=key and key.absolute(),
        acme=acme,
        directory=directory,
        program=program,
        unit=None if no_unit else (unit or (_ADDED if packaged else _UNIT)).absolute(),
        packaged=packaged,
    )
    try:
        _write(answers, force=force)
    except Impossible as error:
        fail(f"turnsvr: {error}")
    for name in samples() if samples_to else ():
        target = Path(samples_to or "", name)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(shipped(name), target)
        click.echo(f"written: {target}")
    click.echo()
    for line in advice(answers, *_credentials(answers)):
        click.echo(line)


def _ask(
    domain: str | None, address: str | None, certificate: Path | None, key: Path | None, acme: str | None
) -> tuple[str, str | None, Path | None, Path | None, str | None]:
    if not sys.stdin.isatty():
        raise click.UsageError("--domain is needed, since there is no terminal to ask on")
    if domain is None:
        domain = str(click.prompt("Domain name of the server", err=True))
    if address is None:
        address = _optional(
            "Public address, if NAT of a cloud or router stands before this host; auto has the server find it"
        )
    if certificate is None and key is None and acme is None:
        said = _optional(
            "Certificate, for turns: URLs: its PEM file, or your mail address to have Let's Encrypt issue one"
        )
        if said and "@" in said and not Path(said).exists():
            acme = said
        elif said:
            certificate = Path(said)
    if certificate is not None and key is None:
        key = Path(str(click.prompt("PEM file with its private key", err=True)))
    return domain, address, certificate, key, acme


def _is_packaged(program: Path, settings: Path) -> bool:
    """Whether a package has brought a unit that starts this program with these settings."""
    start = f"ExecStart={program} run -c {settings}"
    return any(start in unit.read_text().splitlines() for unit in _PACKAGED if unit.is_file())


def _is_untouched(settings: Path) -> bool:
    """Whether it is the file that a package has put there, without a change."""
    return settings.name == _PRISTINE.name and _PRISTINE.is_file() and _PRISTINE.read_bytes() == settings.read_bytes()


def _optional(question: str) -> str | None:
    return str(click.prompt(f"{question} (else Enter)", default="", show_default=False, err=True)).strip() or None


def _write(answers: Answers, *, force: bool) -> None:
    """All of it or, where something is in the way, nothing. Raises Impossible."""
    texts = {answers.settings: settings_text(answers)}
    if answers.unit is not None:
        texts[answers.unit] = unit_text(answers, shipped("systemd/turnsvr.service").read_text())
    _check_certificate(answers)
    for path in texts:
        if path.exists() and not force and not _is_untouched(path):
            raise Impossible(f"{path} exists; --force overwrites it")
    answers.directory.mkdir(parents=True, exist_ok=True)
    if answers.secret.exists():
        click.echo(f"kept: {answers.secret}")
    else:
        _write_new(answers.secret, secrets.token_hex(_SECRET_BYTES) + "\n", 0o600)
    for path, text in texts.items():
        scratch = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        _write_new(scratch, text, 0o644)
        scratch.replace(path)
        click.echo(f"written: {path}")
    if answers.unit is not None and any(answers.program.is_relative_to(each) for each in _HIDDEN):
        click.echo(f"turnsvr: {answers.program} is hidden from the service by ProtectHome; install elsewhere", err=True)


def _write_new(path: Path, text: str, mode: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        os.fchmod(file.fileno(), mode)  # whatever the umask has made of it
        file.write(text)
    if mode == 0o600:
        click.echo(f"written: {path}")


def _check_certificate(answers: Answers) -> None:
    """Say why clients would refuse it. Raises Impossible where the server would."""
    if answers.acme is not None and find_spec("acme") is None:
        raise Impossible("--acme needs a package of its own: pip install 'turnsvr[acme]'")
    if answers.certificate is None or answers.key is None:
        return
    from turnsvr.config.advice import about_certificate
    from turnsvr.config.hostfacts import read_certificate
    from turnsvr.config.settings import TlsSettings

    facts = read_certificate(TlsSettings(certificate=answers.certificate, key=answers.key))
    if facts.problem:
        raise Impossible(facts.problem)
    if not facts.key_matches:
        raise Impossible(f"{answers.key} is not the key of {answers.certificate}")
    doubts = [each.text for each in about_certificate(facts, time.time())]
    if facts.has_names and not facts.is_for(answers.domain):
        doubts.append(f"is not for {answers.domain}, so that clients refuse it")
    for each in doubts:
        click.echo(f"turnsvr: warning: {answers.certificate}: {each}", err=True)


def _credentials(answers: Answers) -> tuple[str, str]:
    from turnsvr.credentials import shared_secret

    return shared_secret.make(answers.secret.read_text().strip(), "", _TRIAL, time.time())
