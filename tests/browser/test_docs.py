"""/docs in a real browser: the viewer works under the page's Content-Security-Policy, with what this server says."""

from __future__ import annotations

from tests.browser.rig import PAGE, Browser


def test_the_endpoints_are_shown_and_can_be_tried(here: Browser) -> None:
    here.open(f"{PAGE}docs")
    here.wait(
        lambda: here.evaluate("document.querySelectorAll('.opblock').length > 10"), "the list of endpoints", seconds=60
    )
    here.do("click", selector="#operations-native-get_ice_servers .opblock-summary-control")
    here.wait(lambda: "curl -H" in here.text("#operations-native-get_ice_servers"), "the example for curl")
    here.do("click", selector="#operations-native-get_ice_servers .try-out__btn")
    here.do("click", selector="#operations-native-get_ice_servers .execute")
    here.wait(
        lambda: here.evaluate("!!document.querySelector('#operations-native-get_ice_servers .live-responses-table')"),
        "an answer of the server",
    )
    shown = here.text("#operations-native-get_ice_servers .live-responses-table")
    assert "iceServers" in shown
    assert here.do("complaints") == []
