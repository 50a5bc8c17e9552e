"""coturn's relay addresses and peer ranges as `relay` and `peers`."""

from __future__ import annotations

import ipaddress

from turnsvr.config.fields import ANY_OF_FAMILY, family_of
from turnsvr.config.ranges import AddressRange, PortRange, parse_external_source, parse_unicast_host
from turnsvr.config.units import BadValue
from turnsvr.migrate.draft import AS_DEFAULT, MAX_PORT, Draft
from turnsvr.migrate.listening import hosts_of, listening_hosts
from turnsvr.migrate.refused import is_refused, touches_refused
from turnsvr.migrate.source import Option

_MIN_PORT = 49_152
_FAMILIES = {"ipv4": "ipv4", "ipv6": "ipv6", "keep": "client"}
_LOOPBACK = ("127.0.0.1", "::1")


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
    _translate_family(draft)


def _translate_family(draft: Draft) -> None:
    """What a client gets that names no family. keep-address-family is the older spelling, and wins where it is on."""
    older, option = draft.last("keep-address-family"), draft.last("allocation-default-address-family")
    wanted = None if option is None else option.text.strip('"').lower()
    if option is not None and wanted not in _FAMILIES:
        draft.unsupported(option, "is ipv4, ipv6 or keep; relay.default_family is ipv4")
    said = [each for each in (option,) if each is not None and wanted in _FAMILIES]
    family = _FAMILIES.get(wanted or "", "ipv4")
    if older is not None and draft.is_on("keep-address-family"):
        said, family = [*said, older], "client"
    elif older is not None:
        draft.unneeded(older, AS_DEFAULT)
    if family != "ipv4":
        draft.put("relay.default_family", family, *said)
        return
    for each in said:
        draft.unneeded(each, AS_DEFAULT)


def _translate_external(draft: Draft, hosts: list[str]) -> None:
    """One address a family, or public addresses by relay addresses. hosts is empty when those are found at start."""
    if _found_by_itself(draft):
        return
    pairs: dict[str, str] = {}
    lines: list[Option] = []
    for option in draft.every("external-ip"):
        try:
            inside, outside = _external(option)
            why = _external_problem(inside, outside, hosts, pairs)
        except BadValue as error:
            why = f"{error.problem}; write the address under relay.external"
        if why:
            draft.unsupported(option, why)
            continue
        lines.append(option)
        among = [host for host in hosts if family_of(host) == family_of(outside) and host not in pairs]
        if inside in ANY_OF_FAMILY.values() and len(among) > 1:
            pairs[among[0]] = outside
            draft.note(
                f"line {option.line}: one external address is for one relay address alone, {among[0]}: name those of "
                "the others under relay.external"
            )
        else:
            pairs[inside] = outside
    if not pairs:
        return
    plain = [outside for inside, outside in pairs.items() if inside in ANY_OF_FAMILY.values()]
    if len(plain) == len(pairs):
        draft.put("relay.external", plain[0] if len(plain) == 1 else plain, *lines)
    else:
        draft.put("relay.external", pairs, *lines)


def _found_by_itself(draft: Draft) -> bool:
    """Whether the only external address is a name, which is looked up, or is to be found."""
    options = draft.every("external-ip")
    sources = [option for option in options if parse_external_source(option.text) is not None]
    if not sources or len({option.text for option in options}) > 1:
        return False
    return draft.put("relay.external", sources[0].text, *options)


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
        _allow_loopback(draft, option, allowed)
    elif option is not None:
        draft.unneeded(option, "loopback peers are refused by default")
    if allowed:
        draft.put("peers.allow", list(allowed), *dict.fromkeys(allowed.values()))
    if denied:
        draft.put("peers.deny", [str(each) for each in denied], *denied.values())
    if not allowed and not draft.every("denied-peer-ip") and not draft.is_on("stun-only"):
        draft.note(
            "the file denies no peers, so that coturn relays to private addresses; turnsvr refuses them: name under "
            "peers.allow those that are to be reached"
        )


def _allow_loopback(draft: Draft, option: Option, allowed: dict[str, Option]) -> None:
    """Denied ranges win over it."""
    refused = [found for each in draft.every("denied-peer-ip") if (found := _parsed(each.text)) is not None]
    opened = [host for host in _LOOPBACK if not any(ipaddress.ip_address(host) in each for each in refused)]
    if not opened:
        draft.unneeded(option, "denied-peer-ip denies loopback, and wins")
        return
    allowed |= dict.fromkeys(opened, option)
    draft.note(
        f"line {option.line}: allow-loopback-peers opens every UDP service of {' and '.join(opened)} to everyone "
        "with a credential; name ports under peers.allow"
    )


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
    """What has to be allowed by name, as texts; no loopback, which coturn opens by another key, and no link-local."""
    own = _own_addresses(draft)
    allowed: dict[str, Option] = {}
    for option in draft.every("allowed-peer-ip"):
        found = _range(draft, option)
        if found is None:
            continue
        is_own = found.first == found.last and str(found.first) in own
        parts = _without_link_local(found)
        if found.first.is_loopback and found.last.is_loopback:
            draft.unneeded(option, "loopback peers are reached with allow-loopback-peers alone, in coturn as well")
        elif not parts:
            draft.unneeded(option, "link-local peers are never reached, in coturn as well")
        elif not is_own and not touches_refused(found) and not any(found.overlaps(each) for each in denied):
            draft.unneeded(option, "nothing refuses it")
        elif all(str(each) in allowed for each in parts):
            draft.unneeded(option, f"line {allowed[str(parts[0])].line} says the same")
        else:
            allowed |= dict.fromkeys(map(str, parts), option)
            _tell_allowed(draft, option, found, is_own)
    return allowed


def _tell_allowed(draft: Draft, option: Option, found: AddressRange, is_own: bool) -> None:
    example = f"[{found}]:10000-20000" if ":" in str(found) else f"{found}:10000-20000"
    if is_own:
        draft.note(
            f"line {option.line}: {found} is this server's own, and allowing it opens every UDP service of the host to "
            f'everyone with a credential; name the ports that are meant under peers.allow: "{example}"'
        )
    elif found.first == found.last:
        draft.note(
            f"line {option.line}: if {found} is this server itself, name the ports of the service that is meant under "
            f'peers.allow ("{example}"); clients of one server reach each other without'
        )
    else:
        draft.note(f"line {option.line}: {found} opens nothing on this host: name addresses of it under peers.allow")


def _without_link_local(found: AddressRange) -> list[AddressRange]:
    """What is left of a range."""
    left = [found]
    for text in ("169.254.0.0/16", "fe80::/10"):
        cut = AddressRange.parse(text)
        left = [part for each in left for part in (_parts(each, cut) if each.overlaps(cut) else [each])]
    return left


def _parts(whole: AddressRange, cut: AddressRange) -> list[AddressRange]:
    parts = []
    if int(whole.first) < int(cut.first):
        parts.append(AddressRange(whole.first, cut.first - 1))
    if int(cut.last) < int(whole.last):
        parts.append(AddressRange(cut.last + 1, whole.last))
    return parts


def _parsed(text: str) -> AddressRange | None:
    try:
        return AddressRange.parse(text)
    except BadValue:
        pass
    try:
        return AddressRange.parse(str(ipaddress.ip_network(text, strict=False)))
    except (ValueError, BadValue):
        return None


def _range(draft: Draft, option: Option) -> AddressRange | None:
    found = _parsed(option.text)
    if found is None:
        try:
            AddressRange.parse(option.text)
        except BadValue as error:
            draft.unsupported(option, f"{error.problem}; {error.hint}")
    return found


def _own_addresses(draft: Draft) -> set[str]:
    """The addresses that the file itself calls the server's."""
    own = {*listening_hosts(draft), *relay_hosts(draft)}
    for option in draft.every("external-ip"):
        try:
            own |= set(_external(option))
        except BadValue:
            continue
    return own - set(ANY_OF_FAMILY.values())
