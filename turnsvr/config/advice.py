"""What a valid settings file gets wrong all the same: what is unsafe, and what cannot work on this host.

Pure: the clock and the host's facts (hostfacts.py) are arguments. No text repeats a secret.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import urlsplit

from turnsvr.config.credentialsettings import KnownUsers
from turnsvr.config.dooradvice import on_doors
from turnsvr.config.fields import family_of
from turnsvr.config.hostfacts import CertificateFacts
from turnsvr.config.peeradvice import on_peers, wins
from turnsvr.config.ranges import AUTO, could_be_public
from turnsvr.config.sealingkeys import is_example
from turnsvr.config.settings import PeerSettings, Settings
from turnsvr.config.units import parse_hex_key
from turnsvr.own import OwnHosts

_HTTPS_PORT = 443
_DAY = 86_400
_EXPIRY_NOTICE = 14 * _DAY
_MIN_SECRET_CHARACTERS = 16
_MIN_PASSWORD_CHARACTERS = 8


@dataclass(frozen=True)
class Advice:
    """An error (the server does not start), a warning (unsafe, or cannot work) or a note about one setting."""

    severity: Literal["error", "warning", "note"]
    setting: str
    text: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.setting}: {self.text}"


PRIVATE_RELAYS = "clients elsewhere are given a private address, which they cannot reach"
"""What is wrong where every relay address is private and no external one is known."""


def private_relays(advertised: Collection[str]) -> list[str]:
    """What clients are given in place of an address of the Internet; nothing where they have what they ask for.

    That is an IPv4 address, unless the server has none. Loopback addresses are no mistake: an operator who
    relays there means this host alone.
    """
    usual = [host for host in advertised if family_of(host) == 4] or list(advertised)
    if any(map(could_be_public, usual)):
        return []
    private = [host for host in advertised if not could_be_public(host)]
    return [host for host in private if not ipaddress.ip_address(host.partition("%")[0]).is_loopback]


def advise(
    settings: Settings,
    now: float,
    *,
    relays: Collection[str] = (),
    host_addresses: Collection[str] | None = None,
    lowest_port: int = 0,
    certificate: CertificateFacts | None = None,
    file_is_public: bool = False,
    own: OwnHosts | None = None,
) -> list[Advice]:
    """Everything worth saying, in the settings' order.

    `now` is in seconds since 1970. `relays` are the addresses that clients are given by default. `host_addresses` are
    those of the settings that this host has, None when unknown; ports below `lowest_port` need a privilege that we
    lack; `file_is_public` says that every user of the host can read the settings file and secrets in it; `own` is
    this host, None when unknown.
    """
    return [
        *_listeners(settings, lowest_port, host_addresses),
        *(about_certificate(certificate, now) if settings.tls is not None and certificate is not None else ()),
        *_relay(settings, host_addresses, relays),
        *_credentials(settings, file_is_public),
        *_realms(settings, own),
        *_peers(settings, settings.peers, own),
        *(Advice(*each) for each in on_doors(settings)),
        *_limits(settings),
        *_pump(settings),
        *_other_servers(settings),
        *_nat_discovery(settings, host_addresses),
        *_web(settings),
        *_services(settings),
    ]


def _error(setting: str, text: str) -> Advice:
    return Advice("error", setting, text)


def _warning(setting: str, text: str) -> Advice:
    return Advice("warning", setting, text)


def _note(setting: str, text: str) -> Advice:
    return Advice("note", setting, text)


def _listeners(settings: Settings, lowest_port: int, host_addresses: Collection[str] | None) -> Iterator[Advice]:
    for index, address in enumerate(settings.listen or ()):
        setting = f"listen[{index}]"
        if 0 < address.port < lowest_port:
            yield _warning(
                setting, f"port {address.port} needs a privilege that this process lacks (CAP_NET_BIND_SERVICE)"
            )
        for concrete in address.expand():
            if not ipaddress.ip_address(concrete.host).is_unspecified:
                yield from _missing(setting, concrete.host, host_addresses, _error)
    if settings.tls and not any(address.needs_certificate for address in settings.listeners()):
        yield _warning("tls", "no listener uses the certificate; add tls://*:5349 to listen")
    yield from _acme(settings)


def _acme(settings: Settings) -> Iterator[Advice]:
    acme = settings.tls.acme if settings.tls is not None else None
    if acme is None or acme.challenge != "tls-alpn-01":
        return
    if not any(not address.is_datagram and address.port == _HTTPS_PORT for address in settings.listeners()):
        yield _warning(
            "tls.acme.challenge",
            "tls-alpn-01 comes to port 443, where no listener is; add tls://*:443 to listen, forward the port, or take "
            "http-01",
        )


def _missing(
    setting: str,
    address: str,
    host_addresses: Collection[str] | None,
    severity: Callable[[str, str], Advice] = _warning,
) -> Iterator[Advice]:
    if host_addresses is not None and address not in host_addresses:
        yield severity(setting, f"{address} is not an address of this host")


def about_certificate(certificate: CertificateFacts, now: float) -> Iterator[Advice]:
    """Why clients refuse it, or soon will. now: seconds since 1970."""
    if certificate.problem:
        yield _warning(certificate.problem_setting, certificate.problem)
        return
    if certificate.not_after <= now:
        yield _warning("tls.certificate", f"expired on {_date(certificate.not_after)}")
    elif certificate.not_after <= now + _EXPIRY_NOTICE:
        days = int((certificate.not_after - now) // _DAY)
        yield _warning("tls.certificate", f"expires on {_date(certificate.not_after)}, in {days} days")
    if certificate.not_before > now:
        yield _warning("tls.certificate", f"is not valid before {_date(certificate.not_before)}")
    if not certificate.key_matches:
        yield _warning("tls.key", "does not belong to the certificate")
    if not certificate.has_names:
        yield _warning("tls.certificate", "has no subject alternative name, so that browsers refuse it")


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _relay(settings: Settings, host_addresses: Collection[str] | None, relays: Collection[str]) -> Iterator[Advice]:
    relay = settings.relay
    if settings.stun_only:
        return
    if relay.external_source is None and relay.addresses is None:
        given = private_relays([relay.external_for(each) or each for each in relays])
        if given:
            text = f"clients elsewhere will be given {' and '.join(given)}, which is private: they cannot reach it. "
            yield _note(
                "relay.external", text + "Write the public address, or auto; for this network alone it is right"
            )
    if relay.external_stun and relay.external_source != AUTO:
        yield _note("relay.external_stun", "is asked by external: auto alone")
    for index, address in enumerate(relay.addresses or ()):
        setting = f"relay.addresses[{index}]"
        yield from _missing(setting, address, host_addresses)
        told = relay.external_for(address) is not None or relay.external_source is not None
        if not ipaddress.ip_address(address).is_global and not told:
            text = "is private and has no external address: clients elsewhere will be given it and cannot reach it"
            yield _note(setting, f"{address} {text}")
    for inside, outside in relay.external.items():
        if not ipaddress.ip_address(outside).is_global:
            setting = "relay.external" if ipaddress.ip_address(inside).is_unspecified else f"relay.external.{inside}"
            yield _warning(setting, f"{outside} is private or special-purpose: clients elsewhere cannot reach it")
    addresses = max(Counter(map(family_of, relay.addresses or ())).values(), default=1)
    ports = len(relay.ports) * addresses
    if ports < settings.limits.allocations:
        yield _warning(
            "relay.ports", f"has {ports} ports, fewer than limits.allocations ({settings.limits.allocations})"
        )
    if relay.ports.low < 1024:
        yield _warning("relay.ports", "reaches below 1024, where other services live")


def _credentials(settings: Settings, file_is_public: bool) -> Iterator[Advice]:
    credentials = settings.credentials
    known = [credentials, *(realm.credentials for realm in settings.realms.values())]
    if settings.stun_only and (credentials.users or credentials.secrets):
        yield _note("credentials", "are not used with stun_only")
    yield from _weak(credentials, "credentials")
    for kid, key in (credentials.oauth.keys if credentials.oauth else {}).items():
        if is_example(key.key.get_secret_value()):
            text = "is a key of coturn's examples, with which others make tokens"
            yield _warning(f"credentials.oauth.keys.{kid}", text)
    if file_is_public and (any(each.users or each.secrets for each in known) or _names_other_secrets(settings)):
        yield _warning("credentials", "every user of this host can read the settings file; chmod o-r it")


def _names_other_secrets(settings: Settings) -> bool:
    """Whether there is a secret of the server's own, with which it goes to others or they come to it."""
    store, hook, status = settings.credentials.store, settings.credentials.hook, settings.status
    databases = [each for each in (store and store.url, status and status.redis) if each]
    return any(each.password for each in databases) or bool(hook or settings.credentials.oauth or settings.admin.token)


def _weak(known: KnownUsers, section: str) -> Iterator[Advice]:
    for name, value in known.users.items():
        password = value.get_secret_value()
        if parse_hex_key(password):
            continue
        if password == name:
            yield _warning(f"{section}.users.{name}", "the password is the user name")
        elif len(password) < _MIN_PASSWORD_CHARACTERS:
            yield _warning(
                f"{section}.users.{name}", f"the password is shorter than {_MIN_PASSWORD_CHARACTERS} characters"
            )
    for index, secret in enumerate(known.secrets):
        if len(secret.get_secret_value()) < _MIN_SECRET_CHARACTERS:
            yield _warning(
                f"{section}.secrets[{index}]",
                f"is shorter than {_MIN_SECRET_CHARACTERS} characters; make one with: turnsvr secret",
            )


def _realms(settings: Settings, own: OwnHosts | None) -> Iterator[Advice]:
    """Realms that no client reaches or relays in, and those that are not as separate as they look."""
    everywhere = settings.credentials
    whose = {secret.get_secret_value(): settings.realm for secret in everywhere.secrets}
    for name, realm in settings.realms.items():
        section = f"realms.{name}"
        known = realm.credentials
        if not (realm.origins or realm.listen or everywhere.store):
            yield _warning(section, "is chosen by nothing; add origins or listen")
        if not (known.users or known.secrets or everywhere.beyond_file):
            yield _warning(f"{section}.credentials", "are missing, so no client can relay in this realm")
        yield from _weak(known, f"{section}.credentials")
        for index, secret in enumerate(known.secrets):
            other = whose.setdefault(secret.get_secret_value(), name)
            if other != name:
                text = f"is one of the realm {other}, too, so that the users of each can relay in the other"
                yield _warning(f"{section}.credentials.secrets[{index}]", text)
        yield from _peers(settings, realm.peers, own, f"{section}.peers")
        for index, denied in enumerate(realm.peers.deny):
            if wins(settings.peers, denied):
                yield _warning(f"{section}.peers.deny[{index}]", f"{denied} has no effect, since peers.allow wins")
        if (realm.limits.allocations or 0) > settings.limits.allocations:
            yield _note(f"{section}.limits.allocations", "is above limits.allocations, which bounds all realms")


def _peers(settings: Settings, peers: PeerSettings, own: OwnHosts | None, section: str = "peers") -> Iterator[Advice]:
    for severity, setting, text in on_peers(settings, peers, section, own):
        yield Advice(severity, setting, text)


def _limits(settings: Settings) -> Iterator[Advice]:
    limits = settings.limits
    if limits.answers_per_address == 0:
        yield _warning("limits.answers_per_address", "without a limit others can use the server as a reflector")
    if limits.allocations_per_user > limits.allocations:
        yield _note("limits.allocations_per_user", "is above limits.allocations, so one user can take them all")
    if limits.connections_per_address > limits.connections:
        yield _note("limits.connections_per_address", "is above limits.connections, so one address can take them all")


def _pump(settings: Settings) -> Iterator[Advice]:
    if settings.pump.offload != "off":
        yield _note(
            "pump.offload",
            "packets of channels pass by nftables and conntrack of this host, which neither filter nor count them",
        )
    elif settings.pump.interfaces != "auto":
        yield _warning("pump.interfaces", "nothing is offloaded; set pump.offload to auto")


def _other_servers(settings: Settings) -> Iterator[Advice]:
    if settings.redirect is None:
        return
    ours = {(address.host, address.port) for address in settings.listeners()}
    for index, other in enumerate(settings.redirect.to):
        if (other.host, other.port) in ours:
            yield _warning(f"redirect.to[{index}]", f"{other} is this server itself")


def _nat_discovery(settings: Settings, host_addresses: Collection[str] | None) -> Iterator[Advice]:
    discovery = settings.nat_discovery
    if discovery is None:
        return
    for address in (*discovery.primary, *discovery.alternate):
        yield from _missing("nat_discovery", address, host_addresses, _error)
    families = set(map(family_of, discovery.primary)) - set(map(family_of, discovery.alternate))
    for family in sorted(families):
        yield _note(
            "nat_discovery.alternate",
            f"has no IPv{family} address: clients cannot tell address-dependent from endpoint-independent",
        )


def _web(settings: Settings) -> Iterator[Advice]:
    web = settings.web
    if web is None:
        return
    reachable = [each for each in web.listeners() if not ipaddress.ip_address(each.host).is_loopback]
    if web.public and (reachable or web.trusted_proxies):
        yield _warning("web.public", "lets everyone relay who can reach the HTTP listener")
    if not web.public and not web.keys:
        yield _note("web.keys", "names no caller, so that no credentials are given")
    if web.keys and any(each.scheme == "http" for each in reachable):
        yield _warning("web.listen", "takes API keys over http:// from elsewhere, where others can read them")


def _services(settings: Settings) -> Iterator[Advice]:
    """Secrets and keys that cross a network in plain text."""
    hook, tokens, admin = settings.credentials.hook, settings.credentials.tokens, settings.admin
    if hook is not None and _is_plain(hook.url):
        yield _warning("credentials.hook.url", "brings passwords over http://, where others can read them")
    if tokens is not None and tokens.url is not None and _is_plain(tokens.url):
        text = "is http://, so that a host on the way can put in keys of its own and relay"
        yield _warning("credentials.tokens.url", text)
    if any(_is_plain(str(each)) for each in admin.listen):
        yield _warning("admin.listen", "takes the token over http:// from elsewhere, where others can read it")


def _is_plain(url: str) -> bool:
    """Whether it is http:// to another host than this one; * is everywhere."""
    parts = urlsplit(url)
    if parts.scheme != "http" or parts.hostname == "localhost":
        return False
    try:
        return not ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        return True
