"""What coturn's options become, by the settings that are read back and by the verdict on each line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.migrate.conftest import NEW_SECRET, SURROUNDINGS, imported, outcomes, settings_of
from turnsvr.config.settings import Settings
from turnsvr.migrate import Outcome, convert

T, U, X = Outcome.TAKEN, Outcome.UNNEEDED, Outcome.UNSUPPORTED

TLS = "cert=/c.pem\npkey=/k.pem\n"


def kinds(text: str | bytes) -> list[Outcome]:
    return [outcome for outcome, _ in outcomes(text)]


def notes(text: str) -> str:
    return "\n".join(imported(text).report.notes)


def listens(text: str) -> list[str] | None:
    listen = settings_of(text).listen
    return None if listen is None else [str(each) for each in listen]


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        ("", None),
        ("listening-port=3478", None),
        ("listening-port=0", None),
        ("listening-ip=0.0.0.0\nlistening-ip=::", None),
        ("listening-port=443", ["udp://*:443", "tcp://*:443"]),
        ("listening-ip=10.0.0.5", ["udp://10.0.0.5:3478", "tcp://10.0.0.5:3478"]),
        ("listening-ip=10.0.0.5\nlistening-ip=10.0.0.5", ["udp://10.0.0.5:3478", "tcp://10.0.0.5:3478"]),
        ("listening-ip=2001:db8:0::5", ["udp://[2001:db8::5]:3478", "tcp://[2001:db8::5]:3478"]),
        ("listening-ip=0.0.0.0\nlistening-ip=10.0.0.5", ["udp://0.0.0.0:3478", "tcp://0.0.0.0:3478"]),
        ("no-udp", ["tcp://*:3478"]),
        ("no-tcp", ["udp://*:3478"]),
        ("no-tcp=no", None),
        ("no-udp\nno-tcp", None),
        (TLS, None),
        (f"{TLS}no-tls", None),
        (f"{TLS}no-udp\nno-tcp", ["tls://*:5349"]),
        (f"{TLS}tls-listening-port=443", ["udp://*:3478", "tcp://*:3478", "tls://*:443"]),
        (f"{TLS}listening-port=443\ntls-listening-port=443", ["udp://*:443", "tls://*:443"]),
        ("tls-listening-port=443", None),
        ("aux-server=10.0.0.5:3480", ["udp://*:3478", "tcp://*:3478", "udp://10.0.0.5:3480", "tcp://10.0.0.5:3480"]),
        (f"{TLS}dtls", ["udp://*:3478", "tcp://*:3478", "tls://*:5349", "dtls://*:5349"]),
        (f"{TLS}dtls\nno-dtls", None),
        (f"{TLS}dtls\nno-udp", ["tcp://*:3478", "tls://*:5349"]),
        (f"{TLS}dtls=no\nno-tls", None),
        (
            f"{TLS}dtls\nlistening-ip=10.0.0.5\ntls-listening-port=443",
            ["udp://10.0.0.5:3478", "tcp://10.0.0.5:3478", "tls://10.0.0.5:443", "dtls://10.0.0.5:443"],
        ),
        (
            f"{TLS}dtls\nalt-tls-listening-port=5350",
            [
                "udp://*:3478",
                "tcp://*:3478",
                "tls://*:5349",
                "dtls://*:5349",
                "tls://*:5350",
                "dtls://*:5350",
            ],
        ),
        ("tcp-proxy-port=5555", ["udp://*:3478", "tcp://*:3478", "tcp://*:5555"]),
        (
            "listening-ip=10.0.0.5\ntcp-proxy-port=5555",
            ["udp://10.0.0.5:3478", "tcp://10.0.0.5:3478", "tcp://10.0.0.5:5555"],
        ),
        ("aux-server=[fd00::5]:3480\nno-tcp", ["udp://*:3478", "udp://[fd00::5]:3480"]),
    ],
)
def test_listeners(text: str, listen: list[str] | None) -> None:
    assert listens(text) == listen


def test_the_port_of_balancers() -> None:
    proxy = settings_of("tcp-proxy-port=5555").proxy
    assert proxy is not None
    assert [str(each) for each in proxy.listen] == ["tcp://*:5555"]
    assert "127.0.0.0/8" in map(str, proxy.trusted)
    assert "balancers of this host and of private networks" in notes("tcp-proxy-port=5555")
    assert settings_of("realm=example.org").proxy is None


def test_third_party_authorization() -> None:
    text = "oauth\nserver-name=turn.example.org\nuserdb=/var/lib/turn/turndb\n"
    settings = settings_of(text)
    assert settings.credentials.oauth is not None
    assert settings.credentials.oauth.server_name == "turn.example.org"
    assert kinds(text) == [T, T, T]
    alone = settings_of("oauth").credentials
    assert alone.oauth is not None
    assert alone.store is not None, "the keys are in coturn's own database"
    assert settings_of("oauth=no\nuserdb=/db").credentials.oauth is None


@pytest.mark.parametrize(
    ("url", "backend"),
    [
        ("http://10.0.0.7/.well-known/acme-challenge/", "tcp://10.0.0.7:80"),
        ("http://[fd00::7]:8080/", "tcp://[fd00::7]:8080"),
        ("https://10.0.0.7/", None),
        ("http://acme.example.org/", None),
        ("http://10.0.0.7:port/", None),
        ("10.0.0.7", None),
        ("", None),
    ],
)
def test_where_acme_is_sent(url: str, backend: str | None) -> None:
    text = f"acme-redirect={url}"
    share = settings_of(text).share
    assert (None if share is None else str(share.http)) == backend
    assert kinds(text) == [X if backend is None else T]


def test_mobility() -> None:
    assert settings_of("mobility").stun.mobility
    assert not settings_of("mobility=no").stun.mobility


def test_dtls_of_former_versions_is_told() -> None:
    assert "before 4.15 served DTLS" in notes(TLS)
    for text in (f"{TLS}no-dtls", f"{TLS}dtls", f"{TLS}no-udp", "realm=example.org"):
        assert "before 4.15" not in notes(text)


def test_listeners_that_mean_nothing() -> None:
    assert kinds("listening-ip=eth0\nlistening-port=many\naux-server=x\nno-udp=maybe") == [X, X, X, X]
    assert kinds("no-udp\nno-tcp") == [X, X]


def test_of_what_is_said_twice_the_last_counts() -> None:
    text = "listening-port=443\nlistening-port=444\nrealm=a\nrealm=b"
    assert listens(text) == ["udp://*:444", "tcp://*:444"]
    assert settings_of(text).realm == "b"
    assert outcomes(text)[0] == (U, "line 2 says it again, and the last one counts")


def test_tls() -> None:
    text = f'{TLS}cipher-list="ECDHE+AESGCM:!aNULL"\nno-tlsv1\nno-tlsv1_2\n'
    tls = settings_of(text).tls
    assert tls is not None
    assert (str(tls.certificate), str(tls.key), tls.ciphers, tls.minimum_version) == (
        "/c.pem",
        "/k.pem",
        "ECDHE+AESGCM:!aNULL",
        "1.3",
    )


@pytest.mark.parametrize("text", ["cert=/c.pem", "pkey=/k.pem", "cert=\npkey=/k", "cert=/c\npkey=/k\0", f"{TLS}no-tls"])
def test_no_tls(text: str) -> None:
    assert settings_of(text).tls is None


def test_relative_paths_are_told() -> None:
    assert "relative paths" in notes("cert=c.pem\npkey=/k.pem")
    assert "relative paths" not in notes(TLS)


def test_ciphers_that_openssl_does_not_know() -> None:
    assert outcomes(f"{TLS}cipher-list=NOTHING-OF-THE-SORT")[2][0] is X
    assert outcomes(f"{TLS}cipher-list=DEFAULT")[2][0] is U


def test_the_pass_phrase_of_a_key() -> None:
    [(outcome, text)] = outcomes("pkey-pwd=no secret")
    assert outcome is X
    assert "openssl pkey" in text


@pytest.mark.parametrize(
    ("text", "relay"),
    [
        ("relay-ip=10.0.0.5", {"addresses": ("10.0.0.5",)}),
        ("relay-ip=10.0.0.5\nrelay-ip=10.0.0.5\nrelay-ip=0.0.0.0", {"addresses": ("10.0.0.5",)}),
        ("relay-ip=0.0.0.0", {"addresses": None}),
        ("listening-ip=10.0.0.5\nlistening-ip=127.0.0.1", {"addresses": ("10.0.0.5",)}),
        ("listening-ip=0.0.0.0\nlistening-ip=10.0.0.5", {"addresses": None}),
        ("listening-ip=10.0.0.5\nrelay-ip=10.0.0.6", {"addresses": ("10.0.0.6",)}),
        ("min-port=50000", {"ports": "50000-65535"}),
        ("min-port=50000\nmax-port=50010 # few", {"ports": "50000-50010"}),
        ("min-port=49152\nmax-port=65535", {"ports": "49152-65535"}),
        ("min-port=50000\nmax-port=40000", {"ports": "49152-65535"}),
        ("external-ip=203.0.113.7", {"external": {"0.0.0.0": "203.0.113.7"}}),
        (
            "external-ip=203.0.113.7\nexternal-ip=2001:db8::7",
            {"external": {"0.0.0.0": "203.0.113.7", "::": "2001:db8::7"}},
        ),
        ("external-ip=203.0.113.7/10.0.0.5", {"external": {"10.0.0.5": "203.0.113.7"}}),
        (
            "external-ip=203.0.113.7/10.0.0.5\nexternal-ip=203.0.113.8/10.0.0.6\nexternal-ip=2001:db8::7/fd00::5",
            {"external": {"10.0.0.5": "203.0.113.7", "10.0.0.6": "203.0.113.8", "fd00::5": "2001:db8::7"}},
        ),
        (
            "external-ip=203.0.113.7/10.0.0.5\nexternal-ip=203.0.113.9",
            {"external": {"10.0.0.5": "203.0.113.7", "0.0.0.0": "203.0.113.9"}},
        ),
        (
            "relay-ip=10.0.0.5\nrelay-ip=10.0.0.6\nexternal-ip=203.0.113.7",
            {"external": {"10.0.0.5": "203.0.113.7"}},
        ),
        ("relay-ip=10.0.0.5\nexternal-ip=203.0.113.7/10.0.0.6", {"external": {}}),
        ("relay-ip=10.0.0.5\nexternal-ip=2001:db8::7", {"external": {}}),
        ("external-ip=203.0.113.7\nexternal-ip=203.0.113.8", {"external": {"0.0.0.0": "203.0.113.7"}}),
        ("external-ip=turn.example.org", {"external": {}}),
        ("external-ip=203.0.113.7/fd00::5", {"external": {}}),
        ("external-ip=/10.0.0.5", {"external": {}}),
    ],
)
def test_relaying(text: str, relay: dict[str, Any]) -> None:
    made = settings_of(text).relay
    for name, value in relay.items():
        assert (str(made.ports) if name == "ports" else getattr(made, name)) == value


def test_external_addresses_that_do_not_fit_are_told() -> None:
    assert kinds("relay-ip=10.0.0.5\nexternal-ip=203.0.113.7/10.0.0.6") == [T, X]
    assert kinds("external-ip=203.0.113.7\nexternal-ip=203.0.113.8") == [T, X]


@pytest.mark.parametrize(
    ("text", "allow", "deny", "verdicts"),
    [
        ("denied-peer-ip=10.0.0.0-10.255.255.255", [], [], [U]),
        ("denied-peer-ip=::1", [], [], [U]),
        ("denied-peer-ip=224.0.0.0-255.255.255.255", [], [], [U]),
        ("denied-peer-ip=192.0.0.0-192.0.2.255", [], ["192.0.0.0-192.0.2.255"], [T]),
        ("denied-peer-ip=9.9.9.9\ndenied-peer-ip=9.9.9.9", [], ["9.9.9.9"], [T, U]),
        ("denied-peer-ip=8.8.8.0/24", [], ["8.8.8.0/24"], [T]),
        ("denied-peer-ip=8.8.8.8/24", [], ["8.8.8.0/24"], [T]),
        ("denied-peer-ip=10.0.0.9-10.0.0.1", [], [], [X]),
        ("denied-peer-ip=everybody", [], [], [X]),
        ("allowed-peer-ip=10.1.0.0-10.1.0.255", ["10.1.0.0/24"], [], [T]),
        ("allowed-peer-ip=8.8.8.8", [], [], [U]),
        ("denied-peer-ip=8.8.8.0-8.8.8.255\nallowed-peer-ip=8.8.8.8", ["8.8.8.8"], ["8.8.8.0/24"], [T, T]),
        ("allowed-peer-ip=10.0.0.5\nlistening-ip=10.0.0.5", ["10.0.0.5"], [], [T, T]),
        ("external-ip=203.0.113.7/10.0.0.5\nallowed-peer-ip=10.0.0.5", ["10.0.0.5"], [], [T, T]),
        ("external-ip=9.9.9.9\nallowed-peer-ip=9.9.9.9", ["9.9.9.9"], [], [T, T]),
        ("allowed-peer-ip=127.0.0.1", [], [], [U]),
        ("allowed-peer-ip=127.0.0.0-127.255.255.255", [], [], [U]),
        ("allowed-peer-ip=::1", [], [], [U]),
        ("allowed-peer-ip=169.254.169.254", [], [], [U]),
        ("allowed-peer-ip=fe80::1", [], [], [U]),
        (
            "allowed-peer-ip=0.0.0.0-255.255.255.255",
            ["0.0.0.0-169.253.255.255", "169.255.0.0-255.255.255.255"],
            [],
            [T],
        ),
        ("allow-loopback-peers", ["127.0.0.1", "::1"], [], [T]),
        ("allow-loopback-peers\nallowed-peer-ip=127.0.0.1", ["127.0.0.1", "::1"], [], [T, U]),
        ("allow-loopback-peers\ndenied-peer-ip=127.0.0.0-127.255.255.255", ["::1"], [], [T, U]),
        ("allow-loopback-peers\ndenied-peer-ip=127.0.0.1\ndenied-peer-ip=::1", [], [], [U, U, U]),
        ("allow-loopback-peers=no", [], [], [U]),
        ("no-loopback-peers\nno-multicast-peers", [], [], [U, U]),
    ],
)
def test_peers(text: str, allow: list[str], deny: list[str], verdicts: list[Outcome]) -> None:
    peers = settings_of(text).peers
    assert [str(each) for each in peers.allow] == allow
    assert [str(each) for each in peers.deny] == deny
    assert kinds(text) == verdicts


def test_loopback_peers_are_warned_of() -> None:
    assert "opens every UDP service of 127.0.0.1 and ::1" in notes("allow-loopback-peers")


def test_a_service_of_the_host_is_told_to_be_named_with_its_ports() -> None:
    assert '"10.0.0.5:10000-20000"' in notes("listening-ip=10.0.0.5\nallowed-peer-ip=10.0.0.5")
    assert "opens nothing on this host" in notes("allowed-peer-ip=10.0.0.0-10.0.0.255")


def test_private_peers_that_were_reached_are_told() -> None:
    assert "the file denies no peers" in notes("realm=a")
    for text in ("denied-peer-ip=10.0.0.0-10.255.255.255", "allowed-peer-ip=10.0.0.0-10.255.255.255", "stun-only"):
        assert "the file denies no peers" not in notes(text)


def secrets_of(settings: Settings) -> list[str]:
    return [secret.get_secret_value() for secret in settings.credentials.secrets]


def users_of(settings: Settings) -> dict[str, str]:
    return {name: password.get_secret_value() for name, password in settings.credentials.users.items()}


@pytest.mark.parametrize(
    "secret",
    [
        "northern",
        "a#b",
        "a # b",
        "9274",
        "0x12",
        "null",
        "~",
        "yes",
        "{a: b} c",
        "- a",
        '"',
        "\\",
        "ü€😀",
        "it's",
        "!X env",
        "%",
    ],
)
def test_a_secret_arrives_as_it_was(secret: str) -> None:
    assert secrets_of(settings_of(f"static-auth-secret={secret}")) == [secret.removeprefix('"') or NEW_SECRET]


@pytest.mark.parametrize("secret", ["north", "CHANGE_ME", "${TURN_SECRET}", "<secret>", "password"])
def test_a_placeholder_is_not_taken_over(secret: str) -> None:
    text = f"use-auth-secret\nstatic-auth-secret={secret}\n"
    assert secrets_of(settings_of(text)) == [NEW_SECRET]
    assert "line 2: the secret is a placeholder" in notes(text)
    assert secret not in notes(text).split()
    assert secrets_of(settings_of(f"{text}static-auth-secret=northern\n")) == ["northern"]


def test_several_secrets() -> None:
    assert secrets_of(settings_of("static-auth-secret=one\nuse-auth-secret\nstatic-auth-secret=two\n")) == [
        "one",
        "two",
    ]


def test_a_secret_with_what_may_be_a_comment_is_kept_and_told() -> None:
    text = "static-auth-secret=north # of the wall\n"
    assert secrets_of(settings_of(text)) == ["north # of the wall"]
    assert "line 1: the secret holds a blank and a #" in notes(text)
    assert "north" not in notes(text)


def test_a_realm_with_a_comment_is_cut_and_told() -> None:
    text = "realm=example.org # ours\n"
    assert settings_of(text).realm == "example.org"
    assert "line 1: what stands behind # in realm is left out" in notes(text)


def test_users() -> None:
    text = (
        "lt-cred-mech\nrealm=north.gov\nuser=alice:wonder:land\nuser=ninefingers:0xbc807ee29df3c9ffa736523fb2c4e8ee\n"
        "user=bob:old\nuser=bob:new\nuser=carol\nuser=dave:\nuser=eve:0x12\nuser=:x\n"
    )
    assert users_of(settings_of(text)) == {
        "alice": "wonder:land",
        "ninefingers": "0xbc807ee29df3c9ffa736523fb2c4e8ee",
        "bob": "new",
    }
    assert kinds(text) == [U, T, T, T, U, T, X, X, X, X]


def test_bytes_that_are_no_utf8_do_not_become_other_secrets() -> None:
    text = "static-auth-secret=sch\u00f6n\nuser=j\u00f6rg:gold\nrealm=sch\u00f6n\n".encode("latin-1")
    assert kinds(text) == [X, U, X]
    assert secrets_of(settings_of(text)) == [NEW_SECRET]


def test_users_beside_a_secret() -> None:
    text = "lt-cred-mech\nuse-auth-secret\nstatic-auth-secret=northern\nuser=alice:wonderland\n"
    settings = settings_of(text)
    assert secrets_of(settings) == ["northern"]
    assert users_of(settings) == {}, "coturn looks at none of them"
    assert kinds(text) == [U, T, T, U]


@pytest.mark.parametrize("text", ["user=a:CHANGE_ME", "lt-cred-mech\nuser=a:<password>\nuser=b:${PASSWORD}"])
def test_a_user_whose_password_is_a_placeholder_gets_another(text: str) -> None:
    """And coturn's own database is no substitute for it."""
    settings = settings_of(text)
    users = settings.credentials.users
    assert set(users) == {line[5] for line in text.splitlines() if line.startswith("user=")}
    assert len({each.get_secret_value() for each in users.values()}) == len(users)
    assert (settings.credentials.store, secrets_of(settings)) == (None, [])


@pytest.mark.parametrize(
    "text", ["user=${USER1}", "lt-cred-mech\nuser=nobody", "use-auth-secret\nstatic-auth-secret=<s>"]
)
def test_credentials_that_cannot_be_taken_over_were_no_invitation(text: str) -> None:
    assert secrets_of(settings_of(text)) == [NEW_SECRET]
    assert "none of the file's credentials can be taken over" in notes(text)


@pytest.mark.parametrize("realm", ["${DOMAIN:-example.org}", "<realm>", "{{ matrix_domain }}", "$REALM", "__REALM__"])
def test_a_realm_that_is_to_be_put_in_is_not_taken_over(realm: str) -> None:
    assert settings_of(f"realm={realm}").realm == "turnsvr"


@pytest.mark.parametrize("text", ["", "no-auth", "syslog\nno-cli", "static-auth-secret=\nno-auth"])
def test_without_credentials_a_secret_is_made_and_told(text: str) -> None:
    assert secrets_of(settings_of(text)) == [NEW_SECRET]
    assert ("the file has no credentials" in notes(text)) == ("static" not in text)
    assert NEW_SECRET not in notes(text)


def test_no_auth() -> None:
    assert outcomes("no-auth\nuser=a:b")[0][0] is X
    assert outcomes("no-auth=no")[0][0] is U


def test_stun_only_needs_no_credentials() -> None:
    settings = settings_of("stun-only")
    assert settings.stun_only
    assert not settings.has_credentials
    assert notes("stun-only") == ""


@pytest.mark.parametrize("text", ["lt-cred-mech", "use-auth-secret", "lt-cred-mech\nuse-auth-secret"])
def test_users_of_coturns_own_database(text: str) -> None:
    store = settings_of(text).credentials.store
    assert store is not None
    assert str(store.url) == f"sqlite:{SURROUNDINGS.database}"
    assert "coturn's own database" in notes(text)


@pytest.mark.parametrize(
    ("line", "url"),
    [
        ("userdb=/var/lib/turn/turndb", "sqlite:/var/lib/turn/turndb"),
        ("db=/var/db/turndb # here", "sqlite:/var/db/turndb"),
        ('psql-userdb="host=db dbname=turn user=turn password=hush"', "postgresql://turn:**********@db/turn"),
        ("sql-userdb=postgresql://turn:hush@db/turn", "postgresql://turn:**********@db/turn"),
        ('mysql-userdb="host=db dbname=turn user=turn password=hush"', "mysql://turn:**********@db/turn"),
        ('redis-userdb="ip=db dbname=3 password=hush"', "redis://:**********@db/3"),
    ],
)
def test_databases(line: str, url: str) -> None:
    store = settings_of(line).credentials.store
    assert store is not None
    assert str(store.url) == url
    assert "hush" not in imported(line).report.as_text("x")


def test_of_several_databases_the_last_counts() -> None:
    text = "userdb=/var/db/turndb\nredis-userdb=host=db\n"
    store = settings_of(text).credentials.store
    assert store is not None
    assert store.url.dialect == "redis"
    assert kinds(text) == [U, T]


def test_databases_that_are_not_spoken_to() -> None:
    assert kinds("userdb=/a\nmongo-userdb=mongodb://db/turn") == [U, X]
    assert kinds("mysql-userdb=host=db dbname=turn\nsecret-key-file=/key") == [X, X]


def test_a_missing_realm_is_told_where_it_matters() -> None:
    assert "made for one realm" in notes("userdb=/var/db/turndb")
    assert "made for one realm" in notes("user=a:0xbc807ee29df3c9ffa736523fb2c4e8ee")
    assert "made for one realm" not in notes("user=a:b")
    assert "names no realm" in notes("user=a:b")
    assert "realm" not in notes("user=a:b\nrealm=x")


@pytest.mark.parametrize(
    ("line", "seconds"),
    [
        ("stale-nonce", 600),
        ("stale-nonce=600", 600),
        ("stale-nonce=3600", 3600),
        ("stale-nonce=0", 86_400),
        ("stale-nonce=999999", 86_400),
    ],
)
def test_nonces(line: str, seconds: float) -> None:
    assert settings_of(line).credentials.nonce_lifetime == seconds


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("user-quota=12", "allocations_per_user", 12),
        ("user-quota=4 # calls", "allocations_per_user", 4),
        ("user-quota=0", "allocations_per_user", 10_000),
        ("total-quota=500\nuser-quota=0", "allocations_per_user", 500),
        ("user-quota=99999999", "allocations_per_user", 1_000_000),
        ("user-quota=-1", "allocations_per_user", 12),
        ("total-quota=1200", "allocations", 1_200),
        ("total-quota=0", "allocations", 10_000),
        ("max-bps=64000", "bandwidth_per_allocation", 64_000),
        ("max-bps=0", "bandwidth_per_allocation", None),
        ("max-bps=10", "bandwidth_per_allocation", 1_000),
        ("max-allocate-lifetime=7200", "lifetime", 7_200),
        ("max-allocate-lifetime=1", "lifetime", 60),
        ("max-allocate-timeout=60", "idle_timeout", 60),
        ("unauthorized-ratelimit\nunauthorized-ratelimit-rps=25", "answers_per_address", 25),
        ("unauthorized-ratelimit-rps=25", "answers_per_address", 100),
        ("unauthorized-ratelimit", "answers_per_address", 100),
    ],
)
def test_limits(text: str, name: str, value: float | None) -> None:
    assert getattr(settings_of(text).limits, name) == value


def test_limits_that_coturn_has_not_are_told() -> None:
    assert "a user holds as many allocations as the server" in notes("user=a:b")
    assert settings_of("user=a:b").limits.allocations_per_user == 10_000
    assert settings_of("user=a:b\nuser-quota=0").limits.allocations_per_user == 10_000
    assert "a user holds" not in notes("user=a:b\nuser-quota=5")
    assert "the server holds 10000" in notes("user=a:b")


@pytest.mark.parametrize(
    ("line", "outcome"),
    [
        ("bps-capacity=0", U),
        ("bps-capacity=1000000", X),
        ("channel-lifetime=600", U),
        ("channel-lifetime=60", X),
        ("permission-lifetime=300", U),
        ("rest-api-separator=:", U),
        ("rest-api-separator=|", T),
        ("rest-api-separator=-", T),
        ("rest-api-separator=1", X),
        ("rest-api-separator=", X),
        ("mobility", T),
        ("mobility=no", U),
        ("mobility=no # yet", U),
        ("allocation-default-address-family=ipv4", U),
        ('allocation-default-address-family="keep"', T),
        ("log-file=stdout", U),
        ("log-file=/var/log/turn.log", T),
        ("no-stun", X),
        ("secure-stun", X),
        ("dtls", U),
        ("no-dtls", U),
        ("tcp-proxy-port=5555", T),
        ("tcp-proxy-port=0", U),
        ("tcp-proxy-port=many", X),
        ("listening-device=eth0", X),
        ("relay-device=none0", X),
        ("oauth", T),
        ("oauth=no", U),
        ("server-name=turn.example.org", U),
        ("proc-user=turnserver", U),
        ("tls-alternate-server=10.0.0.9", X),
        ("CA-file=/ca.pem", X),
        ("tlsv1", X),
    ],
)
def test_what_is_not_done_and_what_needs_not_be(line: str, outcome: Outcome) -> None:
    assert kinds(line) == [outcome]


@pytest.mark.parametrize(
    ("line", "software", "rfc3489"),
    [
        ("no-software-attribute", False, False),
        ("prod", False, False),
        ("software-attribute", True, False),
        ("software-attribute=no", False, False),
        ("stun-backward-compatibility", True, True),
        ("rfc3489-compatibility", True, True),
        ("no-stun-backward-compatibility", True, False),
    ],
)
def test_the_wire(line: str, software: bool, rfc3489: bool) -> None:
    stun = settings_of(line).stun
    assert (stun.software, stun.rfc3489) == (software, rfc3489)


def test_redirection() -> None:
    text = "alternate-server=10.0.0.8\nalternate-server=[fd00::8]:3479\nalternate-server=turn.example.org\n"
    redirect = settings_of(text).redirect
    assert redirect is not None
    assert [str(each) for each in redirect.to] == ["10.0.0.8:3478", "[fd00::8]:3479"]
    assert redirect.when == "always"
    assert kinds(text) == [T, T, X]


def test_nat_discovery() -> None:
    hosts = "listening-ip=203.0.113.7\nlistening-ip=203.0.113.8\n"
    discovery = settings_of(f"{hosts}rfc5780\nalt-listening-port=3480").nat_discovery
    assert discovery is not None
    assert (discovery.primary, discovery.alternate, discovery.port, discovery.alternate_port) == (
        ("203.0.113.7",),
        ("203.0.113.8",),
        3478,
        3480,
    )
    assert settings_of(f"{hosts}rfc5780").nat_discovery is not None
    assert settings_of(f"{hosts}no-rfc5780").nat_discovery is None
    assert settings_of(hosts).nat_discovery is None
    assert "nat_discovery" in notes(hosts)
    assert kinds("rfc5780\nalt-listening-port=3479") == [X, T]
    assert kinds("listening-ip=10.0.0.5\nalt-listening-port=3479") == [T, U]


def test_second_ports_are_served_where_every_address_is() -> None:
    listen = settings_of("alt-listening-port=3479\nalt-tls-listening-port=5350\ncert=/c\npkey=/k").listen
    assert {"udp://*:3479", "tcp://*:3479", "tls://*:5350"} < set(map(str, listen or ()))
    assert settings_of("listening-ip=10.0.0.5\nalt-listening-port=3479").nat_discovery is None


def test_few_ports_bound_the_allocations() -> None:
    limits = settings_of("min-port=50000\nmax-port=50099").limits
    assert (limits.allocations, limits.allocations_per_user) == (100, 100)
    assert settings_of("min-port=50000\nmax-port=50099\ntotal-quota=50").limits.allocations == 50


def test_clients_behind_a_proxy_are_told_of() -> None:
    for text in ("listening-port=443", "listening-ip=127.0.0.1"):
        assert "limits.connections_per_address" in notes(text)
    assert "limits.connections_per_address" not in notes("listening-port=3478")


@pytest.mark.parametrize(
    ("text", "only"),
    [
        (f"{TLS}no-tcp", True),
        (f"{TLS}no-udp\nno-tcp", True),
        (f"{TLS}listening-port=443\ntls-listening-port=443\nno-tcp", True),
        (TLS, False),
        (f"{TLS}no-tcp=0", False),
        (f"{TLS}listening-port=443\ntls-listening-port=443", False),
    ],
)
def test_no_tcp_refuses_plain_tcp_at_the_tls_port_too(text: str, only: bool) -> None:
    tls = settings_of(text).tls
    assert tls is not None
    assert tls.only is only


def test_no_tcp_without_tls_is_about_listeners_alone() -> None:
    assert settings_of("no-tcp").tls is None
    assert settings_of(f"{TLS}no-tcp\nno-tls").tls is None or "tls.only" not in imported(f"{TLS}no-tcp\nno-tls").text


@pytest.mark.parametrize(
    ("text", "family", "outcomes"),
    [
        ("keep-address-family", "client", [T]),
        ("keep-address-family=no", "ipv4", [U]),
        ("allocation-default-address-family=keep", "client", [T]),
        ('allocation-default-address-family="keep"', "client", [T]),
        ("allocation-default-address-family=IPv6", "ipv6", [T]),
        ("allocation-default-address-family=ipv4", "ipv4", [U]),
        ("allocation-default-address-family=both", "ipv4", [X]),
        ("allocation-default-address-family=ipv4\nkeep-address-family", "client", [T, T]),
        ("allocation-default-address-family=both\nkeep-address-family", "client", [X, T]),
    ],
)
def test_the_family_of_who_names_none(text: str, family: str, outcomes: list[Outcome]) -> None:
    assert settings_of(text).relay.default_family == family
    assert kinds(text) == outcomes


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("external-ip=auto", "auto"),
        ("external-ip=turn.example.org", "turn.example.org"),
        ("external-ip=turn.example.org\nexternal-ip=turn.example.org", "turn.example.org"),
        ("external-ip=203.0.113.7", None),
        ("external-ip=turn.example.org\nexternal-ip=203.0.113.7", None),
    ],
)
def test_an_external_address_by_name(text: str, source: str | None) -> None:
    assert settings_of(text).relay.external_source == source


def test_a_log_file_is_taken_with_what_the_unit_needs() -> None:
    assert str(settings_of("log-file=/var/log/turnserver/turn.log").log.file) == "/var/log/turnserver/turn.log"
    assert "ReadWritePaths=/var/log/turnserver)" in notes("log-file=/var/log/turnserver/turn.log")


def test_one_password_has_one_note() -> None:
    told = notes('user="alice:wonderland #x"')
    assert "goes on to the end of the line" in told
    assert "left out as a comment" not in told


@pytest.mark.parametrize("file", ["/dev/stdout", "/dev/stderr", "stdout"])
def test_a_log_on_standard_output_is_not_needed(file: str) -> None:
    assert kinds(f"log-file={file}") == [U]


@pytest.mark.parametrize(
    ("line", "threads"),
    [("relay-threads=4", 4), ("relay-threads=0", 1), ("cpus=2", 2), ("cpus=2\nrelay-threads=3", 3), ("cpus=x", "auto")],
)
def test_threads(line: str, threads: object) -> None:
    assert settings_of(line).pump.threads == threads


def test_metrics() -> None:
    web = settings_of("static-auth-secret=x\nprometheus").web
    assert web is not None
    assert [str(each) for each in web.listen] == ["http://*:9641"]
    assert not web.page
    assert web.signalling is None
    assert len(web.metrics) > 2
    assert settings_of("prometheus=no\nprometheus-port=9000").web is None


@pytest.mark.parametrize(
    "lines", ["prometheus\nprometheus-tls=no", "prometheus=no\nprometheus-tls", "prometheus=no\nprometheus-tls=no"]
)
def test_each_switch_of_the_metrics_gets_a_verdict(lines: str) -> None:
    made = convert(f"static-auth-secret=k3Jd92lsXz0qPpWm\n{lines}\n".encode(), "turnserver.conf", SURROUNDINGS)
    assert [each.line for each in made.report.verdicts] == [1, 2, 3]


def test_metrics_on_loopback_over_tls_and_beside_users() -> None:
    text = f"{TLS}user=a:b\nprometheus-tls\nprometheus-address=127.0.0.1\nprometheus-port=9000\nprometheus-path=/x\n"
    web = settings_of(text).web
    assert web is not None
    assert [str(each) for each in web.listen] == ["https://127.0.0.1:9000"]
    assert [str(each) for each in web.metrics] == ["127.0.0.0/8", "::1"]
    assert kinds(text)[-1] is X


def test_metrics_on_a_port_of_clients_give_way() -> None:
    text = "static-auth-secret=x\nlistening-port=9641\nprometheus\n"
    assert settings_of(text).web is None
    assert kinds(text) == [T, T, X]


def test_status_in_redis() -> None:
    status = settings_of('redis-statsdb="ip=127.0.0.1 dbname=1 password=hush port=6379"').status
    assert status is not None
    assert str(status.redis) == "redis://:**********@127.0.0.1:6379/1"


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("", "info"),
        ("verbose", "info"),
        ("Verbose", "debug"),
        ("log-min-level=error", "error"),
        ("log-min-level=error\nVerbose", "debug"),
        ("Verbose=no", "info"),
    ],
)
def test_the_log(text: str, level: str) -> None:
    assert settings_of(text).log.level == level


def test_defaults_are_left_out() -> None:
    text = "static-auth-secret=x\nlistening-port=3478\nmin-port=49152\ntotal-quota=10000\nuser-quota=12\n"
    lines = [line for line in imported(text).text.splitlines() if line and not line.lstrip().startswith("#")]
    assert lines == ["credentials:", "  secret: x"]


def test_sections_stand_in_the_order_of_the_settings() -> None:
    text = f"verbose\nprometheus\nuser=a:b\nrelay-ip=10.0.0.5\n{TLS}realm=x\nno-tcp\nVerbose\nprod\ntotal-quota=5\n"
    top = [line.partition(":")[0] for line in imported(text).text.splitlines() if line[:1].isalpha()]
    assert top == [name for name in Settings.model_fields if name in top]
    assert len(top) == 9
