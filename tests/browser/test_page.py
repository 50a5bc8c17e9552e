"""What the page finds out and how it looks, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.browser.rig import (
    ADDRESS,
    DTLS,
    KEY,
    KEYED_HTTP,
    NOBODY,
    PAGE,
    STUN,
    WRONG_HTTP,
    WRONG_SETTINGS,
    Browser,
    Rig,
)

TABS = ("check", "loopback", "call", "code")
INSIDE, OUTSIDE = "10.78.1.9", "10.78.1.2"


def checked(browser: Browser, url: str = PAGE) -> str:
    """Opens the page and returns the verdict."""
    browser.open(url)
    done = "!document.getElementById('check-copy').disabled"
    browser.wait(lambda: browser.evaluate(done), "the check's end", seconds=60)
    return browser.text("#check-verdict")


def states(browser: Browser) -> dict[str, str]:
    found = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('#check-legs li')].map(({dataset}) => "
        "[dataset.kind, dataset.state]))"
    )
    assert isinstance(found, dict)
    return found


@contextmanager
def behind_nat(lab: Rig, rules: str) -> Iterator[None]:
    """The browser's packets leave with another source port, as a NAT of this kind would choose it."""
    text = f"table ip nat {{ chain out {{ type nat hook postrouting priority 100; {rules}; }}; }}"
    with lab.here.rules(text):
        yield


def test_the_check_is_green(here: Browser) -> None:
    assert checked(here).startswith("✓ It works")
    assert here.evaluate("document.getElementById('check-verdict').className") == "verdict good"
    assert {kind: states(here)[kind] for kind in ("udp", "tcp", "tls", "stun")} == dict.fromkeys(
        ("udp", "tcp", "tls", "stun"), "good"
    )
    rows = here.evaluate(
        "[...document.querySelectorAll('#check-candidates tr')].map((row) => row.cells[1].textContent)"
    )
    assert set(rows) == {"host", "srflx", "relay"}
    assert "one mapping" in here.text("#check-words") or "same address and port" in here.text("#check-words")
    assert "Others reach the relay" in here.text("#check-words")
    beyond = "relaying over TCP to peers (RFC 6062). The command turnsvr probe tries it."
    assert beyond in here.text("#check-words")
    assert ("TURN over DTLS (turns:" in here.text("#check-words")) == bool(DTLS)
    assert here.do("complaints") == []


CLOSED = """
  table ip firewall {
    chain in {
      type filter hook input priority 0;
      ct state established,related accept
      udp dport 49152-65535 drop
    }
  }
"""
"""A stateful firewall before the server, which drops what comes unasked to relay ports."""


def test_relay_ports_that_a_firewall_closes_are_red_with_the_cause(lab: Rig, here: Browser) -> None:
    with lab.middle.rules(CLOSED):
        verdict = checked(here)
    assert "nobody outside reaches" in verdict, here.text("#check")
    assert here.evaluate("document.getElementById('check-verdict').className") == "verdict bad"
    assert set(states(here).values()) == {"good"}, "every way in works, which says nothing of peers outside"
    assert "drops UDP to relay.ports" in here.text("#check-words")


def test_an_external_address_that_is_nobodys_is_red_with_the_cause(lab: Rig, here: Browser) -> None:
    lab.server.add("wrong.yaml", WRONG_SETTINGS)
    lab.server.wait()
    verdict = checked(here, f"http://{ADDRESS}:{WRONG_HTTP}/")
    assert "nobody outside reaches" in verdict, here.text("#check")
    words = here.text("#check-words")
    assert f"{NOBODY} is not the server's public address" in words
    assert "relay.external" in words


def test_a_private_address_that_the_server_refuses_cannot_tell(there: Browser) -> None:
    verdict = checked(there)
    assert "as far as can be told" in verdict, there.text("#check")
    words = there.text("#check-words")
    assert "cannot be told from here" in words
    assert "peers.allow" in words


def test_a_nat_in_between_does_not_matter(lab: Rig, here: Browser) -> None:
    with behind_nat(lab, f"ip daddr {ADDRESS} udp dport != 53 masquerade to :20000-40000 fully-random"):
        checked(here)
        assert "Others reach the relay" in here.text("#check-words"), here.text("#check")


@pytest.mark.parametrize("closed", [False, True])
def test_the_loopback_test_says_what_peers_outside_get(lab: Rig, here: Browser, closed: bool) -> None:
    with lab.middle.rules(CLOSED if closed else "table ip firewall {}"):
        here.open(f"{PAGE}#loopback")
        here.wait(lambda: here.evaluate("document.querySelectorAll('#loopback-leg option').length > 1"), "the ways in")
        here.do("click", selector="#loopback-start")
        found = here.wait(lambda: here.text("#loopback-outside"), "what peers outside get")
        here.do("click", selector="#loopback-start") if not closed else None
    assert ("Nobody outside reaches" if closed else "Others reach the relay") in found


def test_a_symmetric_nat_is_told_by_name(lab: Rig, here: Browser) -> None:
    with behind_nat(lab, f"ip daddr {ADDRESS} udp dport != 53 masquerade to :20000-40000 fully-random"):
        verdict = checked(here)
        assert "symmetric" in here.text("#check-words"), here.text("#check")
    assert verdict.startswith("✓")


def test_a_nat_that_keeps_its_mapping_is_told_too(lab: Rig, here: Browser) -> None:
    lab.here.ip("address", "add", f"{INSIDE}/24", "dev", "eth0")
    try:
        with behind_nat(lab, f"ip daddr {ADDRESS} snat to {INSIDE}"):
            checked(here)
            words = here.text("#check-words")
    finally:
        lab.here.ip("address", "delete", f"{INSIDE}/24", "dev", "eth0")
    assert "endpoint-independent" in words
    assert INSIDE in words


ONE_DESTINATION = """
(async () => {
  const { compareMappings } = await import('/static/check.js');
  const { iceServers, legs } = await import('/static/ice.js');
  const configuration = await iceServers();
  return compareMappings(configuration, [legs(configuration).find((leg) => leg.kind === 'stun')]);
})()
"""


def test_a_relayed_address_is_the_second_destination_where_the_server_has_one_port(lab: Rig, here: Browser) -> None:
    here.open(f"{PAGE}#code")
    assert here.evaluate(ONE_DESTINATION) == "independent"
    with behind_nat(lab, f"ip daddr {ADDRESS} udp dport != 53 masquerade to :20000-40000 fully-random"):
        assert here.evaluate(ONE_DESTINATION) == "dependent"


def test_blocked_udp_is_told_with_what_to_do(lab: Rig, here: Browser) -> None:
    rules = "table ip filter { chain out { type filter hook output priority 0; meta l4proto udp drop; }; }"
    with lab.here.rules(rules):
        verdict = checked(here)
    assert "not over UDP" in verdict
    assert here.evaluate("document.getElementById('check-verdict').className") == "verdict warn"
    found = states(here)
    assert (found["udp"], found["tcp"], found["tls"]) == ("bad", "good", "good")
    assert f"drops UDP to port {STUN}" in here.text("#check-words")


def _ends_with(browser: Browser, selector: str, unit: str) -> bool:
    return browser.text(selector).endswith(unit)


@pytest.mark.parametrize("leg", ["udp", "tls"])
def test_the_loopback_test_measures(here: Browser, leg: str) -> None:
    here.open(f"{PAGE}#loopback")
    here.wait(lambda: here.evaluate("document.querySelectorAll('#loopback-leg option').length > 1"), "the ways in")
    here.do("select", selector="#loopback-leg", value=leg)
    here.do("click", selector="#loopback-start")
    here.wait(lambda: f"over {leg.upper()}" in here.text("#loopback-state"), "the connection")
    here.wait(lambda: "Mbit/s" in here.text("#value-throughput"), "a throughput near the chosen load")
    for name, unit in (("rtt", "ms"), ("loss", "%"), ("jitter", "ms")):
        here.wait(partial(_ends_with, here, f"#value-{name}", unit), name)
    painted = (
        "(() => { const canvas = document.getElementById('chart-throughput');"
        " const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);"
        " return data.some((value) => value > 0); })()"
    )
    assert here.evaluate(painted)
    here.do("click", selector="#loopback-start")
    assert here.text("#loopback-start") == "Start"


def test_the_page_asks_for_a_key_where_one_is_needed(here: Browser) -> None:
    here.open(f"http://{ADDRESS}:{KEYED_HTTP}/", width=360)
    here.wait(lambda: "Your API key" in here.text("#key-form"), "the question")
    for key, shown in (("not a key of this server", "does not know this key"), (KEY, "It works")):
        here.do("fill", selector="#key", value=key)
        here.do("click", selector="#key-form button")
        here.wait(partial(_says, here, shown), shown)
    assert here.evaluate("document.getElementById('key-form').hidden")
    assert "YOUR_API_KEY" in here.evaluate("document.getElementById('code-snippets').textContent")
    assert KEY not in here.evaluate("document.documentElement.outerHTML")


def _says(browser: Browser, text: str) -> bool:
    return text in browser.text("main")


def test_the_snippets_name_this_server(here: Browser) -> None:
    here.open(f"{PAGE}#code")
    here.wait(lambda: "/ice-servers" in here.text("#code-snippets"), "the snippets")
    text = here.text("#code-snippets")
    assert f"http://{ADDRESS}:8080/ice-servers" in text
    assert "aiortc" in text
    assert "RTCPeerConnection" in text


CUT = """
(() => {
  const wide = document.documentElement.scrollWidth - innerWidth;
  const complaints = wide > 0 ? [`the page is ${wide} px too wide`] : [];
  const boxes = [];
  const parts = 'a, summary, code, button, select, input, h1, h2, h3, p, li, label, figcaption';
  for (const each of document.querySelectorAll(parts)) {
    const box = each.getBoundingClientRect();
    if (!box.width || each.closest('pre, .scroll, header')) continue;
    const name = `${each.tagName} ${each.id || each.innerText?.slice(0, 30)}`;
    if (box.left < 0 || box.right > innerWidth + 0.5) complaints.push(`${name} leaves the page`);
    const fits = each.scrollWidth <= each.clientWidth + 1 || !each.clientWidth || each.tagName === 'INPUT';
    if (!fits) complaints.push(`${name} is cut`);
    if (['BUTTON', 'SELECT', 'INPUT'].includes(each.tagName)) boxes.push([name, box]);
  }
  boxes.forEach(([name, a], index) => boxes.slice(index + 1).forEach(([other, b]) => {
    const apart = a.left >= b.right || b.left >= a.right || a.top >= b.bottom || b.top >= a.bottom;
    if (!apart) complaints.push(`${name} over ${other}`);
  }));
  return complaints;
})()
"""


@pytest.mark.parametrize("width", [340, 1100])
def test_the_description_of_the_api_is_readable(here: Browser, width: int) -> None:
    here.open(f"{PAGE}docs", width=width, height=800)
    here.wait(lambda: "/ice-servers" in here.text("#endpoints"), "the endpoints")
    here.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    assert here.evaluate(CUT) == []
    assert here.do("complaints") == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [340, 1100])
def test_nothing_is_cut_or_overlaps(here: Browser, tmp_path: Path, width: int, dark: bool) -> None:
    here.open(width=width, height=800, dark=dark)
    here.wait(lambda: here.evaluate("!document.getElementById('check-copy').disabled"), "the check's end", seconds=60)
    for tab in TABS:
        here.do("click", selector=f"#tab-{tab}")
        if tab == "call":
            here.do("click", selector="#call-start")
            here.wait(lambda: here.evaluate("document.getElementById('call-link').value"), "the room's link")
        assert here.evaluate(CUT) == [], tab
        here.do("screenshot", path=str(tmp_path / f"{tab}.png"))
        assert (tmp_path / f"{tab}.png").stat().st_size > 5_000
    background = here.evaluate("getComputedStyle(document.body).backgroundColor")
    lightness = sum(int(part) for part in background.strip("rgb()").split(","))
    assert (lightness < 300) is dark
