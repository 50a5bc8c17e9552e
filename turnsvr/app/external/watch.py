"""External addresses that the settings do not name: found, kept, looked at again, and reported.

Of each relay address one external address is known at most. What was found stays until something else is found: a
service that is silent for a while says nothing of the address.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import structlog

from turnsvr.app.external import metadata, stunquery
from turnsvr.app.external.background import in_thread
from turnsvr.config.ranges import AUTO, StunServer, could_be_public
from turnsvr.config.settings import RelaySettings

WELL_KNOWN = (StunServer("stun.l.google.com", 19302), StunServer("stun.cloudflare.com", 3478))
"""Asked by `auto` alone, where no cloud tells and the settings name no server."""

_SOON = 30.0
"""Seconds until the next look while an address is missing, at most."""
_NAME_SECONDS = 5.0
_MAX_FORMER = 16
"""Addresses given out earlier that are remembered, for the sessions that were given them."""

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class FoundAddress:
    """An external address, and who told it."""

    address: str
    by: str


@dataclass(slots=True)
class Look:
    """What one look has found for relay addresses, and why nothing was found for others."""

    found: dict[str, FoundAddress]
    reasons: list[str]

    def take(self, relay: str, address: str, by: str) -> None:
        """Take an address for this relay address, if none is known yet and it could be public at all."""
        if relay in self.found:
            return
        if (":" in relay) != (":" in address) or not could_be_public(address):
            self.reasons.append(f"{by} tells {address}, which is no public address")
            return
        self.found[relay] = FoundAddress(address, by)


Finder = Callable[[RelaySettings, Sequence[str]], Awaitable[Look]]


async def find(relay: RelaySettings, addresses: Sequence[str]) -> Look:
    """Look for the external addresses of these relay addresses, as the settings say. Never raises; takes seconds."""
    look = Look({}, [])
    source = relay.external_source
    if source == AUTO:
        await _auto(look, relay, addresses)
    elif source is not None:
        await _by_name(look, source, addresses)
    return look


async def _auto(look: Look, relay: RelaySettings, addresses: Sequence[str]) -> None:
    clouds = await metadata.ask()
    for name, told in clouds:
        for address in addresses:
            _of_cloud(look, name, told, address, addresses)
    if not clouds:
        look.reasons.append("no cloud tells")
    missing = [each for each in addresses if each not in look.found]
    await asyncio.gather(*(_by_stun(look, relay.external_stun or WELL_KNOWN, each) for each in missing))


def _of_cloud(look: Look, name: str, told: Sequence[metadata.PublicAddress], relay: str, relays: Sequence[str]) -> None:
    """The address that stands for this one; or the only one, where the cloud knows nothing of a container's address."""
    family = [each for each in told if (":" in each.outside) == (":" in relay)]
    exact = [each for each in family if each.inside == relay]
    alone = sum((":" in each) == (":" in relay) for each in relays) == 1
    for each in exact or (family if alone else []):
        look.take(relay, each.outside, f"metadata of {name}")


async def _by_stun(look: Look, servers: Sequence[StunServer], relay: str) -> None:
    async def ask(server: StunServer) -> str | OSError:
        try:
            return await stunquery.seen_from((server.host, server.port), relay)
        except OSError as error:
            return error

    for server, seen in zip(servers, await asyncio.gather(*map(ask, servers)), strict=True):
        if isinstance(seen, str):
            look.take(relay, seen, str(server))
        else:
            look.reasons.append(f"{server} does not answer {relay}")


async def _by_name(look: Look, name: str, addresses: Sequence[str]) -> None:
    def resolve() -> list[str]:
        try:
            return [str(each[4][0]) for each in socket.getaddrinfo(name, None, type=socket.SOCK_DGRAM)]
        except UnicodeError:
            return []

    found: list[str] = []
    with suppress(OSError):
        found = await in_thread(resolve, _NAME_SECONDS)
    for relay in addresses:
        of_family = sorted(each for each in found if (":" in each) == (":" in relay))
        for address in of_family:
            look.take(relay, address, name)
        if not of_family:
            look.reasons.append(f"{name} has no IPv{6 if ':' in relay else 4} address")


class ExternalAddresses:
    """Looks for external addresses while the settings ask for it. Its methods are called on the loop."""

    def __init__(self, changed: Callable[[], None], finder: Finder = find) -> None:
        """changed is called when `known` has changed."""
        self._changed = changed
        self._find = finder
        self._relay = RelaySettings()
        self._addresses: tuple[str, ...] = ()
        self._plain: tuple[str, ...] = ()
        """Relay addresses that need no other, and are given to clients as they are."""
        self._found: dict[str, FoundAddress] = {}
        self._reasons: list[str] = []
        self._looked = False
        self._former: list[str] = []
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()

    @property
    def known(self) -> Mapping[str, str]:
        """External address by relay address."""
        return {relay: found.address for relay, found in self._found.items()}

    @property
    def former(self) -> frozenset[str]:
        """What was given out for relay addresses earlier, a few of the last ones."""
        return frozenset(self._former)

    @property
    def described(self) -> list[str]:
        """What is known and from where, a line for each relay address that needs one; for people."""
        return [self._line(relay) for relay in self._addresses]

    def _line(self, relay: str) -> str:
        found = self._found.get(relay)
        if found is not None:
            return f"{found.address} for {relay}, from {found.by}"
        why = f": {'; '.join(self._reasons)}" if self._reasons else ""
        return f"none for {relay}, {'not found' if self._looked else 'being looked for'}{why}"

    def go_by(self, relay: RelaySettings, addresses: Sequence[str]) -> None:
        """Look for those of these relay addresses now and from time to time, as the settings say, or no more at all."""
        needed = tuple(each for each in addresses if relay.external_source is not None and _needs(relay, each))
        same = relay == self._relay and needed == self._addresses
        if relay.external_source != self._relay.external_source:
            self._found.clear()
        self._relay, self._addresses = relay, needed
        self._plain = tuple(each for each in addresses if each not in needed)
        self._found = {each: found for each, found in self._found.items() if each in needed}
        if not needed:
            self._cancel()
        elif self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())
        elif not same:
            self._wake.set()

    def look_again(self) -> None:
        """Now, rather than when it is time."""
        self._wake.set()

    def stop(self) -> None:
        """Stopping twice is fine."""
        self._cancel()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _watch(self) -> None:
        while True:
            self._wake.clear()
            relay, addresses = self._relay, self._addresses
            look = await self._find(relay, addresses)
            if (relay, addresses) == (self._relay, self._addresses):
                self._take(look)
            missing = any(each not in self._found for each in self._addresses)
            interval = self._relay.external_interval
            with suppress(TimeoutError):
                async with asyncio.timeout(min(interval, _SOON) if missing else interval):
                    await self._wake.wait()

    def _unshared(self, look: Look) -> Look:
        """What was found, but for what stands for another relay address: two clients would be given one address.

        So it is where a NAT has one public address for several private ones.
        """
        found: dict[str, FoundAddress] = {}
        reasons = look.reasons.copy()
        standing = dict(zip(self._plain, self._plain, strict=True))
        for relay, each in look.found.items():
            other = standing.setdefault(each.address, relay)
            if other == relay:
                found[relay] = each
            else:
                reasons.append(f"{each.address}, which {each.by} tells of {relay}, stands for {other}")
        return Look(found, reasons)

    def _take(self, look: Look) -> None:
        before = self.known
        look = self._unshared(look)
        news = look.reasons != self._reasons or not self._looked
        self._looked = True
        self._reasons = look.reasons
        taken = {found.address for found in look.found.values()}
        earlier = {relay: found for relay, found in self._found.items() if found.address not in taken}
        self._found = earlier | look.found
        for relay, found in look.found.items():
            if before.get(relay) != found.address:
                _log.info(
                    "external address changed" if relay in before else "external address found",
                    relay=relay,
                    external=found.address,
                    by=found.by,
                )
        if self.known != before:
            given = (before.get(relay, relay) for relay in look.found)
            self._former = list(dict.fromkeys((*self._former, *given)))[-_MAX_FORMER:]
            self._changed()
        missing = [each for each in self._addresses if each not in self._found]
        if missing and news:
            _log.warning(
                "no external address found: clients elsewhere are given a private one, which they cannot reach",
                relay=",".join(missing),
                reason="; ".join(look.reasons),
                hint="set relay.external to the public address",
            )
        elif news and look.reasons:
            _log.debug("external addresses", reason="; ".join(look.reasons))


def _needs(relay: RelaySettings, address: str) -> bool:
    """Whether an external address may stand for this one: with auto for private ones alone."""
    return relay.external_source != AUTO or not could_be_public(address)
