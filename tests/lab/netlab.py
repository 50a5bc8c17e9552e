"""A small Internet in network namespaces: one public segment, servers on it, and sites behind NATs of every kind.

Nothing leaves the namespaces. Their names carry the process id and a random part, so that laboratories run side by
side; everything ends with the block that opened it. Public addresses are such that no server refuses them as
special; private ones differ from site to site, as two homes' do.
"""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.lab.routers import PUBLIC_V4, PUBLIC_V6, SERVERS_V4, SERVERS_V6, Kind, rules

T = TypeVar("T")

_OWNER = re.compile(r"tsv(\d+)-")
"""Names of namespaces begin with the process that made them."""
_CLONE_NEWNET = 0x40000000
_COMMAND_SECONDS = 30


def require() -> None:
    """Skip, with the reason, where no laboratory can be built; fail instead under TURNSVR_REQUIRE_ALL=1."""
    reason = _obstacle()
    if reason is None:
        return
    if os.environ.get("TURNSVR_REQUIRE_ALL") == "1":
        pytest.fail(f"no laboratory: {reason}")
    pytest.skip(f"no laboratory: {reason}")


def _obstacle() -> str | None:
    if os.name != "posix" or os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "nft"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    name = f"tsv{os.getpid()}-{secrets.token_hex(3)}"
    rules = "table ip try {\nchain post { type nat hook postrouting priority srcnat; snat to 10.0.0.2; }\n}"
    try:
        _command("ip", "netns", "add", name)
        try:
            _command("ip", "netns", "exec", name, "nft", "-f", "-", stdin=rules)
        finally:
            _command("ip", "netns", "del", name)
    except CommandFailed as error:
        return str(error)
    return None


class CommandFailed(Exception):
    """A program of the laboratory said no; the text is its own."""


def _command(*arguments: str, stdin: str = "") -> str:
    done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, timeout=_COMMAND_SECONDS, check=False)
    if done.returncode:
        raise CommandFailed(f"{' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Node:
    """A namespace, and a thread whose event loop lives in it: what that opens, opens there."""

    def __init__(self, name: str) -> None:
        self.name = name
        _command("ip", "netns", "add", name)
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        try:
            # A tentative link-local address would hold up the first IPv6 packets for a second or two.
            self.sysctl(net__ipv6__conf__default__accept_dad=0, net__ipv6__conf__all__accept_dad=0)
            self.ip("link set lo up")
        except BaseException:
            self.close()
            raise

    def ip(self, *lines: str) -> None:
        """Lines of `ip -batch` in this namespace."""
        _command("ip", "-n", self.name, "-batch", "-", stdin="\n".join(lines) + "\n")

    def nft(self, rules: str) -> None:
        """Load an nftables rule set."""
        _command(*self.inside("nft", "-f", "-"), stdin=rules)

    def sysctl(self, **values: int) -> None:
        """Set kernel parameters of this namespace; `__` stands for a dot."""
        _command(*self.inside("sysctl", "-qw", *(f"{k.replace('__', '.')}={v}" for k, v in values.items())))

    def inside(self, *command: str) -> list[str]:
        """The command line that runs a command in this namespace."""
        return ["ip", "netns", "exec", self.name, *command]

    def output(self, *command: str, patience: float = _COMMAND_SECONDS) -> str:
        """What a command in this namespace prints, whatever its exit status; it is killed when patience ends."""
        process = subprocess.Popen(
            self.inside(*command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        with process:
            try:
                printed, _ = process.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                process.kill()
                printed, _ = process.communicate()
        return printed.decode(errors="replace")

    def start(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Future[T]:
        """Run a coroutine in this namespace."""
        if self._thread is None:
            ready: Future[None] = Future()
            self._thread = threading.Thread(target=self._serve, args=(ready,), name=self.name, daemon=True)
            self._thread.start()
            ready.result(_COMMAND_SECONDS)
        return asyncio.run_coroutine_threadsafe(work(), self._loop)

    def run(self, work: Callable[[], Coroutine[Any, Any, T]], patience: float = 120) -> T:
        """start(), and wait for the result."""
        return self.start(work).result(patience)

    def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> Awaitable[T]:
        """start(), to be awaited in another loop."""
        return asyncio.wrap_future(self.start(work))

    def _serve(self, ready: Future[None]) -> None:
        try:
            _enter(self.name)
        except BaseException as error:
            ready.set_exception(error)
            return
        asyncio.set_event_loop(self._loop)
        ready.set_result(None)
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            self._stopping = asyncio.Event()
            runner.run(self._stopping.wait())

    @contextmanager
    def hosts(self, names: dict[str, Sequence[str]]) -> Iterator[None]:
        """Names with their addresses, for commands in this namespace."""
        directory = Path("/etc/netns") / self.name
        directory.mkdir(parents=True)
        try:
            lines = [f"{address} {name}\n" for name, addresses in names.items() for address in addresses]
            (directory / "hosts").write_text("".join(lines))
            yield
        finally:
            shutil.rmtree(directory)

    def close(self) -> None:
        """End what runs here, and the namespace."""
        if self._thread is not None:
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(_COMMAND_SECONDS)
        else:
            self._loop.close()
        for pid in _command("ip", "netns", "pids", self.name).split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        _command("ip", "netns", "del", self.name)


def _enter(name: str) -> None:
    """Move the calling thread, and the threads it will start, into a namespace; os.setns is too new."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(f"/run/netns/{name}", "rb") as namespace:
        if libc.setns(namespace.fileno(), _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter {name}")


@dataclass(frozen=True)
class Site:
    """A client behind routers; public is the outermost router's address, or the client's own without a NAT."""

    kind: Kind
    client: Node
    routers: list[Node]
    address: str
    public: str
    address_v6: str


class Lab:
    """The public segment: a bridge in the namespace `core`, where the servers run as well."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._prefix = f"tsv{os.getpid()}-{secrets.token_hex(3)}"
        self._hosts = itertools.count(101)
        self._lans = itertools.count(11)
        self.core = self.node("core")
        self.core.ip(
            "link add br0 type bridge",
            "link set br0 up",
            *(f"addr add {address}/24 dev br0" for address in self.servers_v4),
            *(f"addr add {address}/64 dev br0 nodad" for address in self.servers_v6),
        )
        self.core.sysctl(**_FORWARDING, net__ipv4__conf__all__send_redirects=0, net__ipv4__conf__br0__send_redirects=0)

    servers_v4, servers_v6 = SERVERS_V4, SERVERS_V6

    def node(self, name: str, stack: ExitStack | None = None) -> Node:
        """A namespace that ends with the laboratory, or with the stack."""
        node = Node(f"{self._prefix}-{name}")
        (stack or self._stack).callback(node.close)
        return node

    def _attach(self, node: Node, host: int, device: str) -> None:
        """Connect a node to the public segment."""
        port = f"p{host}"
        _command("ip", "link", "add", device, "netns", node.name, "type", "veth", "peer", port, "netns", self.core.name)
        self.core.ip(f"link set {port} master br0 up")
        node.ip(
            f"addr add {PUBLIC_V4}.{host}/24 dev {device}",
            f"addr add {PUBLIC_V6}::{host}/64 dev {device} nodad",
            f"link set {device} up",
            f"route add default via {self.servers_v4[0]}",
            f"route add default via {self.servers_v6[0]}",
        )

    @contextmanager
    def host(self) -> Iterator[tuple[Node, str]]:
        """A host with a public address of its own and nothing in between."""
        with ExitStack() as stack:
            number = next(self._hosts)
            node = self.node(f"h{number}", stack)
            self._attach(node, number, "eth0")
            yield node, f"{PUBLIC_V4}.{number}"

    @contextmanager
    def site(self, kind: Kind, *, hairpin: bool = False, behind: Kind | None = None, extra: str = "") -> Iterator[Site]:
        """A client behind a router of this kind, or behind two; extra are rules for the inner router."""
        with ExitStack() as stack:
            yield self._build(stack, kind, hairpin, behind, extra)

    def _build(self, stack: ExitStack, kind: Kind, hairpin: bool, behind: Kind | None, extra: str) -> Site:
        number, lan = next(self._hosts), next(self._lans)
        client, router = self.node(f"c{number}", stack), self.node(f"r{number}", stack)
        inside = f"8.8.{lan}" if kind in _UNTRANSLATED else f"192.168.{lan}"
        inside_v6 = f"2a0f:7777:1{lan:02}:"
        _join(client, "eth0", router, "lan", inside, inside_v6)
        public, routers = f"{PUBLIC_V4}.{number}", [router]
        router.sysctl(**_FORWARDING)
        if behind is None:
            self._attach(router, number, "wan")
            router.nft(rules(kind, f"{inside}.2", public, hairpin=hairpin) + extra)
        else:
            outer, between = self.node(f"o{number}", stack), f"10.{lan}.0"
            routers.append(outer)
            _join(router, "wan", outer, "lan", between, f"2a0f:7777:2{lan:02}:")
            self._attach(outer, number, "wan")
            outer.sysctl(**_FORWARDING)
            outer.nft(rules(behind, f"{between}.2", public, hairpin=hairpin))
            router.nft(rules(kind, f"{inside}.2", f"{between}.2", hairpin=hairpin) + extra)
        if kind in _UNTRANSLATED:
            self.core.ip(f"route replace {inside}.0/24 via {public}")
            public = f"{inside}.2"
        self.core.ip(f"route replace {inside_v6}:/64 via {PUBLIC_V6}::{number}")
        return Site(kind, client, routers, f"{inside}.2", public, f"{inside_v6}:2")

    @contextmanager
    def one_to_one(self) -> Iterator[Site]:
        """A host behind one-to-one NAT, as in a cloud: every port of a public address is its own; no hairpinning."""
        with ExitStack() as stack:
            number, lan = next(self._hosts), next(self._lans)
            host, router = self.node(f"c{number}", stack), self.node(f"r{number}", stack)
            _join(host, "eth0", router, "lan", f"10.{lan}.0", f"2a0f:7777:1{lan:02}:")
            self._attach(router, number, "wan")
            router.sysctl(**_FORWARDING)
            inside, public = f"10.{lan}.0.2", f"{PUBLIC_V4}.{number}"
            router.nft(
                f"""table ip one_to_one {{
                  chain pre {{ type nat hook prerouting priority dstnat; iifname wan dnat to {inside}; }}
                  chain post {{ type nat hook postrouting priority srcnat; oifname wan snat to {public}; }}
                }}"""
            )
            yield Site(Kind.FULL_CONE, host, [router], inside, public, f"2a0f:7777:1{lan:02}::2")


_UNTRANSLATED = (Kind.OPEN, Kind.FIREWALL)
_FORWARDING = {"net__ipv4__ip_forward": 1, "net__ipv6__conf__all__forwarding": 1}


def _join(inner: Node, device: str, outer: Node, outer_device: str, v4: str, v6: str) -> None:
    """A private link: .1 is the outer node, .2 the inner one, whose default route it is."""
    _command(
        "ip", "link", "add", device, "netns", inner.name, "type", "veth", "peer", outer_device, "netns", outer.name
    )
    outer.ip(
        f"addr add {v4}.1/24 dev {outer_device}",
        f"addr add {v6}:1/64 dev {outer_device} nodad",
        f"link set {outer_device} up",
    )
    inner.ip(
        f"addr add {v4}.2/24 dev {device}",
        f"addr add {v6}:2/64 dev {device} nodad",
        f"link set {device} up",
        f"route add default via {v4}.1",
        f"route add default via {v6}:1",
    )


@contextmanager
def laboratory() -> Iterator[Lab]:
    """A laboratory; everything in it ends with the block. What a killed process left behind goes first."""
    for name in leftovers():
        if not Path(f"/proc/{_OWNER.match(name)[1]}").exists():  # type: ignore[index]
            _command("ip", "netns", "del", name)
    with ExitStack() as stack:
        yield Lab(stack)


def leftovers() -> list[str]:
    """Namespaces of any laboratory, this process's own and others'."""
    names = (line.split()[0] for line in _command("ip", "netns", "list").splitlines() if line.strip())
    return [name for name in names if _OWNER.match(name)]
