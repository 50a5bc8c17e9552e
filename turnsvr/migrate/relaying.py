"""coturn's relay addresses and peer ranges as `relay` and `peers`."""

from __future__ import annotations

import ipaddress

from turnsvr.config.fields import ANY_OF_FAMILY, family_of
from turnsvr.config.ranges import AddressRange, PortRange, parse_unicast_host
from turnsvr.config.units import BadValue
from turnsvr.migrate.draft import AS_DEFAULT, MAX_PORT, Draft
from turnsvr.migrate.listening import hosts_of, listening_hosts
from turnsvr.migrate.refused import is_refused, touches_refused
from turnsvr.migrate.source import Option

_MIN_PORT = 49_152
_LOOPBACK = ("127.0.0.0/8", "::1")


def relay_hosts(draft: Draft) -> dict[str, Option]:
    """Addresses to relay from, each with its line: relay-ip, else listening-ip; empty when coturn finds them itself."""
    hosts = hosts_of(draft, "relay-ip", "relay.addresses")
    for host in [host for host in hosts if ipaddress.ip_address(host).is_unspecified]:
        draft.unneeded(hosts.pop(host), "turnsvr finds the addresses to relay from by itself")
    if hosts:
        return hosts
    listening = listening_hosts(draft)
    if any(ipaddress.ip_address(host).is_unspecified for host in listening):
        return {}
    public = {host: option for host, option in listening.items() if not ipaddress.ip_address(host).is_loopback}
    return public or listening


def translate_relay(draft: Draft) -> None:
    hosts = relay_hosts(draft)
    if hosts:
        draft.put("relay.addresses", list(hosts), *hosts.values())
    _translate_external(draft, list(hosts))
    _translate_ports(draft)


def _translate_external(draft: Draft, hosts: list[str]) -> None:
    """One address a family, or public addresses by relay addresses. hosts is empty when those are found at start."""
    pairs: dict[str, str] = {}
    lines: list[Option] = []
    for option in draft.every("external-ip"):
        try:
            inside, outside = _external(option)
            why = _external_problem(inside, outside, hosts, pairs)
        except BadValue as error:
            why = f"{error.problem}; a name does not do: write the address under relay.external"
        if why:
            draft.unsupported(option, why)
            continue
        lines.append(option)
        among = [host for host in hosts if family_of(host) == family_of(outside) and host not in pairs]
        if inside in ANY_OF_FAMILY.values() and len(among) > 1:
            pairs.update(dict.fromkeys(among, outside))
        else:
            pairs[inside] = outside
    if not pairs:
        return
    plain = [outside for inside, outside in pairs.items() if inside in ANY_OF_FAMILY.values()]
    if len(plain) == len(pairs):
        draft.put("relay.external", plain[0] if len(plain) == 1 else plain, *lines)
    else:
        draft.put("relay.external", pairs, *lines)


def _external(option: Option) -> tuple[str, str]:
    """Relay address, or the wildcard of a family for every one, and the public address; raises BadValue."""
    public, slash, private = option.text.partition("/")
    outside = parse_unicast_host(public)
    return (parse_unicast_host(private) if slash else ANY_OF_FAMILY[family_of(outside)]), outside


def _external_problem(inside: str, outside: str, hosts: list[str], pairs: dict[str, str]) -> str:
    if family_of(inside) != family_of(outside):
        return "joins an IPv4 and an IPv6 address; write one line for each family"
    if inside in pairs:
        return "the address has an external one already, and the first counts"
    if inside in ANY_OF_FAMILY.values():
        family = [host for host in hosts if family_of(host) == family_of(inside)]
        if hosts and not family:
            return "there is no relay address of its family; add one to relay.addresses"
        if family and all(host in pairs for host in family):
            return "every relay address of its family has an external one already"
    elif hosts and inside not in hosts:
        return f"{inside} is no address that relays (relay-ip, or else listening-ip), so that it had no effect"
    return ""


def _translate_ports(draft: Draft) -> None:
    options = [option for key in ("min-port", "max-port") if (option := draft.last(key))]
    low, high = draft.port("min-port", _MIN_PORT), draft.port("max-port", MAX_PORT)
    if (low, high) == (_MIN_PORT, MAX_PORT):
        for option in options:
            draft.unneeded(option, AS_DEFAULT)
    elif low > high:
        for option in options:
            draft.unsupported(option, "the lowest port is above the highest; write relay.ports")
    else:
        draft.put("relay.ports", str(PortRange(low, high)), *options)


def translate_peers(draft: Draft) -> None:
    denied = _denied(draft)
    allowed = _allowed(draft, list(denied))
    option = draft.last("allow-loopback-peers")
    if option is not None and draft.is_on("allow-loopback-peers"):
        allowed |= dict.fromkeys(_LOOPBACK, option)
        draft.note(
            f"line {option.line}: allow-loopback-peers opens every service of this host to everyone with a credential"
        )
    elif option is not None:
        draft.unneeded(option, "loopback peers are refused by default")
    if allowed:
        draft.put("peers.allow", list(allowed), *dict.fromkeys(allowed.values()))
    if denied:
        draft.put("peers.deny", [str(each) for each in denied], *denied.values())


def _denied(draft: Draft) -> dict[AddressRange, Option]:
    """Ranges that are refused besides the default ones."""
    denied: dict[AddressRange, Option] = {}
    for option in draft.every("denied-peer-ip"):
        found = _range(draft, option)
        if found is None:
            continue
        if is_refused(found):
            draft.unneeded(option, "refused by default")
        elif found in denied:
            draft.unneeded(option, f"line {denied[found].line} says the same")
        else:
            denied[found] = option
    return denied


def _allowed(draft: Draft, denied: list[AddressRange]) -> dict[str, Option]:
    """Ranges that have to be allowed by name, as texts."""
    own = _own_addresses(draft)
    allowed: dict[str, Option] = {}
    for option in draft.every("allowed-peer-ip"):
        found = _range(draft, option)
        if found is None:
            continue
        if found.first == found.last and str(found.first) in own:
            draft.unneeded(option, "an address of this server: its clients reach each other without")
        elif not touches_refused(found) and not any(found.overlaps(each) for each in denied):
            draft.unneeded(option, "nothing refuses it")
        elif str(found) in allowed:
            draft.unneeded(option, f"line {allowed[str(found)].line} says the same")
        else:
            allowed[str(found)] = option
            if found.first == found.last:
                draft.note(
                    f"line {option.line}: if {found} is this server itself, take it out of peers.allow: clients of one "
                    "server reach each other without, while allowing it opens the other services of the host"
                )
    return allowed


def _range(draft: Draft, option: Option) -> AddressRange | None:
    text = option.text
    try:
        return AddressRange.parse(text)
    except BadValue as error:
        if "/" in text:
            try:
                return AddressRange.parse(str(ipaddress.ip_network(text, strict=False)))
            except (ValueError, BadValue):
                pass
        draft.unsupported(option, f"{error.problem}; {error.hint}")
        return None


def _own_addresses(draft: Draft) -> set[str]:
    """The addresses that the file itself calls the server's."""
    own = {*listening_hosts(draft), *relay_hosts(draft)}
    for option in draft.every("external-ip"):
        try:
            own |= set(_external(option))
        except BadValue:
            continue
    return own - set(ANY_OF_FAMILY.values())
