"""What this host is reached by: its addresses, those that relay when the settings name none, its processor cores."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterable
from pathlib import Path

import ifaddr

from turnsvr.stun.address import Family

_FAR_AWAY = {Family.IPV4: "198.41.0.4", Family.IPV6: "2001:503:ba3e::2:30"}
"""A root name server. Nothing is sent to it: connecting a UDP socket only asks which address would be used."""
_CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")


def own_addresses() -> frozenset[str]:
    """Every address of this host in canonical text, loopback among them; link-local ones without their zone."""
    found = {"127.0.0.1", "::1"}
    for adapter in ifaddr.get_adapters():
        for address in adapter.ips:
            text = address.ip if isinstance(address.ip, str) else address.ip[0]
            found.add(str(ipaddress.ip_address(text.partition("%")[0])))
    return frozenset(found)


def default_relay_addresses() -> tuple[str, ...]:
    """One address a family that other hosts can reach, the IPv4 one first; loopback where there is nothing else."""
    return choose_relay_addresses(own_addresses(), [routed for family in Family if (routed := _routed(family))])


def choose_relay_addresses(own: Iterable[str], routed: Iterable[str]) -> tuple[str, ...]:
    """routed: addresses that packets for the Internet would leave from. They win, then global, then private ones."""
    usable = {host for host in own if _rank(host) < _UNUSABLE}
    preferred = [host for host in routed if host in usable]
    chosen = []
    for family in (4, 6):
        candidates = [host for host in preferred if _version(host) == family]
        candidates += sorted(
            (host for host in usable if _version(host) == family), key=lambda host: (_rank(host), host)
        )
        chosen += candidates[:1]
    return tuple(chosen) or tuple(host for host in ("127.0.0.1", "::1") if host in own)


def usable_cores() -> int:
    """Processor cores that this process may keep busy: its affinity, and a container's quota rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_QUOTA.read_text().split()
        if quota != "max":
            cores = min(cores, -(-int(quota) // int(period)))
    except (OSError, ValueError):
        pass
    return max(1, cores)


_UNUSABLE = 2


def _rank(host: str) -> int:
    address = ipaddress.ip_address(host)
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        return _UNUSABLE
    return 0 if address.is_global else 1


def _version(host: str) -> int:
    return 6 if ":" in host else 4


def _routed(family: Family) -> str | None:
    try:
        with socket.socket(family.socket_family, socket.SOCK_DGRAM) as probe:
            probe.connect((_FAR_AWAY[family], 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None
