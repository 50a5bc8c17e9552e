from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from tests.cli.conftest import Run
from turnsvr import config
from turnsvr.app import firstrun
from turnsvr.config.settings import Settings


def test_a_good_file_is_shown_as_it_works(run: Run, settings_file: Path) -> None:
    result = run("check", settings_file)
    assert result.exit_code == 0
    assert result.stderr == ""
    shown = yaml.safe_load(result.stdout)
    assert shown["realm"] == "example.org"
    assert shown["limits"]["lifetime"] == "1h"
    assert "udp://0.0.0.0:3478" in shown["listen"]
    assert shown["credentials"]["secrets"] == ["**********"]
    assert shown.keys() == Settings.model_fields.keys()


def test_secrets_are_masked(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: hush-hush-hush-hush, users: {alice: wonderland}}")
    result = run("check", settings_file)
    assert result.exit_code == 0
    assert "hush" not in result.output
    assert "wonderland" not in result.output
    assert "alice" in result.stdout


def test_queries_of_web_services_are_not_shown(run: Run, settings_file: Path) -> None:
    settings_file.write_text(
        "credentials:\n"
        '  hook: {url: "https://app.example.org/turn?key=hush", secret: hush-hush-hush-hush}\n'
        '  tokens: {url: "https://app.example.org/keys?key=hush", audience: turn}\n'
    )
    result = run("check", settings_file)
    assert result.exit_code == 0, result.output
    assert "hush" not in result.output
    shown = yaml.safe_load(result.stdout)["credentials"]
    assert shown["hook"]["url"] == "https://app.example.org/turn"
    assert shown["tokens"]["url"] == "https://app.example.org/keys"


def test_what_is_shown_is_a_settings_file_itself(run: Run, settings_file: Path) -> None:
    shown = run("check", settings_file).stdout
    assert config.loads(shown.replace("*" * 10, "north of the wall"), "shown.yaml").realm == "example.org"
    with pytest.raises(config.ConfigError, match="is a placeholder"):
        config.loads(shown, "shown.yaml")


def test_every_mistake_has_its_line_and_no_traceback(run: Run, settings_file: Path) -> None:
    settings_file.write_text("realm: x\nlimits:\n  allocatons: 5\nlog: {level: loud}\n")
    result = run("check", settings_file)
    assert result.exit_code == 1
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first == f'{settings_file}:3: limits.allocatons: unknown setting; did you mean "allocations"?'
    assert second.startswith(f"{settings_file}:4: log.level: ")


@pytest.mark.parametrize("command", [["check"], ["run", "-c"], ["credentials", "-c"]])
def test_a_file_that_is_not_there(run: Run, tmp_path: Path, command: list[str]) -> None:
    result = run(*command, tmp_path / "nowhere.yaml")
    assert result.exit_code == 1
    assert result.stderr == f"{tmp_path / 'nowhere.yaml'}: cannot be read: No such file or directory\n"


def test_run_refuses_a_file_with_mistakes(run: Run, settings_file: Path) -> None:
    settings_file.write_text("realm: x\n")
    result = run("run", "-c", settings_file)
    assert result.exit_code == 1
    assert "credentials: are missing" in result.stderr


def test_warnings_fail_only_when_strict(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: short}")
    result = run("check", settings_file)
    assert result.exit_code == 0
    assert result.stderr == (
        f"{settings_file}: warning: credentials.secrets[0]: "
        "is shorter than 16 characters; make one with: turnsvr secret\n"
    )
    assert run("check", "--strict", settings_file).exit_code == 1


def test_the_shares_of_open_files_are_shown(run: Run, settings_file: Path) -> None:
    settings_file.write_text(f"{SECRET}limits: {{allocations: 100, connections: 50}}\nweb: {{public: true}}\n")
    result = run("check", settings_file)
    assert result.exit_code == 0
    shown = next(line for line in result.stdout.splitlines() if line.startswith("# open files: "))
    assert "streams 98" in shown
    assert "web " in shown
    assert result.stdout.count("# ") == 1


def test_what_open_files_are_too_few_for_is_told(settings_file: Path) -> None:
    settings_file.write_text(f"{SECRET}limits: {{allocations: 1_000_000, connections: 1_000_000}}\n")
    script = 'ulimit -n 2000; exec "$0" -m turnsvr check "$1"'
    command = ["/bin/sh", "-c", script, sys.executable, str(settings_file)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0
    assert "# open files: 2000 (relays " in result.stdout
    for name in ("allocations", "connections"):
        assert re.search(rf"^# open files: so limits\.{name} is \d+, not 1000000 ", result.stdout, re.MULTILINE)


def test_notes_do_not_fail_even_when_strict(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: long enough for a test}\npeers: {allow: 10.0.0.0/8}")
    result = run("check", "--strict", settings_file)
    assert result.exit_code == 0
    assert ": note: peers.allow[0]: " in result.stderr


def test_the_facts_of_the_host_are_asked(run: Run, settings_file: Path) -> None:
    settings_file.write_text(
        "credentials: {secret: long enough for a test}\n"
        "tls: {certificate: c.pem, key: k.pem}\n"
        "relay: {addresses: 192.0.2.77}\n"
    )
    settings_file.chmod(0o644)
    text = run("check", settings_file).stderr
    assert f"error: tls: cannot read {settings_file.parent / 'c.pem'}: No such file or directory" in text
    assert "warning: relay.addresses[0]: 192.0.2.77 is not an address of this host" in text
    assert "warning: credentials: every user of this host can read the settings file" in text


def test_values_from_the_environment(run: Run, settings_file: Path) -> None:
    settings_file.write_text("credentials: {secret: !env TURN_SECRET}")
    assert run("check", settings_file, TURN_SECRET="long enough for a test").exit_code == 0
    result = run("check", settings_file)
    assert result.exit_code == 1
    assert "takes the environment variable TURN_SECRET, which is not set" in result.stderr


def test_the_schema(run: Run) -> None:
    result = run("schema")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["properties"].keys() == Settings.model_fields.keys()


SECRET = "credentials: {secret: long enough for a test}\n"


def _encrypted(directory: Path) -> None:
    key = load_pem_private_key((directory / "key.pem").read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    form = (Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pass"))
    (directory / "key.pem").write_bytes(key.private_bytes(*form))


def _directory(directory: Path) -> None:
    (directory / "key.pem").unlink()
    (directory / "key.pem").mkdir()


def _others_key(directory: Path) -> None:
    other = directory / "other"
    other.mkdir()
    firstrun.write_self_signed(other, [])
    (other / "key.pem").replace(directory / "key.pem")


SPOILT: dict[str, Callable[[Path], object]] = {
    "no certificate": lambda directory: (directory / "certificate.pem").unlink(),
    "no key": lambda directory: (directory / "key.pem").unlink(),
    "another's key": _others_key,
    "an encrypted key": _encrypted,
    "no PEM": lambda directory: (directory / "certificate.pem").write_text("what"),
    "a directory": _directory,
}


@pytest.mark.parametrize("how", SPOILT)
@pytest.mark.parametrize("section", ["tls", "web"])
def test_a_certificate_that_cannot_be_used_fails_as_it_would_keep_run_from_starting(
    run: Run, settings_file: Path, how: str, section: str
) -> None:
    directory = settings_file.parent
    firstrun.write_self_signed(directory, ["127.0.0.1"])
    files = "{certificate: certificate.pem, key: key.pem}"
    named = f"tls: {files}\n" if section == "tls" else f"web: {{tls: {files}, public: true}}\n"
    listen = f"listen: ['{'tls' if section == 'tls' else 'udp'}://127.0.0.1:0']\nadmin: {{socket: off}}\n"
    settings_file.write_text(SECRET + named + listen)
    assert run("check", settings_file).exit_code == 0
    SPOILT[how](directory)
    checked, ran = run("check", settings_file), run("run", settings_file)
    assert (checked.exit_code, ran.exit_code) == (1, 1)
    prefix = f"{settings_file}: error: {'tls' if section == 'tls' else 'web.tls'}: "
    (line,) = (line for line in checked.stderr.splitlines() if ": error: " in line)
    assert line.startswith(prefix)
    assert line.removeprefix(prefix) in ran.output


@pytest.mark.parametrize(
    ("text", "module", "extra"),
    [
        ("credentials: {store: 'postgresql://turn@localhost/turn'}", "asyncpg", "postgresql"),
        ("credentials: {store: 'mysql://turn@localhost/turn'}", "aiomysql", "mysql"),
        ("credentials: {store: 'redis://localhost/0'}", "redis", "redis"),
        (f"{SECRET}status: {{redis: 'redis://localhost/0'}}", "redis", "redis"),
    ],
)
def test_a_driver_that_is_not_installed_fails(
    run: Run, settings_file: Path, monkeypatch: pytest.MonkeyPatch, text: str, module: str, extra: str
) -> None:
    settings_file.write_text(text)
    assert run("check", settings_file).exit_code == 0
    for name in [name for name in sys.modules if name.split(".")[0] == module or name == "turnsvr.app.sessionstatus"]:
        monkeypatch.delitem(sys.modules, name)
    for name in [name for name in sys.modules if name in ("turnsvr.stores.redislink", "turnsvr.stores.status")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    result = run("check", settings_file)
    assert result.exit_code == 1, result.output
    assert f"pip install 'turnsvr[{extra}]'" in result.stderr


@pytest.mark.parametrize(
    ("text", "setting"),
    [
        ("listen: ['udp://192.0.2.77:3478']", "listen[0]"),
        ("nat_discovery: {primary: 192.0.2.77}", "nat_discovery"),
        ("web: {listen: 'http://192.0.2.77:8080', public: true}", "web.listen"),
        ("admin: {listen: 'http://192.0.2.77:8080', token: a token long enough}", "admin.listen"),
        ("credentials: {secret: long enough for a test, tokens: {keys: nowhere.pem}}", "credentials.tokens.keys"),
        ("log: {file: .}", "log.file"),
        ("log: {file: nowhere/turn.log}", "log.file"),
        ("usage: {file: nowhere/usage.jsonl}", "usage.file"),
        ("admin: {socket: nowhere/admin.sock}", "admin.socket"),
        (f"admin: {{socket: {'n' * 108}}}", "admin.socket"),
        ("admin: {socket: .}", "admin.socket"),
        ("admin: {socket: HERE/open/admin.sock}", "admin.socket"),
    ],
)
def test_what_else_would_keep_run_from_starting_fails(run: Run, settings_file: Path, text: str, setting: str) -> None:
    text = text.replace("HERE", str(settings_file.parent))
    settings_file.write_text(text if "credentials" in text else f"{SECRET}{text}")
    everybody_s = settings_file.with_name("open")
    everybody_s.mkdir()
    everybody_s.chmod(0o777)
    checked, ran = run("check", settings_file), run("run", settings_file)
    assert (checked.exit_code, ran.exit_code) == (1, 1), checked.output
    assert f"{settings_file}: error: {setting}: " in checked.stderr


@pytest.mark.parametrize("text", ["log: {file: /var/log/turnsvr/turn.log}", "admin: {socket: /run/turnsvr/a.sock}"])
def test_what_systemd_makes_for_the_service_may_be_missing(run: Run, settings_file: Path, text: str) -> None:
    settings_file.write_text(f"{SECRET}{text}\n")
    assert run("check", settings_file).exit_code == 0


def test_what_a_running_server_holds_does_not_fail(run: Run, settings_file: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        settings_file.write_text(f"{SECRET}listen: ['udp://127.0.0.1:{taken.getsockname()[1]}']\n")
        assert run("check", settings_file).exit_code == 0


TURNSERVER_CONF = """
# coturn
listening-port=3478
use-auth-secret
static-auth-secret=hush-hush-hush
realm=example.org
no-cli
"""


@pytest.mark.parametrize("command", [["check"], ["run"], ["run", "-c"]])
@pytest.mark.parametrize("text", [TURNSERVER_CONF, "fingerprint\n", "listening-port 3478\nuser=a:b\n"])
def test_a_turnserver_conf_points_to_its_importer(run: Run, tmp_path: Path, command: list[str], text: str) -> None:
    file = tmp_path / "turnserver.conf"
    file.write_text(text)
    result = run(*command, file)
    assert result.exit_code == 1
    assert f"turnsvr import-coturn {file}" in result.stderr
    assert "hush" not in result.output


@pytest.mark.parametrize(
    "key", ["listening-port: 3478", "static_auth_secret: hush", "use-auth-secret: true", "cert: x"]
)
def test_keys_of_coturn_in_yaml_point_to_its_importer(run: Run, settings_file: Path, key: str) -> None:
    settings_file.write_text(f"{SECRET}{key}\n")
    result = run("check", settings_file)
    assert result.exit_code == 1
    assert f"{key.partition(':')[0]}: coturn's; turnsvr import-coturn" in result.stderr


@pytest.mark.parametrize("text", ["", "realm: x\n", "limits: {allocatons: 5}\n", "- 1\n", "just words here\n"])
def test_other_mistakes_do_not(run: Run, settings_file: Path, text: str) -> None:
    settings_file.write_text(text)
    result = run("check", settings_file)
    assert result.exit_code == 1
    assert "coturn" not in result.output


def test_run_takes_one_file_either_way(run: Run, settings_file: Path) -> None:
    settings_file.write_text("realm: x\n")
    assert run("run", settings_file).stderr == run("run", "-c", settings_file).stderr
    assert run("run", settings_file, "-c", settings_file).exit_code == 2
