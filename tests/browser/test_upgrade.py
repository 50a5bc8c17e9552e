"""Browsers' calls through upgrades: relay only, over UDP and TCP, Chromium's over TLS; ICE notices nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.rig import ADDRESS, HTTP, NAME, Browser, Rig, issue
from tests.conftest import wait_until
from turnsvr import relay
from turnsvr.admin.client import AdminClient
from turnsvr.credentials import shared_secret

SECRET = "north of the wall and then some more"
PORT, TLS_PORT = 3500, 5500
KINDS = ("compiled, threads: 1", "portable, threads: 1", "compiled, threads: 2")
SETTINGS = f"""
realm: {NAME}
listen: ["udp://{ADDRESS}:{PORT}", "tcp://{ADDRESS}:{PORT}", "tls://{ADDRESS}:{TLS_PORT}"]
tls: {{certificate: issued.pem, key: issued.key}}
relay: {{addresses: {ADDRESS}}}
credentials: {{secret: {SECRET}}}
admin: {{socket: SOCKET}}
pump: {{kind: {KINDS[0]}}}
"""

CALLS = """
(async () => {
  const canvas = document.createElement("canvas");
  const paint = canvas.getContext("2d");
  let turn = 0;
  setInterval(() => { paint.fillStyle = `hsl(${turn++ % 360} 80% 50%)`; paint.fillRect(0, 0, 300, 150); }, 40);
  const stream = canvas.captureStream(20);
  const gathered = (connection) => new Promise((done) => {
    const look = () => connection.iceGatheringState === "complete" && done();
    connection.onicegatheringstatechange = look;
    look();
  });
  const call = async (url, login) => {
    const servers = [{ urls: url, ...login }];
    const ends = [0, 1].map(() => new RTCPeerConnection({ iceServers: servers, iceTransportPolicy: "relay" }));
    const states = [];
    for (const each of ends) each.oniceconnectionstatechange = () => states.push(each.iceConnectionState);
    const [one, other] = ends;
    one.addTrack(stream.getVideoTracks()[0], stream);
    await one.setLocalDescription(await one.createOffer());
    await gathered(one);
    await other.setRemoteDescription(one.localDescription);
    await other.setLocalDescription(await other.createAnswer());
    await gathered(other);
    await one.setRemoteDescription(other.localDescription);
    return { ends, states };
  };
  window.calls = await Promise.all(URLS.map((url) => call(url, LOGIN)));
})()
"""
FIGURES = """
(async () => Promise.all(window.calls.map(async ({ ends, states }) => {
  const of = [...(await ends[1].getStats()).values()].find((each) => each.type === "inbound-rtp");
  return { states, decoded: of?.framesDecoded ?? 0, now: ends.map((each) => each.iceConnectionState) };
})))()
"""


class Server:
    """`turnsvr run` in the middle, and whoever takes its place."""

    def __init__(self, lab: Rig, directory: Path) -> None:
        issue(directory)
        self._file = directory / "turnsvr.yaml"
        self._socket = directory / "admin.sock"
        self._log = directory / "log"
        self._file.write_text(SETTINGS.replace("SOCKET", str(self._socket)))
        with self._log.open("wb") as errors:
            command = lab.middle.command(sys.executable, "-m", "turnsvr", "run", "-c", str(self._file))
            self._first = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=errors)
        wait_until(lambda: " serving " in self._log.read_text(), "the server to serve")

    def upgrade(self, before: str, after: str) -> None:
        self._file.write_text(self._file.read_text().replace(before, after))
        command = [sys.executable, "-m", "turnsvr", "upgrade", "--socket", str(self._socket)]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr + self._log.read_text()

    def stop(self) -> None:
        pid = int(AdminClient.on_socket(self._socket).status()["pid"])
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not self._socket.exists(), "the server to end")
        self._first.terminate()
        self._first.wait(30)


@pytest.fixture(scope="module")
def server(lab: Rig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if relay.describe().startswith("portable"):
        pytest.skip(relay.describe())
    made = Server(lab, tmp_path_factory.mktemp("upgraded"))
    yield made
    made.stop()


def figures(browser: Browser) -> list[dict[str, Any]]:
    found = browser.evaluate(FIGURES)
    assert isinstance(found, list)
    return found


def decoded_more(browser: Browser, than: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Wait until each call has shown ten pictures more."""

    def look() -> list[dict[str, Any]] | None:
        found = figures(browser)
        return (
            found if all(new["decoded"] > old["decoded"] + 10 for new, old in zip(found, than, strict=True)) else None
        )

    result: list[dict[str, Any]] = browser.wait(look, "pictures of every call")
    return result


def test_calls_go_on_through_upgrades(server: Server, here: Browser, fox: Browser) -> None:
    """To the portable pump and back, with other threads; a call over TLS stays in the first process."""
    urls = [f"turn:{ADDRESS}:{PORT}?transport={each}" for each in ("udp", "tcp")]
    ways = {here: [*urls, f"turns:{ADDRESS}:{TLS_PORT}"], fox: urls}
    name, password = shared_secret.make(SECRET, "browser", 600, time.time())
    login = json.dumps({"username": name, "credential": password})
    for browser, its in ways.items():
        browser.open(f"http://{ADDRESS}:{HTTP}/healthz")
        browser.evaluate(CALLS.replace("URLS", json.dumps(its)).replace("LOGIN", login))
    last = {browser: decoded_more(browser, [{"decoded": 0}] * len(its)) for browser, its in ways.items()}
    for before, after in itertools.pairwise(KINDS):
        server.upgrade(before, after)
        last = {browser: decoded_more(browser, old) for browser, old in last.items()}
    time.sleep(6.0)  # after five seconds without an answer Chromium says `disconnected`
    for browser, its in ways.items():
        for url, each in zip(its, decoded_more(browser, last[browser]), strict=True):
            assert set(each["states"]) <= {"checking", "connected", "completed"}, url
            assert set(each["now"]) <= {"connected", "completed"}, url
