"""What is to be said of the peers that the settings allow and deny: what opens what, here and elsewhere."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

from turnsvr.config.ranges import AddressRange, PeerRange
from turnsvr.own import LOOPBACK_ALONE, OwnHosts

if TYPE_CHECKING:
    from turnsvr.config.settings import PeerSettings, Settings

Said = tuple[Literal["warning", "note"], str, str]
"""Severity, setting, text."""

_DANGEROUS = {
    "link-local addresses, among them 169.254.169.254 with a cloud's credentials": (
        "169.254.0.0/16",
        "fe80::/10",
        "fd00:ec2::254",
    ),
    "multicast groups": ("224.0.0.0/4", "ff00::/8"),
}
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")


def on_peers(settings: Settings, peers: PeerSettings, section: str, own: OwnHosts | None) -> Iterator[Said]:
    """own: this host, None where it is not known; loopback is always its own."""
    for index, allowed in enumerate(peers.allow):
        setting = f"{section}.allow[{index}]"
        if allowed.is_single and allowed.addresses.first in (own or LOOPBACK_ALONE):
            yield from _on_this_host(settings, allowed, setting, own or LOOPBACK_ALONE)
        else:
            yield from _elsewhere(allowed, setting, own)
    for index, denied in enumerate(peers.deny):
        if wins(peers, denied):
            yield "warning", f"{section}.deny[{index}]", f"{denied} has no effect, since {section}.allow wins"


def wins(peers: PeerSettings, denied: AddressRange) -> bool:
    """Whether what is denied is wholly allowed."""
    whole = (each.addresses for each in peers.allow if each.ports is None)
    return any(denied.first in allowed and denied.last in allowed for allowed in whole)


def _on_this_host(settings: Settings, allowed: PeerRange, setting: str, own: OwnHosts) -> Iterator[Said]:
    address = allowed.addresses.first
    also = "".join(f", also as {name}," for name in sorted(map(str, own.names(address) - {address})))
    what = "the host itself (loopback)" if address.is_loopback else "this host"
    protocols = "UDP and TCP" if settings.relay.tcp else "UDP"
    if allowed.ports is None:
        text = (
            f"{allowed} opens {what}{also} with every {protocols} port; name those that are meant: {_example(allowed)}"
        )
        yield "warning", setting, text
        return
    low, high = allowed.ports.low, allowed.ports.high
    ports = f"{protocols} port {low}" if low == high else f"{protocols} ports {allowed.ports}"
    yield "note", setting, f"{allowed} opens {ports} of {what}{also} to everyone with a credential, and no other port"
    for port in _own_ports(settings):
        if low <= port <= high:
            yield "warning", setting, f"{allowed} opens this server's own listener at port {port}"
            break
    relayed = settings.relay.ports
    if low <= relayed.high and relayed.low <= high and not settings.stun_only:
        text = f"{allowed} and relay.ports ({relayed}) overlap, so that relays take ports of the service"
        yield "warning", setting, text


def _own_ports(settings: Settings) -> Iterator[int]:
    """Ports that this server listens on and a peer could be reached at."""
    for listener in settings.listeners():
        if listener.is_datagram or settings.relay.tcp:
            yield listener.port
    if settings.relay.tcp:
        yield from (each.port for each in settings.admin.listen)
        yield from (each.port for each in (settings.web.listen if settings.web is not None else ()))


def _elsewhere(allowed: PeerRange, setting: str, own: OwnHosts | None) -> Iterator[Said]:
    addresses = allowed.addresses
    here = "" if own is None else f"; on this host {_nothing_here(allowed, own)}"
    if int(addresses.first) == 0 and int(addresses.last) == 2**addresses.first.max_prefixlen - 1:
        text = f"{allowed} opens every IPv{addresses.version} address, this host's network among them{here}"
        yield "warning", setting, text
        return
    for what, ranges in _DANGEROUS.items():
        if _overlaps(addresses, ranges):
            yield "warning", setting, f"{allowed} opens {what}"
    if _overlaps(addresses, _PRIVATE):
        text = f"{allowed} opens private addresses: everyone with a credential reaches them{here}"
        yield "note", setting, text
    elif own is not None:
        yield "note", setting, f"{allowed}: on this host {_nothing_here(allowed, own)}"
    elif LOOPBACK_ALONE.overlaps(addresses.first, addresses.last):
        yield "note", setting, f"{allowed}: on this host {_nothing_here(allowed, LOOPBACK_ALONE)}"


def _nothing_here(allowed: PeerRange, own: OwnHosts) -> str:
    if own.overlaps(allowed.addresses.first, allowed.addresses.last):
        return "it opens nothing, though it has addresses of it: name one with its ports, as 10.0.0.5:10000-20000"
    return "it opens nothing"


def _example(allowed: PeerRange) -> str:
    host = str(allowed.addresses)
    return f"[{host}]:10000-20000" if ":" in host else f"{host}:10000-20000"


def _overlaps(allowed: AddressRange, ranges: Collection[str]) -> bool:
    return any(allowed.overlaps(AddressRange.parse(text)) for text in ranges)
