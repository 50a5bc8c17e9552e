"""What the rules know, written out as plain values and read back: for a process that goes on where another one ends.

The values are those of JSON. docs/decisions/snapshot.md has the document that they are part of. They hold keys, so they
never go to a disk or into a log. A reader takes nothing that it does not understand: Unreadable says what it was.

Times are seconds on the clock of time.monotonic(), which all processes of a host share.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from binascii import Error as Base64Error
from collections.abc import Sequence
from typing import Final, final

from turnsvr.stun.address import Address, Family, FiveTuple, Transport, family_of, pack_host
from turnsvr.turn.allocation import Allocation
from turnsvr.turn.authentication import MD5, Claim, Key, Proof

Value = object
"""None, bool, int, float, str, or a list or dict of such, as json.loads() gives them."""
Document = dict[str, Value]

_MOVES: Final = "tickets announced left"
_MAX_PORT: Final = 0xFFFF
_TRANSPORTS: Final = {transport.value: transport for transport in Transport}


class Unreadable(ValueError):
    """A value that a snapshot of this version cannot have; the text names it, and no secret."""


@final
class StoredKey:
    """A Key that was proven before."""

    __slots__ = ("md5_key", "quota", "quota_user", "realm", "sha256_key", "shown", "username", "valid_for")

    def __init__(
        self,
        username: str,
        quota_user: str,
        shown: str,
        quota: int | None,
        md5_key: bytes | None,
        sha256_key: bytes | None,
        realm: str | None,
        valid_for: float | None,
    ) -> None:
        self.username: Final = username
        self.quota_user: Final = quota_user
        self.shown: Final = shown
        self.quota: Final = quota
        self.md5_key: Final = md5_key
        self.sha256_key: Final = sha256_key
        self.realm: Final = realm
        self.valid_for: Final = valid_for


def write_allocation(allocation: Allocation, rate: float) -> Document:
    """rate: until when the owner has spent what it may allocate, as State.rates has it."""
    return {
        "number": allocation.number,
        "client": write_five_tuple(allocation.five_tuple),
        "realm": allocation.realm,
        "named_realm": allocation.named_realm,
        "until": allocation.until,
        "key": _write_key(allocation.key),
        "started": allocation.started,
        "transaction": write_bytes(allocation.transaction_id),
        "response": write_bytes(allocation.response),
        "relayed": [[*address, allocation.expires[family]] for family, address in allocation.relayed.items()],
        "permissions": [[host, deadline] for host, deadline in allocation.permissions.items()],
        "channels": [
            [number, *channel.peer, channel.deadline] for number, channel in sorted(allocation.channels.items())
        ],
        "rate": rate,
        **_write_moves(allocation),
    }


def read_allocation(document: Document) -> tuple[Allocation, float]:
    """The allocation, in no table yet, and the rate; as write_allocation() takes them. Raises Unreadable."""
    names = "number client realm named_realm until key started transaction response relayed permissions channels rate"
    check_names(document, f"{names} {_MOVES}" if "tickets" in document else names)
    realm, named = read_str(document["realm"], "realm"), read_str(document["named_realm"], "named_realm")
    until = None if document["until"] is None else read_float(document["until"], "until")
    started = read_float(document["started"], "started")
    key = _read_key(document["key"], None if realm == named else realm, until is not None)
    claim = Claim(named, key.username, None, MD5, False, False, started, None)
    allocation = Allocation(
        read_int(document["number"], "number"),
        read_five_tuple(document["client"]),
        Proof(claim, key),
        started,
        read_bytes(document["transaction"], "transaction"),
    )
    allocation.until = until
    if "tickets" in document:
        allocation.tickets = read_int(document["tickets"], "tickets")
        allocation.announced = None if document["announced"] is None else read_five_tuple(document["announced"])
        allocation.is_left = read_bool(document["left"], "left")
    allocation.response = read_bytes(document["response"], "response")
    for each in read_list(document["relayed"], "relayed"):
        host, port, expires = read_row(each, 3, "relayed")
        address = read_address([host, port])
        allocation.relayed[address.family] = address
        allocation.expires[address.family] = read_float(expires, "relayed")
    if not allocation.relayed:
        raise Unreadable("an allocation without a relayed address")
    for each in read_list(document["permissions"], "permissions"):
        host, deadline = read_row(each, 2, "permissions")
        allocation.permissions[_read_host(host)] = read_float(deadline, "permissions")
    channels: dict[int, tuple[Address, float]] = {}
    for each in read_list(document["channels"], "channels"):
        number, host, port, deadline = read_row(each, 4, "channels")
        channels[read_int(number, "channels")] = read_address([host, port]), read_float(deadline, "channels")
    for number_, (peer, until) in channels.items():
        allocation.bind(number_, peer, until)
    return allocation, read_float(document["rate"], "rate")


def _write_moves(allocation: Allocation) -> Document:
    """What tells of a client that moves (RFC 8016), and is left out of one that cannot."""
    if not allocation.tickets:
        return {}
    announced = _write_announced(allocation.announced)
    return {"tickets": allocation.tickets, "announced": announced, "left": allocation.is_left}


def _write_announced(five_tuple: FiveTuple | None) -> Value:
    """Where a client is about to move. Connections with a cipher stay with the giver: it may announce itself anew."""
    return None if five_tuple is None or five_tuple.transport.is_encrypted else write_five_tuple(five_tuple)


def write_five_tuple(five_tuple: FiveTuple) -> Value:
    return [five_tuple.transport.value, *five_tuple.client, *five_tuple.server, five_tuple.connection]


def read_five_tuple(value: Value) -> FiveTuple:
    """Raises Unreadable."""
    transport, host, port, server, server_port, connection = read_row(value, 6, "client")
    known = _TRANSPORTS.get(read_str(transport, "transport"))
    if known is None:
        raise Unreadable("a transport that is not known here")
    return FiveTuple(
        known, read_address([host, port]), read_address([server, server_port]), read_int(connection, "client")
    )


def write_bytes(data: bytes) -> str:
    return b64encode(data).decode("ascii")


def read_bytes(value: Value, name: str) -> bytes:
    """Raises Unreadable."""
    try:
        return b64decode(read_str(value, name), validate=True)
    except (Base64Error, ValueError):
        raise Unreadable(f"{name} is not base64") from None


def read_address(value: Value) -> Address:
    """[host, port]. Raises Unreadable."""
    host, port = read_row(value, 2, "address")
    number = read_int(port, "port")
    if number > _MAX_PORT:
        raise Unreadable("a port above 65535")
    return Address(_read_host(host), number)


def read_str(value: Value, name: str) -> str:
    """Raises Unreadable."""
    if not isinstance(value, str):
        raise Unreadable(f"{name} is no text")
    return value


def read_int(value: Value, name: str) -> int:
    """One that is not negative. Raises Unreadable."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise Unreadable(f"{name} is no whole number")
    return value


def read_float(value: Value, name: str) -> float:
    """Raises Unreadable, for infinity and NaN too."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e15 < value < 1e15:
        raise Unreadable(f"{name} is no number")
    return float(value)


def read_bool(value: Value, name: str) -> bool:
    """Raises Unreadable."""
    if not isinstance(value, bool):
        raise Unreadable(f"{name} is neither true nor false")
    return value


def read_list(value: Value, name: str) -> Sequence[Value]:
    """Raises Unreadable."""
    if not isinstance(value, list):
        raise Unreadable(f"{name} is no list")
    return value


def read_row(value: Value, size: int, name: str) -> Sequence[Value]:
    """A list of so many. Raises Unreadable."""
    row = read_list(value, name)
    if len(row) != size:
        raise Unreadable(f"{name} has {len(row)} values, not {size}")
    return row


def read_document(value: Value, name: str) -> Document:
    """Raises Unreadable."""
    if not isinstance(value, dict):
        raise Unreadable(f"{name} is no object")
    return value


def check_names(document: Document, names: str) -> None:
    """Whether it has these names, parted by spaces, and no other. Raises Unreadable."""
    wanted = set(names.split())
    if missing := sorted(wanted - document.keys()):
        raise Unreadable(f"{missing[0]} is missing")
    if unknown := sorted(document.keys() - wanted):
        raise Unreadable(f"{unknown[0]!a} is not known here")


def _write_key(key: Key) -> Value:
    return {
        "username": key.username,
        "quota_user": key.quota_user,
        "shown": key.shown,
        "quota": key.quota,
        "md5": None if key.md5_key is None else write_bytes(key.md5_key),
        "sha256": None if key.sha256_key is None else write_bytes(key.sha256_key),
    }


def _read_key(value: Value, realm: str | None, is_token: bool) -> StoredKey:
    """realm: whose rules hold, where it is not the one that requests name. A token's end is the allocation's."""
    document = read_document(value, "key")
    check_names(document, "username quota_user shown quota md5 sha256")
    quota, md5, sha256 = document["quota"], document["md5"], document["sha256"]
    return StoredKey(
        read_str(document["username"], "username"),
        read_str(document["quota_user"], "quota_user"),
        read_str(document["shown"], "shown"),
        None if quota is None else read_int(quota, "quota"),
        None if md5 is None else read_bytes(md5, "md5"),
        None if sha256 is None else read_bytes(sha256, "sha256"),
        realm,
        0.0 if is_token else None,
    )


def _read_host(value: Value) -> str:
    host = read_str(value, "host")
    plain, percent, zone = host.partition("%")
    try:
        pack_host(plain)
    except (OSError, ValueError):
        raise Unreadable("a host that is no IP address") from None
    if percent and not zone:
        raise Unreadable("a host with an empty zone")
    return host


def families_of(allocation: Allocation) -> tuple[Family, ...]:
    """Of its relayed addresses, in their order."""
    return tuple([family_of(address.host) for address in allocation.relayed.values()])
