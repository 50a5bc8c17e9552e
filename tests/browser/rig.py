"""A server between two places that reach each other through it alone, and browsers in those places.

Three network namespaces: the server's, and two others that are each joined to it by a pair of virtual interfaces. The
server's forwards nothing. Everything ends with the rig.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NoReturn, Self

import pytest

from tests.conftest import need, wait_until
from turnsvr.app import firstrun
from turnsvr.relay import refuses_dtls

HERE = Path(__file__).parent
NAME = "turn.test"
ADDRESS = "10.78.0.1"
HTTP, HTTPS, STUN, TLS, NO_UPGRADE = 8080, 8443, 3478, 5349, 8081
DTLS = "" if refuses_dtls("auto") else f', "dtls://{ADDRESS}:{TLS}"'
PAGE = f"http://{ADDRESS}:{HTTP}/"
START_SECONDS = 60.0
COMMAND_SECONDS = 45.0

_numbers = itertools.count()

SETTINGS = f"""
realm: {NAME}
listen: ["udp://{ADDRESS}:{STUN}", "udp://{ADDRESS}:3480", "tcp://{ADDRESS}:{STUN}", "tls://{ADDRESS}:{TLS}"{DTLS}]
tls: {{certificate: certificate.pem, key: key.pem}}
relay: {{addresses: {ADDRESS}, tcp: true}}
credentials: {{secret: north of the wall and then some}}
peers: {{allow: 10.78.1.0/24}}
limits: {{allocations_per_user: 100}}
web:
  listen: ["http://{ADDRESS}:{HTTP}", "https://{ADDRESS}:{HTTPS}"]
  public: true
  requests_per_address: 0
  trusted_proxies: {ADDRESS}
"""

KEY = "a key of the shop, long enough"
KEYED_HTTP = 8090
KEYED_SETTINGS = f"""
listen: ["udp://{ADDRESS}:3490"]
relay: {{addresses: {ADDRESS}}}
credentials: {{secret: north of the wall and then some}}
web:
  listen: ["http://{ADDRESS}:{KEYED_HTTP}"]
  keys: [{{name: shop, key: "{KEY}"}}]
"""
"""Of a second server, which gives nothing to callers without a key."""

NOBODY = "10.78.0.99"
WRONG_HTTP = 8091
WRONG_SETTINGS = f"""
listen: ["udp://{ADDRESS}:3491", "tcp://{ADDRESS}:3491"]
relay: {{addresses: {ADDRESS}, external: {NOBODY}}}
credentials: {{secret: north of the wall and then some}}
peers: {{allow: 10.78.1.0/24}}
limits: {{allocations_per_user: 100}}
web: {{listen: "http://{ADDRESS}:{WRONG_HTTP}", public: true, requests_per_address: 0}}
"""
"""Of a third server, whose external address is nobody's."""

SHARED_SETTINGS = f"""
realm: {NAME}
listen: ["tls://{ADDRESS}:443"]
tls: {{certificate: issued.pem, key: issued.key}}
relay: {{addresses: {ADDRESS}, ports: 40000-40999}}
credentials: {{secret: north of the wall and then some}}
limits: {{allocations_per_user: 100}}
share: web
web: {{listen: "http://127.0.0.1:8092", public: true, requests_per_address: 0}}
"""
"""Of one more server, which has everything on one port."""
ONE_PORT = """
table inet one_port {
    chain input {
        type filter hook input priority 0;
        iifname "to*" meta l4proto udp drop
        iifname "to*" tcp dport != 443 drop
    }
}
"""
"""nftables rules of its network: nothing else gets in."""

CHROMIUM_ARGUMENTS = (
    "--no-sandbox",
    "--ignore-certificate-errors",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--autoplay-policy=no-user-gesture-required",
    "--disable-gpu",
)
FIREFOX_PREFERENCES: dict[str, object] = {
    "media.navigator.streams.fake": True,
    "media.navigator.permission.disabled": True,
    "media.autoplay.default": 0,
    "datareporting.policy.dataSubmissionEnabled": False,
    "app.normandy.enabled": False,
    "app.update.enabled": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
}


def need_modules() -> None:
    """Skips, or fails where nothing may be skipped, unless the npm packages of package.json are installed."""
    if not (HERE / "node_modules" / "socket.io-client").is_dir():
        _missing("the npm packages are missing: npm ci --prefix tests/browser")


def need_rig() -> None:
    """The same for everything that the rig is made of."""
    for program in ("ip", "nft", "node", "ping"):
        need(program)
    need_modules()
    if os.geteuid() != 0:
        _missing("network namespaces need root")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("TURNSVR_REQUIRE_ALL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


def _run(*command: str, text: str | None = None) -> None:
    done = subprocess.run(command, check=False, capture_output=True, input=text, text=True)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"


def issue(directory: Path) -> Path:
    """A certificate of an authority of the test's own, in issued.pem and issued.key; returns the authority's.

    Firefox serves a TLS leg to nobody whose certificate it does not trust, whatever it lets pages do.
    """
    openssl, key = need("openssl"), ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    authority, request, names = directory / "authority.pem", directory / "request.pem", directory / "names"
    names.write_text(f"subjectAltName=IP:{ADDRESS},DNS:{NAME}\n")
    paths = ("-keyout", str(directory / "authority.key"), "-out", str(authority))
    _run(openssl, "req", "-x509", *key, *paths, "-subj", "/CN=authority", "-days", "30")
    _run(openssl, "req", *key, "-keyout", str(directory / "issued.key"), "-out", str(request), "-subj", "/CN=turn")
    signer = ("-CA", str(authority), "-CAkey", str(directory / "authority.key"), "-CAcreateserial")
    issued = ("-extfile", str(names), "-days", "20", "-out", str(directory / "issued.pem"))
    _run(openssl, "x509", "-req", "-in", str(request), *signer, *issued)
    return authority


def profile_that_trusts(authority: Path, directory: Path) -> Path:
    """A profile of Firefox in this directory."""
    certutil = need("certutil")
    directory.mkdir()
    _run(certutil, "-N", "-d", f"sql:{directory}", "--empty-password")
    _run(certutil, "-A", "-d", f"sql:{directory}", "-n", "authority", "-t", "C,,", "-i", str(authority))
    return directory


class Namespace:
    """A network namespace with a loopback interface, names of its own and no route."""

    def __init__(self) -> None:
        self.name = f"turnsvr-{os.getpid()}-{next(_numbers)}"
        self._folder = Path("/etc/netns", self.name)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True)
        (self._folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        (self._folder / "hosts").write_text(f"127.0.0.1 localhost\n{ADDRESS} {NAME}\n")
        _run("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        subprocess.run(["ip", "netns", "delete", self.name], check=False, capture_output=True)
        for each in self._folder.iterdir():
            each.unlink()
        self._folder.rmdir()

    def ip(self, *arguments: str) -> None:
        _run("ip", "-n", self.name, *arguments)

    def command(self, *command: str) -> list[str]:
        """The command as it is run in here."""
        return ["ip", "netns", "exec", self.name, *command]

    @contextmanager
    def rules(self, text: str) -> Iterator[None]:
        """nftables rules for a while."""
        _run(*self.command("nft", "-f", "-"), text=text)
        try:
            yield
        finally:
            _run(*self.command("nft", "flush", "ruleset"))

    def can_ping(self, address: str) -> bool:
        done = subprocess.run(self.command("ping", "-c1", "-W1", address), check=False, capture_output=True)
        return done.returncode == 0


class Place(Namespace):
    """A namespace whose only way out is the server's, at 10.78.N.2."""

    def __init__(self, number: int, server: Namespace) -> None:
        super().__init__()
        self.address = f"10.78.{number}.2"
        self._number = number
        self._server = server

    def __enter__(self) -> Self:
        super().__enter__()
        near, far = f"10.78.{self._number}.1", f"to{self._number}"
        _run("ip", "link", "add", "eth0", "netns", self.name, "type", "veth", "peer", far, "netns", self._server.name)
        self.ip("address", "add", f"{self.address}/24", "dev", "eth0")
        self._server.ip("address", "add", f"{near}/24", "dev", far)
        self.ip("link", "set", "eth0", "up")
        self._server.ip("link", "set", far, "up")
        self.ip("route", "add", "default", "via", near)
        return self


class Server:
    """`turnsvr run` in a namespace, twice, and a proxy before the first one's HTTP that lets no WebSocket through."""

    def __init__(self, namespace: Namespace, directory: Path) -> None:
        firstrun.write_self_signed(directory, [ADDRESS])
        self.directory = directory
        self._namespace = namespace
        self._errors = directory / "log"
        self._serving = 0
        self._processes: list[subprocess.Popen[bytes]] = []
        self.add("turnsvr.yaml", SETTINGS)
        self.add("keyed.yaml", KEYED_SETTINGS)
        self._processes.append(
            self._start(namespace, str(HERE / "no_upgrade.py"), ADDRESS, str(NO_UPGRADE), ADDRESS, str(HTTP))
        )
        wait_until(lambda: "no upgrades here" in self.log, "the proxy to serve")
        self.wait()

    def add(self, name: str, settings: str) -> None:
        """One more server, with these settings in a file of this name."""
        (self.directory / name).write_text(settings)
        command = ("-m", "turnsvr", "run", "-c", str(self.directory / name))
        self._processes.append(self._start(self._namespace, *command))
        self._serving += 1

    def wait(self) -> None:
        """Until all of them serve."""
        wait_until(lambda: self.log.count(" serving version=") == self._serving, "the servers to serve")

    def _start(self, namespace: Namespace, *arguments: str) -> subprocess.Popen[bytes]:
        with self._errors.open("ab") as errors:
            command = namespace.command(sys.executable, *arguments)
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)

    @property
    def log(self) -> str:
        return self._errors.read_text()

    def stop(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(START_SECONDS)


class BrowserError(AssertionError):
    """What the browser or its page complained of."""


class Browser:
    """One browser in a place, driven by commands; one page at a time."""

    def __init__(self, place: Namespace, kind: str, executable: str, profile: Path | None = None) -> None:
        options = {
            "executable": executable,
            "args": CHROMIUM_ARGUMENTS,
            "prefs": FIREFOX_PREFERENCES,
            "profile": None if profile is None else str(profile),
        }
        command = place.command(need("node"), str(HERE / "driver.mjs"), kind, json.dumps(options))
        self.place = place
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, bufsize=1
        )
        self._answer(START_SECONDS)

    def do(self, command: str, **parameters: object) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"command": command, **parameters}) + "\n")
        self._process.stdin.flush()
        return self._answer(COMMAND_SECONDS)

    def open(self, url: str = PAGE, *, width: int = 1100, height: int = 900, dark: bool = False) -> None:
        self.do("open", url=url, width=width, height=height, dark=dark)

    def evaluate(self, code: str) -> Any:
        return self.do("evaluate", code=code)

    def text(self, selector: str) -> str:
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def wait(self, look: Callable[[], Any], what: str, seconds: float = 40.0) -> Any:
        """Look until there is something true; then that."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if found := look():
                return found
            time.sleep(0.25)
        raise BrowserError(f"waited in vain for {what}; the page says:\n{self.text('main')}\n{self.do('complaints')}")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _answer(self, seconds: float) -> Any:
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        line = self._process.stdout.readline() if ready else ""
        if not line:
            raise BrowserError(f"the browser does not answer (exit status {self._process.poll()})")
        answer = json.loads(line)
        if "error" in answer:
            raise BrowserError(answer["error"])
        return answer.get("value")


class Rig:
    """The servers with their namespace, and both places."""

    def __init__(self, server: Server, middle: Namespace, here: Place, there: Place) -> None:
        self.server = server
        self.middle = middle
        self.here = here
        self.there = there


@contextmanager
def rig(directory: Path) -> Iterator[Rig]:
    with Namespace() as middle:
        middle.ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
        _run(*middle.command("sysctl", "-qw", "net.ipv4.ip_forward=0"))
        with Place(1, middle) as here, Place(2, middle) as there:
            server = Server(middle, directory)
            try:
                yield Rig(server, middle, here, there)
            finally:
                server.stop()
