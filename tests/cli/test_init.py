"""init writes a server that works, asks where it can, and overwrites nothing by itself."""

from __future__ import annotations

import re
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.cli.conftest import Run
from tests.conftest import ServerProcess, need
from turnsvr import config
from turnsvr.net.tls import TlsFiles
from turnsvr.shipped import samples, shipped

DOMAIN = "turn.example.org"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "etc"


def test_what_it_writes_serves(run: Run, place: Path, certificate: TlsFiles) -> None:
    files = "--certificate", certificate.certificate, "--key", certificate.key
    result = run("init", "--domain", DOMAIN, "--address", "203.0.113.7", *files, "--directory", place, "--no-unit")
    assert result.exit_code == 0, result.output
    settings = config.load(place / "turnsvr.yaml")
    assert settings.realm == DOMAIN
    assert settings.relay.external == {"0.0.0.0": "203.0.113.7"}
    assert settings.credentials.secrets[0].get_secret_value() == (place / "secret").read_text().strip()
    assert stat.S_IMODE((place / "secret").stat().st_mode) == 0o600
    assert (place / "secret").read_text().strip() not in result.output
    for said in ("3478/udp", "3478/tcp", "5349/tcp", "49152-65535/udp", f"turns:{DOMAIN}:5349", str(place / "secret")):
        assert said in result.stdout
    text = (place / "turnsvr.yaml").read_text().replace("!file ", f"!file {place}/x/../")
    assert run("check", place / "turnsvr.yaml").exit_code == 0, text


def test_a_server_runs_from_it(run: Run, place: Path) -> None:
    assert run("init", "--domain", DOMAIN, "--directory", place, "--no-unit").exit_code == 0
    text = (place / "turnsvr.yaml").read_text() + "listen: [udp://127.0.0.1:0]\n"
    with ServerProcess(text, place) as server:
        assert "serving" in server.log


def test_a_second_time_it_touches_nothing_and_forced_it_keeps_the_secret(run: Run, place: Path) -> None:
    arguments = "init", "--domain", DOMAIN, "--directory", place, "--no-unit"
    run(*arguments)
    before = {path.name: path.read_text() for path in place.iterdir()}
    refused = run(*arguments, "--address", "203.0.113.7")
    assert refused.exit_code == 1
    assert "exists; --force overwrites it" in refused.stderr
    assert {path.name: path.read_text() for path in place.iterdir()} == before
    assert run(*arguments, "--address", "203.0.113.7", "--force").exit_code == 0
    assert (place / "secret").read_text() == before["secret"]
    assert "203.0.113.7" in (place / "turnsvr.yaml").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--domain", "turn example"), "no domain name"),
        (("--domain", "-x.org"), "no domain name"),
        (("--domain", "localhost"), "no domain name"),
        (("--domain", DOMAIN, "--address", "127.0.0"), "relay.external"),
        (("--domain", DOMAIN, "--address", "203.0.113.7\nstun_only: true"), "relay.external"),
        (("--domain", DOMAIN, "--certificate", "/nowhere"), "needs its key"),
        (("--domain", DOMAIN, "--certificate", "/nowhere", "--key", "/nowhere"), "cannot read /nowhere"),
        (("--domain", DOMAIN, "--unit", "/x", "--no-unit"), "either --unit or --no-unit"),
        (("--domain", DOMAIN, "--acme", "nobody"), "is no mail address"),
        (("--domain", DOMAIN, "--acme", "a@example.org", "--certificate", "/x", "--key", "/x"), "either --certificate"),
        ((), "--domain is needed"),
    ],
)
def test_what_cannot_be_writes_nothing(run: Run, place: Path, arguments: tuple[str, ...], said: str) -> None:
    where = () if "--unit" in arguments else ("--no-unit",)
    result = run("init", *arguments, "--directory", place, *where)
    assert result.exit_code != 0
    assert said in result.stderr
    assert not place.exists()


@pytest.mark.parametrize(
    ("days", "name", "doubt"),
    [
        ((-20, -10), DOMAIN, "expired on "),
        ((10, 90), DOMAIN, "is not valid before "),
        ((-1, 2), DOMAIN, "expires on "),
        ((-1, 90), "www.example.org", f"is not for {DOMAIN}"),
        ((-1, 90), "*.example.org", ""),
    ],
)
def test_a_certificate_that_clients_refuse_is_told(
    run: Run, place: Path, tmp_path: Path, days: tuple[int, int], name: str, doubt: str
) -> None:
    files = "--certificate", tmp_path / "c.pem", "--key", tmp_path / "k.pem"
    write_certificate(files[1], files[3], name, days)
    result = run("init", "--domain", DOMAIN, *files, "--directory", place, "--no-unit")
    assert result.exit_code == 0, result.output
    assert (f"{tmp_path}/c.pem: {doubt}" in result.stderr) if doubt else not result.stderr


def write_certificate(certificate: Path, key: Path, name: str, days: tuple[int, int]) -> None:
    """A self-signed one for a name, valid from and to these days from now."""
    made = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    begin, end = (datetime.now(UTC) + timedelta(days=each) for each in days)
    builder = x509.CertificateBuilder(subject, subject, made.public_key(), 7, begin, end)
    names = x509.SubjectAlternativeName([x509.DNSName(name)])
    signed = builder.add_extension(names, critical=False).sign(made, hashes.SHA256())
    certificate.write_bytes(signed.public_bytes(Encoding.PEM))
    key.write_bytes(made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def test_a_key_of_another_certificate_is_refused(run: Run, place: Path, certificate: TlsFiles, tmp_path: Path) -> None:
    from turnsvr.app import firstrun

    other = firstrun.write_self_signed(tmp_path, ["127.0.0.1"])
    files = "--certificate", certificate.certificate, "--key", other.key
    result = run("init", "--domain", DOMAIN, *files, "--directory", place, "--no-unit")
    assert "is not the key of" in result.stderr
    assert not place.exists()


def test_the_unit_is_the_one_that_comes_along_with_these_places(
    run: Run, place: Path, certificate: TlsFiles, tmp_path: Path
) -> None:
    unit = tmp_path / "turnsvr.service"
    files = "--certificate", certificate.certificate, "--key", certificate.key
    assert run("init", "--domain", DOMAIN, *files, "--directory", place, "--unit", unit).exit_code == 0
    theirs, ours = (text.splitlines() for text in (shipped("systemd/turnsvr.service").read_text(), unit.read_text()))
    changed = [new for old, new in zip(theirs, ours, strict=True) if old != new]
    assert changed == [
        f"ExecStart={Path(sys.executable).with_name('turnsvr')} run -c {place}/turnsvr.yaml",
        f"LoadCredential=secret:{place}/secret",
        f"LoadCredential=certificate:{certificate.certificate}",
        f"LoadCredential=key:{certificate.key}",
    ]
    text = (place / "turnsvr.yaml").read_text()
    loaded = set(re.findall(r"^LoadCredential=(\w+):", unit.read_text(), re.MULTILINE))
    assert {name for name in loaded if f"/run/credentials/turnsvr.service/{name}" in text} == loaded


def test_systemd_understands_the_unit(run: Run, place: Path, tmp_path: Path) -> None:
    unit = tmp_path / "turnsvr.service"
    run("init", "--domain", DOMAIN, "--directory", place, "--unit", unit)
    unit.write_text(unit.read_text().replace(str(Path(sys.executable).with_name("turnsvr")), sys.executable))
    command = [need("systemd-analyze"), "verify", "--man=no", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "turnsvr.service" not in done.stdout + done.stderr


def test_a_path_that_no_unit_takes_is_refused(run: Run, tmp_path: Path) -> None:
    place = tmp_path / "a b"
    result = run("init", "--domain", DOMAIN, "--directory", place, "--unit", tmp_path / "turnsvr.service")
    assert "cannot stand in a unit" in result.stderr
    assert not place.exists()


def test_the_samples_come_along(run: Run, place: Path, tmp_path: Path) -> None:
    assert (
        run("init", "--domain", DOMAIN, "--directory", place, "--no-unit", "--samples", tmp_path / "s").exit_code == 0
    )
    names = set(samples())
    assert {"conf/turnsvr.yaml", "systemd/turnsvr.service", "conf/grafana.json"} <= names
    assert any(name.startswith("conf/fail2ban/") for name in names)
    assert {str(path.relative_to(tmp_path / "s")) for path in (tmp_path / "s").rglob("*") if path.is_file()} == names


def test_lets_encrypt_and_an_address_that_is_found(run: Run, place: Path) -> None:
    asked = "--address", "auto", "--acme", "admin@example.org"
    result = run("init", "--domain", DOMAIN, *asked, "--directory", place, "--no-unit")
    assert result.exit_code == 0, result.output
    settings = config.load(place / "turnsvr.yaml")
    assert settings.relay.external_source == "auto"
    assert settings.tls is not None
    assert settings.tls.acme is not None
    assert (settings.tls.acme.domains, settings.tls.acme.email) == ((DOMAIN,), "admin@example.org")
    assert settings.tls.acme.directory == place / "acme"
    assert {f"{each.transport}:{each.port}" for each in settings.listeners()} == {"udp:3478", "tcp:3478", "tls:443"}
    assert "443/tcp" in result.stdout
    assert f"turns:{DOMAIN}:443" in result.stdout
    checked = run("check", place / "turnsvr.yaml")
    assert "mistake" not in checked.stderr


def test_under_a_unit_systemd_gives_the_directory_of_the_certificate(run: Run, place: Path, tmp_path: Path) -> None:
    unit = tmp_path / "turnsvr.service"
    run("init", "--domain", DOMAIN, "--acme", "a@example.org", "--directory", place, "--unit", unit)
    assert "directory" not in (place / "turnsvr.yaml").read_text()


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch, place: Path, tmp_path: Path) -> Path:
    """A package has brought the unit and the settings; the path is where its unit is added to."""
    place.mkdir()
    unit, pristine, added = tmp_path / "turnsvr.service", tmp_path / "turnsvr.yaml", tmp_path / "d" / "init.conf"
    program = Path(sys.executable).with_name("turnsvr")
    unit.write_text(f"[Service]\nExecStart={program} run -c {place}/turnsvr.yaml\n")
    for file in (pristine, place / "turnsvr.yaml"):
        file.write_text("realm: turnsvr\n")
    for name, value in (("_PACKAGED", (unit,)), ("_PRISTINE", pristine), ("_ADDED", added)):
        monkeypatch.setattr(f"turnsvr.cli.init.{name}", value)
    return added


def test_the_unit_of_a_package_is_added_to_and_its_settings_give_way(
    run: Run, place: Path, package: Path, certificate: TlsFiles
) -> None:
    files = "--certificate", certificate.certificate, "--key", certificate.key
    result = run("init", "--domain", DOMAIN, *files, "--directory", place)
    assert result.exit_code == 0, result.output
    assert f"realm: {DOMAIN}" in (place / "turnsvr.yaml").read_text()
    assert package.read_text().splitlines()[1:] == [
        "[Service]",
        f"LoadCredential=certificate:{certificate.certificate}",
        f"LoadCredential=key:{certificate.key}",
    ]


def test_settings_of_a_package_that_have_changed_stay(run: Run, place: Path, package: Path) -> None:
    (place / "turnsvr.yaml").write_text("realm: mine.example.org\n")
    result = run("init", "--domain", DOMAIN, "--directory", place)
    assert "exists; --force overwrites it" in result.stderr
    assert not package.exists()


def test_check_has_nothing_to_say_of_what_it_writes(run: Run, place: Path) -> None:
    run("init", "--domain", DOMAIN, "--address", "93.184.216.34", "--directory", place, "--no-unit")
    checked = run("check", "--strict", place / "turnsvr.yaml")
    assert (checked.exit_code, checked.stderr) == (0, "")


def test_check_before_the_service_runs_says_where_the_secret_will_be(run: Run, place: Path, tmp_path: Path) -> None:
    run("init", "--domain", DOMAIN, "--directory", place, "--unit", tmp_path / "turnsvr.service")
    checked = run("check", place / "turnsvr.yaml")
    assert "systemd has it there while the service runs" in checked.stderr
