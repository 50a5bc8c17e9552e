"""The files for compose and Quadlet can be read, their settings are valid, and the ports are those of the settings."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import ServerProcess, free_port
from turnsvr import config
from turnsvr.config import environment
from turnsvr.config.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "conf" / "container"
OPERATOR = {"TURN_REALM": "turn.example.org", "TURN_SECRET": "of the operator, long enough", "TURN_EXTERNAL": "1.2.3.4"}
RUNTIME = "/run/turnsvr:mode=0700,uid=3478"


def substituted(text: str) -> str:
    """As compose reads `${NAME:?why}` and `${NAME:-default}`."""
    return re.sub(r"\$\{(\w+):[?-][^}]*\}", lambda match: OPERATOR[match[1]], text)


def service(name: str) -> dict[str, Any]:
    document = yaml.safe_load(substituted((FOLDER / name).read_text()))
    (one,) = document["services"].values()
    assert isinstance(one, dict)
    return one


def settings_of(environ: dict[str, Any]) -> Settings:
    texts = {name: str(value) for name, value in environ.items()}
    return config.loads(environment.settings_text(texts), "made", environ=texts)


def quadlet() -> dict[str, list[str]]:
    """The keys of [Container], which may stand more than once."""
    found: dict[str, list[str]] = {}
    section = ""
    for line in (FOLDER / "turnsvr.container").read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, line
            if section == "Container":
                found.setdefault(key, []).append(value)
    return found


@pytest.mark.parametrize("name", ["compose.yaml", "compose-ports.yaml"])
def test_a_compose_file_is_locked_up_and_its_settings_are_valid(name: str) -> None:
    one = service(name)
    assert (one["read_only"], one["cap_drop"], one["tmpfs"]) == (True, ["ALL"], [RUNTIME])
    settings = settings_of(one["environment"])
    assert settings.realm == OPERATOR["TURN_REALM"]
    assert settings.relay.external == {"0.0.0.0": OPERATOR["TURN_EXTERNAL"]}


def test_the_published_ports_are_those_of_the_settings() -> None:
    one = service("compose-ports.yaml")
    settings = settings_of(one["environment"])
    published = {}
    for each in one["ports"]:
        match = re.fullmatch(r"([0-9-]+):([0-9-]+)/(udp|tcp)", each)
        assert match is not None
        assert match[1] == match[2], "a relayed address has the port that clients are told"
        published[match[1], match[3]] = each
    listening = {(str(each.port), "udp" if each.transport == "udp" else "tcp") for each in settings.listeners()}
    assert published.keys() == listening | {(str(settings.relay.ports), "udp")}


def test_the_number_of_calls_is_that_of_the_ports() -> None:
    ports = len(settings_of(service("compose-ports.yaml")["environment"]).relay.ports)
    text = " ".join((FOLDER / "compose-ports.yaml").read_text().replace("#", " ").split())
    assert f"{ports} published relay ports" in text
    assert f"{ports // 2} calls in which both relay" in text
    assert f"{ports // 6} where browsers hold three each" in text
    assert f"has {ports} of them" in (ROOT / "docs" / "container.md").read_text()


def test_the_quadlet_is_like_the_compose_file() -> None:
    found = quadlet()
    assert (found["Network"], found["DropCapability"], found["Tmpfs"]) == (["host"], ["all"], [RUNTIME])
    secret = found["Secret"][0].partition(",")[0]
    environ = dict(each.split("=", 1) for each in found["Environment"])
    assert environ["TURNSVR_SECRET_FILE"] == f"/run/secrets/{secret}"
    assert environment.settings_text(environ)


def test_all_name_the_image_that_is_built() -> None:
    from turnsvr import __version__

    names = {service(name)["image"] for name in ("compose.yaml", "compose-ports.yaml")}
    assert names | {each.removeprefix("localhost/") for each in quadlet()["Image"]} == {f"turnsvr:{__version__}"}


def test_the_document_has_every_variable() -> None:
    rows = re.findall(r"^\| `(TURNSVR_\w+)` \| `([\w.]+)` \| (.*) \|$", (ROOT / "docs/container.md").read_text(), re.M)
    told = {name: (setting, meaning) for name, setting, meaning in rows}
    for each in environment.VARIABLES:
        assert told.pop(each.name) == (each.setting, each.meaning)
        if each.secret:
            assert told.pop(f"{each.name}_FILE")[0] == each.setting
    assert not told


NOT_SETTINGS = ("TURNSVR_REQUIRE_ALL", "TURNSVR_REQUIRE_PUMP", "TURNSVR_IMAGE", "TURNSVR_SANITIZE")


def test_a_server_runs_from_its_environment_and_reads_it_again(tmp_path: Path) -> None:
    """Its settings file has no secret in it; a reload takes what the file of the secret holds by then."""
    secret = tmp_path / "secret"
    secret.write_text("the first of the secrets\n")
    without = [f"--unset={name}" for name in NOT_SETTINGS]
    command = ("env", *without, sys.executable, "-m", "turnsvr", "run", "--environment")
    environ = {
        "TURNSVR_REALM": "turn.example.org",
        "TURNSVR_SECRET_FILE": str(secret),
        "TURNSVR_LISTEN_PORT": str(free_port()),
        "TURNSVR_RELAY_PORTS": "50000-50099",
    }
    with ServerProcess(None, tmp_path, command=command, environ=environ) as server:
        assert "first of the secrets" not in server.file.read_text()
        secret.write_text("the second of the secrets\n")
        server.signal(signal.SIGHUP)
        server.wait_logged("settings reloaded")
    assert config.load(server.file, environ=environ).relay.ports.low == 50_000


@pytest.mark.parametrize("more", [["-c", "x.yaml"], ["x.yaml"]])
def test_a_file_and_the_environment_are_two_ways(more: list[str]) -> None:
    command = [sys.executable, "-m", "turnsvr", "run", "--environment", *more]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, "from a file or with --environment" in done.stderr) == (2, True)
