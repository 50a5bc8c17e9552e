"""How the settings file writes addresses and ranges: listeners, servers, address ranges, port ranges.

Values are frozen; `str()` of each writes what its `parse` reads. Errors are BadValue.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from turnsvr.config.units import BadValue

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
ListenTransport: TypeAlias = Literal["udp", "tcp", "tls", "dtls"]

EVERY_ADDRESS = "*"
AUTO = "auto"
"""The external address that is found by itself."""
STUN_PORT = 3478
STUN_TLS_PORT = 5349

LISTEN_PATTERN = r"^(udp|tcp|tls|dtls)://(\*|\[[0-9a-fA-F:.%\w]+\]|[0-9.]+)(:[0-9]{1,5})?$"
PORT_RANGE_PATTERN = r"^[0-9]{1,5} ?- ?[0-9]{1,5}$"

_LISTEN = re.compile(r"(udp|tcp|tls|dtls)://(\*|\[[^\[\]]+\]|[^:\[\]/]+)(?::([0-9]{1,5}))?", re.IGNORECASE)
_ENDPOINT = re.compile(r"(\[[^\[\]]+\]|[^:\[\]/]+)(?::([0-9]{1,5}))?")
_PORT_RANGE = re.compile(r"([0-9]{1,5})(?: ?- ?([0-9]{1,5}))?")
_PEER_PORTS = re.compile(r"(\[[^\[\]]+\]|[^:\[\]]+(?=:))(?::([0-9]{1,5} ?(?:- ?[0-9]{1,5})?))?")
_STUN_SERVER = re.compile(r"(?:stun:)?(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})(?::([0-9]{1,5}))?", re.IGNORECASE)
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST_NAME = re.compile(rf"(?=.{{1,253}}\.?$)(?:{_LABEL}\.)+(?=[A-Za-z]){_LABEL}\.?")
_MAX_PORT = 65_535
_DOCUMENTATION = tuple(
    map(ipaddress.ip_network, ("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24", "2001:db8::/32", "3fff::/20"))
)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where clients are served: host an IP address or `*` (every one of both families), port 0 any free one.

    An optional one may be left out when the host lacks its address family.
    """

    transport: ListenTransport
    host: str
    port: int
    optional: bool = False

    @classmethod
    def parse(cls, value: object) -> ListenAddress:
        if isinstance(value, cls):
            return value
        match = _match(_LISTEN, value)
        if match is None:
            raise BadValue(
                "is not a listening address",
                "write udp://, tcp://, tls:// or dtls://, address and port, as udp://0.0.0.0:3478 or tcp://[::]:3478",
            )
        transport = _LISTEN_TRANSPORTS[match[1].lower()]
        host = EVERY_ADDRESS if match[2] == EVERY_ADDRESS else parse_host(match[2].strip("[]"))
        default = STUN_TLS_PORT if transport in ("tls", "dtls") else STUN_PORT
        return cls(transport, host, _port(match[3], default, lowest=0))

    @property
    def is_datagram(self) -> bool:
        """Whether it takes a UDP port; those of one address share it, and TCP and TLS share the other."""
        return self.transport in ("udp", "dtls")

    @property
    def needs_certificate(self) -> bool:
        return self.transport in ("tls", "dtls")

    def expand(self) -> tuple[ListenAddress, ...]:
        """This address, or for `*` the wildcard address of each family, the IPv6 one first and both optional."""
        if self.host != EVERY_ADDRESS:
            return (self,)
        return tuple(ListenAddress(self.transport, host, self.port, optional=True) for host in ("::", "0.0.0.0"))

    def __str__(self) -> str:
        return f"{self.transport}://{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerAddress:
    """Another server: host an IP address, port 1..65535 (3478 when not written)."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> ServerAddress:
        if isinstance(value, cls):
            return value
        match = _match(_ENDPOINT, value)
        if match is None:
            raise BadValue("is not an address and port", "write 203.0.113.7:3478 or [2001:db8::7]:3478")
        return cls(parse_host(match[1].strip("[]")), _port(match[2], STUN_PORT, lowest=1))

    def __str__(self) -> str:
        return f"{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class StunServer:
    """A STUN server to ask over UDP: host a name or an IP address, port 1..65535 (3478 when not written)."""

    host: str
    port: int

    @classmethod
    def parse(cls, value: object) -> StunServer:
        if isinstance(value, cls):
            return value
        match = _match(_STUN_SERVER, value)
        if match is None:
            raise BadValue("is not a STUN server", "write stun:stun.example.org, with :PORT where it is not 3478")
        host = parse_host(match[1].strip("[]")) if match[1].startswith("[") else match[1].lower()
        return cls(host, _port(match[2], STUN_PORT, lowest=1))

    def __str__(self) -> str:
        return f"stun:{_bracketed(self.host)}:{self.port}"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Ports low..high, both included, 1..65535."""

    low: int
    high: int

    @classmethod
    def parse(cls, value: object) -> PortRange:
        if isinstance(value, cls):
            return value
        match = _match(_PORT_RANGE, value)
        if match is None:
            raise BadValue("is not a port range", "write the lowest and the highest port: 49152-65535")
        low = _port(match[1], 0, lowest=1)
        high = _port(match[2], low, lowest=1)
        if low > high:
            raise BadValue("begins above its end", f"write {high}-{low}")
        return cls(low, high)

    def __len__(self) -> int:
        return self.high - self.low + 1

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Addresses first..last, both included, of one family."""

    first: IPAddress
    last: IPAddress

    @classmethod
    def parse(cls, value: object) -> AddressRange:
        """The range that `10.1.0.0/16`, `10.1.0.1-10.1.0.9` or one address states."""
        if isinstance(value, cls):
            return value
        if not isinstance(value, str) or "%" in value:
            raise _bad_range()
        text = value.strip()
        if "/" in text:
            return cls._of_network(text)
        low, dash, high = text.partition("-")
        first = _range_end(low)
        last = _range_end(high) if dash else first
        if first.version != last.version:
            raise BadValue("joins an IPv4 and an IPv6 address", "write one range for each family")
        if int(first) > int(last):
            raise BadValue("begins above its end", f"write {last}-{first}")
        return cls(first, last)

    @classmethod
    def _of_network(cls, text: str) -> AddressRange:
        try:
            network = ipaddress.ip_network(text, strict=False)
            address = ipaddress.ip_address(text.partition("/")[0])
        except ValueError:
            raise _bad_range() from None
        if address != network.network_address:
            raise BadValue("has bits set after its prefix", f"write {network} or {address}")
        return cls(network[0], network[-1])

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.first.version

    def __contains__(self, address: IPAddress) -> bool:
        return address.version == self.version and int(self.first) <= int(address) <= int(self.last)

    def overlaps(self, other: AddressRange) -> bool:
        return (
            self.version == other.version and int(self.first) <= int(other.last) and int(other.first) <= int(self.last)
        )

    def __str__(self) -> str:
        if self.first == self.last:
            return str(self.first)
        span = int(self.first) ^ int(self.last)
        if span & (span + 1) == 0 and int(self.first) & span == 0:
            return f"{self.first}/{self.first.max_prefixlen - span.bit_length()}"
        return f"{self.first}-{self.last}"


@dataclass(frozen=True, slots=True)
class PeerRange:
    """Addresses, with every port; or one address with some ports, which are named then."""

    addresses: AddressRange
    ports: PortRange | None = None

    @classmethod
    def parse(cls, value: object) -> PeerRange:
        """What an AddressRange may be, or an address and ports: `10.1.0.5:10000-20000`, `[2001:db8::5]:4000`."""
        if isinstance(value, cls):
            return value
        if isinstance(value, AddressRange):
            return cls(value)
        match = _match(_PEER_PORTS, value)
        if match is None:
            return cls(AddressRange.parse(value))
        host, ports = match[1].strip("[]"), match[2]
        if "/" in host or "-" in host:
            raise BadValue("gives ports to a range", "name ports of one address: 10.1.0.5:10000-20000")
        return cls(AddressRange.parse(host), None if ports is None else PortRange.parse(ports))

    @property
    def is_single(self) -> bool:
        """Whether it is one address, which alone can name this host."""
        return self.addresses.first == self.addresses.last

    def __str__(self) -> str:
        if self.ports is None:
            return str(self.addresses)
        low, high = self.ports.low, self.ports.high
        return f"{_bracketed(str(self.addresses))}:{low if low == high else self.ports}"


_LISTEN_TRANSPORTS: dict[str, ListenTransport] = {"udp": "udp", "tcp": "tcp", "tls": "tls", "dtls": "dtls"}


def parse_host(value: object) -> str:
    """An IP address in canonical text; a link-local IPv6 address may carry its zone."""
    try:
        return str(ipaddress.ip_address(value.strip() if isinstance(value, str) else ""))
    except ValueError:
        raise BadValue("is not an IP address", "write it as 203.0.113.7 or 2001:db8::7") from None


def parse_unicast_host(value: object) -> str:
    """As parse_host, for an address that one host can have."""
    host = parse_host(value)
    address = ipaddress.ip_address(host)
    if address.is_unspecified or address.is_multicast:
        raise BadValue("is no address of one host", "write it as 203.0.113.7 or 2001:db8::7")
    return host


def parse_external_source(value: object) -> str | None:
    """`auto` or a DNS name in lower case, where a text is one of them; None for anything else."""
    text = value.strip().lower() if isinstance(value, str) else ""
    return text.removesuffix(".") if text == AUTO or _HOST_NAME.fullmatch(text) else None


def could_be_public(host: str) -> bool:
    """Whether hosts elsewhere could reach this IP address: it is one of the Internet's, or stands for one in examples.

    Documentation ranges pass, which laboratories use: only an operator could have meant them.
    """
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.is_multicast or address.is_unspecified:
        return False
    return address.is_global or any(address in each for each in _DOCUMENTATION)


def _match(form: re.Pattern[str], value: object) -> re.Match[str] | None:
    """Of a text in this form, white space around it left out; None for anything else."""
    return form.fullmatch(value.strip()) if isinstance(value, str) else None


def _range_end(text: str) -> IPAddress:
    try:
        return ipaddress.ip_address(text.strip())
    except ValueError:
        raise _bad_range() from None


def _bad_range() -> BadValue:
    return BadValue("is not an address range", "write 10.1.0.0/16, 10.1.0.1-10.1.0.9 or one address")


def _port(text: str | None, default: int, *, lowest: int) -> int:
    port = default if text is None else int(text)
    if not lowest <= port <= _MAX_PORT:
        raise BadValue("has a port that does not exist", f"ports are {lowest} to {_MAX_PORT}")
    return port


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
