"""`turnsvr run --web`, which is what `make run` does: without a settings file, a page that works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.browser.rig import ADDRESS, Namespace, need_rig
from tests.conftest import wait_until

ASK = """
import json, ssl, sys, urllib.request
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
def get(url):
    with urllib.request.urlopen(url, context=context, timeout=20) as answer:
        return answer.read().decode()
print(json.dumps([get(base + path) for base in sys.argv[1:] for path in ("/", "/ice-servers", "/readyz")]))
"""


def test_the_page_is_there_at_once_over_http_and_https(tmp_path: Path) -> None:
    need_rig()
    log = tmp_path / "log"
    with Namespace() as place, log.open("wb") as output:
        place.ip("address", "add", f"{ADDRESS}/32", "dev", "lo")
        place.ip("route", "add", "default", "dev", "lo", "src", ADDRESS)
        server = subprocess.Popen(
            place.command(sys.executable, "-m", "turnsvr", "run", "--web"), stdout=output, stderr=output
        )
        try:
            wait_until(lambda: "Test page" in log.read_text(), "the server to serve")
            urls = [f"http://{ADDRESS}:8080", f"https://{ADDRESS}:8443"]
            asked = subprocess.run(
                place.command(sys.executable, "-c", ASK, *urls), check=False, capture_output=True, text=True
            )
            assert asked.returncode == 0, asked.stderr
        finally:
            server.terminate()
            assert server.wait(20) == 0
    text = log.read_text()
    assert all(url in text for url in urls)
    assert "lets everyone relay who can open it" in text
    for page, servers, ready in zip(*[iter(json.loads(asked.stdout))] * 3, strict=True):
        assert page.startswith("<!doctype html>")
        found = json.loads(servers)
        assert found["ttl"] == 600
        assert f"turn:{ADDRESS}:3478?transport=udp" in found["iceServers"][1]["urls"]
        assert f"turns:{ADDRESS}:5349?transport=tcp" in found["iceServers"][1]["urls"]
        assert json.loads(ready) == {"status": "ready"}
