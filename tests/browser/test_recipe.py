"""The browser's example of docs/recipes/clients.md, as it stands there, in a page of the server itself."""

from __future__ import annotations

from tests.browser.rig import ADDRESS, KEY, KEYED_HTTP, Browser
from tests.recipes.test_clients import example

GATHERED = """
connection.createDataChannel("any");
const found = [];
const over = new Promise((resolve) => {
  connection.onicecandidate = ({ candidate }) => (candidate ? found.push(candidate.candidate) : resolve());
});
await connection.setLocalDescription();
await over;
return found;
"""


def test_the_example_gathers_relay_candidates(here: Browser) -> None:
    base = f"http://{ADDRESS}:{KEYED_HTTP}"
    here.open(f"{base}/#code")
    code = example("javascript").replace("${BASE}", base).replace("${KEY}", KEY)
    candidates = here.evaluate(f"(async () => {{ {code} {GATHERED} }})()")
    assert any(" typ relay " in each for each in candidates), candidates
