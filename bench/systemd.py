"""systemd of this host as the first process of namespaces of its own, with one unit. Needs root; shares the network."""

from __future__ import annotations

import secrets
import subprocess
import time
from pathlib import Path
from typing import Self

UNIT = Path(__file__).parent.parent / "systemd" / "turnsvr.service"
SYSTEMD = Path("/lib/systemd/systemd")

_APART = """
mkdir "$1/cgroup"
mount -t cgroup2 cgroup2 "$1/cgroup"
mkdir "$1/cgroup/$3"
echo $$ >"$1/cgroup/$3/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --mount-proc --uts --ipc --cgroup sh -ec "$4" - "$1" "$2"
"""
"""A group of its own, so that two of them do not end each other's processes."""
_BOOT = """
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
umount -l /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs tmpfs /etc/systemd/system
cp "$1"/*.service "$1"/*.target /etc/systemd/system/
container=lab exec "$2" --system --unit=lab.target --show-status=0 --log-target=null
"""
_CLEAN = """
mount -t cgroup2 cgroup2 "$1/cgroup"
find "$1/cgroup/$2" -depth -type d -exec rmdir {} ";"
test ! -e "$1/cgroup/$2"
"""
_TARGET = "[Unit]\nDefaultDependencies=no\n"
_KEPT = ("Type", "NotifyAccess", "ExecReload", "ExecStop", "File", "Restart", "Watchdog", "Timeout", "LimitNOFILE")
"""How lines of the unit begin that hold here too: those on starting and ending, not the sandbox."""
_BOOTING, _ENDING = 30.0, 5.0
"""Seconds."""


def unit_text(program: str, log: Path) -> str:
    """The unit that comes along, for a program at its place in this tree."""
    lines = [line for line in UNIT.read_text().splitlines() if line.startswith(_KEPT)]
    return "\n".join(
        ("[Unit]", "DefaultDependencies=no", "[Service]", f"ExecStart={program}", f"StandardError=append:{log}", *lines)
    )


class Systemd:
    """Entered, it runs, and no unit has been started; left, it has ended with all of them."""

    def __init__(self, directory: Path, program: str, log: Path) -> None:
        """directory: a new one. program: the command line of turnsvr.service."""
        directory.mkdir()
        (directory / "lab.target").write_text(_TARGET)
        (directory / "turnsvr.service").write_text(unit_text(program, log) + "\n")
        self._directory = directory
        self._group = f"turnsvr-lab-{secrets.token_hex(4)}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(  # noqa: S603 - root runs it, on this host
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "sh", "-ec", _APART, "-"),
                *(str(self._directory), str(SYSTEMD), self._group, _BOOT),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        deadline = time.monotonic() + _BOOTING
        while self._run("is-system-running").returncode:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                raise OSError(f"systemd does not boot: {self._process.communicate()[1].decode()}")
            time.sleep(0.05)
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()  # and what it has started
        self._process.communicate()
        command = ["unshare", "--mount", "sh", "-c", _CLEAN, "-", str(self._directory), self._group]
        deadline = time.monotonic() + _ENDING
        while subprocess.run(command, capture_output=True, check=False).returncode and time.monotonic() < deadline:  # noqa: S603
            time.sleep(0.05)

    def systemctl(self, *arguments: str) -> str:
        """Raises OSError where it fails."""
        done = self._run(*arguments)
        if done.returncode:
            raise OSError(f"systemctl {' '.join(arguments)}: {done.stderr or done.stdout}")
        return done.stdout.strip()

    def main_pid(self) -> int:
        """Of the service, as this process sees it; 0 without one."""
        number = self.systemctl("show", "-P", "MainPID", "turnsvr.service")
        for status in Path("/proc").glob("[0-9]*/status"):
            try:
                text = status.read_text()
            except OSError:
                continue
            numbers = next((line.split()[1:] for line in text.splitlines() if line.startswith("NSpid:")), [])
            if len(numbers) > 1 and numbers[-1] == number and self._is_inside(status.parent):
                return int(numbers[0])
        return 0

    def _is_inside(self, process: Path) -> bool:
        try:
            return (process / "ns/pid").readlink() == Path(f"/proc/{self._first()}/ns/pid").readlink()
        except OSError:
            return False

    def _first(self) -> str:
        """The number of systemd itself, as this process sees it."""
        pid = self._process.pid
        try:
            return (Path(f"/proc/{pid}/task/{pid}/children").read_text().split() or ["0"])[0]
        except OSError:
            return "0"

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - as above
            [  # noqa: S607
                "nsenter",
                "--target",
                self._first(),
                "--mount",
                "--pid",
                "--cgroup",
                "systemctl",
                *arguments,
            ],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
