"""What the page gives away of its results, other servers' lists, and its keys."""

from __future__ import annotations

import json
from functools import partial

from tests.browser.rig import ADDRESS, PAGE, Browser
from tests.browser.test_page import checked


def copied(browser: Browser, button: str) -> str:
    browser.evaluate("document.execCommand = () => { window.copied = document.activeElement.value; return true; }")
    browser.do("click", selector=button)
    return str(browser.wait(lambda: browser.evaluate("window.copied"), "the copy"))


def test_a_report_is_json_and_a_link_without_secrets(here: Browser) -> None:
    checked(here)
    verdict = here.text("#check-verdict")
    username = here.evaluate(
        "fetch('/ice-servers').then((answer) => answer.json()).then((body) => body.iceServers[1].username)"
    )
    text = copied(here, "#check-json")
    report = json.loads(text)
    assert report["verdict"]["state"] == "good"
    relays = [each for each in report["candidates"] if each["type"] == "relay"]
    assert relays
    assert all(each["priority"] > 0 and each["time"] >= 0 for each in report["candidates"])
    assert "credential" not in text
    assert str(username).partition(":")[2] not in text
    here.evaluate("window.copied = ''")
    link = copied(here, "#check-link")
    assert link.startswith(f"{PAGE}#report=")
    here.open("about:blank")
    here.open(link)
    here.wait(lambda: here.text("#check-verdict") == verdict, "the report of the link")
    assert report["host"] in here.text("#check-words")
    assert here.evaluate("document.querySelectorAll('#check-candidates tr').length") == len(report["candidates"])
    assert here.do("complaints") == []


def test_any_pasted_list_is_tried(here: Browser) -> None:
    checked(here)
    servers = here.evaluate("fetch('/ice-servers').then((answer) => answer.json())")
    here.evaluate("document.getElementById('check-paste').open = true")
    for wrong, problem in (
        ("nothing", "no JSON"),
        ("[]", "no ICE server"),
        ('[{"urls": "http://x"}]', "no STUN or TURN"),
    ):
        here.do("fill", selector="#check-servers", value=wrong)
        here.do("click", selector="#check-form button")
        assert problem in here.text("#check-paste-error")
    relays = [each for each in servers["iceServers"] if "credential" in each]
    relays[0]["urls"] = [url for url in relays[0]["urls"] if url.startswith("turn:") and "udp" in url][:1]
    dead = {"urls": f"turn:{ADDRESS}:9?transport=tcp", "username": "u", "credential": "c"}
    here.do("fill", selector="#check-servers", value=json.dumps([*relays, dead]))
    here.do("click", selector="#check-form button")
    here.wait(lambda: here.evaluate("!document.getElementById('check-link').disabled"), "the check's end", seconds=60)
    kinds = here.evaluate(
        "[...document.querySelectorAll('#check-legs li')].map((each) => [each.dataset.kind, each.dataset.state])"
    )
    assert kinds == [["udp", "good"], ["tcp", "bad"]]


def test_loopback_ends_with_a_summary_of_every_way(here: Browser) -> None:
    here.open(f"{PAGE}#loopback")
    here.wait(lambda: here.evaluate("document.querySelectorAll('#loopback-leg option').length > 1"), "the ways in")
    here.do("click", selector="#loopback-all")
    cells = "[...row.cells].map((cell) => cell.textContent)"
    rows = f"[...document.querySelectorAll('#loopback-rows tr')].map((row) => {cells})"
    found = here.wait(lambda: (r := here.evaluate(rows)) and len(r) == 3 and r, "three summaries", seconds=90)
    assert [row[0] for row in found] == ["UDP", "TCP", "TLS"]
    for _, throughput, rtt, loss, jitter, score, use in found:
        assert throughput.endswith("bit/s")
        assert rtt.count("ms") == 2
        assert loss.endswith("%")
        assert jitter.endswith("ms")
        assert 1 <= float(score) <= 4.5
        assert use
    assert here.do("complaints") == []


def test_the_score_of_speech_is_that_of_the_e_model(here: Browser) -> None:
    """Values of G.107 with its defaults: R 93.2 is 4.41; 300 ms one way or 5 % loss cost what Annex B has."""
    here.open(PAGE)
    code = "import('/static/quality.js').then(({{opinion}}) => opinion({{rtt: {rtt}, jitter: 0, loss: {loss}}}))"
    assert round(here.evaluate(code.format(rtt=0, loss=0)), 1) == 4.4
    assert 3.0 < here.evaluate(code.format(rtt=600, loss=0)) < 3.8
    assert 3.3 < here.evaluate(code.format(rtt=40, loss=5)) < 4.0
    assert here.evaluate(code.format(rtt=4_000, loss=80)) == 1


def test_arrow_keys_go_from_tab_to_tab(here: Browser) -> None:
    here.open(f"{PAGE}#check")
    here.wait(lambda: here.evaluate("document.querySelectorAll('[role=tab][tabindex=\"0\"]').length == 1"), "the tabs")
    event = "new KeyboardEvent('keydown', {{key: '{key}', bubbles: true, cancelable: true}})"
    press = f"document.activeElement.dispatchEvent({event})"
    here.evaluate("document.getElementById('tab-check').focus()")
    for key, tab in (("ArrowRight", "loopback"), ("End", "code"), ("ArrowRight", "check"), ("ArrowLeft", "code")):
        here.evaluate(press.format(key=key))
        focused = f"document.activeElement.id === 'tab-{tab}' && !document.getElementById('{tab}').hidden"
        here.wait(partial(here.evaluate, focused), f"the tab {tab}")
