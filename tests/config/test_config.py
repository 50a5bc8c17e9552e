"""Mistakes in a settings file: all of them, each with its line and what would be right, none with a secret."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from turnsvr.config import ConfigError, load, loads
from turnsvr.config.settings import Settings

HUSH = "hush-hush-3f9c"
SECRET = "credentials: {secret: enough for a test}\n"


def mistakes(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        loads(text, "turnsvr.yaml", environ=environ)
    lines = str(caught.value).splitlines()
    assert len(lines) == len(caught.value.mistakes)
    return lines


def settings_of(text: str, **environ: str) -> Settings:
    return loads(text, "turnsvr.yaml", environ=environ)


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("limits:\n  allocatons: 5\n", '2: limits.allocatons: unknown setting; did you mean "allocations"?'),
        ("Realm: x\n", '1: Realm: unknown setting; did you mean "realm"?'),
        ("stun-only: true\n", '1: stun-only: unknown setting; did you mean "stun_only"?'),
        ("\nsecret: x\n", '2: secret: unknown setting; did you mean "credentials.secret"?'),
        ("log: {volume: 11}", "1: log.volume: unknown setting; known here: format, level, file"),
        ("limits: {allocations: many}", "1: limits.allocations: is no whole number; write digits alone"),
        ("limits: {allocations: on}", "1: limits.allocations: is no whole number; write digits alone"),
        ("limits: {allocations: 0x10}", "1: limits.allocations: is no whole number; write digits alone"),
        ("limits: {allocations: 1.5}", "1: limits.allocations: is no whole number; write digits alone"),
        ("limits: {allocations: 0}", "1: limits.allocations: is too small; the least is 1"),
        ("limits: {allocations: 5000000}", "1: limits.allocations: is too large; the most is 1000000"),
        ("limits: {allocations: [5]}", "1: limits.allocations: is no whole number; write digits alone"),
        ("limits: {allocations: }", "1: limits.allocations: is no whole number; write digits alone"),
        (
            "limits:\n  lifetime: 12:30",
            "2: limits.lifetime: is not a duration; write it as 30s, 10m, 1h, 1h30m or as a number of seconds",
        ),
        ("limits: {lifetime: 1s}", "1: limits.lifetime: is too small; the least is 60"),
        (
            "limits: {bandwidth_per_allocation: 500}",
            "1: limits.bandwidth_per_allocation: is not a bandwidth; "
            "write it with its unit: 4 Mbit/s, 500 kbit/s or 500 kB/s",
        ),
        ("stun_only: maybe", "1: stun_only: is neither yes nor no; write true or false"),
        ("stun_only: []", "1: stun_only: is neither yes nor no; write true or false"),
        ("log: {level: loud}", "1: log.level: is none of the known values; write debug, info, warning or error"),
        ("realm: [a]", "1: realm: has no text; write its value after the colon"),
        ("realm:", "1: realm: has no text; write its value after the colon"),
        ('realm: ""', "1: realm: is no realm; write a name such as example.org, at most 127 characters, no quotes"),
        ("relay: here", "1: relay: is no group of settings; write name: value lines below it"),
        ("relay: [a]", "1: relay: is no group of settings; write name: value lines below it"),
        ("just text", "1: is no group of settings; write name: value lines below it"),
        ("- realm: x", "1: is no group of settings; write name: value lines below it"),
        (
            "peers:\n  allow:\n    - 10.0.0.0/8\n    - 10.0.0.1/8",
            "4: peers.allow[1]: has bits set after its prefix; write 10.0.0.0/8 or 10.0.0.1",
        ),
        (
            "peers: {allow: {a: b}}",
            "1: peers.allow: is no list; write [first, second], or each on a line of its own after a dash",
        ),
        ("listen: []", "1: listen: is empty; name at least one"),
        (
            "listen:\n- udp://localhost:3478",
            "2: listen[0]: is not an IP address; write it as 203.0.113.7 or 2001:db8::7",
        ),
        ("tls:\n  certificate: x", "1: tls.key: is missing; add it"),
        ("tls: {certificate: , key: x}", "1: tls.certificate: has no text; write its value after the colon"),
        ("relay: {ports: 9-2}", "1: relay.ports: begins above its end; write 2-9"),
        (
            "relay:\n  external:\n    10.0.0.5: public",
            "3: relay.external.10.0.0.5: is not an IP address; write it as 203.0.113.7 or 2001:db8::7",
        ),
        (
            "relay:\n  external:\n    inside: 203.0.113.7",
            "3: relay.external.inside: is not an IP address; write it as 203.0.113.7 or 2001:db8::7",
        ),
        (
            "relay: {external: [203.0.113.7, 203.0.113.8]}",
            "1: relay.external: names two addresses of one family; write at most one IPv4 and one IPv6 address",
        ),
        (
            "relay:\n  external:\n    10.0.0.5: 203.0.113.7\n    10.0.0.6: 203.0.113.7",
            "2: relay.external: gives one address to two relay addresses; give each an external address of its own",
        ),
        (
            "relay:\n  external: {fd00::5: '2001:db8::7', 'fd00::6': '2001:DB8:0::7'}",
            "2: relay.external: gives one address to two relay addresses; give each an external address of its own",
        ),
        (
            "peers:\n  allow: [10.0.0.0/24, '10.0.0.0/24:5']",
            "2: peers.allow[1]: gives ports to a range; name ports of one address: 10.1.0.5:10000-20000",
        ),
        (
            "peers:\n  allow: ['10.0.0.5:70000']",
            "2: peers.allow[0]: has a port that does not exist; ports are 1 to 65535",
        ),
        (
            "peers:\n  deny: ['10.0.0.5:5']",
            "2: peers.deny[0]: is not an address range; write 10.1.0.0/16, 10.1.0.1-10.1.0.9 or one address",
        ),
        (
            "relay: {addresses: [10.0.0.5, 10.0.0.5]}",
            "1: relay.addresses: names one address twice; name each address once",
        ),
        ("credentials:\n  secret: ''", "2: credentials.secret[0]: is empty; make one with: turnsvr secret"),
        (
            "credentials: {secret: a, secrets: [b]}",
            "1: credentials: names both secret and secrets; list them all under secrets",
        ),
        (
            "credentials:\n  users:\n    alice: 0x12",
            "3: credentials.users.alice: begins with 0x but is no key; "
            "a key has 32 (MD5) or 64 (SHA-256) hex digits of user:realm:password",
        ),
        (
            "credentials: {users: {alice: }}",
            "1: credentials.users.alice: has no text; write its value after the colon",
        ),
        (
            'credentials: {users: {"a\\nb": c}}',
            "1: credentials.users.'a\\nb': is no user name; write 1 to 508 bytes without control characters",
        ),
        (
            "pump: {threads: many}",
            "1: pump.threads: is no number of threads; write auto (one a core) or a number from 1 to 1024",
        ),
        ("redirect: {to: []}", "1: redirect.to: is empty; name at least one"),
        (
            "nat_discovery: {primary: 203.0.113.7, port: 3479}",
            "1: nat_discovery: has one port twice; port and alternate_port differ",
        ),
    ],
)
def test_a_value_that_is_wrong(text: str, mistake: str) -> None:
    assert mistakes(text) == [f"turnsvr.yaml:{mistake}"]


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("realm: a\nrealm: b\n", "2: realm: stands twice, first in line 1; keep one"),
        ("limits: {lifetime: 1h, lifetime: 1h}", "1: limits.lifetime: stands twice, first in line 1; keep one"),
        ("realm: a: b", "1: is no YAML: mapping values are not allowed here; "),
        ("log:\n\tlevel: info", "2: is no YAML: found character '\\t' that cannot start any token, "),
        ("listen: [a, b\nrealm: x", "2: is no YAML: expected ',' or ']', but got ':', "),
        ('realm: "x', "1: is no YAML: found unexpected end of stream, "),
        ("---\nrealm: a\n---\nrealm: b", "3: begins a second document; one file holds one server's settings"),
        ("realm: *a", "1: is no YAML: an alias or anchor fits nothing; "),
        ('realm: "\\UFFFFFFFF"', "1: is no YAML: an escape or directive makes no sense"),
        ("realm: x\x07", "1: has a character that YAML does not allow"),
        ("realm: x\n\nlog: \x00", "3: has a character that YAML does not allow"),
        ("<<: {realm: x}", "1: <<: merges with <<, which is not known here; write the settings out"),
        ("? [a]\n: b", "1: ?: has a name that is no text; write name: value"),
        ("realm: !!binary eA==", "1: realm: has an unknown tag; known are !env and !file; "),
        ("realm: !!python/object:os.system x", "1: realm: has an unknown tag; "),
        ("limits: !!set {a}", "1: limits: has an unknown tag; "),
        ("realm: x\nlisten: &a [*a]", "2: listen[0]: contains itself; an alias cannot name what it stands in"),
        ("[" * 5000, "1: is nested too deeply"),
        ("a: " * 3 + "{a: " * 50, "1: is n"),
    ],
)
def test_a_text_that_is_no_settings_file(text: str, mistake: str) -> None:
    assert mistakes(text)[0].startswith(f"turnsvr.yaml:{mistake}")


def test_all_mistakes_are_told_at_once_in_the_order_of_their_lines() -> None:
    text = "limits:\n  allocations: x\n  lifetme: 1h\nlog: {level: loud}\nstun: {rfc3489: x}\nrealm: !env NOWHERE\n"
    assert [line.split(": ")[:2] for line in mistakes(text)] == [
        ["turnsvr.yaml:2", "limits.allocations"],
        ["turnsvr.yaml:3", "limits.lifetme"],
        ["turnsvr.yaml:4", "log.level"],
        ["turnsvr.yaml:5", "stun.rfc3489"],
        ["turnsvr.yaml:6", "realm"],
    ]


def test_a_mistake_carries_its_parts() -> None:
    with pytest.raises(ConfigError) as caught:
        loads("limits:\n  allocatons: 5\n", "turnsvr.yaml")
    mistake = caught.value.mistakes[0]
    assert (mistake.file, mistake.line, mistake.setting) == ("turnsvr.yaml", 2, "limits.allocatons")
    assert (mistake.problem, mistake.hint) == ("unknown setting", 'did you mean "allocations"?')


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "realm: x\n", "credentials: {nonce_lifetime: 1h}\n", "credentials:\n"]
)
def test_a_file_needs_credentials(text: str) -> None:
    (mistake,) = mistakes(text)
    assert "credentials: are missing, so no client could relay; add" in mistake
    assert "turnsvr secret" in mistake
    assert "stun_only: true" in mistake


def test_stun_only_needs_none() -> None:
    assert settings_of("stun_only: true").stun_only


def test_both_kinds_of_credentials_stand_side_by_side() -> None:
    credentials = settings_of("credentials: {secrets: [new, old], users: {alice: wonderland}}").credentials
    assert [secret.get_secret_value() for secret in credentials.secrets] == ["new", "old"]
    assert credentials.users["alice"].get_secret_value() == "wonderland"


def test_an_empty_section_is_its_default() -> None:
    assert settings_of(SECRET + "limits:\nlog: ~\nrelay: {}\ntls:\nlisten:\n").limits == Settings().limits


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("listen: ['udp://*', 'tls://*']", '2: listen[1]: needs a certificate; add "tls: {certificate: …, key: …}"'),
        (
            "listen:\n- udp://127.0.0.1\n- udp://127.0.0.1:3478",
            "4: listen[1]: listens where udp://127.0.0.1:3478 already does; keep one of them",
        ),
        (
            "listen: ['udp://*', 'udp://0.0.0.0']",
            "2: listen[1]: listens where udp://*:3478 already does; keep one of them",
        ),
        (
            "tls: {certificate: a, key: b}\nlisten: ['tcp://*:443', 'tls://*:443']",
            "3: listen[1]: takes the port of tcp://*:443; keep one of them: a listener tells TLS from TCP itself",
        ),
        (
            "relay: {addresses: 10.0.0.5, external: {10.0.0.6: 203.0.113.7}}",
            "2: relay.external.10.0.0.6: is not among relay.addresses; add it there or correct it",
        ),
        (
            "relay: {addresses: [10.0.0.5, 10.0.0.6], external: {10.0.0.5: 10.0.0.6}}",
            "2: relay.external.10.0.0.5: gives out another of relay.addresses; "
            "give each an external address of its own",
        ),
        (
            "relay: {addresses: [10.0.0.5, 10.0.0.6], external: 203.0.113.7}",
            "2: relay.external: fits several relay addresses of its family; write relay address: external address",
        ),
        (
            "relay: {addresses: [10.0.0.5], external: '2001:db8::7'}",
            "2: relay.external: fits no relay address of its family; write relay address: external address",
        ),
        (
            "realm: a\nrealms: {a: {origins: https://a.example}}",
            "3: realms.a: has the name of the default realm; "
            "rename it, or write its credentials, peers and limits outside of realms",
        ),
        (
            "realms:\n  a: {origins: https://x.example}\n  b:\n    origins: [https://y.example, 'HTTPS://X.example:443/']",
            "5: realms.b.origins[1]: chooses the realm a already; keep it in one realm",
        ),
        (
            "realms: {a: {listen: 'udp://*:3480'}}",
            '2: realms.a.listen[0]: is not among the listeners; add "udp://*:3480" to listen',
        ),
        (
            "listen: [udp://192.0.2.1]\nrealms: {a: {listen: tcp://192.0.2.1}}",
            '3: realms.a.listen[0]: is not among the listeners; add "tcp://192.0.2.1:3478" to listen',
        ),
        (
            "realms:\n  a: {listen: 'udp://*'}\n  b: {listen: 'udp://0.0.0.0'}",
            "4: realms.b.listen[0]: chooses the realm a already; keep it in one realm",
        ),
        (
            "listen: ['udp://*:0']\nrealms: {a: {listen: 'udp://*:0'}}",
            "3: realms.a.listen[0]: has no port, so that it chooses nothing; write the port",
        ),
    ],
)
def test_settings_that_contradict_each_other(text: str, mistake: str) -> None:
    assert mistakes(SECRET + text) == [f"turnsvr.yaml:{mistake}"]


def test_the_same_port_for_udp_and_tcp_and_any_free_port_twice_are_fine() -> None:
    assert settings_of(SECRET + "listen: ['udp://*', 'tcp://*', 'udp://127.0.0.1:0', 'udp://127.0.0.1:0']").listen


@pytest.mark.parametrize(
    "text",
    [
        "realms: {a: {origins: https://x.example}, b: {origins: ['http://x.example', 'https://x.example:444']}}",
        "realms: {a: {listen: 'udp://*'}, b: {listen: 'tcp://*'}}",
        "tls: {certificate: a, key: b}\nrealms: {a: {listen: 'tls://*'}, b: {listen: ['udp://[::]', 'tcp://0.0.0.0']}}",
        "nat_discovery: {primary: 192.0.2.1}\nrealms: {a: {listen: 'udp://*'}, b: {listen: udp://192.0.2.1:3479}}",
    ],
)
def test_realms_that_are_told_apart(text: str) -> None:
    assert list(settings_of(SECRET + text).realms) == ["a", "b"]


def test_users_of_another_realm_are_credentials() -> None:
    assert settings_of("realms: {a: {origins: https://a.example, credentials: {secret: enough for a test}}}").realms


@pytest.mark.parametrize("word", ["on", "yes", "true", "True", "ON"])
def test_switches_on(word: str) -> None:
    assert settings_of(f"stun_only: {word}\nstun: {{rfc3489: '{word}'}}").stun.rfc3489


@pytest.mark.parametrize("word", ["off", "no", "false", "n", "OFF"])
def test_switches_off(word: str) -> None:
    assert not settings_of(SECRET + f"pump: {{gso: {word}}}").pump.gso


@pytest.mark.parametrize("word", ["no", "on", "0755", "12:30", "1_000", "1e3", "2026-01-01", "=", ".inf", "0o17", "<<"])
def test_a_text_is_what_was_written(word: str) -> None:
    settings = settings_of(f"realm: {word}\ncredentials: {{users: {{alice: {word}}}, secret: {word}}}")
    assert settings.realm == word
    assert settings.credentials.users["alice"].get_secret_value() == word
    assert settings.credentials.secrets[0].get_secret_value() == word


@pytest.mark.parametrize("name", ["on", "no", "123", "12:30", "null", "~", "0x10"])
def test_a_name_is_what_was_written(name: str) -> None:
    assert list(settings_of(f"credentials: {{users: {{{name}: wonderland}}}}").credentials.users) == [name]


def test_leading_zeros_are_no_octal() -> None:
    assert settings_of(SECRET + "limits: {connections: 0100}").limits.connections == 100


def test_aliases_repeat_a_value() -> None:
    settings = settings_of("credentials: {users: {alice: &p wonderland, bob: *p}}")
    assert settings.credentials.users["bob"].get_secret_value() == "wonderland"


def test_aliases_are_bounded() -> None:
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "holds too many values, counting each use of an alias" in mistakes("\n".join(levels))[0]


def test_a_value_from_the_environment() -> None:
    settings = settings_of(
        "credentials: {secret: !env TURN_SECRET}\nlimits: {allocations: !env COUNT}\nlisten: !env LISTEN",
        TURN_SECRET=HUSH,
        COUNT="7",
        LISTEN="udp://127.0.0.1, tcp://127.0.0.1",
    )
    assert settings.credentials.secrets[0].get_secret_value() == HUSH
    assert settings.limits.allocations == 7
    assert len(settings.listeners()) == 2


def test_an_unset_variable_is_named_and_nothing_else_complained_of() -> None:
    assert mistakes("credentials:\n  secret: !env TURN_SECRET\n") == [
        "turnsvr.yaml:2: credentials.secret: takes the environment variable TURN_SECRET, which is not set"
    ]


def test_an_empty_variable_is_an_empty_secret() -> None:
    assert "is empty" in mistakes("credentials: {secret: !env TURN_SECRET}", TURN_SECRET="")[0]


def test_no_variable_name() -> None:
    assert mistakes(f"credentials: {{secret: !env '{HUSH}'}}") == [
        "turnsvr.yaml:1: credentials.secret: has no variable's name after !env; write !env NAME"
    ]


@pytest.mark.parametrize(("content", "secret"), [("x y\n", "x y"), ("x\r\n", "x"), ("x", "x"), ("x\n\n", "x\n")])
def test_a_value_from_a_file_beside_it(tmp_path: Path, content: str, secret: str) -> None:
    (tmp_path / "secret").write_bytes(content.encode())
    (tmp_path / "turnsvr.yaml").write_text("credentials: {secret: !file secret}")
    settings = load(tmp_path / "turnsvr.yaml", environ={})
    assert settings.credentials.secrets[0].get_secret_value() == secret


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file or directory"),
        (b"\xff\xfe", "is no UTF-8 text"),
        (b"x" * 70_000, "is larger"),
    ],
)
def test_a_file_that_gives_no_value(tmp_path: Path, content: bytes | None, reason: str) -> None:
    if content is not None:
        (tmp_path / "secret").write_bytes(content)
    (tmp_path / "turnsvr.yaml").write_text("realm: x\ncredentials:\n  secret: !file secret")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "turnsvr.yaml", environ={})
    assert f"turnsvr.yaml:3: credentials.secret: takes the file 'secret', which {reason}" in str(caught.value)


def test_a_directory_gives_no_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        loads("credentials: {secret: !file .}", "x", directory=tmp_path)


def test_certificates_stand_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "turnsvr.yaml").write_text(SECRET + "tls: {certificate: c.pem, key: /etc/k.pem}")
    tls = load(tmp_path / "turnsvr.yaml", environ={}).tls
    assert tls is not None
    assert (tls.certificate, tls.key) == (tmp_path / "c.pem", Path("/etc/k.pem"))


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    (tmp_path / "turnsvr.yaml").write_bytes(b"\xef\xbb\xbfstun_only: true")
    assert load(tmp_path / "turnsvr.yaml").stun_only


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file or directory$"):
        load(tmp_path / "nowhere.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load(tmp_path)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"realm: x\n\nlog: \xff\n")
    with pytest.raises(ConfigError, match=r"x\.yaml:3: is no UTF-8 text"):
        load(tmp_path / "x.yaml")


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"#" * (5 * 1_048_576))
    with pytest.raises(ConfigError, match="is larger than"):
        load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    "text",
    [
        f"credentials: {{secret: {{a: {HUSH}}}}}",
        f"credentials: {{secret: [[{HUSH}]]}}",
        f"credentials: {{secrets: {{a: {HUSH}}}}}",
        f"credentials: {HUSH}",
        f"credentials: [{HUSH}]",
        f"credentials: {{users: {HUSH}}}",
        f"credentials: {{users: [{HUSH}]}}",
        f"credentials: {{users: {{alice: 0x{HUSH}}}}}",
        f"credentials: {{users: {{alice: [{HUSH}]}}}}",
        f"credentials: {{secret: *{HUSH}}}",
        f"credentials: {{secret: !{HUSH} x}}",
        f"credentials: {{secret: !a{HUSH}!b x}}",
        f"credentials: {{secret: &{HUSH} a, x: &{HUSH} b}}",
        f"credentials: {{secret: {HUSH}, secret: {HUSH}}}",
        f"credentials: {{secret: {HUSH}, secrets: [{HUSH}]}}",
        f"credentials: {{secret: '{HUSH}}}",
        f'credentials: {{secret: "\\q{HUSH}"}}',
        f"credentials: {{secret: @{HUSH}}}",
        f"credentials: {{secret: %{HUSH}}}",
        f"credentials: {{secret: {HUSH}: {HUSH}}}",
        f"credentials:\n  secret: {HUSH}\n users: x",
        f"secret: {HUSH}",
        f"realm: |{HUSH}",
        f"limits: {{allocations: {HUSH}, lifetime: {HUSH}, stream_buffer: {HUSH}, answers_per_address: {HUSH}}}",
        f"listen: {HUSH}\nrelay: {{ports: {HUSH}, external: {HUSH}}}",
        f"peers: {{allow: {HUSH}}}\npump: {{threads: {HUSH}}}",
        f"stun: {{software: {HUSH}, channels: {HUSH}}}\nstun_only: {HUSH}\nrealm: '\"{HUSH}'",
    ],
)
def test_no_mistake_repeats_a_value(text: str) -> None:
    assert HUSH not in "\n".join(mistakes(text))


def test_no_traceback_shows_a_value() -> None:
    with pytest.raises(ConfigError) as caught:
        loads(f"credentials: {{secret: [[{HUSH}]]}}", "x")
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


PIECES = st.sampled_from(
    [
        "realm",
        "listen",
        "limits",
        "credentials",
        "secret",
        "users",
        "relay",
        "external",
        "tls",
        "to",
        "x",
        "10.0.0.1",
        ": ",
        ":\n  ",
        "\n",
        "- ",
        "[",
        "]",
        "{",
        "}",
        ", ",
        "&a ",
        "*a",
        "!env ",
        "!!str ",
        "<<",
        "? ",
        "| ",
        "'",
        '"',
        "#",
        "%",
        "\t",
        "---\n",
        "...\n",
        "~",
        "1h",
        "0x12",
        "\\",
        "\\U00110000",
        "%YAML 1.2\n",
        "é",
        "\ufeff",
    ]
)


def never_raises_but_for_mistakes(text: str) -> None:
    try:
        loads(text, "any.yaml", environ={})
    except ConfigError as error:
        mistakes = error.mistakes
    else:
        return
    assert mistakes
    assert all(mistake.line and mistake.line <= len(text.splitlines()) + 1 for mistake in mistakes)


@given(st.text())
@example("\ud800")
@example("\x850")
@example('a: "\\ud800"')
@example("%YAML 9.9\n--- a")
@example(f"%YAML 1.{'9' * 5000}\n--- a")
def test_any_text_is_settings_or_mistakes(text: str) -> None:
    never_raises_but_for_mistakes(text)


@given(st.lists(PIECES, max_size=40).map("".join))
def test_any_yaml_like_text_is_settings_or_mistakes(text: str) -> None:
    never_raises_but_for_mistakes(text)


NAMES = st.sampled_from(["realm", "listen", "tls", "relay", "credentials", "peers", "limits", "stun", "log", "pump"])
INNER = st.sampled_from(["secret", "users", "external", "addresses", "ports", "allow", "threads", "level", "to", "a.b"])
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(INNER, inner, max_size=3)),
    max_leaves=8,
)


@given(st.dictionaries(NAMES, VALUES))
def test_any_values_are_settings_or_mistakes(values: dict[str, object]) -> None:
    never_raises_but_for_mistakes(yaml.safe_dump(values, allow_unicode=True))
