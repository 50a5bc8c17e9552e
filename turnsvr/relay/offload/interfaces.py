"""Which program sits at which interface: native XDP where the driver has it, else TC, else none, and why."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from turnsvr.relay.offload.kernelroutes import Features, Kernel, KernelLink
from turnsvr.relay.offload.programs import ProgramKind, Programs
from turnsvr.relay.offload.settings import InterfacePath, Mode


class Interfaces:
    """The programs at the interfaces of this host. Where none can be attached, `paths` says why."""

    def __init__(self, programs: Programs, kernel: Kernel, mode: Mode, names: Iterable[str] | None) -> None:
        """names: None for every Ethernet interface with an address of its own."""
        self._programs = programs
        self._kernel = kernel
        self._features = Features()
        self._kinds: Final[tuple[ProgramKind, ...]] = ("xdp", "tc") if mode == "auto" else (mode,)
        self._names = None if names is None else frozenset(names)
        self._at: dict[int, InterfacePath] = {}

    @property
    def paths(self) -> list[InterfacePath]:
        found = sorted(self._at.values(), key=lambda each: each.name)
        missing = sorted((self._names or frozenset()) - {each.name for each in found})
        reason = "there is no Ethernet interface of this name that is up and has an address"
        return found + [InterfacePath(name, "pump", reason) for name in missing]

    def look(self) -> bool:
        """Attach where an interface has come, let go where one has gone; whether anything changed."""
        before = dict(self._at)
        links = {link.index: link for link in self._kernel.links() if self._names is None or link.name in self._names}
        for index in [index for index in self._at if index not in links]:
            self._programs.detach(index)
            del self._at[index]
        for link in links.values():
            if link.index not in self._at:
                self._at[link.index] = self._attach(link)
        return self._at != before

    def detach(self) -> None:
        """Detach from every interface, until look()."""
        self._programs.detach()
        self._at.clear()

    def frames(self, link: KernelLink) -> tuple[bool, bool]:
        """Whether frames that came in by an interface may leave by it in XDP, and whether those of others may."""
        takes = self._features.takes_frames(link.index)
        # A veth hands frames only to an end that expects them; drivers of cards send them back by themselves.
        return takes or not link.is_pair, takes

    def _attach(self, link: KernelLink) -> InterfacePath:
        reasons: list[str] = []
        for kind in self._kinds:
            reason = self._programs.refused.get(kind) or self._try(kind, link)
            if not reason:
                return InterfacePath(link.name, kind, "; ".join(reasons))
            reasons.append(f"{kind}: {reason}")
        return InterfacePath(link.name, "pump", "; ".join(reasons))

    def _try(self, kind: ProgramKind, link: KernelLink) -> str:
        """Attach; returns why that failed, or "" where it did not."""
        if kind == "xdp" and self._features.takes_programs(link.index) is False:
            return "the driver has no XDP"
        try:
            self._programs.attach(kind, link.index)
        except OSError as error:
            return os.strerror(error.errno or 0)
        if kind == "xdp" and not self.frames(link)[0]:
            self._programs.detach(link.index)
            return "the other end of the pair takes no frames"
        return ""
