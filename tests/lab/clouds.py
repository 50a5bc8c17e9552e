"""The metadata services of clouds, as their documents describe them: served at the address that all of them use.

Run as a program: clouds.py FILE, where FILE holds {"cloud": NAME, "public": ADDRESS, "private": ADDRESS}, read anew for
each request; a cloud named "hostile:KIND" answers everything with something else.
"""

from __future__ import annotations

import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOST = "169.254.169.254"
TOKEN = "AQAEAFvkSEtQ8zQtoken=="


class Handler(BaseHTTPRequestHandler):
    file: Path

    def do_GET(self) -> None:
        state = json.loads(self.file.read_text())
        kind, _, how = state["cloud"].partition(":")
        if kind == "hostile":
            self.hostile(how)
            return
        answer = ANSWERS[kind](self, state)
        if answer is None:
            self.send_error(404)
        else:
            self.answer(answer if isinstance(answer, str) else json.dumps(answer))

    def do_PUT(self) -> None:
        state = json.loads(self.file.read_text())
        seconds = self.headers.get("X-aws-ec2-metadata-token-ttl-seconds")
        if state["cloud"] == "aws" and self.path == "/latest/api/token" and seconds:
            self.answer(TOKEN)
        else:
            self.send_error(405)

    def answer(self, body: str, headers: dict[str, str] | None = None) -> None:
        data = body.encode()
        self.send_response(200)
        if json.loads(self.file.read_text())["cloud"] == "google":
            self.send_header("Metadata-Flavor", "Google")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def hostile(self, how: str) -> None:
        if how == "endless":
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b"1" * 65_536)
        if how == "drip":
            for character in b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1000:
                self.wfile.write(bytes((character,)))
                time.sleep(0.2)
        if how == "redirect":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
        bodies = {
            "html": "<html>Welcome to this hotel. 7.7.7.7</html>",
            "nested": "[" * 60_000,
            "types": json.dumps(
                [{"accessConfigs": {"externalIp": 5}, "ipv4": ["x"], "publicIp": ["7.7.7.7"], "ip": {}}]
            ),
            "words": "not an address\r\nX-Injected: 1",
        }
        if how in bodies:
            self.answer(bodies[how])

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


def _aws(request: Handler, state: dict[str, str]) -> str | None:
    if request.headers.get("X-aws-ec2-metadata-token") != TOKEN:
        return None
    paths = {"/latest/meta-data/public-ipv4": "public", "/latest/meta-data/local-ipv4": "private"}
    return state.get(paths.get(request.path, ""))


def _google(request: Handler, state: dict[str, str]) -> Any:
    path = "/computeMetadata/v1/instance/network-interfaces/?recursive=true&alt=json"
    if request.path != path or request.headers.get("Metadata-Flavor") != "Google":
        return None
    access = {"externalIp": state["public"], "type": "ONE_TO_ONE_NAT"}
    return [{"ip": state["private"], "accessConfigs": [access], "network": "projects/1/networks/default"}]


def _azure(request: Handler, state: dict[str, str], *, standard: bool = False) -> Any:
    if request.headers.get("Metadata") != "true":
        return None
    public, private = state["public"], state["private"]
    if request.path.startswith("/metadata/instance/network/interface?api-version="):
        address = {"privateIpAddress": private, "publicIpAddress": "" if standard else public}
        return [{"ipv4": {"ipAddress": [address], "subnet": []}, "ipv6": {"ipAddress": []}, "macAddress": "00"}]
    if standard and request.path.startswith("/metadata/loadbalancer?api-version="):
        return {"loadbalancer": {"publicIpAddresses": [{"frontendIpAddress": public, "privateIpAddress": private}]}}
    return None


def _digitalocean(request: Handler, state: dict[str, str]) -> Any:
    if request.path != "/metadata/v1.json":
        return None
    public = {"ipv4": {"ip_address": "7.7.9.9"}, "anchor_ipv4": {"ip_address": state["private"]}, "type": "public"}
    reserved = {"ipv4": {"active": True, "ip_address": state["public"]}}
    return {"interfaces": {"public": [public]}, "reserved_ip": reserved, "floating_ip": {"ipv4": {"active": False}}}


def _hetzner(request: Handler, state: dict[str, str]) -> str | None:
    return state["public"] + "\n" if request.path == "/hetzner/v1/metadata/public-ipv4" else None


def _oracle(request: Handler, state: dict[str, str]) -> Any:
    if request.path != "/opc/v2/vnics/" or request.headers.get("Authorization") != "Bearer Oracle":
        return None
    return [{"privateIp": state["private"], "publicIp": state["public"], "macAddr": "00", "vnicId": "ocid1.vnic"}]


ANSWERS: dict[str, Any] = {
    "aws": _aws,
    "google": _google,
    "azure": _azure,
    "azure-standard": lambda request, state: _azure(request, state, standard=True),
    "digitalocean": _digitalocean,
    "hetzner": _hetzner,
    "oracle": _oracle,
    "none": lambda request, state: None,
}


if __name__ == "__main__":
    Handler.file = Path(sys.argv[1])
    ThreadingHTTPServer((HOST, 80), Handler).serve_forever()
