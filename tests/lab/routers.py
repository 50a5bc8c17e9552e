"""nftables rule sets: a router for every kind of NAT, and links that lose packets."""

from __future__ import annotations

from enum import Enum

PUBLIC_V4 = "7.7.7"
PUBLIC_V6 = "2a0f:7777:7"
SERVERS_V4 = (f"{PUBLIC_V4}.1", f"{PUBLIC_V4}.2")
SERVERS_V6 = (f"{PUBLIC_V6}::1", f"{PUBLIC_V6}::2")


class Kind(Enum):
    """What stands between a site's client and the public segment."""

    OPEN = "open"
    FULL_CONE = "full cone"
    RESTRICTED = "restricted cone"
    PORT_RESTRICTED = "port-restricted cone"
    SYMMETRIC = "symmetric"
    ADDRESS_DEPENDENT = "address-dependent mapping"
    FIREWALL = "symmetric firewall"
    UDP_BLOCKED = "UDP blocked"


def rules(kind: Kind, client: str, wan: str, *, hairpin: bool) -> str:
    """nftables rules of a router: the behaviour of UDP by kind; TCP and IPv6 pass outwards, IPv6 UDP as by a firewall.

    What comes unasked to the router itself is dropped before it is remembered: an entry of the connection
    tracking would take the port that a later outbound packet wants.
    """
    masquerade = f"oifname wan ip saddr {client} snat to {wan} persistent;"
    pre, forward, post, sets = "", "", masquerade, ""
    firewall_v6 = "ct state established,related accept; iifname lan accept; meta l4proto udp drop;"
    match kind:
        case Kind.OPEN:
            post = firewall_v6 = ""
        case Kind.FULL_CONE:
            pre = f"iifname wan udp dport 1024-65535 dnat to {client};"
        case Kind.RESTRICTED:
            sets = "set known { type ipv4_addr . inet_service; flags dynamic,timeout; timeout 60s; }"
            pre = f"iifname wan meta l4proto udp ip saddr . udp dport @known dnat to {client};"
            forward = "iifname lan oifname wan meta l4proto udp update @known { ip daddr . udp sport };"
        case Kind.PORT_RESTRICTED:
            pass
        case Kind.SYMMETRIC:
            post = (
                f"oifname wan meta l4proto udp ip saddr {client} snat to {wan}:20000-60000 fully-random; {masquerade}"
            )
        case Kind.ADDRESS_DEPENDENT:
            ranges = ((0, 20000), (1, 30000))
            by_server = (
                f"oifname wan meta l4proto udp ip daddr {SERVERS_V4[number]} snat to {wan}:{first}-{first + 999};"
                for number, first in ranges
            )
            post = f"{' '.join(by_server)} {masquerade}"
        case Kind.FIREWALL:
            post = ""
            forward = "ct state established,related accept; iifname lan accept; meta l4proto udp drop;"
        case Kind.UDP_BLOCKED:
            forward = firewall_v6 = "meta l4proto udp drop;"
    if hairpin:
        pre += f" iifname lan ip daddr {wan} meta l4proto udp dnat to {client};"
        post += f" oifname lan ip saddr {client} meta l4proto udp snat to {wan};"
    return f"""
      table ip router {{
        {sets}
        chain pre {{ type nat hook prerouting priority dstnat; {pre} }}
        chain input {{ type filter hook input priority filter; iifname wan meta l4proto udp drop; }}
        chain pass {{ type filter hook forward priority filter; {forward} }}
        chain post {{ type nat hook postrouting priority srcnat; {post} }}
      }}
      table ip6 router {{
        chain pass {{ type filter hook forward priority filter; {firewall_v6} }}
      }}
    """


LOSSY = """
  table ip loss {
    chain every_third { type filter hook forward priority -10; meta l4proto udp numgen inc mod 3 == 0 drop; }
  }
"""
"""Extra rules: one UDP packet of three is dropped, either way. Counted, not by chance, so that tests are repeatable."""

NO_FRAGMENTS = """
  table ip fragments {
    chain early { type filter hook prerouting priority -450; ip frag-off & 0x1fff != 0 drop; }
  }
"""
"""Extra rules: fragments are dropped before anything joins them."""
