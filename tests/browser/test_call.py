"""Two browsers in places that cannot reach each other meet in a room, and see and hear each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.rig import (
    ADDRESS,
    HTTPS,
    NAME,
    NO_UPGRADE,
    ONE_PORT,
    PAGE,
    SHARED_SETTINGS,
    Browser,
    Rig,
    issue,
    profile_that_trusts,
)
from tests.conftest import need


def begin(browser: Browser, url: str, *, leg: str = "any", policy: str = "relay") -> None:
    """Open the call's page, choose the way, and make a room or join the one in the URL."""
    browser.open(url)
    browser.wait(lambda: browser.evaluate("document.querySelectorAll('#call-leg option').length > 1"), "the ways in")
    browser.do("select", selector="#call-leg", value=leg)
    browser.do("select", selector="#call-policy", value=policy)
    browser.do("click", selector="#call-start")


def link(browser: Browser) -> str:
    found = browser.wait(lambda: browser.evaluate("document.getElementById('call-link').value"), "the room's link")
    assert "#room=" in found
    return str(found)


def figures(browser: Browser) -> dict[str, Any]:
    """What getStats() says of the one connection: types of candidates, bytes, frames."""
    found = browser.evaluate(
        "(async () => {"
        " const peer = [...(window.turnsvrCall?.peers.values() ?? [])][0];"
        " return peer ? await peer.figures() : {};"
        "})()"
    )
    assert isinstance(found, dict)
    return found


def assert_media_flows(browser: Browser) -> dict[str, Any]:
    """Connected, both counters grow, and pictures are decoded: returns the last figures."""

    def decoding() -> dict[str, Any] | None:
        found = figures(browser)
        return found if found.get("framesDecoded", 0) > 5 and found.get("bytesReceived", 0) > 0 else None

    first = browser.wait(decoding, "decoded frames")

    def more() -> dict[str, Any] | None:
        found = figures(browser)
        grown = all(found[name] > first[name] for name in ("bytesSent", "bytesReceived"))
        return found if grown and found["framesDecoded"] > first["framesDecoded"] + 5 else None

    last: dict[str, Any] = browser.wait(more, "growing counters")
    assert last["state"] == "connected"
    return last


def assert_relayed(browser: Browser) -> dict[str, Any]:
    found = assert_media_flows(browser)
    assert (found["localType"], found["remoteType"]) == ("relay", "relay")
    assert found["local"].startswith("relayed")
    return found


def test_the_places_cannot_reach_each_other(lab: Rig) -> None:
    for one, other in ((lab.here, lab.there), (lab.there, lab.here)):
        assert one.can_ping(ADDRESS)
        assert not one.can_ping(other.address)


@pytest.mark.parametrize("leg", ["udp", "tcp", "tls"])
def test_a_relayed_call(here: Browser, there: Browser, leg: str) -> None:
    begin(here, f"{PAGE}#call", leg=leg)
    begin(there, link(here), leg=leg)
    for browser in (here, there):
        found = assert_relayed(browser)
        assert found["relayProtocol"] == leg
        assert "You are connected" in browser.text("#call-state")
        assert browser.evaluate("window.turnsvrCall.signalling.transport") == "websocket"
        assert browser.do("complaints") == []
    there.do("click", selector="#call-leave")
    here.wait(lambda: "left" in here.text("#call-state"), "the other side's leaving")


@pytest.fixture(scope="module")
def authority(lab: Rig) -> Path:
    """Of a server that has everything on one port."""
    made = issue(lab.server.directory)
    lab.server.add("shared.yaml", SHARED_SETTINGS)
    lab.server.wait()
    return made


@pytest.fixture(scope="module")
def trusting_fox(lab: Rig, authority: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Firefox in the other place, with that authority among its own."""
    profile = profile_that_trusts(authority, tmp_path_factory.mktemp("fox") / "profile")
    browser = Browser(lab.there, "firefox", need("firefox-esr"), profile)
    yield browser
    browser.close()


@pytest.mark.usefixtures("authority")
@pytest.mark.parametrize("other", ["there", "trusting_fox"])
def test_a_call_through_the_port_of_its_page(
    lab: Rig, here: Browser, other: str, request: pytest.FixtureRequest
) -> None:
    """HTTPS, signalling and both relayed legs on 443 of one address; nothing else gets in."""
    second: Browser = request.getfixturevalue(other)
    with lab.middle.rules(ONE_PORT):
        begin(here, f"https://{NAME}/#call")
        begin(second, link(here))
        for browser in (here, second):
            found = assert_relayed(browser)
            assert found["local"].startswith("relayed, server reached over TLS")
            assert browser.evaluate("window.turnsvrCall.signalling.transport") == "websocket"
            assert browser.do("complaints") == []


def test_the_relay_is_found_where_there_is_no_direct_way(here: Browser, there: Browser) -> None:
    begin(here, f"{PAGE}#call", policy="all")
    begin(there, link(here), policy="all")
    for browser in (here, there):
        found = assert_media_flows(browser)
        assert "relay" in (found["localType"], found["remoteType"])


def test_long_polling_carries_the_signalling_where_websocket_is_blocked(here: Browser, there: Browser) -> None:
    url = f"http://{ADDRESS}:{NO_UPGRADE}/"
    begin(here, f"{url}#call")
    begin(there, link(here))
    for browser in (here, there):
        assert_relayed(browser)
        assert browser.evaluate("window.turnsvrCall.signalling.transport") == "polling"
    here.do("click", selector="#call-leave")
    there.wait(lambda: "left" in there.text("#call-state"), "the other side's leaving")


def test_a_camera_over_https(here: Browser, there: Browser) -> None:
    begin(here, f"https://{ADDRESS}:{HTTPS}/#call")
    here.do("select", selector="#call-source", value="camera")
    begin(there, link(here))
    for browser in (here, there):
        assert_relayed(browser)
    assert here.evaluate("document.querySelector('#video-me video').videoWidth") > 0


def test_firefox_and_chromium(here: Browser, fox: Browser) -> None:
    begin(here, f"{PAGE}#call")
    begin(fox, link(here))
    assert_relayed(here)
    assert_relayed(fox)
