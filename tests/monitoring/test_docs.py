"""docs/monitoring.md says what the program does: metrics, reasons, alerts, the throttle of the log."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.conftest import Serve
from tests.monitoring.everything import all_metrics
from turnsvr.app import throttle
from turnsvr.relay.counts import Drop
from turnsvr.stores import status

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "monitoring.md").read_text()


def section(title: str) -> str:
    """The text below a heading, to the next one."""
    (found,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    return str(found)


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def rows(metrics: str) -> Iterator[str]:
    """A row of the table for each family."""
    for family in text_string_to_metric_families(metrics):
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        name = f"{family.name}_total" if family.type == "counter" else family.name
        shown = f"{name}{{{','.join(sorted(labels))}}}" if labels else name
        yield f"| `{shown}` | {family.type} | {family.documentation} |"


async def test_the_table_of_metrics_is_the_programs(serve: Serve, tmp_path: Path) -> None:
    expected = list(rows(await all_metrics(serve, tmp_path)))
    found = [line for line in section("Metrics").splitlines() if line.startswith("| `")]
    assert found == expected, "docs/monitoring.md wants:\n" + "\n".join(expected)


def test_every_reason_for_a_drop_is_explained() -> None:
    assert first_cells(section("Why packets are dropped")) == [drop.name.lower() for drop in Drop]


def test_every_alert_is_listed() -> None:
    groups = yaml.safe_load((ROOT / "conf" / "prometheus-rules.yaml").read_text())["groups"]
    assert first_cells(section("Alerts")) == [rule["alert"] for group in groups for rule in group["rules"]]


def test_the_throttle_of_the_log_is_as_told() -> None:
    text = " ".join(section("fail2ban").split())
    client = throttle.BY_CLIENT["authentication failed"]
    assert set(throttle.BY_CLIENT.values()) == {client}
    assert f"each has {client.burst:g} `authentication failed` lines at once" in text
    assert f"one every {1 / client.rate:g} seconds" in text
    assert all(f"`{kind}`" in text for kind in (*throttle.BY_CLIENT, *throttle.BY_USER))
    assert f"one of {throttle._CLIENT_SLOTS} places" in text
    assert f"at most {throttle._CLIENT_SLOTS * client.rate:g} such lines of a kind a second" in text
    session = throttle.BY_USER["session started"]
    assert f"of sessions a user has {session.rate:g} lines a second, {session.burst:g} at once" in text
    assert (
        f"all users have {throttle.ALL_USERS.rate:,g} lines of a kind a second, {throttle.ALL_USERS.burst:,g}" in text
    )
    assert f"at most {throttle._LINES_A_SECOND:g} lines a second, {throttle._BURST:g} at once" in text


def test_the_bounds_of_what_redis_is_told_are_as_told() -> None:
    text = " ".join(section("Sessions in Redis").split())
    assert f"{status.MAX_WAITING:,} events" in text
    assert f"{status._GRACE} s" in text


def test_every_file_that_is_named_exists() -> None:
    named = set(re.findall(r"\(\.\./([\w./-]+)\)", DOCUMENT))
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).exists()] == []
