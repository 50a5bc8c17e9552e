"""coturn's own client, turnutils_uclient, as a judge: its cases, how it is called, how its output is read."""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass
from enum import Enum

USER = "ninefingers"
PASSWORD = "youhavetoberealistic"
REALM = "north.gov"

_TOTALS = re.compile(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)")
_LOST = re.compile(r"Total lost packets (-?\d+)")


class Expect(Enum):
    """What the client is to report. Its exit status alone says little: it is 0 also when everything was lost."""

    ALL = "every message came back"
    HALF = "every message of one direction came: it counts no other"
    NOTHING = "it gave up or got nothing"
    BAD_CHANNEL = "its forbidden channel binds were refused with 400"
    ANY = "whatever: it damages its messages, or drops its sockets; the other cases are the verdict"


@dataclass(frozen=True)
class Case:
    """One run of the client. Ports and addresses come from the server that it runs against."""

    name: str
    arguments: str
    expect: Expect = Expect.ALL
    tls: bool = False
    server6: bool = False
    peer6: bool = False
    peer: bool = True
    user: str = USER
    password: str | None = PASSWORD
    messages: int = 20
    clients: int = 1
    length: int = 170

    @property
    def frees_twice(self) -> bool:
        """Whether the client may go on using a cipher that it has freed: where it moves, and before the next opens."""
        return self.tls and "-M" in self.arguments.split()

    @property
    def dtls(self) -> bool:
        return self.tls and "-t" not in self.arguments.split()


CASES = [
    # Client legs and methods, IPv4 both sides, an echoing peer
    Case("udp-channel", "-X"),
    Case("udp-send", "-X -s"),
    Case("tcp-channel", "-t -X"),
    Case("tcp-send", "-t -X -s"),
    Case("tls-channel", "-t -X", tls=True),
    Case("tls-send", "-t -X -s", tls=True),
    Case("dtls-channel", "-X", tls=True),
    Case("dtls-send", "-X -s", tls=True),
    # The server reached over IPv6
    Case("udp-channel-server6", "-X", server6=True),
    Case("tcp-channel-server6", "-t -X", server6=True),
    Case("tls-channel-server6", "-t -X", tls=True, server6=True),
    Case("dtls-channel-server6", "-X", tls=True, server6=True),
    # Relays and peers on IPv6
    Case("udp-relay6", "-x", peer6=True),
    Case("udp-send-relay6", "-x -s", peer6=True),
    Case("udp-relay6-server6", "-x", server6=True, peer6=True),
    Case("tcp-relay6", "-t -x", peer6=True),
    Case("tls-relay6-server6", "-t -x", tls=True, server6=True, peer6=True),
    Case("dtls-relay6", "-x", tls=True, peer6=True),
    # No port pair, DONT-FRAGMENT, padding, extra requests, a bandwidth attribute
    Case("udp-no-rtcp", "-X -c"),
    Case("udp-dont-fragment", "-X -g"),
    Case("udp-dont-fragment-send", "-X -g -s"),
    Case("udp-padding", "-X -D"),
    Case("tcp-padding", "-t -X -D"),
    Case("udp-extra-requests", "-X -G"),
    Case("tcp-extra-requests", "-t -X -G"),
    Case("udp-bandwidth", "-X -a 400000"),
    # Client to client: relay to relay
    Case("udp-client-to-client", "-y -X", peer=False),
    Case("udp-client-to-client-send", "-y -s -X", peer=False),
    Case("tcp-client-to-client", "-t -y -X", peer=False),
    Case("tls-client-to-client", "-t -y -X", tls=True, peer=False),
    Case("dtls-client-to-client", "-y -X", tls=True, peer=False),
    Case("udp-client-to-client-6", "-y -x", server6=True, peer=False),
    # Odd and large sizes
    Case("udp-odd", "-X", length=171),
    Case("udp-1100", "-X", length=1100),
    Case("tcp-3037", "-t -X", length=3037),
    Case("tls-3037", "-t -X", tls=True, length=3037),
    # Dual allocations
    Case("dual-udp", "-Z"),
    Case("dual-udp-peer6", "-Z", peer6=True),
    Case("dual-udp-send", "-Z -s"),
    Case("dual-tcp", "-t -Z"),
    # Access tokens (RFC 7635): the client seals them itself, each with one of three keys
    Case("oauth-udp", "-J -X", user="", password=None),
    Case("oauth-tcp", "-t -J -X", user="", password=None),
    Case("oauth-tls", "-t -J -X", tls=True, user="", password=None),
    Case("oauth-udp-server6", "-J -x", server6=True, peer6=True, user="", password=None),
    # Mobility (RFC 8016): the client goes on from another socket, and closes the former one before or after
    Case("mobile-udp", "-M -X"),
    Case("mobile-udp-send", "-M -X -s"),
    Case("mobile-tcp", "-t -M -X"),
    Case("mobile-tls", "-t -M -X", tls=True),
    Case("mobile-dtls", "-M -X -s", tls=True),
    Case("mobile-udp-server6", "-M -x", server6=True, peer6=True),
    Case("mobile-10-clients", "-M -X", messages=50, clients=10),
    # Not for an allocation for TCP, whose connections would stay behind: 405, and this client gives up
    Case("mobile-tcp-relaying", "-T -M", Expect.NOTHING, tls=True, peer=False),
    # Relaying over TCP (RFC 6062): client to client
    Case("tcp-relaying", "-T", peer=False),
    Case("tcp-relaying-tls", "-T", tls=True, peer=False),
    Case("tcp-relaying-6", "-x -T", server6=True, peer=False),
    Case("tcp-relaying-passive", "-P", Expect.HALF, peer=False),
    Case("tcp-relaying-10-clients", "-T", peer=False, messages=50, clients=10),
    # Many clients
    Case("udp-20-clients", "-X", messages=50, clients=20),
    Case("tcp-20-clients", "-t -X", messages=50, clients=20),
    Case("tls-10-clients", "-t -X", tls=True, messages=50, clients=10),
    Case("dtls-10-clients", "-X", tls=True, messages=50, clients=10),
    # The client's own negative modes
    Case("bad-channels", "-N -X", Expect.BAD_CHANNEL),
    Case("damaged-messages", "-R -X", Expect.ANY),
    Case("after-damaged-messages", "-X"),
    Case("bad-channels-tcp", "-t -N -X", Expect.BAD_CHANNEL),
    Case("damaged-messages-tcp", "-t -R -X", Expect.ANY),
    Case("after-damaged-messages-tcp", "-t -X"),
    Case("random-disconnects", "-B -X", Expect.ANY, messages=50, clients=5),
    # What must fail
    Case("wrong-password", "-X", Expect.NOTHING, password="nope", messages=5),
    Case("unknown-user", "-X", Expect.NOTHING, user="nobody", password="nope", messages=5),
    Case("no-credentials", "-X", Expect.NOTHING, user="", password=None, messages=5),
    Case("no-permission", "-I -s -X", Expect.NOTHING),
]


def command(case: Case, *, port: int, tls_port: int, peer_port: int) -> list[str]:
    """The command line of a case against servers and peers on the loopback addresses."""
    line = ["turnutils_uclient", "-p", str(tls_port if case.tls else port)]
    if case.tls:
        line.append("-S")
    if case.password is not None:
        line += ["-u", case.user, "-w", case.password]
    line += ["-n", str(case.messages), "-m", str(case.clients), "-l", str(case.length)]
    if case.peer:
        line += ["-e", "::1" if case.peer6 else "127.0.0.1", "-r", str(peer_port)]
    return [*line, *case.arguments.split(), "::1" if case.server6 else "127.0.0.1"]


def verdict(case: Case, result: subprocess.CompletedProcess[str] | None) -> str | None:
    """What is wrong with a run, or None; result is None where the client had to be stopped."""
    if case.expect is Expect.ANY:
        return None
    if result is None:
        return None if case.expect is Expect.NOTHING else "the client did not end"
    output = result.stdout
    if case.expect is Expect.BAD_CHANNEL:
        return None if "channel bind: error 400" in output else "no channel bind was refused with 400"
    totals = _TOTALS.findall(output)
    sent, received = (int(count) for count in totals[-1]) if totals else (0, 0)
    lost = int(_LOST.findall(output)[-1]) if _LOST.search(output) else 0
    all_came = result.returncode == 0 and sent > 0 and sent == received and lost == 0
    if case.expect is Expect.NOTHING:
        return "messages went through" if result.returncode == 0 and received > 0 else None
    if case.expect is Expect.HALF:
        all_came = result.returncode == 0 and 0 < sent <= 2 * received
    return None if all_came else f"exit status {result.returncode}, sent {sent}, received {received}, lost {lost}"
