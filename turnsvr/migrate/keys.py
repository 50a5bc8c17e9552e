"""Every key of a turnserver.conf, those of coturn 4.17 and dead ones of its past, and what becomes of each."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from turnsvr.migrate import access, bounds, listening, operations, relaying
from turnsvr.migrate.draft import Draft
from turnsvr.migrate.source import Option


@dataclass(frozen=True, slots=True)
class Into:
    """Becomes these settings, by a translator that gives each of its lines a verdict."""

    settings: str
    translate: Callable[[Draft], None]


@dataclass(frozen=True, slots=True)
class Unneeded:
    """Always so, or without meaning here; why."""

    why: str


@dataclass(frozen=True, slots=True)
class Unsupported:
    """Not done; what to do instead. Some values ask for what turnsvr does anyway."""

    instead: str
    harmless: frozenset[str] = frozenset()


Rule: TypeAlias = Into | Unneeded | Unsupported

_NO = frozenset({"0", "n", "no", "f", "false", "off"})

_LISTEN = Into("listen", listening.translate_listen)
_TLS = Into("tls", listening.translate_tls)
_DISCOVERY = Into("nat_discovery", listening.translate_nat_discovery)
_RELAY = Into("relay", relaying.translate_relay)
_PEERS = Into("peers", relaying.translate_peers)
_CREDENTIALS = Into("credentials", access.translate_credentials)
_STORE = Into("credentials.store", access.translate_credentials)
_LIMITS = Into("limits", bounds.translate_limits)
_STUN = Into("stun", operations.translate_stun)
_REDIRECT = Into("redirect", operations.translate_redirect)
_PUMP = Into("pump", operations.translate_pump)
_METRICS = Into("web", operations.translate_web)
_LOG = Into("log", operations.translate_log)

_TELNET = Unneeded("no telnet console: turnsvr sessions, top, kick, drain and reload talk to the admin socket")
_WEB_ADMIN = Unsupported("turnsvr sessions and top show sessions; over HTTP admin.listen does, with admin.token", _NO)
_SERVICE = Unneeded("the service unit's: systemd/turnsvr.service")
_JOURNAL = Unneeded("log lines go to standard error, which systemd keeps: journalctl -u turnsvr")
_CURVES = Unneeded("OpenSSL chooses curves and key exchange")
_OLD_TLS = Unneeded("TLS 1.2 is the oldest version that is spoken (tls.minimum_version)")
_TOO_OLD_TLS = Unsupported("TLS 1.2 is the oldest version that is spoken; every browser since 2014 does", _NO)
_SHARED_PORT = Unsupported("each allocation has relay ports of its own; widen relay.ports instead", _NO)
_BATCHES = Unneeded("the compiled pump receives and sends in batches by itself")
_STATELESS = Unneeded("always so: a nonce carries its expiry and a MAC, and nothing is stored")
KEYS: dict[str, Rule] = {
    # TLS
    "cert": _TLS,
    "pkey": _TLS,
    "cipher-list": _TLS,
    "no-tlsv1_2": _TLS,
    "pkey-pwd": Unsupported("the key has to be without a pass phrase: openssl pkey -in KEY -out NEWKEY, for tls.key"),
    "CA-file": Unsupported("clients show no certificates; they prove themselves with credentials"),
    "raw-public-keys": Unsupported("certificates alone (tls.certificate)", _NO),
    "ec-curve-name": _CURVES,
    "dh-file": _CURVES,
    "dh566": _CURVES,
    "dh1066": _CURVES,
    "dh2066": _CURVES,
    "no-tlsv1": _OLD_TLS,
    "no-tlsv1_1": _OLD_TLS,
    "no-sslv2": _OLD_TLS,
    "no-sslv3": _OLD_TLS,
    "tlsv1": _TOO_OLD_TLS,
    "tlsv1_1": _TOO_OLD_TLS,
    "acme-redirect": Into("share", listening.translate_acme),
    # Listening
    "listening-ip": _LISTEN,
    "listening-port": _LISTEN,
    "tls-listening-port": _LISTEN,
    "no-udp": _LISTEN,
    "no-tcp": _LISTEN,
    "no-tls": _LISTEN,
    "aux-server": _LISTEN,
    "listening-device": Unsupported("name the device's addresses under listen; ip -brief address shows them"),
    "tcp-proxy-port": Into("proxy", listening.translate_proxy),
    "udp-self-balance": Unneeded("the pump spreads clients over its threads (pump.threads)"),
    "sock-buf-size": Unsupported(
        "the system's sizes are taken: sysctl net.core.rmem_default and wmem_default", frozenset({"0"})
    ),
    "dtls": _LISTEN,
    "no-dtls": _LISTEN,
    "respond-http-unsupported": Unneeded("what is no STUN closes the connection; HTTP is what the section web serves"),
    # Relaying
    "relay-ip": _RELAY,
    "external-ip": _RELAY,
    "min-port": _RELAY,
    "max-port": _RELAY,
    "relay-device": Unsupported("name the device's addresses under relay.addresses; ip -brief address shows them"),
    "no-udp-relay": Unsupported("relaying is UDP; to answer STUN alone set stun_only: true", _NO),
    "no-tcp-relay": Unneeded("relaying over TCP to peers (RFC 6062) is off unless relay.tcp is true"),
    "keep-address-family": _RELAY,
    "allocation-default-address-family": _RELAY,
    "server-relay": Unsupported(
        "packets come only from peers that the client has permitted; servers do not belong on relay ports", _NO
    ),
    "multiplex-peer": _SHARED_PORT,
    "multiplex-peer-port": _SHARED_PORT,
    "multiplex-peer-max-peers": _SHARED_PORT,
    # Credentials
    "realm": Into("realm", access.translate_realm),
    "lt-cred-mech": _CREDENTIALS,
    "no-auth": _CREDENTIALS,
    "user": _CREDENTIALS,
    "use-auth-secret": _CREDENTIALS,
    "static-auth-secret": _CREDENTIALS,
    "stale-nonce": _CREDENTIALS,
    "userdb": _STORE,
    "db": _STORE,
    "psql-userdb": _STORE,
    "sql-userdb": _STORE,
    "mysql-userdb": _STORE,
    "mongo-userdb": _STORE,
    "redis-userdb": _STORE,
    "secret-key-file": Unsupported("write the database's password itself into credentials.store"),
    "rest-api-separator": _CREDENTIALS,
    "oauth": Into("credentials.oauth", access.translate_credentials),
    "server-name": Into("credentials.oauth", access.translate_credentials),
    "secure-stun": Unsupported(
        "Binding needs no credentials; limits.answers_per_address bounds what a stranger can ask", _NO
    ),
    "check-origin-consistency": Unneeded("an allocation stays in the realm that it was made in"),
    "stateless-nonce": _STATELESS,
    "stateless-nonce-secret": _STATELESS,
    "secret-ts-exp-time": Unneeded("coturn has dropped it: credentials end when their user name says so"),
    "no-auth-pings": Unneeded("/readyz tells whether the database answers"),
    "no-dynamic-ip-list": Unsupported(
        "peer ranges in the database count (credentials.store); take those that should not out of it", _NO
    ),
    "no-dynamic-realms": Unsupported(
        "realms in the database count (credentials.store); take those that should not out of it", _NO
    ),
    # Peers
    "allowed-peer-ip": _PEERS,
    "denied-peer-ip": _PEERS,
    "allow-loopback-peers": _PEERS,
    "no-loopback-peers": Unneeded("loopback peers are refused by default"),
    "no-multicast-peers": Unneeded("multicast peers are refused by default"),
    # Limits
    "total-quota": _LIMITS,
    "user-quota": _LIMITS,
    "max-bps": _LIMITS,
    "max-allocate-lifetime": _LIMITS,
    "max-allocate-timeout": _LIMITS,
    "unauthorized-ratelimit": _LIMITS,
    "unauthorized-ratelimit-rps": _LIMITS,
    "bps-capacity": Unsupported(
        "no bound of the whole server's bandwidth: bound each allocation (limits.bandwidth_per_allocation) and their "
        "number (limits.allocations), or shape the interface with tc",
        frozenset({"0"}),
    ),
    "channel-lifetime": Unsupported("a channel lives 10 minutes (RFC 8656 section 12)", frozenset({"600"})),
    "permission-lifetime": Unsupported("a permission lives 5 minutes (RFC 8656 section 9)", frozenset({"300"})),
    # The wire
    "no-software-attribute": _STUN,
    "software-attribute": _STUN,
    "prod": _STUN,
    "stun-backward-compatibility": _STUN,
    "rfc3489-compatibility": _STUN,
    "mobility": _STUN,
    "no-stun-backward-compatibility": Unneeded("clients of RFC 3489 get no answer by default (stun.rfc3489)"),
    "fingerprint": Unneeded("an answer carries FINGERPRINT when the request did"),
    "rfc5766-channel-numbers": Unneeded("channel numbers up to 0x7FFF are taken (stun.channels)"),
    "include-reason-string": Unneeded("error responses carry reason phrases"),
    "response-origin-only-with-rfc5780": Unneeded("RESPONSE-ORIGIN is sent with nat_discovery alone"),
    "alternate-server": _REDIRECT,
    "tls-alternate-server": _REDIRECT,
    "udp-alternate-server": _REDIRECT,
    "tcp-alternate-server": _REDIRECT,
    "stun-only": Into("stun_only", operations.translate_stun_only),
    "no-stun": Unsupported("Binding is always answered; limits.answers_per_address bounds it", _NO),
    "rfc5780": _DISCOVERY,
    "no-rfc5780": _DISCOVERY,
    "alt-listening-port": _DISCOVERY,
    "alt-tls-listening-port": _LISTEN,
    # Threads
    "relay-threads": _PUMP,
    "cpus": _PUMP,
    "udp-gso": _PUMP,
    "udp-recvmmsg": _BATCHES,
    "udp-recvmmsg-log": _BATCHES,
    "ne": Unneeded("coturn does not heed it any more"),
    # Metrics and steering
    "prometheus": _METRICS,
    "prometheus-tls": _METRICS,
    "prometheus-address": _METRICS,
    "prometheus-port": _METRICS,
    "prometheus-path": _METRICS,
    "prometheus-cert": _METRICS,
    "prometheus-key": _METRICS,
    "prometheus-username-labels": Unsupported(
        "labels with user names grow without end; turnsvr sessions --user tells of one user", _NO
    ),
    "redis-statsdb": Into("status.redis", operations.translate_status),
    "cli": _TELNET,
    "no-cli": _TELNET,
    "cli-ip": _TELNET,
    "cli-port": _TELNET,
    "cli-password": _TELNET,
    "cli-max-output-sessions": _TELNET,
    "web-admin": _WEB_ADMIN,
    "web-admin-ip": _WEB_ADMIN,
    "web-admin-port": _WEB_ADMIN,
    "web-admin-listen-on-workers": _WEB_ADMIN,
    "drain-min-allocations": Unsupported(
        "a draining server ends with its last allocation; systemctl stop ends it before", frozenset({"0"})
    ),
    # The process and its log
    "daemon": _SERVICE,
    "pidfile": _SERVICE,
    "proc-user": _SERVICE,
    "proc-group": _SERVICE,
    "log-file": _LOG,
    "Verbose": _LOG,
    "log-min-level": _LOG,
    "verbose": Unneeded("sessions are logged by default (log.level: info)"),
    "syslog": _JOURNAL,
    "syslog-facility": _JOURNAL,
    "simple-log": _JOURNAL,
    "no-stdout-log": _JOURNAL,
    "new-log-timestamp": _JOURNAL,
    "new-log-timestamp-format": _JOURNAL,
    "log-binding": Unsupported("Binding requests are counted in metrics, and not logged one by one", _NO),
    "version": Unneeded("turnsvr version tells it"),
}
"""In the order of the settings as far as they have any: translators run in the order in which they first stand here."""

SHORT = {
    "A": "allocation-default-address-family",
    "B": "bps-capacity",
    "C": "rest-api-separator",
    "E": "relay-ip",
    "J": "mongo-userdb",
    "K": "keep-address-family",
    "L": "listening-ip",
    "M": "mysql-userdb",
    "N": "redis-userdb",
    "O": "redis-statsdb",
    "Q": "total-quota",
    "S": "stun-only",
    "V": "Verbose",
    "X": "external-ip",
    "a": "lt-cred-mech",
    "b": "userdb",
    "d": "listening-device",
    "e": "psql-userdb",
    "f": "fingerprint",
    "i": "relay-device",
    "l": "log-file",
    "m": "relay-threads",
    "o": "daemon",
    "p": "listening-port",
    "q": "user-quota",
    "r": "realm",
    "s": "max-bps",
    "u": "user",
    "v": "verbose",
    "z": "no-auth",
}


def judge_plain(draft: Draft, option: Option) -> None:
    """The verdict on a line whose key needs no translator, or that coturn does not know."""
    rule = KEYS.get(option.key)
    if isinstance(rule, Unneeded):
        draft.unneeded(option, rule.why)
    elif isinstance(rule, Unsupported):
        if option.text.lower() in rule.harmless:
            draft.unneeded(option, "as it is here anyway")
        else:
            draft.unsupported(option, rule.instead)
    elif rule is None:
        draft.unsupported(option, f"coturn does not know it either, and goes on without{_meant(option.key)}")


def _meant(key: str) -> str:
    name = key.strip("-")
    if key.startswith("-") and (name in KEYS or name in SHORT):
        return "; options of the command line stand in a file without dashes and with their long names"
    if name in SHORT:
        return f"; {SHORT[name]} is its long name"
    close = difflib.get_close_matches(re.split("[:,;]", key)[0][:80], KEYS, n=1, cutoff=0.75)
    return f"; {close[0]} may be meant" if close else ""
