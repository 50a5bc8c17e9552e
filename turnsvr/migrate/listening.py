"""coturn's listeners, TLS and NAT discovery as `listen`, `tls` and `nat_discovery`."""

from __future__ import annotations

import ipaddress
import ssl
from urllib.parse import urlsplit

from turnsvr.config.fields import ANY_OF_FAMILY, family_of
from turnsvr.config.ranges import EVERY_ADDRESS, STUN_PORT, STUN_TLS_PORT, ListenAddress, ServerAddress, parse_host
from turnsvr.config.units import BadValue
from turnsvr.migrate.draft import AS_DEFAULT, MAX_PORT, Draft
from turnsvr.migrate.source import Option

_NO_TLS = "without a section tls there is no TLS"

_HTTP_PORT = 80

_BALANCERS = ["127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "::1", "fc00::/7"]
"""Who may say whose connection it is: loopback and private networks, where balancers usually are."""


def hosts_of(draft: Draft, key: str, setting: str) -> dict[str, Option]:
    """The addresses that this option of coturn's names, each with its line; they belong under the setting."""
    hosts: dict[str, Option] = {}
    for option in draft.every(key):
        try:
            host = parse_host(option.text)
        except BadValue as error:
            draft.unsupported(option, f"{error.problem}; name the address under {setting}")
            continue
        if host in hosts:
            draft.unneeded(option, f"line {hosts[host].line} names the address already")
        hosts.setdefault(host, option)
    return hosts


def listening_hosts(draft: Draft) -> dict[str, Option]:
    """The addresses of listening-ip, each with its line; those that a wildcard covers are left out."""
    hosts = hosts_of(draft, "listening-ip", "listen")
    for host, option in list(hosts.items()):
        wildcard = ANY_OF_FAMILY[family_of(host)]
        if host != wildcard and wildcard in hosts:
            draft.unneeded(option, f"{wildcard} in line {hosts[wildcard].line} covers it")
            del hosts[host]
    return hosts


def translate_listen(draft: Draft) -> None:
    """After translate_tls, which finds out whether TLS is served."""
    hosts = listening_hosts(draft)
    plain, tls = draft.port("listening-port", STUN_PORT), draft.port("tls-listening-port", STUN_TLS_PORT)
    ports = {"udp": plain, "tcp": plain, "tls": tls, "dtls": tls}
    served = [name for name in ports if _is_served(draft, name)]
    if plain == tls and {"tcp", "tls"} <= set(served):
        served.remove("tcp")
        draft.note(f"port {tls} is that of TLS and of TCP: one tls:// listener serves both")
    every = [EVERY_ADDRESS] if set(hosts) in (set(), set(ANY_OF_FAMILY.values())) else list(hosts)
    listen = [f"{name}://{_bracketed(host)}:{ports[name]}" for host in every for name in served]
    listen += _alternates(draft, hosts, served)
    listen += _aux_servers(draft, served)
    if "tls" in served and "tcp" not in served and draft.is_on("no-tcp"):
        draft.put("tls.only", True, *draft.every("no-tcp")[-1:], remark="Plain TCP is refused there, too.")
    listen += _proxied(draft, every)
    _tell_clients(draft, served, list(hosts), ports)
    _decide_listen(draft, list(hosts.values()), list(dict.fromkeys(listen)))


def _alternates(draft: Draft, hosts: dict[str, Option], served: list[str]) -> list[str]:
    """coturn serves its second ports as well where it listens on every address."""
    every = not hosts or any(ipaddress.ip_address(host).is_unspecified for host in hosts)
    found = []
    for key, names in (
        ("alt-listening-port", ("udp", "tcp")),
        ("alt-tls-listening-port", ("tls", "dtls")),
    ):
        option, port = draft.last(key), draft.port(key, 0)
        made = [f"{name}://{EVERY_ADDRESS}:{port}" for name in names if name in served]
        if option is not None and every and port and made:
            draft.taken("listen", option)
            found += made
        elif option is not None:
            draft.unneeded(option, "coturn serves it where it listens on every address, or discovers NATs")
    return found


def _tell_clients(draft: Draft, served: list[str], hosts: list[str], ports: dict[str, int]) -> None:
    streams = {ports[name] for name in served if name in ("tcp", "tls")}
    if 443 in streams or any(ipaddress.ip_address(host).is_loopback for host in hosts):
        draft.note(
            "clients that come through a proxy, as nginx or HAProxy on port 443, have its address all together: raise "
            "limits.connections_per_address (200) to as many as there are"
        )


def _decide_listen(draft: Draft, hosts: list[Option], listen: list[str]) -> None:
    usual = ["udp", "tcp", "tls"] if _serves_tls(draft) else ["udp", "tcp"]
    said = [*hosts, *draft.every("listening-port")[-1:]]
    said += [option for option in draft.every("aux-server") if _endpoint(option) is not None]
    for name in ("udp", "tcp", "tls"):
        option = draft.last(f"no-{name}")
        if option is not None and name in usual and draft.is_on(option.key):
            said.append(option)
        elif option is not None:
            draft.unneeded(option, AS_DEFAULT if name in usual else _NO_TLS)
    said += _dtls_switches(draft)
    said += [option for option in draft.every("tcp-proxy-port")[-1:] if option.number]
    option = draft.last("tls-listening-port")
    if option is not None and _serves_tls(draft):
        said.append(option)
    elif option is not None:
        draft.unneeded(option, _NO_TLS)
    if not listen:
        for option in said:
            draft.unsupported(option, "no transport is left; turnsvr serves UDP and TCP unless listen says otherwise")
    elif listen == [str(ListenAddress.parse(f"{name}://*")) for name in usual]:
        for option in said:
            draft.unneeded(option, AS_DEFAULT)
    else:
        draft.put("listen", listen, *said)


def _is_served(draft: Draft, name: str) -> bool:
    """Whether coturn, of 4.15 or later, serves this transport."""
    if name == "dtls":
        return draft.is_on("dtls") and not draft.is_on("no-dtls") and not draft.is_on("no-udp") and _serves_tls(draft)
    return not draft.is_on(f"no-{name}") and (name != "tls" or _serves_tls(draft))


def _dtls_switches(draft: Draft) -> list[Option]:
    """The lines that DTLS is served by; others get their verdict."""
    on, off = draft.last("dtls"), draft.last("no-dtls")
    if off is not None:
        draft.unneeded(off, "DTLS is served where listen says so")
    if on is None:
        if off is None and _serves_tls(draft) and not draft.is_on("no-udp"):
            draft.note(
                "coturn before 4.15 served DTLS beside TLS by itself: add dtls://*:5349 to listen for clients of "
                "turns: over UDP"
            )
        return []
    if _is_served(draft, "dtls"):
        return [on]
    why = "DTLS needs UDP, and the certificate of a section tls" if draft.is_on("dtls") else AS_DEFAULT
    draft.unneeded(on, why)
    return []


def _proxied(draft: Draft, hosts: list[str]) -> list[str]:
    """coturn's listener for balancers, on every address that it listens on."""
    port = draft.port("tcp-proxy-port", 0)
    return [f"tcp://{_bracketed(host)}:{port}" for host in hosts] if port else []


def translate_proxy(draft: Draft) -> None:
    """After translate_listen, which has the listener."""
    option = draft.last("tcp-proxy-port")
    port = draft.port("tcp-proxy-port", 0)
    if option is None:
        return
    if not port:
        draft.unneeded(option, "there is no such port")
        return
    hosts = listening_hosts(draft)
    every = [EVERY_ADDRESS] if set(hosts) in (set(), set(ANY_OF_FAMILY.values())) else list(hosts)
    draft.put("proxy.trusted", _BALANCERS, option, remark="In coturn every host may name another as the client.")
    draft.put("proxy.listen", _proxied(draft, every), option)
    draft.note(
        f"balancers of this host and of private networks are believed on port {port}; name yours alone in proxy.trusted"
    )


def translate_acme(draft: Draft) -> None:
    """coturn sends an ACME authority on to this URL; here HTTP is passed on to its server."""
    option = draft.last("acme-redirect")
    if option is None:
        return
    try:
        url = urlsplit(option.text)
        port = url.port or _HTTP_PORT
        host = parse_host(url.hostname or "")
    except (ValueError, BadValue):
        host = ""
    if not host or url.scheme != "http":
        draft.unsupported(
            option,
            "no redirect is sent: share: tcp://ADDRESS:80 passes HTTP on to another server, and tls: {acme: …} has "
            "certificates issued without one",
        )
        return
    if draft.put("share.http", f"tcp://{_bracketed(host)}:{port}", option, remark="coturn sends a redirect there."):
        draft.note(f"all HTTP on the TCP and TLS listeners is passed on to the server of line {option.line}")


def _serves_tls(draft: Draft) -> bool:
    return "tls.key" in draft.made


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _aux_servers(draft: Draft, served: list[str]) -> list[str]:
    found = []
    for option in draft.every("aux-server"):
        endpoint = _endpoint(option)
        if endpoint is None:
            draft.unsupported(
                option, "is not an address and port; add udp://ADDRESS:PORT and tcp://ADDRESS:PORT to listen"
            )
        else:
            found += [f"{name}://{endpoint}" for name in served if name in ("udp", "tcp")]
    return found


def _endpoint(option: Option) -> ServerAddress | None:
    try:
        return ServerAddress.parse(option.text)
    except BadValue:
        return None


def translate_tls(draft: Draft) -> None:
    certificate, key = draft.last("cert"), draft.last("pkey")
    if certificate and key and not draft.is_on("no-tls"):
        files = {"tls.certificate": certificate, "tls.key": key}
        if all(_is_path(draft, option) for option in files.values()) and all(
            draft.put(setting, option.text, option) for setting, option in files.items()
        ):
            if not all(option.text.startswith("/") for option in files.values()):
                draft.note("relative paths of certificate and key count from the directory of the settings file")
            _translate_ciphers(draft)
            _translate_version(draft)
            return
        draft.made.pop("tls.certificate", None)
    for name in ("cert", "pkey", "cipher-list", "no-tlsv1_2"):
        option = draft.last(name)
        if option is None:
            continue
        if draft.is_on("no-tls"):
            draft.unneeded(option, "no-tls switches TLS off")
        else:
            draft.unsupported(option, "serves nothing without both cert and pkey, as in coturn; name both under tls")


def _is_path(draft: Draft, option: Option) -> bool:
    good = bool(option.text) and option.text.isprintable()
    if not good:
        draft.unsupported(option, "is no file's name; name the file under tls")
    return good


def _translate_version(draft: Draft) -> None:
    option = draft.last("no-tlsv1_2")
    if option is not None and draft.is_on("no-tlsv1_2"):
        draft.put("tls.minimum_version", "1.3", option)
    elif option is not None:
        draft.unneeded(option, AS_DEFAULT)


def _translate_ciphers(draft: Draft) -> None:
    option = draft.last("cipher-list")
    if option is None:
        return
    if option.text in ("", "DEFAULT"):
        draft.unneeded(option, "that is coturn's default; turnsvr leaves the choice to Python, which is stricter")
    elif not _is_cipher_list(option.text):
        draft.unsupported(option, "OpenSSL here knows none of these ciphers; Python's own choice is taken")
    else:
        draft.put("tls.ciphers", option.text, option)


def _is_cipher_list(text: str) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).set_ciphers(text)
    except (ssl.SSLError, ValueError):
        return False
    return True


def translate_nat_discovery(draft: Draft) -> None:
    """coturn 4.7 and later discover with rfc5780, earlier ones unless no-rfc5780 forbids it."""
    rfc5780, alternate = draft.last("rfc5780"), draft.last("alt-listening-port")
    wanted = [each for each in (rfc5780, alternate) if each is not None]
    if draft.is_on("no-rfc5780") or (rfc5780 is not None and not draft.is_on("rfc5780")):
        for option in (*wanted, *draft.every("no-rfc5780")):
            draft.unneeded(option, "NAT discovery is off by default")
        return
    for option in draft.every("no-rfc5780"):
        draft.unneeded(option, "NAT discovery is on where nat_discovery is set")
    primary, second = _discovery_hosts(draft)
    if not wanted:
        if second:
            draft.note(
                "several listening addresses: coturn before 4.7 then discovered NATs (RFC 5780) by itself; "
                "turnsvr does with nat_discovery"
            )
        return
    if not second:
        if rfc5780 is not None:
            draft.unsupported(rfc5780, "needs two addresses of a family in listening-ip; name them under nat_discovery")
        if alternate is not None:
            draft.unneeded(alternate, "NAT discovery, for which it is, needs two addresses of a family in listening-ip")
        return
    port = draft.port("listening-port", STUN_PORT)
    other = draft.port("alt-listening-port", port + 1 if port < MAX_PORT else port - 1)
    draft.put("nat_discovery.primary", primary, *wanted)
    draft.put("nat_discovery.alternate", second, *wanted)
    if port != STUN_PORT:
        draft.put("nat_discovery.port", port, *wanted)
    if other == port:
        draft.unsupported(wanted[-1], "the second port equals the first; name another as nat_discovery.alternate_port")
    elif other != STUN_PORT + 1:
        draft.put("nat_discovery.alternate_port", other, *wanted)


def _discovery_hosts(draft: Draft) -> tuple[list[str], list[str]]:
    """The first two addresses of each family that has two."""
    primary, second = [], []
    for family in (4, 6):
        hosts = [
            host
            for host in listening_hosts(draft)
            if family_of(host) == family and not ipaddress.ip_address(host).is_unspecified
        ]
        if len(hosts) > 1:
            primary.append(hosts[0])
            second.append(hosts[1])
    return primary, second
