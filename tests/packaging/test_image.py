"""The image for containers, run by crun in a network of its own: it serves, is healthy, is nobody, and ends when told.

TURNSVR_IMAGE names it; `make test-image` builds one first.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import PATIENCE, need
from tests.lab.netlab import Node, require

IMAGE = os.environ.get("TURNSVR_IMAGE", "")
HOST = "192.0.2.1"
SECRET = "the secret of a container, long enough"
SMALL = 70_000_000
_CGROUPS = (
    "unshare",
    "--mount",
    "sh",
    "-c",
    'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec "$@"',
)
"""crun takes one hierarchy of control groups alone; what comes after runs with that."""

pytestmark = pytest.mark.skipif(not IMAGE, reason="TURNSVR_IMAGE names no image: make test-image builds one")


class Unpacked:
    """What the archive holds: the image's configuration, and its files."""

    def __init__(self, archive: Path, directory: Path) -> None:
        self.rootfs = directory / "rootfs"
        self.rootfs.mkdir()
        with tarfile.open(archive) as file:
            file.extractall(directory / "archive", filter="fully_trusted")
        (manifest,) = json.loads((directory / "archive" / "manifest.json").read_text())
        self.config: dict[str, Any] = json.loads((directory / "archive" / manifest["Config"]).read_text())["config"]
        for layer in manifest["Layers"]:
            subprocess.run(["tar", "-C", str(self.rootfs), "-xf", str(directory / "archive" / layer)], check=True)
        shutil.rmtree(directory / "archive")


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Unpacked:
    return Unpacked(Path(IMAGE), tmp_path_factory.mktemp("image"))


class Container:
    """The image as crun runs it: read-only, without a capability, with its own user."""

    def __init__(self, crun: str, image: Unpacked, directory: Path, node: Node, environ: dict[str, str]) -> None:
        self._crun = [*_CGROUPS, "-", crun, "--cgroup-manager=disabled"]
        self.name = f"turnsvr-{os.getpid()}-{directory.name}"
        self.bundle, self.log = directory, directory / "log"
        self.user = str(image.config["User"])
        uid = int(self.user.partition(":")[0])
        subprocess.run([crun, "spec"], cwd=directory, check=True)
        spec = json.loads((directory / "config.json").read_text())
        env = [*image.config["Env"], *(f"{name}={value}" for name, value in environ.items())]
        spec["root"] = {"path": str(image.rootfs), "readonly": True}
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": uid, "gid": uid},
            "args": [*image.config["Entrypoint"], *image.config["Cmd"]],
            "env": env,
            "cwd": image.config["WorkingDir"],
            "capabilities": {},
            "noNewPrivileges": True,
        }
        spec["process"].pop("rlimits", None)
        run = {"type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=0700", f"uid={uid}"]}
        spec["mounts"] += [{**run, "destination": "/run/turnsvr"}]
        secrets = {"destination": "/run/secrets", "type": "bind", "source": str(directory / "secrets")}
        if (directory / "secrets").is_dir():
            spec["mounts"].append({**secrets, "options": ["rbind", "ro"]})
        for each in spec["linux"]["namespaces"]:
            if each["type"] == "network":
                each["path"] = f"/run/netns/{node.name}"
        spec["linux"].pop("resources", None)
        spec["linux"]["namespaces"] = [each for each in spec["linux"]["namespaces"] if each["type"] != "cgroup"]
        spec["mounts"] = [each for each in spec["mounts"] if each["destination"] != "/sys/fs/cgroup"]
        (directory / "config.json").write_text(json.dumps(spec))
        with self.log.open("wb") as log:
            command = [*self._crun, "run", "--bundle", str(directory), self.name]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def exec(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._crun, "exec", "--user", self.user, self.name, *command],
            capture_output=True, text=True, check=False, timeout=PATIENCE,
        )  # fmt: skip

    @property
    def pid(self) -> int:
        """The server's, as this host counts."""
        state = subprocess.run([*self._crun, "state", self.name], capture_output=True, text=True, check=True)
        return int(json.loads(state.stdout)["pid"])

    def wait_healthy(self, check: list[str]) -> str:
        deadline = time.monotonic() + PATIENCE
        while (done := self.exec(*check)).returncode:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, done.stderr + self.log.read_text()
            time.sleep(0.1)
        return done.stdout

    def end(self) -> int:
        """As `podman stop` does."""
        subprocess.run([*self._crun, "kill", self.name, "TERM"], check=True)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        subprocess.run([*self._crun, "delete", "--force", self.name], capture_output=True, check=False)


StartContainer = Callable[..., Container]


@pytest.fixture
def node() -> Iterator[Node]:
    require()
    made = Node(f"tsv-image-{os.getpid()}")
    made.ip("link add own0 type veth peer name own1", f"address add {HOST}/24 dev own0")
    made.ip("link set own0 up", "link set own1 up")
    yield made
    made.close()


@pytest.fixture
def start(image: Unpacked, node: Node, tmp_path: Path) -> Iterator[StartContainer]:
    crun = need("crun")
    started: list[Container] = []

    def run(**environ: str) -> Container:
        started.append(Container(crun, image, tmp_path, node, environ))
        return started[-1]

    yield run
    for each in started:
        each.close()


def health(image: Unpacked) -> list[str]:
    kind, *command = image.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    return [str(each) for each in command]


def test_it_is_small_and_says_what_it_is(image: Unpacked) -> None:
    compressed = subprocess.run(["gzip", "-1c", IMAGE], capture_output=True, check=True).stdout
    assert len(compressed) < SMALL
    assert image.config["Labels"]["org.opencontainers.image.title"] == "turnsvr"
    assert image.config["User"] not in ("", "0", "root", "0:0")
    assert not [name for name in ("sh", "bash", "dash", "apt", "dpkg") if (image.rootfs / "usr/bin" / name).exists()]


def test_it_serves_relays_is_healthy_and_ends(
    image: Unpacked, start: StartContainer, node: Node, tmp_path: Path
) -> None:
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets" / "turn").write_text(f"{SECRET}\n")
    container = start(
        TURNSVR_REALM="turn.example.org",
        TURNSVR_SECRET_FILE="/run/secrets/turn",
        TURNSVR_RELAY_PORTS="50000-50099",
        TURNSVR_WEB="http://*:8080",
    )
    said = container.wait_healthy(health(image))
    assert "realms:      turn.example.org" in said
    assert "pump:        compiled" in said
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    turnsvr = str(Path(sys.executable).with_name("turnsvr"))
    printed = node.output(turnsvr, "probe", "--secret-file", str(secret), f"turn:{HOST}", patience=60)
    assert "everything works" in printed, printed
    owner = (Path("/proc") / str(container.pid)).stat().st_uid
    assert str(owner) == image.config["User"].partition(":")[0]
    begun = time.monotonic()
    assert container.end() == 0
    assert time.monotonic() - begun < 6
    assert "stopped" in container.log.read_text()


def test_without_a_secret_it_says_what_is_missing(start: StartContainer) -> None:
    container = start(TURNSVR_REALM="turn.example.org")
    assert container.process.wait(PATIENCE) == 1
    assert "TURNSVR_SECRET: is missing" in container.log.read_text()
