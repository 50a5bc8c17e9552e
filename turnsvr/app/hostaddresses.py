"""The addresses of this host, followed while the server runs: its own, and the external ones of its relays."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import structlog

from turnsvr.app import assemble
from turnsvr.app.external.watch import ExternalAddresses
from turnsvr.config import advice
from turnsvr.config.settings import Settings
from turnsvr.net.ownaddresses import OwnAddresses

_log = structlog.get_logger()


class HostAddresses:
    """Its methods are called on the loop that start() ran on."""

    def __init__(self, settings: Settings, changed: Callable[[], None]) -> None:
        """changed is called when `host` has changed after serve()."""
        self._settings = settings
        self._changed = changed
        self._own = OwnAddresses(lambda own: self._take(assemble.host_of(own)))
        self._external = ExternalAddresses(self._external_changed)
        self._serving = False

    def start(self) -> None:
        """Read the addresses of this host, and follow them from now on."""
        self._host = assemble.host_of(self._own.start())

    def serve(self) -> None:
        """Tell of changes from now on, also of those since start(), and look for external addresses."""
        self._serving = True
        self._take(assemble.host_of(self._own.known))
        self._find_external()
        self._warn_of_private_relays()

    def stop(self) -> None:
        """Stopping twice is fine."""
        self._serving = False
        self._external.stop()
        self._own.stop()

    @property
    def host(self) -> assemble.Host:
        """This host as of now, with the external addresses that were found for it."""
        return replace(self._host, external=self._external.known, former=self._external.former)

    @property
    def relaying(self) -> list[str]:
        """Advertised addresses of relays, without port."""
        return [each.advertised for each in assemble.relay_addresses(self._settings, self.host)]

    @property
    def external(self) -> list[str]:
        """External addresses that are found by themselves, each with where it is from, or why there is none."""
        return self._external.described

    def use(self, settings: Settings) -> None:
        """Go by other settings when looking for external addresses."""
        self._settings = settings

    def look_again(self) -> None:
        """Look for external addresses as the settings say, now rather than when it is time."""
        self._find_external()
        self._external.look_again()

    def look(self) -> None:
        """Tell of a change of this host that the kernel has not told of."""
        self._own.look()
        self._take(assemble.host_of(self._host.own))

    def _take(self, host: assemble.Host) -> None:
        if host != self._host and self._serving:
            self._host = host
            self._changed()
            _log.info("addresses of this host changed", relay=",".join(host.relay))
            self._find_external()

    def _find_external(self) -> None:
        """Have external addresses looked for, where the settings name none and ask for it."""
        addresses = () if self._settings.stun_only else self._settings.relay.addresses or self._host.relay
        self._external.go_by(self._settings.relay, addresses)

    def _external_changed(self) -> None:
        self._changed()
        _log.info("relayed addresses changed", relay=",".join(self.relaying))

    def _warn_of_private_relays(self) -> None:
        """Warn where clients elsewhere can reach no relayed address, and no other is looked for: usually a mistake."""
        private = advice.private_relays(self.relaying)
        if private and self._settings.relay.external_source is None:
            _log.warning(advice.PRIVATE_RELAYS, relay=",".join(private), hint="set relay.external, or to auto")
