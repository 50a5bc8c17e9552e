"""What a WebRTC client is told: the URLs of a server's listeners and the `iceServers` list (RFC 7064, RFC 7065)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from turnsvr.config.ranges import ListenAddress

_TURN_URLS = {
    "udp": "turn:{host}:{port}?transport=udp",
    "tcp": "turn:{host}:{port}?transport=tcp",
    "tls": "turns:{host}:{port}?transport=tcp",
    "dtls": "turns:{host}:{port}?transport=udp",
}


def stun_urls(host: str, listeners: Iterable[ListenAddress]) -> list[str]:
    """`stun:` URLs of the UDP listeners; host is the name or address that clients use."""
    ports = dict.fromkeys(address.port for address in listeners if address.transport == "udp")
    return [f"stun:{_bracketed(host)}:{port}" for port in ports]


def turn_urls(host: str, listeners: Iterable[ListenAddress]) -> list[str]:
    """`turn:` and `turns:` URLs, UDP first, then TCP, TLS, and DTLS, which few clients speak."""
    ordered = sorted(listeners, key=lambda address: tuple(_TURN_URLS).index(address.transport))
    found = (_TURN_URLS[address.transport].format(host=_bracketed(host), port=address.port) for address in ordered)
    return list(dict.fromkeys(found))


def ice_servers(host: str, listeners: Iterable[ListenAddress], username: str, credential: str) -> dict[str, Any]:
    """What `new RTCPeerConnection()` takes: an RTCConfiguration with the `iceServers` of one server."""
    known = tuple(listeners)
    turn = {"urls": turn_urls(host, known), "username": username, "credential": credential}
    stun = stun_urls(host, known)
    return {"iceServers": [{"urls": stun}, turn] if stun else [turn]}


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
