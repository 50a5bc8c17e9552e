"""Tables out of a store's rows, one after the other: what means nothing is left out and told."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from turnsvr.config.ranges import AddressRange
from turnsvr.config.sealingkeys import read_key
from turnsvr.config.units import BadValue
from turnsvr.credentials.accesstokenkeys import AccessTokenKey
from turnsvr.stores.api import MAX_REALMS, RealmTable, Tables

PeerListKind = Literal["allowed", "denied"]

_MAX_MISTAKES = 20
"""Entries that are told one by one; of further ones only the number."""
_MAX_SHOWN = 64
_LIMIT = re.compile("[0-9]{1,18}", re.ASCII)


@dataclass
class _Realm:
    secrets: list[str] = field(default_factory=list)
    ranges: dict[PeerListKind, list[AddressRange]] = field(default_factory=lambda: {"allowed": [], "denied": []})
    limits: dict[str, int] = field(default_factory=dict)

    def table(self) -> RealmTable:
        return RealmTable(
            secrets=tuple(self.secrets),
            allowed=tuple(self.ranges["allowed"]),
            denied=tuple(self.ranges["denied"]),
            max_bps=self.limits.get("max-bps"),
            total_quota=self.limits.get("total-quota"),
            user_quota=self.limits.get("user-quota"),
        )


class TableBuilder:
    """Takes rows in any order; `tables` is what they say together."""

    def __init__(self, max_realms: int = MAX_REALMS) -> None:
        self._max_realms = max_realms
        self._realms: dict[str, _Realm] = {}
        self._origins: dict[str, str] = {}
        self._keys: dict[str, AccessTokenKey] = {}
        self._mistakes: list[str] = []
        self._untold = 0
        self._full = False

    def secret(self, realm: str, value: str) -> None:
        if not value:
            self.mistake(f"an empty secret of realm {quoted(realm)}")
        elif (entry := self._realm(realm)) is not None:
            entry.secrets.append(value)

    def range(self, realm: str, kind: PeerListKind, text: str) -> None:
        try:
            addresses = AddressRange.parse(text)
        except BadValue as error:
            self.mistake(f"{kind} peers {quoted(text)} of realm {quoted(realm)}: {error.problem}; {error.hint}")
            return
        if (entry := self._realm(realm)) is not None:
            entry.ranges[kind].append(addresses)

    def option(self, realm: str, option: str, text: str) -> None:
        """A limit; other options are for others to read."""
        if option not in ("max-bps", "total-quota", "user-quota"):
            return
        if not _LIMIT.fullmatch(text.strip()):
            self.mistake(f"{option} {quoted(text)} of realm {quoted(realm)} is no number")
        elif (entry := self._realm(realm)) is not None:
            entry.limits[option] = int(text)

    def origin(self, origin: str, realm: str) -> None:
        self._origins[origin] = realm

    def key(self, kid: str, text: str, algorithm: str, timestamp: str, lifetime: str, realm: str) -> None:
        """A key of access tokens as coturn writes it: base64; when its time begins and how long it is, in seconds."""
        try:
            key = read_key(text, algorithm)
        except BadValue as error:
            self.mistake(f"the key {quoted(kid)} of access tokens {error.problem}; {error.hint}")
            return
        begins, seconds = timestamp.strip() or "0", lifetime.strip() or "0"
        if not (_LIMIT.fullmatch(begins) and _LIMIT.fullmatch(seconds)):
            self.mistake(f"the key {quoted(kid)} of access tokens has a time that is no number")
        elif not kid or (realm and self._realm(realm) is None):
            self.mistake(f"the key {quoted(kid)} of access tokens has no name, or a realm too many")
        else:
            self._keys[kid] = AccessTokenKey(kid, key, float(begins), float(seconds), realm or None)

    def mistake(self, text: str) -> None:
        if len(self._mistakes) < _MAX_MISTAKES:
            self._mistakes.append(text)
        else:
            self._untold += 1

    def tables(self) -> Tables:
        mistakes = list(self._mistakes)
        if self._untold:
            mistakes.append(f"{self._untold} more entries that mean nothing")
        if self._full:
            mistakes.append(f"more than {self._max_realms} realms; the further ones are left out")
        realms: Mapping[str, RealmTable] = {name: realm.table() for name, realm in sorted(self._realms.items())}
        keys = dict(sorted(self._keys.items()))
        return Tables(realms, dict(sorted(self._origins.items())), keys, tuple(mistakes))

    def _realm(self, name: str) -> _Realm | None:
        found = self._realms.get(name)
        if found is None and len(self._realms) < self._max_realms:
            found = self._realms[name] = _Realm()
        self._full = self._full or found is None
        return found


def quoted(text: str) -> str:
    """A text of a stranger's for one line of the log: quoted, escaped, cut."""
    cut = text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
    return ascii(cut)
