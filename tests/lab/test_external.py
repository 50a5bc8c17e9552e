"""`relay: {external: auto}` and a DNS name, on a host behind one-to-one NAT, with clouds' metadata and with STUN."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.client.coturn import PASSWORD, USER, coturn_command, running
from tests.conftest import PATIENCE
from tests.lab import clouds
from tests.lab.conftest import OURS, ready, turnsvr
from tests.lab.netlab import Lab, Node, Site, laboratory, require
from turnsvr.client.credentials import Login
from turnsvr.client.link import open_link
from turnsvr.client.transaction import Timers
from turnsvr.client.turn import PeerData, TurnClient
from turnsvr.stun.address import Address, Transport

LOGIN = Login(USER, PASSWORD)
STUN_PORT = 3479


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A public segment without servers."""
    require()
    with laboratory() as built:
        yield built


@dataclass
class Cloud:
    """A machine of a cloud, and what its metadata service says."""

    site: Site
    directory: Path
    state: dict[str, str]

    def tell(self, **state: str) -> None:
        self.state |= state
        written = self.directory / "state.new"
        written.write_text(json.dumps(self.state))
        written.replace(self.directory / "state")

    @property
    def log(self) -> str:
        return (self.directory / "turnsvr.app.log").read_text()

    def wait_logged(self, pattern: str) -> re.Match[str]:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            if match := re.search(pattern, self.log, re.MULTILINE):
                return match
            time.sleep(0.05)
        pytest.fail(f"{pattern!r} is not in the log:\n{self.log}")

    def status(self) -> dict[str, Any]:
        command = [sys.executable, "-m", "turnsvr", "status", "--json", "--socket", str(self.directory / "admin.sock")]
        found: dict[str, Any] = json.loads(self.site.client.output(*command))
        return found


@contextmanager
def metadata(lab: Lab, directory: Path, cloud: str, public: str = "") -> Iterator[Cloud]:
    """A machine behind one-to-one NAT that has a metadata service of this kind."""
    with lab.one_to_one() as site:
        node = site.routers[0]
        node.ip(f"addr add {clouds.HOST}/32 dev lan")
        found = Cloud(site, directory, {"cloud": cloud, "public": public or site.public, "private": site.address})
        found.tell()
        command = node.inside(sys.executable, str(Path(clouds.__file__)), str(directory / "state"))
        service = Address(clouds.HOST, 80)
        with running(command, directory / "clouds.log", ready(node, service)):
            yield found


@contextmanager
def serving(cloud: Cloud, **relay: Any) -> Iterator[None]:
    settings = {
        "listen": [f"udp://{cloud.site.address}", f"tcp://{cloud.site.address}"],
        "relay": {"addresses": [cloud.site.address], "external_interval": 1, **relay},
        "admin": {"socket": str(cloud.directory / "admin.sock")},
    }
    with turnsvr(cloud.site.client, cloud.directory, settings):
        yield


async def allocated(server: Address, transport: Transport = Transport.UDP) -> TurnClient:
    client = TurnClient(await open_link(transport, server, timers=Timers.within(PATIENCE)), LOGIN)
    await client.allocate()
    return client


def relayed_at(client: Node, server: str) -> str:
    """Where a new client of the server is relayed."""

    async def look() -> str:
        allocation = await allocated(Address(server, OURS.port))
        try:
            return allocation.relayed[0].host
        finally:
            await allocation.close()

    return client.run(look)


NAMES = {
    "aws": "AWS",
    "google": "Google Cloud",
    "azure": "Azure",
    "azure-standard": "Azure",
    "digitalocean": "DigitalOcean",
    "hetzner": "Hetzner",
    "oracle": "Oracle Cloud",
}


@pytest.mark.parametrize("cloud", NAMES)
def test_each_clouds_metadata_is_understood(lab: Lab, tmp_path: Path, cloud: str) -> None:
    with metadata(lab, tmp_path, cloud) as found, serving(found, external="auto"), lab.host() as (client, _):
        line = found.wait_logged(r"external address found .*$").group()
        assert f'relay={found.site.address} external={found.site.public} by="metadata of {NAMES[cloud]}"' in line
        assert relayed_at(client, found.site.public) == found.site.public
        status = found.status()
        assert status["relay"] == [found.site.public]
        expected = f"{found.site.public} for {found.site.address}, from metadata of {NAMES[cloud]}"
        assert status["external"] == [expected]


def test_a_new_address_is_taken_without_dropping_a_session(lab: Lab, tmp_path: Path) -> None:
    """Two clients that met before go on, also where the address that they were given first was a private one."""
    with ExitStack() as stack:
        cloud = stack.enter_context(metadata(lab, tmp_path, "none"))
        stack.enter_context(serving(cloud, external="auto", external_stun=["stun:7.7.7.99"]))
        client, _ = stack.enter_context(lab.host())
        server = Address(cloud.site.public, OURS.port)
        cloud.wait_logged("no external address found")

        async def meet() -> tuple[TurnClient, TurnClient]:
            one, other = await allocated(server), await allocated(server, Transport.TCP)
            await one.permit(other.relayed[0])
            await other.permit(one.relayed[0])
            return one, other

        async def echo(one: TurnClient, other: TurnClient, data: bytes) -> None:
            async with asyncio.timeout(PATIENCE):
                for here, there in ((one, other), (other, one)):
                    here.send(there.relayed[0], data)
                    assert await there.receive() == PeerData(here.relayed[0], data)
                    await here.refresh()
                await one.permit(other.relayed[0])

        one, other = client.run(meet)
        assert one.relayed[0].host == cloud.site.address
        client.run(lambda: echo(one, other, b"before"))
        for public in (cloud.site.public, "7.7.8.8"):
            cloud.tell(cloud="aws", public=public)
            cloud.wait_logged(f"relayed addresses changed relay={public}$")
            client.run(lambda: echo(one, other, b"after"))
            assert relayed_at(client, cloud.site.public) == public
        assert "external address changed" in cloud.log

        async def close() -> None:
            await one.close()
            await other.close()

        client.run(close)


@pytest.mark.parametrize("how", ["endless", "drip", "redirect", "html", "nested", "types", "words"])
def test_hostile_metadata_holds_nothing_up_and_changes_nothing(lab: Lab, tmp_path: Path, how: str) -> None:
    with metadata(lab, tmp_path, f"hostile:{how}") as cloud:
        began = time.monotonic()
        with serving(cloud, external="auto", external_stun=["stun:7.7.7.99"]), lab.host() as (client, _):
            assert relayed_at(client, cloud.site.public) == cloud.site.address
            cloud.wait_logged("no external address found")
            assert time.monotonic() - began < PATIENCE
            assert "Traceback" not in cloud.log
            assert "X-Injected" not in cloud.log


@pytest.mark.parametrize("address", ["10.1.2.3", "127.0.0.1", "169.254.1.1", "0.0.0.0", "224.0.0.1", "100.64.0.1"])
def test_an_address_that_is_nobodys_is_refused_with_a_word(lab: Lab, tmp_path: Path, address: str) -> None:
    with (
        metadata(lab, tmp_path, "aws", address) as cloud,
        serving(cloud, external="auto", external_stun=["stun:7.7.7.99"]),
        lab.host() as (client, _),
    ):
        line = cloud.wait_logged("no external address found.*$").group()
        assert f"metadata of AWS tells {address}, which is no public address" in line
        assert relayed_at(client, cloud.site.public) == cloud.site.address
        assert f"tells {address}" in cloud.status()["external"][0]


@contextmanager
def stun_server(lab: Lab, directory: Path) -> Iterator[str]:
    with lab.host() as (node, host):
        command = node.inside(*coturn_command(directory, "-L", host, "-p", str(STUN_PORT), "--no-tls"))
        with running(command, directory / "coturn.log", ready(node, Address(host, STUN_PORT))):
            yield f"stun:{host}:{STUN_PORT}"


def test_stun_tells_where_no_cloud_does(lab: Lab, tmp_path: Path) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(stun_server(lab, tmp_path))
        site = stack.enter_context(lab.one_to_one())
        cloud = Cloud(site, tmp_path, {})
        stack.enter_context(serving(cloud, external="auto", external_stun=["stun:7.7.7.99", server]))
        client, _ = stack.enter_context(lab.host())
        cloud.wait_logged(f"external address found .*external={site.public} by={server}$")
        assert relayed_at(client, site.public) == site.public
        assert cloud.status()["external"] == [f"{site.public} for {site.address}, from {server}"]


def test_a_name_is_looked_up_again_and_again(lab: Lab, tmp_path: Path) -> None:
    with ExitStack() as stack:
        site = stack.enter_context(lab.one_to_one())
        cloud = Cloud(site, tmp_path, {})
        stack.enter_context(site.client.hosts({"turn.example.org": [site.public]}))
        stack.enter_context(serving(cloud, external="turn.example.org"))
        client, _ = stack.enter_context(lab.host())
        cloud.wait_logged(f"external address found .*external={site.public} by=turn.example.org$")
        assert relayed_at(client, site.public) == site.public
        (Path("/etc/netns") / site.client.name / "hosts").write_text("7.7.8.8 turn.example.org\n")
        cloud.wait_logged("external address changed .*external=7.7.8.8 by=turn.example.org$")
        assert relayed_at(client, site.public) == "7.7.8.8"


def test_a_host_with_a_public_address_asks_nobody(lab: Lab, tmp_path: Path) -> None:
    with lab.host() as (node, host), lab.host() as (client, _):
        settings = {
            "listen": [f"udp://{host}", f"tcp://{host}"],
            "relay": {"addresses": [host], "external": "auto"},
            "admin": {"socket": str(tmp_path / "admin.sock")},
        }
        with turnsvr(node, tmp_path, settings):
            assert relayed_at(client, host) == host
            log = (tmp_path / "turnsvr.app.log").read_text()
    assert "external" not in log


def test_private_relays_alone_are_told_in_plain_words(lab: Lab, tmp_path: Path) -> None:
    with lab.one_to_one() as site:
        cloud = Cloud(site, tmp_path, {})
        with serving(cloud):
            line = cloud.wait_logged("clients elsewhere are given a private address.*$").group()
            assert f"relay={site.address}" in line
            checked = site.client.output(sys.executable, "-m", "turnsvr", "check", str(tmp_path / "turnsvr.yaml"))
            assert "clients elsewhere will be given" in checked
        bare = tmp_path / "bare.yaml"
        bare.write_text("credentials: {secret: long enough for a test}\n")
        checked = site.client.output(sys.executable, "-m", "turnsvr", "check", str(bare))
        assert f"clients elsewhere will be given {site.address}, which is private" in checked


def test_a_silent_network_does_not_hold_up_the_start(lab: Lab, tmp_path: Path) -> None:
    """What goes to the metadata address is dropped on the way, as on many networks."""
    with lab.one_to_one() as site:
        drop = "type filter hook output priority 0; ip daddr 169.254.0.0/16 drop"
        site.client.nft(f"table ip silent {{ chain out {{ {drop}; }}; }}")
        cloud = Cloud(site, tmp_path, {})
        with serving(cloud, external="auto", external_stun=["stun:7.7.7.99"]):
            lines = cloud.log.splitlines()
            assert not any("no external address" in line for line in lines), "it serves before it knows"
            cloud.wait_logged("no external address found")
