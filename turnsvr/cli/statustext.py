"""A server's status in words. Pure."""

from __future__ import annotations

from typing import Any

from turnsvr.cli.text import duration, printable, size


def lines(status: dict[str, Any]) -> list[str]:
    """For people, a subject a line."""
    sessions, relayed, log = status["sessions"], status["relayed"], status["log"]
    stores = [f"{printable(name)} ({printable(state)})" for name, state in status["stores"].items()]
    values = {
        "state": "; ".join([state(status), *map(printable, status["problems"])]),
        "server": f"turnsvr {status['version']}, process {status['pid']}, up {duration(status['uptime'])}",
        "pump": status["pump"],
        "offload": "; ".join(map(printable, status.get("offload", ()))),
        "listening": ", ".join(status["listening"]),
        "relay": ", ".join(status["relay"]) or "none",
        "external": "; ".join(map(printable, status.get("external", ()))),
        "admin": ", ".join(status["admin"]),
        "realms": ", ".join(map(printable, status["realms"])),
        "sessions": f"{sessions['now']} now, {_counted(sessions['started'], 'started')}",
        "ended": _counted(sessions["ended"], "ended"),
        "refused": f"{status['authentications_failed']} logins, {status['peers_refused']} peers",
        "connections": _connections(status["connections"], status.get("peer_connections", 0)),
        "up": _flow(relayed["from_client"]),
        "down": _flow(relayed["to_client"]),
        "drops": _counted(status["drops"], "dropped"),
        "open files": _open_files(status["open_files"]),
        "certificate": f"until {status['certificate_expires']}" if status["certificate_expires"] else "",
        "stores": ", ".join(stores),
        "log": log["level"] + (f" for {duration(log['remaining'])}" if log["remaining"] is not None else ""),
    }
    return [f"{name + ':':<13}{value}" for name, value in values.items() if value]


def state(status: dict[str, Any]) -> str:
    """One word or two."""
    if status["draining"]:
        return "draining"
    return "ready" if status["ready"] else "not ready"


def _connections(of_clients: int, to_peers: int) -> str:
    return f"{of_clients}" + (f", and {to_peers} to peers" if to_peers else "")


def _open_files(shares: dict[str, int]) -> str:
    limit = f"{shares['limit']} allowed" if "limit" in shares else "no limit"
    parts = ", ".join(f"{name} {share}" for name, share in shares.items() if share and name != "limit")
    return f"{limit} ({parts})"


def _counted(numbers: dict[str, int], what: str) -> str:
    """Their sum, and what it is made of."""
    parts = ", ".join(f"{name.replace('_', ' ')} {number}" for name, number in numbers.items() if number)
    return f"{sum(numbers.values())} {what}" + (f" ({parts})" if parts else "")


def _flow(flow: dict[str, Any]) -> str:
    return (
        f"{size(flow['bits_per_second'], ' ')}b/s, {size(flow['packets_per_second'])} packets/s now; "
        f"{size(flow['bytes'], ' ')}B in {size(flow['packets'])} packets"
    )
