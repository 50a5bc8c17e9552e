"""What conf/ has for Prometheus and Grafana, tried with a real Prometheus that watches a real, busy server."""

from __future__ import annotations

import asyncio
import json
import math
import re
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.conftest import PATIENCE, ServerProcess, free_port, need
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link, tls_context
from turnsvr.client.transaction import TransactionFailed
from turnsvr.client.turn import TurnClient
from turnsvr.config.locations import StoreUrl
from turnsvr.net.tls import TlsFiles
from turnsvr.stores import open_store
from turnsvr.stores.api import UserKeys
from turnsvr.stun.address import Address, Transport
from turnsvr.stun.integrity import long_term_key, long_term_key_sha256

CONF = Path(__file__).parents[2] / "conf"
RULES = CONF / "prometheus-rules.yaml"
TESTS_OF_RULES = Path(__file__).with_name("prometheus-rules.test.yaml")
DASHBOARD = CONF / "grafana.json"

REALM, USER, PASSWORD = "example.org", "alice", "wonderland"
SETTINGS = """
realm: {realm}
listen: [udp://127.0.0.1:{port}, tcp://127.0.0.1:{port}, tls://127.0.0.1:{tls_port}]
tls: {{certificate: {tls.certificate}, key: {tls.key}}}
relay: {{addresses: [127.0.0.1]}}
peers: {{allow: [127.0.0.1]}}
credentials:
  secret: north of the wall
  store: {{url: "sqlite:{database}", cache: 0s}}
web: {{listen: "http://127.0.0.1:{web_port}", public: true, requests_per_address: 0}}
"""
_RANGE = "10s"
"""In place of Grafana's $__rate_interval, where a scrape is a second."""


# Files


def test_promtool_takes_the_files() -> None:
    for arguments in (("check", "rules", str(RULES)), ("check", "config", str(CONF / "prometheus.yaml"))):
        result = subprocess.run([need("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=60)
        assert result.returncode == 0, result.stdout + result.stderr


def test_every_alert_fires_when_it_should_and_not_else() -> None:
    command = [need("promtool"), "test", "rules", str(TESTS_OF_RULES)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr
    alerts = {rule["alert"] for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
    expected = {
        re.search(r'alertname="(\w+)"', sample["labels"])
        for test in yaml.safe_load(TESTS_OF_RULES.read_text())["tests"]
        for case in test.get("promql_expr_test", ())
        for sample in case["exp_samples"]
    }
    assert {match[1] for match in expected if match} == alerts


def test_every_alert_says_what_to_do() -> None:
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("critical", "warning")
            assert "instance" in rule["annotations"]["summary"]
            assert len(rule["annotations"]["description"].split()) >= 10


def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return read


def expressions() -> Iterator[tuple[str, str]]:
    """Title and expression of everything that the dashboard asks."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]


def test_the_dashboard_is_whole() -> None:
    read = dashboard()
    panels = read["panels"]
    assert [panel["title"] for panel in panels if panel["type"] == "row"] == [
        *("Sessions", "Traffic", "Drops", "Requests and errors", "Pump"),
        *("Database and other sources of credentials", "Process"),
    ]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for box in (panel["gridPos"],)
        for x in range(box["x"], box["x"] + box["w"])
        for y in range(box["y"], box["y"] + box["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) < 24
    names = {variable["name"] for variable in read["templating"]["list"]}
    assert names == {"datasource", "instance"}
    used = re.findall(r"\$\{?(\w+)", DASHBOARD.read_text())
    assert set(used) == {*names, "__rate_interval", "__all"}
    assert all(panel["datasource"]["uid"] == "${datasource}" for panel in panels if panel["type"] != "row")


# Prometheus, and a server with something to do


class Prometheus:
    """What a running one answers."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def query(self, expression: str) -> list[dict[str, Any]]:
        answer = (await self._client.get("/api/v1/query", params={"query": expression})).json()
        assert answer["status"] == "success", f"{expression}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    async def rules(self) -> list[dict[str, Any]]:
        groups = (await self._client.get("/api/v1/rules")).json()["data"]["groups"]
        return [rule for group in groups for rule in group["rules"]]


@asynccontextmanager
async def prometheus(directory: Path, target: str) -> AsyncIterator[Prometheus]:
    """One that goes by our configuration, once a second, with another target."""
    configuration = yaml.safe_load((CONF / "prometheus.yaml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(CONF / each) for each in configuration["rule_files"]]
    configuration["scrape_configs"][0]["static_configs"][0]["targets"] = [target]
    (directory / "prometheus.yaml").write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = (
        need("prometheus"),
        f"--config.file={directory / 'prometheus.yaml'}",
        f"--storage.tsdb.path={directory / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
    )
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *command, cwd=directory, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client:
            deadline = time.monotonic() + 2 * PATIENCE
            while not await _is_ready(client):
                assert process.returncode is None, (directory / "prometheus.log").read_text()
                assert time.monotonic() < deadline, "Prometheus is not ready"
                await asyncio.sleep(0.1)
            yield Prometheus(client)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _is_ready(client: httpx.AsyncClient) -> bool:
    with suppress(httpx.TransportError):
        return (await client.get("/-/ready")).status_code == 200
    return False


async def make_user(database: Path) -> None:
    store = open_store(StoreUrl.parse(f"sqlite:{database}"), PATIENCE)
    await store.prepare()
    keys = UserKeys(long_term_key(USER, REALM, PASSWORD), long_term_key_sha256(USER, REALM, PASSWORD))
    await store.set_user(REALM, USER, keys)
    await store.close()


@asynccontextmanager
async def turn_client(server: Address, transport: Transport, password: str = PASSWORD) -> AsyncIterator[TurnClient]:
    tls = tls_context(insecure=True) if transport is Transport.TLS else None
    client = TurnClient(await open_link(transport, server, tls=tls), Login(USER, password))
    try:
        yield client
    finally:
        await client.close()


async def keep_busy(plain: Address, tls: Address, web: str) -> None:
    """A little of everything, again and again."""
    async with (
        turn_client(plain, Transport.UDP) as relaying,
        turn_client(tls, Transport.TLS) as other,
        httpx.AsyncClient(base_url=web, trust_env=False) as http,
    ):
        await relaying.allocate()
        await other.allocate()
        await relaying.permit(other.relayed[0])
        await other.permit(relaying.relayed[0])
        while True:
            for _ in range(20):
                relaying.send(other.relayed[0], b"x" * 100)
                other.send(relaying.relayed[0], b"y" * 200)
            relaying.send(Address("127.0.0.99", 9), b"to nobody who is permitted")
            await relaying.binding()
            with suppress(TransactionFailed):
                await relaying.permit(Address("192.168.1.1", 22))
            async with turn_client(plain, Transport.TCP) as short:
                await short.allocate()
            async with turn_client(plain, Transport.UDP, "a wrong password") as wrong:
                with suppress(TransactionFailed):
                    await wrong.allocate()
            await http.get("/ice-servers")
            await asyncio.sleep(0.1)


def asked(expression: str) -> str:
    """As Grafana sends it, with all servers chosen."""
    return expression.replace("$__rate_interval", _RANGE).replace("$instance", ".*")


async def test_every_panel_has_data_and_every_rule_works(
    server_process: Callable[..., ServerProcess], certificate: TlsFiles, tmp_path: Path
) -> None:
    need("prometheus")
    port, tls_port, web_port = free_port(), free_port(), free_port()
    database = tmp_path / "users.sqlite"
    await make_user(database)
    server_process(
        SETTINGS.format(
            realm=REALM, port=port, tls_port=tls_port, web_port=web_port, tls=certificate, database=database
        )
    )
    lacking = {asked(expression): title for title, expression in expressions()}
    plain, tls = Address("127.0.0.1", port), Address("127.0.0.1", tls_port)
    async with prometheus(tmp_path, f"127.0.0.1:{web_port}") as api:
        busy = asyncio.create_task(keep_busy(plain, tls, f"http://127.0.0.1:{web_port}"))
        try:
            deadline = time.monotonic() + 3 * PATIENCE
            while lacking and time.monotonic() < deadline and not busy.done():
                await asyncio.sleep(1)
                for expression in list(lacking):
                    if any(not math.isnan(float(each["value"][1])) for each in await api.query(expression)):
                        del lacking[expression]
        finally:
            busy.cancel()
            with suppress(asyncio.CancelledError):
                await busy
        assert lacking == {}
        rules = await api.rules()
        assert len(rules) > 10
        assert {(rule["name"], rule["health"], rule.get("lastError", "")) for rule in rules} == {
            (rule["name"], "ok", "") for rule in rules
        }
        (_, seen) = (await api.query("sum(turnsvr_relayed_packets_total)"))[0]["value"]
        assert float(seen) > 0
